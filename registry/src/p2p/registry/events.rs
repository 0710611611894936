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
const MAX_READERS: usize = 64;

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
    Lagged {
        /// So many are missing here.
        skipped: u64,
    },
}

/// The events of a registry from when it was asked for, until its node ends. Bounded: see [`RegistryEvent::Lagged`].
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
pub(super) struct Readers(Mutex<Option<Vec<Reader>>>);

#[derive(Debug)]
struct Reader {
    events: Sender<RegistryEvent>,
    skipped: u64,
}

impl Default for Readers {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Readers {
    pub(super) fn add(&self) -> RegistryEvents {
        let (events, received) = async_channel::bounded(CAPACITY);
        if let Some(readers) = &mut *self.lock() {
            if readers.len() >= MAX_READERS {
                readers.remove(0);
            }
            readers.push(Reader { events, skipped: 0 });
        }
        RegistryEvents(Box::pin(received))
    }

    /// Never waits for a reader.
    pub(super) fn tell(&self, event: &RegistryEvent) {
        if let Some(readers) = &mut *self.lock() {
            readers.retain_mut(|reader| reader.tell(event.clone()));
        }
    }

    /// Ends the streams, those that are still to be asked for as well. What was told can be read to its end.
    pub(super) fn close(&self) {
        for reader in self.lock().take().into_iter().flatten() {
            if reader.skipped > 0 {
                // If there is no room yet, nothing was read for long.
                let _full = reader.events.try_send(RegistryEvent::Lagged { skipped: reader.skipped });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Reader>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Whether it is still there.
    fn tell(&mut self, event: RegistryEvent) -> bool {
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
    fn a_slow_reader_is_told_how_much_it_has_missed_and_one_that_has_gone_is_forgotten() {
        let readers = Readers::default();
        let (mut slow, gone) = (readers.add(), readers.add());
        drop(gone);
        let event = RegistryEvent::PeerJoined { peer: PeerId::random() };
        for _ in 0..CAPACITY + 3 {
            readers.tell(&event);
        }
        assert_eq!(readers.lock().as_ref().map(Vec::len), Some(1));
        smol::block_on(async {
            for _ in 0..CAPACITY {
                assert_eq!(slow.next().await.as_ref(), Some(&event));
            }
            readers.tell(&event);
            assert_eq!(slow.next().await, Some(RegistryEvent::Lagged { skipped: 3 }));
            assert_eq!(slow.next().await, Some(event));
        });
    }

    #[test]
    fn readers_are_bounded() {
        let readers = Readers::default();
        let mut first = readers.add();
        let _others: Vec<_> = (0..MAX_READERS).map(|_| readers.add()).collect();
        assert_eq!(smol::block_on(first.next()), None);
    }
}
