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
    PackageId, PublishError, Steps,
    p2p::{head::SignedHead, unix},
};

/// Between two looks for the first peer, after the start, and after a round in which something has failed.
const SOON: Duration = Duration::from_secs(60);

/// Until the first look: when a node that finds its peers at once has found them.
const FIRST: Duration = Duration::from_secs(5);

/// Runs until the node ends.
pub(super) async fn run<R: Runtime>(inner: Arc<Inner<R>>) {
    let mut wait = FIRST;
    loop {
        inner.sleep(wait).await;
        let Ok(peers) = inner.swarm.with(|swarm| swarm.network_info().num_peers()).await else { return };
        wait = SOON;
        if peers > 0 && inner.republish_all().await {
            wait = inner.config.republish_interval;
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
        let head = self.own_head(package).await.map_err(PublishError::Versions)?;
        let Some(head) = head else { return Ok(false) };
        let index = self.index_of(&head).await.map_err(PublishError::Versions)?;
        let mut steps = Steps::default();
        // The index first: without it the others are not found.
        let mut contents = vec![head.head().index];
        contents.extend(index.versions().values().flat_map(|entry| [entry.manifest, entry.archive]));
        let blobs = self.blobs.clone();
        let contents = unblock(move || contents.into_iter().filter(|id| blobs.contains(id)).collect::<Vec<_>>()).await;
        self.provide(&contents, &mut steps).await?;
        let head = if self.is_ending(&head) { self.sign(Some(&head), &index, &mut steps).await? } else { head };
        self.put(&head, &mut steps).await?;
        self.announce(&head, &index, &mut steps).await;
        self.readers.tell(&Event::Republished { package: package.clone(), seq: head.head().seq });
        Ok(true)
    }

    /// Whether most of its time is over.
    fn is_ending(&self, head: &SignedHead) -> bool {
        let left = head.head().not_after.saturating_sub(unix::seconds(SystemTime::now()));
        left < self.config.lifetime.validity.as_secs() / 2
    }
}
