use std::{collections::HashMap, io, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kadence::Runtime;
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;

use super::{
    CatalogueRequest,
    wire::{read_request, write_answer},
};
use crate::p2p::{
    announce::{CataloguePage, Cursor, Rate},
    deadline::within,
    streams::accept_streams,
    token_bucket::KeyedBuckets,
};

/// How many peers are answered at once: each costs a page of memory.
const MAX_RUNNING: usize = 32;

/// How many of them may be one peer.
const MAX_RUNNING_PER_PEER: usize = 4;

/// How many streams at a time are told that their peer has too many. The others are closed without a word.
const MAX_REFUSED: usize = 32;

/// For telling them: they have nothing to wait for.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What one peer may ask: a whole catalogue at once, then a question every second.
const RATE: Rate = Rate { every: Duration::from_secs(1), burst: 64 };

/// How many peers have a bucket of their own.
const MAX_PEERS: usize = 1024;

/// For a question and its answer: a page over a line of two hundred kilobits a second.
const TIME: Duration = Duration::from_secs(15);

/// What the server gives away. Both are answered from what is in memory, or where blocking is allowed.
pub trait CatalogueSource: Send + Sync + 'static {
    /// The page after this place: [`Discovered::page`](crate::p2p::announce::Discovered::page).
    fn page(&self, after: Cursor) -> BoxFuture<'_, CataloguePage>;

    /// Signed announcements of packages that match the text, the best first. What is over `limit` is left out.
    fn matches(&self, text: String, limit: usize) -> BoxFuture<'_, Vec<Vec<u8>>>;
}

/// Answers questions until the streams end, which they do with the swarm. Run it as a task.
///
/// A peer that asks too often, or too much at once, is told that there is no answer now; who says nothing sensible, or takes
/// too long, gets none.
pub async fn serve_catalogue<R: Runtime>(runtime: R, incoming: IncomingStreams, catalogue: Arc<dyn CatalogueSource>) {
    let started = runtime.now();
    let mut buckets = KeyedBuckets::new(RATE, MAX_PEERS);
    let mut running_of: HashMap<PeerId, usize> = HashMap::new();
    let mut running = FuturesUnordered::new();
    let mut refused = FuturesUnordered::new();
    let mut incoming = pin!(accept_streams(&runtime, incoming).fuse());
    loop {
        let event = futures::select_biased! {
            // First, so that the counts are true.
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
                let runtime = runtime.clone();
                if running_of.get(&peer).is_some_and(|count| *count >= MAX_RUNNING_PER_PEER) {
                    // Beside those that are answered: one peer's streams take no place from the others'.
                    if refused.len() < MAX_REFUSED {
                        refused.push(async move {
                            let _over = within(&runtime, REFUSE_TIMEOUT, refuse(stream)).await;
                        });
                    }
                    continue;
                }
                if running.len() >= MAX_RUNNING {
                    // Dropped: to say so would be one more of them.
                    continue;
                }
                *running_of.entry(peer).or_default() += 1;
                let is_allowed = buckets.try_take(peer, runtime.now().saturating_duration_since(started));
                let answer = answer(stream, is_allowed.then(|| catalogue.clone()));
                running.push(async move {
                    if let Some(Err(error)) = within(&runtime, TIME, answer).await {
                        tracing::debug!(%peer, %error, "a question was not answered");
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

/// Without a catalogue there is no answer now.
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

/// Says so before there is a question. It is read after that: a stream that is dropped while the peer still writes would break
/// before the peer has read why.
async fn refuse(mut stream: Stream) -> io::Result<()> {
    write_answer(&mut stream, None).await?;
    read_request(&mut stream).await.map(drop)
}
