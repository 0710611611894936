//! Questions and answers as bytes: each with its length before it.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use thiserror::Error;

use crate::p2p::announce::{Cursor, MAX_PAGE_LEN};

/// The longest text that is searched for, in bytes: more than anybody types.
pub const MAX_TEXT_LEN: usize = 256;

/// How many matches a peer gives at most: more than are looked at. All of them fit into a page.
pub const MAX_MATCHES: u16 = 100;

/// The longest question: its kind, the number of matches and the text.
const MAX_REQUEST_LEN: usize = 1 + 2 + MAX_TEXT_LEN;

const PAGE: u8 = 1;
const MATCHES: u8 = 2;

/// An answer follows.
const ANSWER: u8 = 0;

/// The peer does not answer now.
const BUSY: u8 = 1;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogueRequest {
    /// The page of the catalogue after this place.
    Page(Cursor),
    /// What matches a text.
    Matches {
        /// The text, at most [`MAX_TEXT_LEN`].
        text: String,
        /// How many are wanted, at most [`MAX_MATCHES`].
        limit: u16,
    },
}

impl CatalogueRequest {
    /// As it is sent.
    ///
    /// # Errors
    ///
    /// If the text is too long, or too many matches are wanted.
    pub fn encode(&self) -> Result<Vec<u8>, CatalogueRequestError> {
        match self {
            Self::Page(cursor) => Ok([[PAGE].as_slice(), &cursor.to_bytes()].concat()),
            Self::Matches { text, limit } => {
                check(text, *limit)?;
                Ok([[MATCHES].as_slice(), &limit.to_be_bytes(), text.as_bytes()].concat())
            }
        }
    }

    /// As it was sent.
    ///
    /// # Errors
    ///
    /// If it is no question.
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

/// Why something is no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CatalogueRequestError {
    /// The search text is too long. Shorten it.
    #[error("search text too long: {len} bytes, at most {MAX_TEXT_LEN} are allowed")]
    TextTooLong {
        /// Length of the text in bytes.
        len: usize,
    },
    /// So many matches cannot be wanted.
    #[error("between 1 and {MAX_MATCHES} matches can be asked for, not {limit}")]
    Limit {
        /// How many were wanted.
        limit: u16,
    },
    /// It is of another kind, or damaged.
    #[error("this is no question")]
    Malformed,
}

pub(super) async fn write_request<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    let len = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await?;
    stream.flush().await
}

/// Nothing is read of one that says to be too long.
pub(super) async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    read(stream, usize::from(u16::from_be_bytes(len)), MAX_REQUEST_LEN).await
}

/// `None` says that there is none now.
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

/// `None` if there is none now. Nothing is read of an answer that says to be too long.
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
