use std::{collections::HashMap, io, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kadence::{Clock, Runtime};
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;

use super::{
    CatalogueRequest,
    wire::{read_request, write_answer},
};
use crate::p2p::{
    announce::{CataloguePage, Cursor, Rate},
    streams::accept_streams,
    token_bucket::KeyedBuckets,
};

/// Maximum number of requests that are answered at the same time. Each takes memory for a page.
const MAX_RUNNING: usize = 32;

/// Maximum number of requests of one peer that are answered at the same time.
const MAX_RUNNING_PER_PEER: usize = 4;

/// Maximum number of refused streams that are answered at the same time. Further ones are closed without an answer.
const MAX_REFUSED: usize = 32;

/// Timeout for a refusal. It needs no work, so it is short.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Rate of the requests of one peer: a whole catalogue at once, then one page a second.
const RATE: Rate = Rate { every: Duration::from_secs(1), burst: 64 };

/// Maximum number of peers with a bucket of their own.
const MAX_PEERS: usize = 1024;

/// Timeout for a request and its answer: enough for a page on a line with 200 kbit/s.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Catalogue that is served by [`serve_catalogue`]. Neither method may block its thread.
pub trait CatalogueSource: Send + Sync + 'static {
    /// Returns the page after a cursor, as [`Discovered::page`](crate::p2p::announce::Discovered::page) does.
    fn page(&self, after: Cursor) -> BoxFuture<'_, CataloguePage>;

    /// Returns the encoded [announcements](crate::p2p::announce::SignedAnnouncement) of packages that match the text,
    /// best first. The server sends only the first `limit` of them.
    fn matches(&self, text: String, limit: usize) -> BoxFuture<'_, Vec<Vec<u8>>>;
}

/// Serves a catalogue to peers. Run the future as a task. It stops when the future is dropped, for example by an abort of the
/// task. `incoming` has the streams of
/// [`CATALOGUE_PROTOCOL`](super::CATALOGUE_PROTOCOL).
///
/// The future ends by itself only when the stream behaviour, all of its connections, and all of its
/// [`Control`](libp2p_stream::Control)s were dropped.
///
/// At most 32 requests are served at the same time, at most 4 of them for one peer. The rate of a peer is 64 requests
/// in quick succession, then one a second; the server keeps the rates of 1,024 peers at the same time, and further
/// peers share one. A request that exceeds a limit of its peer gets the answer that the server is busy, or no answer if
/// the server has no capacity for one. Any other request beyond the 32 gets no answer. An invalid request, or one that
/// takes longer than 15 s with its answer, gets no complete answer.
pub async fn serve_catalogue<R: Runtime>(runtime: R, incoming: IncomingStreams, catalogue: Arc<dyn CatalogueSource>) {
    let clock = Clock::new(&runtime);
    let started = clock.now();
    let mut buckets = KeyedBuckets::new(RATE, MAX_PEERS);
    let mut running_of: HashMap<PeerId, usize> = HashMap::new();
    let mut running = FuturesUnordered::new();
    let mut refused = FuturesUnordered::new();
    let mut incoming = pin!(accept_streams(&runtime, incoming).fuse());
    loop {
        let event = futures::select_biased! {
            // First, so that the counts are up to date.
            ended = running.select_next_some() => Event::Ended(ended),
            () = refused.select_next_some() => continue,
            next = incoming.next() => next.map_or(Event::Over, |(peer, stream)| Event::Asked(peer, stream)),
        };
        match event {
            Event::Ended(peer) => {
                let peer: PeerId = peer;
                if let Some(count) = running_of.get_mut(&peer) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        running_of.remove(&peer);
                    }
                }
            }
            Event::Asked(peer, stream) => {
                let mut alarm = clock.alarm();
                if running_of.get(&peer).is_some_and(|count| *count >= MAX_RUNNING_PER_PEER) {
                    // In addition to those that are answered, so that these streams take no slots from other peers.
                    if refused.len() < MAX_REFUSED {
                        refused.push(async move {
                            let _elapsed = alarm.within(REFUSE_TIMEOUT, refuse(stream)).await;
                        });
                    }
                    continue;
                }
                if running.len() >= MAX_RUNNING {
                    // Dropped: an answer would need a slot as well.
                    continue;
                }
                *running_of.entry(peer).or_default() += 1;
                let is_allowed = buckets.try_take(peer, clock.now().saturating_duration_since(started));
                let answer = answer(stream, is_allowed.then(|| catalogue.clone()));
                running.push(async move {
                    if let Ok(Err(error)) = alarm.within(EXCHANGE_TIMEOUT, answer).await {
                        tracing::debug!(%peer, %error, "catalogue request was not answered");
                    }
                    peer
                });
            }
            Event::Over => return,
        }
    }
}

enum Event {
    Asked(PeerId, Stream),
    Ended(PeerId),
    Over,
}

/// Answers a request; without a catalogue, that the server is busy.
async fn answer(mut stream: Stream, catalogue: Option<Arc<dyn CatalogueSource>>) -> io::Result<()> {
    let request = CatalogueRequest::decode(&read_request(&mut stream).await?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let Some(catalogue) = catalogue else { return write_answer(&mut stream, None).await };
    let page = match request {
        CatalogueRequest::Page(after) => catalogue.page(after).await,
        CatalogueRequest::Matches { text, limit } => {
            let mut entries = catalogue.matches(text, usize::from(limit)).await;
            entries.truncate(usize::from(limit));
            CataloguePage { entries, ..CataloguePage::default() }
        }
    };
    write_answer(&mut stream, Some(&page.encode())).await
}

/// Sends the refusal at once, then reads the request: if the stream were dropped while the peer is still writing, the
/// peer would get a broken stream instead of the answer.
async fn refuse(mut stream: Stream) -> io::Result<()> {
    write_answer(&mut stream, None).await?;
    read_request(&mut stream).await.map(drop)
}
