//! Local provider entries of announcements: one that fails takes back the entry that kad made for it, unless the node was
//! alone.

use libp2p::kad::RecordKey;
use rustc_hash::FxHashMap;

/// Live announcements by key, from the time they are given a slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Announcements {
    by_key: FxHashMap<RecordKey, OfKey>,
}

#[derive(Debug, Clone, Default)]
struct OfKey {
    live: usize,
    /// Presence of a local entry before the first of them. `None` until kad has started one.
    had_provider: Option<bool>,
    /// One of them leaves its entry.
    kept: bool,
}

impl Announcements {
    /// Notes that kad is being asked to start an announcement.
    pub(super) fn start(&mut self, key: &RecordKey) {
        self.by_key.entry(key.clone()).or_default().live += 1;
    }

    /// Notes that kad has stored the local entry. Only the first answer says whether one was there before; later ones
    /// find the tracker's own.
    pub(super) fn began(&mut self, key: &RecordKey, had_provider: bool) {
        if let Some(announcements) = self.by_key.get_mut(key) {
            announcements.had_provider.get_or_insert(had_provider);
        }
    }

    /// Notes the end of an announcement, which leaves its local entry or not. Returns whether the entry has to be removed:
    /// after the last of a key's announcements, unless one leaves it or it was there before.
    #[must_use]
    pub(super) fn ended(&mut self, key: &RecordKey, keeps_entry: bool) -> bool {
        let Some(announcements) = self.by_key.get_mut(key) else { return false };
        announcements.kept |= keeps_entry;
        announcements.live -= 1;
        if announcements.live > 0 {
            return false;
        }
        let stale = announcements.had_provider == Some(false) && !announcements.kept;
        self.by_key.remove(key);
        stale
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
