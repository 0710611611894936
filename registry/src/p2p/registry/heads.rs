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
        head::{Checkpoint, HeadRejectedError, RememberError, SignedHead, dht_key, judge},
    },
};

/// How many heads are used without asking again: those of the largest lock files.
const MAX_FRESH: usize = 4096;

/// Heads that were read a moment ago.
#[derive(Debug, Default)]
pub(super) struct Fresh(HashMap<PackageId, (SignedHead, Instant)>);

impl Fresh {
    fn get(&self, package: &PackageId, now: Instant) -> Option<&SignedHead> {
        self.0.get(package).filter(|(_, until)| now < *until).map(|(head, _)| head)
    }

    /// Uses it until then.
    pub(super) fn put(&mut self, head: SignedHead, now: Instant, until: Instant) {
        if self.0.len() >= MAX_FRESH {
            self.0.retain(|_, (_, until)| now < *until);
        }
        // It is only a shortcut.
        if self.0.len() < MAX_FRESH {
            self.0.insert(head.head().package.clone(), (head, until));
        }
    }

    /// It can no longer be relied on.
    fn remove(&mut self, package: &PackageId) {
        self.0.remove(package);
    }

    /// There is a newer one.
    pub(super) fn heard_of(&mut self, package: &PackageId, seq: u64) {
        if self.0.get(package).is_some_and(|(head, _)| head.head().seq < seq) {
            self.0.remove(package);
        }
    }
}

/// What it means that there is nothing but forged heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnlyForged {
    /// There may be a true one, whose place they have taken.
    IsRefused,
    /// Nothing: otherwise anybody who makes forged ones could keep the publisher from publishing.
    IsNothing,
}

impl<R: Runtime> Inner<R> {
    /// The newest head of a package: one that was read a moment ago, or the best that the network has.
    pub(super) async fn head(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        if let Some(head) = lock(&self.fresh).get(package, self.now()).cloned() {
            // It may have expired meanwhile.
            return judge(None, &head, SystemTime::now()).map(|_| Some(head)).map_err(refused);
        }
        let head = match self.look_up(package, OnlyForged::IsRefused).await {
            Ok(head) => head,
            // While it publishes, the network has an older one.
            Err(error @ (GetError::Inconclusive { .. } | GetError::Timeout { .. } | GetError::Rollback { .. }))
                if package.publisher() == self.publisher =>
            {
                // Nobody knows better than who has signed it.
                let head = self.newest_here(package).await?.ok_or(error)?;
                Some(self.judged(head).await?)
            }
            Err(error) => {
                // Another call may have read a head that is refused now.
                lock(&self.fresh).remove(package);
                return Err(error);
            }
        };
        if let Some(head) = &head {
            let age = Duration::from_secs(head.head().ttl).min(self.config.max_head_age);
            let (now, told) = (self.now(), lock(&self.discovered).get(package).map(DiscoveredPackage::seq));
            // While it was looked for, a newer one may have been announced.
            if told.is_none_or(|told| told <= head.head().seq) {
                lock(&self.fresh).put(head.clone(), now, now + age);
            }
        }
        Ok(head)
    }

    /// The newest head that the network has, judged by what was seen before.
    pub(super) async fn look_up(
        &self,
        package: &PackageId,
        only_forged: OnlyForged,
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

    async fn look_up_once(&self, package: &PackageId, only_forged: OnlyForged) -> Result<Option<SignedHead>, GetError> {
        let not_trusted = |error: &dyn std::fmt::Display| GetError::NotTrusted { reason: error.to_string() };
        let key = dht_key(package).map_err(|error| not_trusted(&error))?;
        let timeout = self.config.lookup_timeout;
        // All of them, because a single holder of the newest is enough.
        let call = self.client.get_record(key).best().fresh().timeout(timeout);
        // What is inconclusive because too much is going on may not be so a moment later.
        let found = call.retry(Retry::default()).await;
        let answer = match found {
            Ok(answer) => answer,
            Err(GetRecordError::NotFound { certainty: Certainty::Conclusive, .. }) => {
                return self.without_a_holder(package).await;
            }
            Err(GetRecordError::NotFound { rejected: 1.., .. }) if only_forged == OnlyForged::IsNothing => {
                return self.without_a_holder(package).await;
            }
            Err(error) => return Err(unanswered(&error, timeout)),
        };
        let best = SignedHead::verify(answer.value(), package).map_err(|error| not_trusted(&error))?;
        let (others, progress) = (others(&answer, &best, package), answer.progress);
        self.remembered(move |memory| {
            memory.remember(&best)?;
            // Before the time is looked at: a twin of a head that has expired is a twin.
            for other in &others {
                // A twin of what was seen is worth knowing; that a holder has an older one is not.
                if let Err(RememberError::Refused(refused @ HeadRejectedError::Equivocation { .. })) =
                    memory.remember(other)
                {
                    return Err(refused.into());
                }
            }
            memory.judge(&best, SystemTime::now())?;
            Ok(Some(best))
        })
        .await
        .map_err(|error| match self.not_accepted(error) {
            // Those who have the newer one may be among those who did not answer.
            GetError::Rollback { .. } if progress.certainty() == Certainty::Inconclusive => inconclusive(progress),
            error => error,
        })
    }

    /// A head that did not come from the network, if it may be believed after all that was seen.
    async fn judged(&self, head: SignedHead) -> Result<SignedHead, GetError> {
        let judged = self.remembered(move |memory| memory.judge(&head, SystemTime::now()).map(|_| head));
        judged.await.map_err(|error| self.not_accepted(error))
    }

    /// Nobody has a head. One that was seen before is still good until it expires: its publisher may be away for long.
    async fn without_a_holder(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        match self.mark(package).await? {
            Some(Checkpoint { head: Some(head), .. }) => self.judged(head).await.map(Some),
            // After a contradiction that was forgiven: there is one, and nobody shows it.
            Some(Checkpoint { seq: seen, head: None }) => Err(GetError::Rollback { seen, offered: 0 }),
            None => Ok(None),
        }
    }

    /// The newest head that was seen, expired or not.
    pub(super) async fn last_seen(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        Ok(self.mark(package).await?.and_then(|mark| mark.head))
    }

    /// The newest head that is known without the network.
    pub(super) async fn newest_here(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        let (seen, own) = (self.last_seen(package).await?, self.own_head(package).await?);
        Ok(seen.into_iter().chain(own).max_by_key(|head| head.head().seq))
    }

    async fn mark(&self, package: &PackageId) -> Result<Option<Checkpoint>, GetError> {
        let id = package.clone();
        self.remembered(move |memory| memory.seen(&id)).await.map_err(|error| self.memory_failed(error))
    }

    pub(super) async fn own_head(&self, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        let (own, package) = (self.own.clone(), package.clone());
        Ok(blocking::unblock(move || own.head(&package)).await?)
    }

    pub(super) fn not_accepted(&self, error: RememberError) -> GetError {
        match error {
            RememberError::Refused(reason) => refused(reason),
            RememberError::Database(error) => self.memory_failed(error),
            full @ RememberError::Full => self.memory_failed(full),
        }
    }

    fn memory_failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> GetError {
        let path = self.config.folder.join("heads.db");
        StorageError::Database { path, source: error.into() }.into()
    }
}

/// All heads of the answer but the best, each once, the oldest first.
fn others(answer: &RecordAnswer, best: &SignedHead, package: &PackageId) -> Vec<SignedHead> {
    let mut seen = HashSet::from([best.bytes().to_owned()]);
    let bytes = answer.others.iter().map(|record| &record.record.value);
    let distinct = bytes.filter(|bytes| seen.insert((*bytes).clone()));
    let mut heads: Vec<_> = distinct.filter_map(|bytes| SignedHead::verify(bytes, package).ok()).collect();
    heads.sort_by_key(|head| head.head().seq);
    heads
}

/// What a head is refused for.
fn refused(reason: HeadRejectedError) -> GetError {
    match reason {
        HeadRejectedError::Rollback { seen, offered, hash: _ } => GetError::Rollback { seen, offered },
        HeadRejectedError::Expired { not_after } => GetError::Expired { not_after },
        HeadRejectedError::Equivocation { proof } => {
            let seq = SignedHead::verify_any(&proof.second).map_or(0, |head| head.head().seq);
            GetError::Equivocation { seq }
        }
        HeadRejectedError::ValidTooLong { .. } | HeadRejectedError::FastForward { .. } => {
            GetError::NotTrusted { reason: reason.to_string() }
        }
    }
}

fn inconclusive(progress: Progress) -> GetError {
    GetError::Inconclusive { asked: progress.requests as usize, answered: progress.successes as usize }
}

/// Why a lookup has no answer.
fn unanswered(error: &GetRecordError, after: Duration) -> GetError {
    match error {
        GetRecordError::NotFound { rejected: 1.., .. } => {
            GetError::NotTrusted { reason: "all heads that were found are forged or damaged".to_owned() }
        }
        GetRecordError::NotFound { progress, .. } | GetRecordError::NoResponse { progress } => inconclusive(*progress),
        GetRecordError::Timeout { .. } => GetError::Timeout { after },
        GetRecordError::Request(RequestError::Overloaded | RequestError::ExpiredInQueue) => GetError::Overloaded,
        GetRecordError::Request(RequestError::Shutdown) => GetError::Closed,
        // An empty routing table, records that disagree, a cancelled call.
        _ => GetError::Inconclusive { asked: 0, answered: 0 },
    }
}
