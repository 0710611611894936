//! Encoding of requests and answers, each with its length in front.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use thiserror::Error;

use crate::p2p::announce::{Cursor, MAX_PAGE_LEN};

/// Maximum length of a search text in a request, in bytes.
pub const MAX_TEXT_LEN: usize = 256;

/// Maximum number of matches in an answer. They always fit into one page.
pub const MAX_MATCHES: u16 = 100;

/// Maximum length of a request: its kind, the number of matches and the text.
const MAX_REQUEST_LEN: usize = 1 + 2 + MAX_TEXT_LEN;

const PAGE: u8 = 1;
const MATCHES: u8 = 2;

/// Status before an answer.
const ANSWER: u8 = 0;

/// Status of a busy server.
const BUSY: u8 = 1;

/// Request of the catalogue protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogueRequest {
    /// Requests the page after this cursor.
    Page(Cursor),
    /// Requests packages that match a text.
    Matches {
        /// Search text, at most [`MAX_TEXT_LEN`] bytes.
        text: String,
        /// Maximum number of matches, from 1 to [`MAX_MATCHES`].
        limit: u16,
    },
}

impl CatalogueRequest {
    /// Encodes the request.
    ///
    /// # Errors
    ///
    /// If the text is too long or the limit is out of range.
    pub fn encode(&self) -> Result<Vec<u8>, CatalogueRequestError> {
        match self {
            Self::Page(cursor) => Ok([[PAGE].as_slice(), &cursor.to_bytes()].concat()),
            Self::Matches { text, limit } => {
                check(text, *limit)?;
                Ok([[MATCHES].as_slice(), &limit.to_be_bytes(), text.as_bytes()].concat())
            }
        }
    }

    /// Decodes a request.
    ///
    /// # Errors
    ///
    /// If the bytes are not a valid request.
    pub fn decode(bytes: &[u8]) -> Result<Self, CatalogueRequestError> {
        let ([kind], rest) = bytes.split_first_chunk().ok_or(CatalogueRequestError::Malformed)?;
        match *kind {
            PAGE => Ok(Self::Page(Cursor::from_bytes(rest.try_into().map_err(|_| CatalogueRequestError::Malformed)?))),
            MATCHES => {
                let (limit, text) = rest.split_first_chunk().ok_or(CatalogueRequestError::Malformed)?;
                let limit = u16::from_be_bytes(*limit);
                let text = std::str::from_utf8(text).map_err(|_| CatalogueRequestError::Malformed)?;
                check(text, limit)?;
                Ok(Self::Matches { text: text.to_owned(), limit })
            }
            _ => Err(CatalogueRequestError::Malformed),
        }
    }
}

fn check(text: &str, limit: u16) -> Result<(), CatalogueRequestError> {
    if text.len() > MAX_TEXT_LEN {
        return Err(CatalogueRequestError::TextTooLong { len: text.len() });
    }
    if !(1..=MAX_MATCHES).contains(&limit) {
        return Err(CatalogueRequestError::Limit { limit });
    }
    Ok(())
}

/// Error of an invalid catalogue request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CatalogueRequestError {
    /// The search text is longer than [`MAX_TEXT_LEN`]. Shorten it.
    #[error("search text too long: {len} bytes, at most {MAX_TEXT_LEN} are allowed")]
    TextTooLong {
        /// Length of the text in bytes.
        len: usize,
    },
    /// The maximum number of matches is 0 or above [`MAX_MATCHES`].
    #[error("invalid number of matches {limit}: must be from 1 to {MAX_MATCHES}")]
    Limit {
        /// Maximum number of matches in the request.
        limit: u16,
    },
    /// The request is of an unknown kind, has a wrong length, or contains text that is not UTF-8.
    #[error("malformed catalogue request")]
    Malformed,
}

pub(super) async fn write_request<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    let len = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await?;
    stream.flush().await
}

/// Reads a request. If its length is above the maximum, nothing is read.
pub(super) async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    read(stream, usize::from(u16::from_be_bytes(len)), MAX_REQUEST_LEN).await
}

/// Writes a page, or for `None` that the server is busy.
pub(super) async fn write_answer<S: AsyncWrite + Unpin>(stream: &mut S, page: Option<&[u8]>) -> io::Result<()> {
    match page {
        Some(page) => {
            let len = u32::try_from(page.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            stream.write_all(&[[ANSWER].as_slice(), &len.to_be_bytes()].concat()).await?;
            stream.write_all(page).await?;
        }
        None => stream.write_all(&[BUSY]).await?,
    }
    stream.close().await
}

/// Reads a page; `None` if the server is busy. If the length is above the maximum, nothing is read.
pub(super) async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Vec<u8>>> {
    let mut status = [0];
    stream.read_exact(&mut status).await?;
    match status {
        [ANSWER] => {}
        [BUSY] => return Ok(None),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    read(stream, len, MAX_PAGE_LEN).await.map(Some)
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, len: usize, max: usize) -> io::Result<Vec<u8>> {
    if len > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{len} bytes are more than {max}")));
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
