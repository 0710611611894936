use std::{
    io,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kadence::{Alarm, Runtime};
use libp2p::PeerId;
use libp2p_stream::{Control, OpenStreamError};
use thiserror::Error;

use super::{
    CATALOGUE_PROTOCOL, CatalogueRequest, CatalogueRequestError,
    wire::{read_answer, write_request},
};
use crate::{
    p2p::announce::{CatalogueError, CataloguePage, Cursor, MAX_AHEAD, MAX_PAGES, SignedAnnouncement},
    unix,
};

/// Answer of a peer to a search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matches {
    /// Verified announcements in the order of the peer's answer, at most as many as were requested.
    pub announcements: Vec<SignedAnnouncement>,
    /// Number of entries that are not valid announcements, that are ahead of the local clock by more than twice
    /// [`MAX_AHEAD`], or that exceed the requested number. An honest peer sends none, if its clock is ahead of the
    /// local clock by at most [`MAX_AHEAD`].
    pub invalid: usize,
}

/// Client of the catalogue protocol, with which a peer is asked for the announced packages that it knows.
#[derive(Clone)]
pub struct CatalogueClient<R> {
    runtime: R,
    control: Control,
    timeout: Duration,
}

impl<R: Runtime> CatalogueClient<R> {
    /// Returns a client that opens streams with `control`, the handle of the swarm's stream behaviour. `timeout`
    /// applies to each request, including the connection to the peer.
    pub fn new(runtime: R, control: Control, timeout: Duration) -> Self {
        Self { runtime, control, timeout }
    }

    /// Requests the page of the peer's catalogue after a cursor. Its entries are not verified:
    /// [`Discovered::add_page`](crate::p2p::announce::Discovered::add_page) does that.
    ///
    /// # Errors
    ///
    /// See [`CatalogueClientError`]: the peer cannot be reached, serves no catalogue, does not answer or not in time,
    /// is busy, or sends an invalid page.
    pub async fn page(&self, peer: PeerId, after: Cursor) -> Result<CataloguePage, CatalogueClientError> {
        self.ask(peer, &CatalogueRequest::Page(after)).await
    }

    /// Requests all pages after a cursor, one after the other, and passes each to `take`, until there are no more or
    /// `take` breaks. Returns the cursor after the last page that was taken. The entries are not verified.
    ///
    /// # Errors
    ///
    /// As for [`page`](Self::page), or [`Endless`](CatalogueClientError::Endless) if the catalogue has more than
    /// [`MAX_PAGES`] pages after the cursor or a page with a further one after it does not advance the cursor. `take`
    /// may have taken pages before the error.
    pub async fn pages(
        &self,
        peer: PeerId,
        mut after: Cursor,
        mut take: impl FnMut(CataloguePage) -> ControlFlow<()>,
    ) -> Result<Cursor, CatalogueClientError> {
        for _ in 0..MAX_PAGES {
            let page = self.page(peer, after).await?;
            let (has_more, is_stuck) = (page.has_more, page.next == after);
            after = page.next;
            if take(page).is_break() || !has_more {
                return Ok(after);
            }
            if is_stuck {
                break;
            }
        }
        Err(CatalogueClientError::Endless)
    }

    /// Requests up to `limit` packages of the peer's catalogue that match the text, and verifies the entries of the
    /// answer. Invalid entries are counted, and are no error. `now` is the local time, from which entries may not be
    /// too far ahead.
    ///
    /// # Errors
    ///
    /// If the text is longer than [`MAX_TEXT_LEN`](super::MAX_TEXT_LEN), if `limit` is not from 1 to
    /// [`MAX_MATCHES`](super::MAX_MATCHES), or as for [`page`](Self::page).
    pub async fn matches(
        &self,
        peer: PeerId,
        text: &str,
        limit: u16,
        now: SystemTime,
    ) -> Result<Matches, CatalogueClientError> {
        let page = self.ask(peer, &CatalogueRequest::Matches { text: text.to_owned(), limit }).await?;
        let ahead_by = |times| unix::seconds(now).saturating_add(times * MAX_AHEAD.as_secs());
        let (latest, latest_by_an_honest_clock) = (ahead_by(1), ahead_by(2));
        let mut matches = Matches::default();
        for entry in page.entries.iter().take(usize::from(limit)) {
            match SignedAnnouncement::verify(entry) {
                Ok(announcement) if announcement.announcement().published_at <= latest => {
                    matches.announcements.push(announcement);
                }
                // The peer's clock may be ahead. Others would blame this node if it passed the entry on.
                Ok(announcement) if announcement.announcement().published_at <= latest_by_an_honest_clock => {}
                Ok(_) | Err(_) => matches.invalid += 1,
            }
        }
        matches.invalid += page.entries.len().saturating_sub(usize::from(limit));
        Ok(matches)
    }

    #[cfg(test)]
    pub(super) fn control(&self) -> Control {
        self.control.clone()
    }

    async fn ask(&self, peer: PeerId, request: &CatalogueRequest) -> Result<CataloguePage, CatalogueClientError> {
        let request = request.encode()?;
        let mut control = self.control.clone();
        let exchange = async {
            let mut stream = control.open_stream(peer, CATALOGUE_PROTOCOL).await?;
            write_request(&mut stream, &request).await?;
            let bytes = read_answer(&mut stream)
                .await
                .map_err(CatalogueClientError::of_answer)?
                .ok_or(CatalogueClientError::Busy)?;
            Ok(CataloguePage::decode(&bytes)?)
        };
        let mut alarm = Alarm::new(&self.runtime);
        alarm.within(self.timeout, exchange).await.unwrap_or(Err(CatalogueClientError::Timeout))
    }
}

impl<R> std::fmt::Debug for CatalogueClient<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogueClient").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Error of a request to a peer's catalogue.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CatalogueClientError {
    /// The request is invalid and was not sent. Change it.
    #[error(transparent)]
    Request(#[from] CatalogueRequestError),
    /// The peer does not serve a catalogue. Ask others.
    #[error("peer does not serve a catalogue")]
    Unsupported,
    /// The peer answered that it is busy, usually because it got too many requests from this node. Ask it again later.
    #[error("peer is busy")]
    Busy,
    /// The connection to the peer and its answer took longer than the timeout. Ask others.
    #[error("peer did not answer in time")]
    Timeout,
    /// The peer sent an invalid page, which no honest peer of this protocol version does.
    #[error("peer sent an invalid catalogue page")]
    InvalidPage(#[from] CatalogueError),
    /// The peer's catalogue has more than [`MAX_PAGES`] pages after the cursor, or a page with a further one after it
    /// does not advance the cursor. No honest peer does that.
    #[error("catalogue of the peer does not end")]
    Endless,
    /// The stream could not be opened, failed, or was closed without an answer, as an overloaded peer does. Ask others.
    #[error("stream to the peer failed")]
    Stream(#[source] Arc<io::Error>),
}

impl CatalogueClientError {
    /// Returns whether the peer violated the protocol: true for [`InvalidPage`](Self::InvalidPage) and
    /// [`Endless`](Self::Endless).
    pub fn is_bad_data(&self) -> bool {
        match self {
            Self::InvalidPage(_) | Self::Endless => true,
            Self::Request(_) | Self::Unsupported | Self::Busy | Self::Timeout | Self::Stream(_) => false,
        }
    }

    /// Converts an error of reading an answer: an excessive length or an unknown status is bad data.
    fn of_answer(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData { CatalogueError::Malformed.into() } else { error.into() }
    }
}

impl From<io::Error> for CatalogueClientError {
    fn from(error: io::Error) -> Self {
        Self::Stream(Arc::new(error))
    }
}

impl From<OpenStreamError> for CatalogueClientError {
    fn from(error: OpenStreamError) -> Self {
        match error {
            OpenStreamError::UnsupportedProtocol(_) => Self::Unsupported,
            OpenStreamError::Io(error) => error.into(),
            other => io::Error::other(other.to_string()).into(),
        }
    }
}
