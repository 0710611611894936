//! The newest head of a package, as far as it can be told.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};

use kadence::{Certainty, GetRecordError, Progress, RecordAnswer, RequestError, Retry, Runtime};

use super::{Inner, lock};
use crate::{
    GetError, PackageId, StorageError,
    p2p::{
        announce::DiscoveredPackage,
        head::{Checkpoint, HeadRejectedError, HeadStoreError, SignedHead, dht_key, validate_head},
    },
};

/// How many heads are used without asking again: those of the largest lock files.
const MAX_CACHED_HEADS: usize = 4096;

/// Heads that were read a moment ago.
#[derive(Debug, Default)]
pub(super) struct HeadCache(HashMap<PackageId, (SignedHead, Instant)>);

impl HeadCache {
    fn get(&self, package: &PackageId, now: Instant) -> Option<&SignedHead> {
        self.0.get(package).filter(|(_, until)| now < *until).map(|(head, _)| head)
    }

    /// Uses it until then.
    pub(super) fn put(&mut self, head: SignedHead, now: Instant, until: Instant) {
        if self.0.len() >= MAX_CACHED_HEADS {
            self.0.retain(|_, (_, until)| now < *until);
        }
        // It is only a shortcut.
        if self.0.len() < MAX_CACHED_HEADS {
            self.0.insert(head.head().package.clone(), (head, until));
        }
    }

    /// It can no longer be relied on.
    fn remove(&mut self, package: &PackageId) {
        self.0.remove(package);
    }

    /// There is a newer one.
    pub(super) fn remove_older(&mut self, package: &PackageId, seq: u64) {
        if self.0.get(package).is_some_and(|(head, _)| head.head().seq < seq) {
            self.0.remove(package);
        }
    }
}

/// What it means that there is nothing but forged heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnlyForgedHeads {
    /// There may be a true one, whose place they have taken.
    Error,
    /// Nothing: otherwise anybody who makes forged ones could keep the publisher from publishing.
    NotFound,
}

impl<R: Runtime> Inner<R> {
    /// The newest head of a package: one that was read a moment ago, or the best that the network has.
    pub(super) async fn head(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        if let Some(head) = lock(&self.head_cache).get(package, self.now()).cloned() {
            // It may have expired meanwhile.
            return validate_head(None, &head, SystemTime::now()).map(|_| Some(head)).map_err(rejection);
        }
        let head = match self.look_up(package, OnlyForgedHeads::Error).await {
            Ok(head) => head,
            // While it publishes, the network has an older one.
            Err(error @ (GetError::Inconclusive { .. } | GetError::Timeout { .. } | GetError::Rollback { .. }))
                if package.publisher() == self.publisher =>
            {
                // Nobody knows better than who has signed it.
                let head = self.newest_local(package).await?.ok_or(error)?;
                Some(self.validated(head).await?)
            }
            Err(error) => {
                // Another call may have read a head that is refused now.
                lock(&self.head_cache).remove(package);
                return Err(error);
            }
        };
        if let Some(head) = &head {
            let age = Duration::from_secs(head.head().ttl).min(self.config.max_head_age);
            let (now, announced) = (self.now(), lock(&self.discovered).get(package).map(DiscoveredPackage::seq));
            // While it was looked for, a newer one may have been announced.
            if announced.is_none_or(|seq| seq <= head.head().seq) {
                lock(&self.head_cache).put(head.clone(), now, now + age);
            }
        }
        Ok(head)
    }

    /// The newest head that the network has, judged by what was seen before.
    pub(super) async fn look_up(
        &self,
        package: &PackageId,
        only_forged: OnlyForgedHeads,
    ) -> Result<Option<SignedHead>, GetError> {
        let mut seen_before = 0;
        loop {
            match self.look_up_once(package, only_forged).await {
                // A newer one may have been published, or read by another call, while this one was looking.
                Err(GetError::Rollback { seen, .. }) if seen > seen_before => seen_before = seen,
                found => return found,
            }
        }
    }

    async fn look_up_once(
        &self,
        package: &PackageId,
        only_forged: OnlyForgedHeads,
    ) -> Result<Option<SignedHead>, GetError> {
        let not_trusted = |error: &dyn std::fmt::Display| GetError::Rejected { reason: error.to_string() };
        let key = dht_key(package).map_err(|error| not_trusted(&error))?;
        let timeout = self.config.lookup_timeout;
        // All of them, because a single holder of the newest is enough.
        let call = self.client.get_record(key).best().fresh().timeout(timeout);
        // What is inconclusive because too much is going on may not be so a moment later.
        let found = call.retry(Retry::default()).await;
        let answer = match found {
            Ok(answer) => answer,
            Err(GetRecordError::NotFound { certainty: Certainty::Conclusive, .. }) => {
                return self.head_without_holder(package).await;
            }
            Err(GetRecordError::NotFound { rejected: 1.., .. }) if only_forged == OnlyForgedHeads::NotFound => {
                return self.head_without_holder(package).await;
            }
            Err(error) => return Err(lookup_error(&error, timeout)),
        };
        let best = SignedHead::verify(answer.value(), package).map_err(|error| not_trusted(&error))?;
        let (others, progress) = (other_heads(&answer, &best, package), answer.progress);
        self.with_head_store(move |store| {
            store.record(&best)?;
            // Before the time is looked at: a twin of a head that has expired is a twin.
            for other in &others {
                // A twin of what was seen is worth knowing; that a holder has an older one is not.
                if let Err(HeadStoreError::Rejected(refused @ HeadRejectedError::Equivocation { .. })) =
                    store.record(other)
                {
                    return Err(refused.into());
                }
            }
            store.validate(&best, SystemTime::now())?;
            Ok(Some(best))
        })
        .await
        .map_err(|error| match self.store_error(error) {
            // Those who have the newer one may be among those who did not answer.
            GetError::Rollback { .. } if progress.certainty() == Certainty::Inconclusive => inconclusive(progress),
            error => error,
        })
    }

    /// A head that did not come from the network, if it may be believed after all that was seen.
    async fn validated(&self, head: SignedHead) -> Result<SignedHead, GetError> {
        let validated = self.with_head_store(move |store| store.validate(&head, SystemTime::now()).map(|_| head));
        validated.await.map_err(|error| self.store_error(error))
    }

    /// Nobody has a head. One that was seen before is still good until it expires: its publisher may be away for long.
    async fn head_without_holder(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        match self.checkpoint(package).await? {
            Some(Checkpoint { head: Some(head), .. }) => self.validated(head).await.map(Some),
            // After a contradiction that was forgiven: there is one, and nobody shows it.
            Some(Checkpoint { seq: seen, head: None }) => Err(GetError::Rollback { seen, offered: 0 }),
            None => Ok(None),
        }
    }

    /// The newest head that was seen, expired or not.
    pub(super) async fn last_seen(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        Ok(self.checkpoint(package).await?.and_then(|checkpoint| checkpoint.head))
    }

    /// The newest head that is known without the network.
    pub(super) async fn newest_local(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        let (seen, own) = (self.last_seen(package).await?, self.published_head(package).await?);
        Ok(seen.into_iter().chain(own).max_by_key(|head| head.head().seq))
    }

    async fn checkpoint(&self, package: &PackageId) -> Result<Option<Checkpoint>, GetError> {
        let id = package.clone();
        self.with_head_store(move |store| store.checkpoint(&id)).await.map_err(|error| self.head_store_failed(error))
    }

    pub(super) async fn published_head(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        let (published, package) = (self.published.clone(), package.clone());
        Ok(blocking::unblock(move || published.head(&package)).await?)
    }

    pub(super) fn store_error(&self, error: HeadStoreError) -> GetError {
        match error {
            HeadStoreError::Rejected(reason) => rejection(reason),
            HeadStoreError::Database(error) => self.head_store_failed(error),
            full @ HeadStoreError::Full => self.head_store_failed(full),
        }
    }

    fn head_store_failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> GetError {
        let path = self.config.folder.join("heads.db");
        StorageError::Database { path, source: error.into() }.into()
    }
}

/// All heads of the answer but the best, each once, the oldest first.
fn other_heads(answer: &RecordAnswer, best: &SignedHead, package: &PackageId) -> Vec<SignedHead> {
    let mut seen = HashSet::from([best.bytes().to_owned()]);
    let bytes = answer.others.iter().map(|record| &record.record.value);
    let distinct = bytes.filter(|bytes| seen.insert((*bytes).clone()));
    let mut heads: Vec<_> = distinct.filter_map(|bytes| SignedHead::verify(bytes, package).ok()).collect();
    heads.sort_by_key(|head| head.head().seq);
    heads
}

/// What a head is refused for.
fn rejection(reason: HeadRejectedError) -> GetError {
    match reason {
        HeadRejectedError::Rollback { seen, offered, hash: _ } => GetError::Rollback { seen, offered },
        HeadRejectedError::Expired { not_after } => GetError::Expired { not_after },
        HeadRejectedError::Equivocation { proof } => {
            let seq = SignedHead::verify_any(&proof.second).map_or(0, |head| head.head().seq);
            GetError::Equivocation { seq }
        }
        HeadRejectedError::ValidTooLong { .. } | HeadRejectedError::FastForward { .. } => {
            GetError::Rejected { reason: reason.to_string() }
        }
    }
}

fn inconclusive(progress: Progress) -> GetError {
    GetError::Inconclusive { asked: progress.requests as usize, answered: progress.successes as usize }
}

/// Why a lookup has no answer.
fn lookup_error(error: &GetRecordError, after: Duration) -> GetError {
    match error {
        GetRecordError::NotFound { rejected: 1.., .. } => {
            GetError::Rejected { reason: "all heads that were found are forged or damaged".to_owned() }
        }
        GetRecordError::NotFound { progress, .. } | GetRecordError::NoResponse { progress } => inconclusive(*progress),
        GetRecordError::Timeout { .. } => GetError::Timeout { after },
        GetRecordError::Request(RequestError::Overloaded | RequestError::ExpiredInQueue) => GetError::Overloaded,
        GetRecordError::Request(RequestError::Shutdown) => GetError::Closed,
        // An empty routing table, records that disagree, a cancelled call.
        _ => GetError::Inconclusive { asked: 0, answered: 0 },
    }
}
