use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use async_channel::{Receiver, Sender, TrySendError};
use futures::Stream;
use libp2p::PeerId;
use semver::Version;

use crate::{ContentId, PackageId};

/// Capacity of an event stream: a second of a busy download.
const CAPACITY: usize = 1024;

/// Maximum number of event streams. A further one ends the oldest.
const MAX_SUBSCRIBERS: usize = 64;

/// Event of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryEvent {
    /// A peer that had no connection to this node has connected.
    PeerJoined {
        /// Peer id.
        peer: PeerId,
    },
    /// The last connection to a peer has closed.
    PeerLeft {
        /// Peer id.
        peer: PeerId,
    },
    /// An announcement of a new package, or of a newer head of a known package, was received or found in a peer's
    /// catalogue: for example of a new version, a yank, or a renewal.
    PackageDiscovered {
        /// The package.
        package: PackageId,
        /// Version in the announcement: see [`Announcement::version`](crate::p2p::announce::Announcement::version).
        version: Version,
    },
    /// A download has made progress: of content that was requested, or of an index that is read for the search.
    DownloadProgress {
        /// Content id.
        content: ContentId,
        /// Number of bytes that are verified and written, rounded up to whole pieces, including those of earlier
        /// downloads that this one resumes. It falls back to 0 if the finished download was damaged on the disk.
        verified: u64,
        /// Size in bytes.
        total: u64,
    },
    /// Content was fetched completely into the store. Not sent for content that was there when it was requested, nor
    /// for indexes that are read for the search only.
    Downloaded {
        /// Content id.
        content: ContentId,
        /// Size in bytes.
        size: u64,
    },
    /// A call of this registry to publish, yank or unyank a version succeeded.
    Published {
        /// The package.
        package: PackageId,
        /// Sequence number of the head. It stays the same if the call changed nothing and the head was not due for
        /// renewal.
        seq: u64,
    },
    /// A package of this registry was published again: its head was put into the DHT. Its announcement or the offer of
    /// its content may have failed.
    Republished {
        /// The package.
        package: PackageId,
        /// Sequence number of the head. The head is a new one if less than half of the validity in
        /// [`RegistryConfig::lifetime`](field@super::RegistryConfig::lifetime) was left for the last one, and the
        /// registry could make sure that there is no newer head.
        seq: u64,
    },
    /// After two conflicting announcements, a lookup in the DHT showed that the publisher has signed two conflicting
    /// heads. [`HeadStore::equivocation`](crate::p2p::head::HeadStore::equivocation) has both. A call that finds two
    /// such heads sends no event itself: it returns [`GetError::Equivocation`](crate::GetError::Equivocation). The
    /// event may come several times: after every conflicting announcement that is checked while the package is
    /// rejected.
    Equivocation {
        /// The package.
        package: PackageId,
        /// Sequence number of the head that was seen second.
        seq: u64,
    },
    /// A peer sent data that no honest peer of this protocol version with a right clock sends, and is banned: the
    /// registry starts no new download and no catalogue request with this peer until
    /// [`Reputation::banned_until`](crate::p2p::Reputation::banned_until).
    BadData {
        /// Peer id.
        peer: PeerId,
    },
    /// The reader fell behind, and events were dropped at this point of the stream.
    Lagged {
        /// Number of dropped events.
        skipped: u64,
    },
}

/// Stream of the events of a registry, from the call of [`P2PRegistry::events`](super::P2PRegistry::events) until the
/// node stops, or until 64 later streams have been opened; one that was dropped no longer counts once a further event
/// is sent. The stream holds at most 1,024 unread events; further ones are dropped: see [`RegistryEvent::Lagged`].
/// Events of the node that the registry itself was too slow to read, such as connections, are missing without a
/// [`RegistryEvent::Lagged`].
#[derive(Debug)]
pub struct RegistryEvents(Pin<Box<Receiver<RegistryEvent>>>);

impl Stream for RegistryEvents {
    type Item = RegistryEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RegistryEvent>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// `None` after the end of all streams.
#[derive(Debug)]
pub(super) struct Subscribers(Mutex<Option<Vec<Subscriber>>>);

#[derive(Debug)]
struct Subscriber {
    events: Sender<RegistryEvent>,
    skipped: u64,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Subscribers {
    pub(super) fn add(&self) -> RegistryEvents {
        let (events, received) = async_channel::bounded(CAPACITY);
        if let Some(subscribers) = &mut *self.lock() {
            if subscribers.len() >= MAX_SUBSCRIBERS {
                subscribers.remove(0);
            }
            subscribers.push(Subscriber { events, skipped: 0 });
        }
        RegistryEvents(Box::pin(received))
    }

    /// Sends an event to all streams, without waiting.
    pub(super) fn send(&self, event: &RegistryEvent) {
        if let Some(subscribers) = &mut *self.lock() {
            subscribers.retain_mut(|subscriber| subscriber.send(event.clone()));
        }
    }

    /// Ends all streams, including later ones. Queued events can still be read.
    pub(super) fn close(&self) {
        for subscriber in self.lock().take().into_iter().flatten() {
            if subscriber.skipped > 0 {
                // If the queue is still full, the reader has been idle for long.
                let _full = subscriber.events.try_send(RegistryEvent::Lagged { skipped: subscriber.skipped });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Subscriber>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Returns whether the stream still exists.
    fn send(&mut self, event: RegistryEvent) -> bool {
        if self.skipped > 0 {
            match self.events.try_send(RegistryEvent::Lagged { skipped: self.skipped }) {
                Ok(()) => self.skipped = 0,
                Err(TrySendError::Full(_)) => {
                    self.skipped += 1;
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.skipped += 1;
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[test]
    fn a_slow_reader_gets_the_number_of_dropped_events_and_a_closed_stream_is_removed() {
        let subscribers = Subscribers::default();
        let (mut slow, gone) = (subscribers.add(), subscribers.add());
        drop(gone);
        let event = RegistryEvent::PeerJoined { peer: PeerId::random() };
        for _ in 0..CAPACITY + 3 {
            subscribers.send(&event);
        }
        assert_eq!(subscribers.lock().as_ref().map(Vec::len), Some(1));
        smol::block_on(async {
            for _ in 0..CAPACITY {
                assert_eq!(slow.next().await.as_ref(), Some(&event));
            }
            subscribers.send(&event);
            assert_eq!(slow.next().await, Some(RegistryEvent::Lagged { skipped: 3 }));
            assert_eq!(slow.next().await, Some(event));
        });
    }

    #[test]
    fn event_streams_are_bounded() {
        let subscribers = Subscribers::default();
        let mut first = subscribers.add();
        let _others: Vec<_> = (0..MAX_SUBSCRIBERS).map(|_| subscribers.add()).collect();
        assert_eq!(smol::block_on(first.next()), None);
    }
}
