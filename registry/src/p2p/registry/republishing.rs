//! Republishing of own packages: puts their heads again, renews heads before they expire, and offers their content
//! again, also after a restart.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use blocking::unblock;
use futures::{StreamExt, stream};
use kadence::{Priority, Runtime, deadline_after};

use super::{Inner, RegistryEvent, heads::Purpose};
use crate::{ContentId, GetError, PackageId, PackageName, PublishError, Step, StepOutcome, Steps};

/// Interval at which due packages are published again, and the reputation is saved.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Delay of the first check, in which a node usually finds its peers.
const FIRST_CHECK_DELAY: Duration = Duration::from_secs(5);

/// Minimum interval, for heads with a very short validity.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Number of contents that are offered at the same time.
const CONCURRENT_OFFERS: usize = 4;

/// Next publication of a package, and the number of failures in a row.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    failures: u32,
}

/// Runs until the node stops.
pub(super) async fn run<R: Runtime>(inner: Arc<Inner<R>>) {
    let mut due = HashMap::new();
    let mut has_shared = !inner.config.share;
    let mut wait = FIRST_CHECK_DELAY;
    loop {
        inner.sleep(wait).await;
        wait = CHECK_INTERVAL.min((inner.config.lifetime.validity / 4).max(MIN_INTERVAL));
        let Ok(peers) = inner.swarm.with(|swarm| swarm.network_info().num_peers()).await else { return };
        if peers > 0 {
            inner.republish_due(&mut due).await;
            if !has_shared {
                // The network may have forgotten the content of earlier runs.
                has_shared = true;
                inner.share_again().await;
            }
        }
        inner.save().await;
    }
}

impl<R: Runtime> Inner<R> {
    async fn republish_due(self: &Arc<Self>, due: &mut HashMap<PackageName, Due>) {
        let published = self.published.clone();
        let names = match unblock(move || published.packages()).await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "the list of published packages cannot be read");
                return;
            }
        };
        for name in names {
            let now = self.now();
            let Due { at, failures } = due.get(&name).copied().unwrap_or(Due { at: now, failures: 0 });
            if at > now {
                continue;
            }
            let Ok(package) = PackageId::new(self.publisher, name.clone()) else { continue };
            let succeeded = match self.republish(&package).await {
                Ok(steps) => steps.is_none_or(|steps| steps.all_succeeded()),
                Err(error) => {
                    tracing::warn!(%package, %error, "package was not published again");
                    false
                }
            };
            let failures = if succeeded { 0 } else { failures.saturating_add(1) };
            // Often enough to renew a head in the second half of its validity.
            let in_time = (self.config.lifetime.validity / 4).max(MIN_INTERVAL);
            let interval = self.config.republish_interval.min(in_time);
            let again = if succeeded {
                interval
            } else {
                interval.min(CHECK_INTERVAL.saturating_mul(2_u32.saturating_pow(failures.min(10))))
            };
            due.insert(name, Due { at: deadline_after(self.now(), again), failures });
        }
    }

    /// Publishes a package again, and returns the outcome of each step; `None` if it was never published here.
    pub(super) async fn republish(self: &Arc<Self>, package: &PackageId) -> Result<Option<Steps>, PublishError> {
        let mut steps = Steps::default();
        let head = {
            let _turn = self.publishing.lock().await;
            if self.published_head(package).await.map_err(PublishError::Versions)?.is_none() {
                return Ok(None);
            }
            // Not necessarily the one that was signed here: another machine with the same key may have continued.
            let (newest, is_sure) = match self.predecessor(package, Purpose::Change).await {
                Err(GetError::Inconclusive { .. } | GetError::Timeout { .. }) => {
                    (self.newest_local(package).await, false)
                }
                newest => (newest, true),
            };
            let Some(head) = newest.map_err(PublishError::Versions)? else { return Ok(None) };
            let (published, newest) = (self.published.clone(), head.clone());
            steps.record(Step::Head, unblock(move || published.put(&newest)).await)?;
            let index = (head.head().index, head.head().index_size);
            let head = match self.is_due_for_renewal(&head) {
                true if is_sure => self.sign(package, Some(&head), index, &mut steps).await?,
                true => {
                    // If there is a newer head, signing the next one would be an equivocation.
                    let reason = "it is not known whether there is a newer head".to_owned();
                    steps.set(Step::Index, StepOutcome::Failed { reason });
                    head
                }
                false => head,
            };
            // First, because nothing else is found without the head.
            self.put(&head, &mut steps).await?;
            head
        };
        match self.index_of(&head).await {
            Ok(index) => {
                let mut contents = vec![head.head().index];
                contents.extend(index.versions().values().flat_map(|entry| [entry.manifest, entry.archive]));
                self.offer_all(contents, &mut steps).await;
                self.announce(&head, &index, &mut steps).await;
            }
            Err(error) => steps.set(Step::Index, StepOutcome::Failed { reason: error.to_string() }),
        }
        self.subscribers.send(&RegistryEvent::Republished { package: package.clone(), seq: head.head().seq });
        Ok(Some(steps))
    }

    /// Announces this node as a provider of those contents that are in the store. Continues after failures.
    async fn offer_all(&self, contents: Vec<ContentId>, steps: &mut Steps) {
        let blobs = self.blobs.clone();
        let contents = unblock(move || contents.into_iter().filter(|id| blobs.contains(id)).collect::<Vec<_>>()).await;
        let offers: Vec<_> = contents
            .into_iter()
            .map(|content| self.client.start_providing(content.provider_key()).priority(Priority::Background))
            .collect();
        let offered = stream::iter(offers.into_iter().map(IntoFuture::into_future)).buffer_unordered(CONCURRENT_OFFERS);
        let failed = offered.filter_map(async |offered| offered.err()).collect::<Vec<_>>().await;
        steps.set(
            Step::Provide,
            match failed.first() {
                None => StepOutcome::Done,
                Some(error) => StepOutcome::Failed { reason: format!("{} were not offered: {error}", failed.len()) },
            },
        );
    }

    /// Offers the content that was fetched in earlier runs.
    async fn share_again(&self) {
        let blobs = self.blobs.clone();
        let here = unblock(move || blobs.iter().filter_map(|blob| blob.ok().map(|(id, _)| id)).collect::<Vec<_>>());
        let mut here = here.await;
        // Folders are read in an order that depends on the file system.
        here.sort_unstable();
        let mut steps = Steps::default();
        self.offer_all(here, &mut steps).await;
        if !steps.all_succeeded() {
            tracing::debug!(?steps, "not all content was offered again");
        }
    }
}
