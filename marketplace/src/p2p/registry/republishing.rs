//! Own packages are kept in the network: their heads are put again, and renewed before they expire, and what they name is
//! offered again, after a restart as well.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use blocking::unblock;
use kadence::Runtime;

use super::{Event, Inner};
use crate::{
    GetError, PackageId, PublishError, Steps,
    p2p::{head::SignedHead, unix},
};

/// Between two looks for the first peer, after the start, and after a round in which something has failed.
const SOON: Duration = Duration::from_secs(60);

/// Until the first look: when a node that finds its peers at once has found them.
const FIRST: Duration = Duration::from_secs(5);

/// Between two rounds, however short heads live.
const SHORTEST: Duration = Duration::from_secs(1);

/// Runs until the node ends.
pub(super) async fn run<R: Runtime>(inner: Arc<Inner<R>>) {
    let mut wait = FIRST;
    loop {
        inner.sleep(wait).await;
        let Ok(peers) = inner.swarm.with(|swarm| swarm.network_info().num_peers()).await else { return };
        wait = SOON;
        if peers > 0 && inner.republish_all().await {
            // A head is renewed in the second half of its time.
            let in_time = inner.config.lifetime.validity / 4;
            wait = inner.config.republish_interval.min(in_time.max(SHORTEST));
        }
        inner.save().await;
    }
}

impl<R: Runtime> Inner<R> {
    /// Whether all of it has gone well.
    async fn republish_all(self: &Arc<Self>) -> bool {
        let own = self.own.clone();
        let names = match unblock(move || own.packages()).await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "it is not known which packages are published here");
                return false;
            }
        };
        let mut all_well = true;
        for name in names {
            let Ok(package) = PackageId::new(self.publisher, name) else { continue };
            if let Err(error) = self.republish(&package).await {
                tracing::warn!(%package, %error, "a package was not published again");
                all_well = false;
            }
        }
        all_well
    }

    pub(super) async fn republish(self: &Arc<Self>, package: &PackageId) -> Result<bool, PublishError> {
        let _turn = self.publishing.lock().await;
        if self.own_head(package).await.map_err(PublishError::Versions)?.is_none() {
            return Ok(false);
        }
        // Not the own one, which somebody else with the same key may have gone on from.
        let (head, unsure) = match self.before(package).await {
            Err(error @ (GetError::Inconclusive { .. } | GetError::Timeout { .. })) => {
                (self.newest_here(package).await.map_err(PublishError::Versions)?, Some(error))
            }
            head => (head.map_err(PublishError::Versions)?, None),
        };
        let Some(head) = head else { return Ok(false) };
        let index = self.index_of(&head).await.map_err(PublishError::Versions)?;
        let mut steps = Steps::default();
        // The index first: without it the others are not found.
        let mut contents = vec![head.head().index];
        contents.extend(index.versions().values().flat_map(|entry| [entry.manifest, entry.archive]));
        let blobs = self.blobs.clone();
        let contents = unblock(move || contents.into_iter().filter(|id| blobs.contains(id)).collect::<Vec<_>>()).await;
        self.provide(&contents, &mut steps).await?;
        let is_ending = self.is_ending(&head);
        let head = match unsure {
            None if is_ending => self.sign(Some(&head), &index, &mut steps).await?,
            // The next one would be a twin if there is one already.
            _ => head,
        };
        self.put(&head, &mut steps).await?;
        self.announce(&head, &index, &mut steps).await;
        self.readers.tell(&Event::Republished { package: package.clone(), seq: head.head().seq });
        match unsure {
            Some(error) if is_ending => Err(PublishError::Versions(error)),
            _ => Ok(true),
        }
    }

    /// Whether most of its time is over.
    pub(super) fn is_ending(&self, head: &SignedHead) -> bool {
        let left = head.head().not_after.saturating_sub(unix::seconds(SystemTime::now()));
        left.saturating_mul(2) < self.config.lifetime.validity.as_secs()
    }
}
