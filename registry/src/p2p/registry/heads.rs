//! Lookup of the newest head of a package.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};

use kadence::{Certainty, GetRecordError, Progress, RecordAnswer, RequestError, Retry, Runtime, deadline_after};

use super::{Inner, lock};
use crate::{
    GetError, PackageId, StorageError,
    p2p::{
        announce::DiscoveredPackage,
        head::{Checkpoint, HeadRejectedError, HeadStoreError, SignedHead, dht_key, validate_head},
    },
};

/// Maximum number of cached heads: as many as the largest lock files have packages.
const MAX_CACHED_HEADS: usize = 4096;

/// Recently read heads, each with the time until which it is used without a lookup.
#[derive(Debug, Default)]
pub(super) struct HeadCache(HashMap<PackageId, (SignedHead, Instant)>);

impl HeadCache {
    fn get(&self, package: &PackageId, now: Instant) -> Option<&SignedHead> {
        self.0.get(package).filter(|(_, until)| now < *until).map(|(head, _)| head)
    }

    /// Caches a head until this time.
    pub(super) fn put(&mut self, head: SignedHead, now: Instant, until: Instant) {
        if self.0.len() >= MAX_CACHED_HEADS {
            self.0.retain(|_, (_, until)| now < *until);
        }
        // A full cache only costs lookups.
        if self.0.len() < MAX_CACHED_HEADS {
            self.0.insert(head.head().package.clone(), (head, until));
        }
    }

    /// Removes a head that must not be used any longer.
    fn remove(&mut self, package: &PackageId) {
        self.0.remove(package);
    }

    /// Removes a head that is older than this number.
    pub(super) fn remove_older(&mut self, package: &PackageId, seq: u64) {
        if self.0.get(package).is_some_and(|(head, _)| head.head().seq < seq) {
            self.0.remove(package);
        }
    }
}

/// Purpose of a lookup, which decides how sure it has to be that there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To read. If there are forged heads only, a genuine one may have been displaced; if a peer near the key has not
    /// answered, it may have one.
    Read,
    /// To renew or change what is published. Anybody can store forged heads, so that these do not count.
    Change,
    /// To publish. Forged heads do not count, and a peer near the key that never answers keeps nobody from publishing.
    Publish,
}

/// Number of peers that must have answered before a publisher takes it that there is no head: half of those that a put
/// stores it at.
const ENOUGH_TO_PUBLISH: u32 = 10;

/// Returns whether a publisher takes it that there is no head, after a lookup that has found none and is not conclusive.
fn is_enough_to_publish(progress: Progress) -> bool {
    progress.successes >= ENOUGH_TO_PUBLISH && progress.most_answered()
}

impl<R: Runtime> Inner<R> {
    /// Returns the newest head of a package: a cached one, or the best of the network.
    pub(super) async fn head(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        if let Some(head) = lock(&self.head_cache).get(package, self.now()).cloned() {
            // It may have expired since.
            return validate_head(None, &head, SystemTime::now()).map(|_| Some(head)).map_err(rejection);
        }
        let head = match self.look_up(package, Purpose::Read).await {
            Ok(head) => head,
            // While a publication is in progress, the network has an older head.
            Err(error @ (GetError::Inconclusive { .. } | GetError::Timeout { .. } | GetError::Rollback { .. }))
                if package.publisher() == self.publisher =>
            {
                // For its own package, the publisher itself is the authority.
                let head = self.newest_local(package).await?.ok_or(error)?;
                Some(self.validated(head).await?)
            }
            Err(error) => {
                // Another call may have cached a head that is rejected now.
                lock(&self.head_cache).remove(package);
                return Err(error);
            }
        };
        if let Some(head) = &head {
            let age = Duration::from_secs(head.head().ttl).min(self.config.max_head_age);
            let (now, announced) = (self.now(), lock(&self.discovered).get(package).map(DiscoveredPackage::seq));
            // A newer head may have been announced during the lookup.
            if announced.is_none_or(|seq| seq <= head.head().seq) {
                lock(&self.head_cache).put(head.clone(), now, deadline_after(now, age));
            }
        }
        Ok(head)
    }

    /// Looks up the newest head in the network, and checks it against the checkpoint.
    pub(super) async fn look_up(&self, package: &PackageId, purpose: Purpose) -> Result<Option<SignedHead>, GetError> {
        let mut seen_before = 0;
        loop {
            match self.look_up_once(package, purpose).await {
                // During the lookup a newer head was published, or recorded by another call.
                Err(GetError::Rollback { seen, .. }) if seen > seen_before => seen_before = seen,
                found => return found,
            }
        }
    }

    async fn look_up_once(&self, package: &PackageId, purpose: Purpose) -> Result<Option<SignedHead>, GetError> {
        let not_trusted = |error: &dyn std::fmt::Display| GetError::Rejected { reason: error.to_string() };
        let key = dht_key(package).map_err(|error| not_trusted(&error))?;
        // On a slow link, one attempt takes long if some peers near the key are silent.
        let patience = if purpose == Purpose::Publish { 3 } else { 1 };
        let timeout = self.config.lookup_timeout.saturating_mul(patience);
        // Asks all holders: one that has the newest head is enough.
        let call = |timeout| self.client.get_record(key.clone()).best().fresh().timeout(timeout);
        // Peers that did not answer may do so at the next attempt.
        let tries = |timeout, attempts| call(timeout).retry(Retry::default().attempts(attempts));
        let is_enough = |error: &GetRecordError| match error {
            GetRecordError::NotFound { progress, .. } => is_enough_to_publish(*progress),
            _ => false,
        };
        let found = if purpose == Purpose::Publish {
            let began = self.now();
            match call(timeout).await {
                Err(error) if error.is_retryable() && !is_enough(&error) => {
                    let left = timeout.saturating_sub(self.now().saturating_duration_since(began));
                    tries(left, 2).await
                }
                found => found,
            }
        } else {
            tries(timeout, 3).await
        };
        let answer = match found {
            Ok(answer) => answer,
            Err(GetRecordError::NotFound { certainty: Certainty::Conclusive, .. }) => {
                return self.head_without_holder(package).await;
            }
            Err(GetRecordError::NotFound { rejected: 1.., .. }) if purpose != Purpose::Read => {
                return self.head_without_holder(package).await;
            }
            Err(error) if purpose == Purpose::Publish && is_enough(&error) => {
                return self.head_without_holder(package).await;
            }
            Err(error) => return Err(lookup_error(&error, timeout)),
        };
        let best = SignedHead::verify(answer.value(), package).map_err(|error| not_trusted(&error))?;
        let (others, progress) = (other_heads(&answer, &best, package), answer.progress);
        self.with_head_store(move |store| {
            store.record(&best)?;
            // Before the expiry is checked: an expired head can be part of an equivocation, too.
            for other in &others {
                // Only an equivocation matters here. Some holders having outdated heads is normal.
                if let Err(HeadStoreError::Rejected(rejected @ HeadRejectedError::Equivocation { .. })) =
                    store.record(other)
                {
                    return Err(rejected.into());
                }
            }
            store.validate(&best, SystemTime::now())?;
            Ok(Some(best))
        })
        .await
        .map_err(|error| match self.store_error(error) {
            // The holders of the newer head may be among those that did not answer.
            GetError::Rollback { .. } if !progress.most_answered() => inconclusive(progress),
            error => error,
        })
    }

    /// Checks a head that did not come from the network against the checkpoint and the time.
    async fn validated(&self, head: SignedHead) -> Result<SignedHead, GetError> {
        let validated = self.with_head_store(move |store| store.validate(&head, SystemTime::now()).map(|_| head));
        validated.await.map_err(|error| self.store_error(error))
    }

    /// Returns the head of a package that no peer holds: the last seen one is valid until it expires, since its
    /// publisher may be offline for long.
    async fn head_without_holder(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        match self.checkpoint(package).await? {
            Some(Checkpoint { head: Some(head), .. }) => self.validated(head).await.map(Some),
            // After an accepted equivocation: a head exists, but no peer serves it.
            Some(Checkpoint { seq: seen, head: None }) => Err(GetError::Rollback { seen, offered: 0 }),
            None => Ok(None),
        }
    }

    /// Returns the newest head that was seen, even if it has expired.
    pub(super) async fn last_seen(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        Ok(self.checkpoint(package).await?.and_then(|checkpoint| checkpoint.head))
    }

    /// Returns the newest head that is known without a lookup.
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

/// Returns the distinct heads of the answer except the best, lowest number first.
fn other_heads(answer: &RecordAnswer, best: &SignedHead, package: &PackageId) -> Vec<SignedHead> {
    let mut seen = HashSet::from([best.bytes().to_owned()]);
    let bytes = answer.others.iter().map(|record| &record.record.value);
    let distinct = bytes.filter(|bytes| seen.insert((*bytes).clone()));
    let mut heads: Vec<_> = distinct.filter_map(|bytes| SignedHead::verify(bytes, package).ok()).collect();
    heads.sort_by_key(|head| head.head().seq);
    heads
}

/// Converts the reason for the rejection of a head.
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

/// Converts the error of a lookup.
fn lookup_error(error: &GetRecordError, after: Duration) -> GetError {
    match error {
        GetRecordError::NotFound { rejected: 1.., .. } => {
            GetError::Rejected { reason: "all heads that were found are forged or damaged".to_owned() }
        }
        GetRecordError::NotFound { progress, .. } | GetRecordError::NoResponse { progress } => inconclusive(*progress),
        GetRecordError::Timeout { .. } => GetError::Timeout { after },
        GetRecordError::Request(RequestError::Overloaded | RequestError::ExpiredInQueue) => GetError::Overloaded,
        GetRecordError::Request(RequestError::Shutdown | RequestError::NotPolled) => GetError::Closed,
        // An empty routing table, records that disagree, a cancelled call.
        _ => GetError::Inconclusive { asked: 0, answered: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_needs_ten_answers_and_four_of_five() {
        let is_enough = |successes, failures| {
            is_enough_to_publish(Progress { requests: successes + failures, successes, failures })
        };
        assert!(is_enough(16, 1) && is_enough(10, 0) && is_enough(12, 3));
        assert!(!is_enough(9, 0), "an island may have so many");
        assert!(!is_enough(12, 4), "most holders may be among those that did not answer");
    }
}
