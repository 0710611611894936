use std::{
    io,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kadence::Runtime;
use libp2p::PeerId;
use libp2p_stream::{Control, OpenStreamError};
use thiserror::Error;

use super::{
    CATALOGUE_PROTOCOL, CatalogueRequest, CatalogueRequestError,
    wire::{read_answer, write_request},
};
use crate::{
    p2p::{
        announce::{CatalogueError, CataloguePage, Cursor, MAX_AHEAD, MAX_PAGES, SignedAnnouncement},
        deadline::within,
    },
    unix,
};

/// What a peer has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matches {
    /// Verified announcements, in the order in which the peer gave them: at most as many as were asked for.
    pub announcements: Vec<SignedAnnouncement>,
    /// How many entries no honest peer sends: more than none is bad data.
    pub invalid: usize,
}

/// Asks peers.
#[derive(Clone)]
pub struct CatalogueClient<R> {
    runtime: R,
    control: Control,
    deadline: Duration,
}

impl<R: Runtime> CatalogueClient<R> {
    /// `deadline` is for each question and its answer, with the connection to the peer if there is none.
    pub fn new(runtime: R, control: Control, deadline: Duration) -> Self {
        Self { runtime, control, deadline }
    }

    /// One page of the peer's catalogue. Its entries are still to be
    /// [taken](crate::p2p::announce::Discovered::add_page), which verifies them.
    ///
    /// # Errors
    ///
    /// If the peer does not answer, or not with a page.
    pub async fn page(&self, peer: PeerId, after: Cursor) -> Result<CataloguePage, CatalogueClientError> {
        self.ask(peer, &CatalogueRequest::Page(after)).await
    }

    /// All pages after this place, until there are no more or `take` has enough. Gives back where it has ended.
    ///
    /// # Errors
    ///
    /// If the peer stops answering, or its catalogue does not end: what was taken before is good.
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

    /// What the peer knows that matches the text, verified.
    ///
    /// # Errors
    ///
    /// If the question is not possible, or the peer does not answer it.
    pub async fn matches(
        &self,
        peer: PeerId,
        text: &str,
        limit: u16,
        now: SystemTime,
    ) -> Result<Matches, CatalogueClientError> {
        let page = self.ask(peer, &CatalogueRequest::Matches { text: text.to_owned(), limit }).await?;
        let latest = unix::seconds(now).saturating_add(2 * MAX_AHEAD.as_secs());
        let mut matches = Matches::default();
        for entry in page.entries.iter().take(usize::from(limit)) {
            match SignedAnnouncement::verify(entry) {
                Ok(announcement) if announcement.announcement().published_at <= latest => {
                    matches.announcements.push(announcement);
                }
                _ => matches.invalid += 1,
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
        within(&self.runtime, self.deadline, exchange).await.unwrap_or(Err(CatalogueClientError::Timeout))
    }
}

impl<R> std::fmt::Debug for CatalogueClient<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogueClient").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Why a peer has not answered.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CatalogueClientError {
    /// The question cannot be asked. Ask another one.
    #[error(transparent)]
    Request(#[from] CatalogueRequestError),
    /// The peer has no catalogue to give. Ask others.
    #[error("the peer has no catalogue")]
    Unsupported,
    /// The peer was asked too much. Ask it again later.
    #[error("the peer does not answer now")]
    Busy,
    /// The time is over. Ask others.
    #[error("the peer has not answered in time")]
    Timeout,
    /// What it has sent is no answer. It is bad data.
    #[error("the peer's answer is no page of a catalogue")]
    InvalidPage(#[from] CatalogueError),
    /// Its catalogue goes on and on, or does not go on. It is bad data.
    #[error("the peer's catalogue does not end")]
    Endless,
    /// There is no connection, or it broke. Ask others.
    #[error("the peer cannot be asked")]
    Stream(#[source] Arc<io::Error>),
}

impl CatalogueClientError {
    /// Whether no honest peer does that.
    pub fn is_bad_data(&self) -> bool {
        match self {
            Self::InvalidPage(_) | Self::Endless => true,
            Self::Request(_) | Self::Unsupported | Self::Busy | Self::Timeout | Self::Stream(_) => false,
        }
    }

    /// Of the reading of an answer: what says to be too long, or is of no known kind, is bad data.
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
