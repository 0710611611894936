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

/// How many events wait for a reader: a second of a busy download.
const CAPACITY: usize = 1024;

/// How many readers there can be. The one that came first goes when there is one more.
const MAX_SUBSCRIBERS: usize = 64;

/// What happens in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryEvent {
    /// A peer is connected.
    PeerJoined {
        /// Who.
        peer: PeerId,
    },
    /// The last connection with a peer has closed.
    PeerLeft {
        /// Who.
        peer: PeerId,
    },
    /// A package was heard of, or a newer version of one.
    PackageDiscovered {
        /// Which.
        package: PackageId,
        /// Its newest version, as its publisher says.
        version: Version,
    },
    /// A part of some content has come, and is what it should be.
    DownloadProgress {
        /// Which.
        content: ContentId,
        /// Bytes that are here.
        verified: u64,
        /// Bytes of all of it.
        total: u64,
    },
    /// All of some content is here.
    Downloaded {
        /// Which.
        content: ContentId,
        /// Its size in bytes.
        size: u64,
    },
    /// A version was published, or withdrawn.
    Published {
        /// Of which package.
        package: PackageId,
        /// The number of the package's head that says so.
        seq: u64,
    },
    /// An own package was published again.
    Republished {
        /// Which.
        package: PackageId,
        /// The number of its head: a new one if the old would have expired.
        seq: u64,
    },
    /// A publisher has signed two heads with one number. Both are kept:
    /// [`HeadStore::equivocation`](crate::p2p::head::HeadStore::equivocation).
    Equivocation {
        /// Of which package.
        package: PackageId,
        /// The number.
        seq: u64,
    },
    /// A peer has sent what no honest one sends, and is not asked for a while.
    BadData {
        /// Who.
        peer: PeerId,
    },
    /// The reader was slower than the events came.
    LaggedError {
        /// So many are missing here.
        skipped: u64,
    },
}

/// The events of a registry from when it was asked for, until its node ends. Bounded: see [`RegistryEvent::LaggedError`].
#[derive(Debug)]
pub struct RegistryEvents(Pin<Box<Receiver<RegistryEvent>>>);

impl Stream for RegistryEvents {
    type Item = RegistryEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RegistryEvent>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// `None` once there is nothing more to tell.
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

    /// Never waits for a reader.
    pub(super) fn send(&self, event: &RegistryEvent) {
        if let Some(subscribers) = &mut *self.lock() {
            subscribers.retain_mut(|subscriber| subscriber.send(event.clone()));
        }
    }

    /// Ends the streams, those that are still to be asked for as well. What was told can be read to its end.
    pub(super) fn close(&self) {
        for subscriber in self.lock().take().into_iter().flatten() {
            if subscriber.skipped > 0 {
                // If there is no room yet, nothing was read for long.
                let _full = subscriber.events.try_send(RegistryEvent::LaggedError { skipped: subscriber.skipped });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Subscriber>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Whether it is still there.
    fn send(&mut self, event: RegistryEvent) -> bool {
        if self.skipped > 0 {
            match self.events.try_send(RegistryEvent::LaggedError { skipped: self.skipped }) {
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
    fn a_slow_reader_is_told_how_much_it_has_missed_and_one_that_has_gone_is_forgotten() {
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
            assert_eq!(slow.next().await, Some(RegistryEvent::LaggedError { skipped: 3 }));
            assert_eq!(slow.next().await, Some(event));
        });
    }

    #[test]
    fn readers_are_bounded() {
        let subscribers = Subscribers::default();
        let mut first = subscribers.add();
        let _others: Vec<_> = (0..MAX_SUBSCRIBERS).map(|_| subscribers.add()).collect();
        assert_eq!(smol::block_on(first.next()), None);
    }
}
