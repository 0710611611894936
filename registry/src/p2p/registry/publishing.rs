//! Publishing. Nothing is named before it is available, and every step can be repeated.

use std::{sync::Arc, time::SystemTime};

use blocking::unblock;
use kadence::{LocalCopy, Retry, Runtime};
use libp2p::kad::Quorum;
use libp2p_gossipsub as gossipsub;
use semver::Version;
use thiserror::Error;

use super::{Inner, RegistryEvent, heads::Purpose, lock};
use crate::{
    ContentId, GetError, Index, IndexEntry, IndexError, Package, PackageId, PublishError, Receipt, Release, Step,
    StepOutcome, Steps, StorageError,
    archive::PackOptions,
    p2p::{
        announce::{Announcement, MAX_TITLE_LEN, SignedAnnouncement},
        head::{HeadStoreError, SignedHead, next_head},
    },
    registry::{Staged, Subject, read_document, stage},
    unix,
};

impl<R: Runtime> Inner<R> {
    pub(super) async fn publish(self: &Arc<Self>, release: Release) -> Result<Receipt, PublishError> {
        let id = release.draft.id().clone();
        self.check_publisher(&id)?;
        let _turn = self.publishing.lock().await;
        let before = self.predecessor(&id, Purpose::Publish).await.map_err(PublishError::Versions)?;
        let index = match &before {
            Some(head) => self.index_of(head).await.map_err(PublishError::Versions)?,
            None => Index::new(id.clone()),
        };

        let (blobs, scratch, options) = (self.blobs.clone(), self.config.folder.clone(), self.pack_options());
        let now = unix::seconds(SystemTime::now());
        let staged = unblock(move || stage(&blobs, &scratch, release, &index, &options, now)).await?;
        let Staged { package, manifest, index, is_published, excluded, mut steps } = staged;
        let archive = package.contents().archive;

        self.provide(&[archive, manifest, index.content_id()], &mut steps).await?;
        let head = match &before {
            Some(head) if is_published && !self.is_due_for_renewal(head) => head.clone(),
            before => self.sign(&id, before.as_ref(), id_and_size(&index), &mut steps).await?,
        };
        self.put(&head, &mut steps).await?;
        self.stop_offering_index_of(before.as_ref(), &head).await;
        self.announce(&head, &index, &mut steps).await;
        self.finish_publication(&head, &index).await;
        let (package, version) = (package.id().clone(), package.version().clone());
        Ok(Receipt { package, version, manifest, archive, index: head.head().index, steps, excluded })
    }

    fn pack_options(&self) -> PackOptions {
        let mut private_paths = self.config.private_paths.clone();
        private_paths.push(self.config.folder.clone());
        PackOptions { limits: self.config.archive, private_paths, private_keys: vec![self.keypair.clone()] }
    }

    pub(super) async fn set_yanked(
        self: &Arc<Self>,
        package: &PackageId,
        version: &Version,
        yanked: bool,
    ) -> Result<Receipt, PublishError> {
        self.check_publisher(package)?;
        let _turn = self.publishing.lock().await;
        let Some(before) = self.predecessor(package, Purpose::Change).await.map_err(PublishError::Versions)? else {
            return Err(PublishError::NoSuchPackage(Box::new(package.clone())));
        };
        let index = self.index_of(&before).await.map_err(PublishError::Versions)?;
        let next = index.with_yanked(version, yanked)?;
        let Some(IndexEntry { manifest, archive, .. }) = next.versions().get(version).cloned() else {
            return Err(IndexError::NoSuchVersion { version: version.clone() }.into());
        };
        let mut steps = Steps::default();
        let (blobs, json) = (self.blobs.clone(), next.to_json());
        let content = steps.record(Step::Index, unblock(move || blobs.put(&json)).await)?;
        self.provide(&[content], &mut steps).await?;
        let head = if next == index && !self.is_due_for_renewal(&before) {
            before.clone()
        } else {
            self.sign(package, Some(&before), id_and_size(&next), &mut steps).await?
        };
        self.put(&head, &mut steps).await?;
        self.stop_offering_index_of(Some(&before), &head).await;
        self.announce(&head, &next, &mut steps).await;
        self.finish_publication(&head, &next).await;
        let (package, version) = (package.clone(), version.clone());
        Ok(Receipt { package, version, manifest, archive, index: content, steps, excluded: Vec::new() })
    }

    /// Returns the head that the next one follows: the newest of those in the network, those that were seen, and the
    /// one that was signed here last. The last one counts even if it may not have reached the network, so that its
    /// number is not used twice.
    pub(super) async fn predecessor(
        self: &Arc<Self>,
        package: &PackageId,
        purpose: Purpose,
    ) -> Result<Option<SignedHead>, GetError> {
        let there = match self.look_up(package, purpose).await {
            // An expired head is renewed by this publication; after a rollback, the newer head has not reached its
            // holders. It need not be the one that was signed here: another machine may publish with the same key.
            Err(error @ (GetError::Expired { .. } | GetError::Rollback { .. })) => {
                Some(self.last_seen(package).await?.ok_or(error)?)
            }
            there => there?,
        };
        match (there, self.published_head(package).await?) {
            (Some(there), Some(here)) if there.head().seq > here.head().seq => Ok(Some(there)),
            (Some(there), Some(here)) if there.head().seq == here.head().seq && there != here => {
                // An equivocation, which is recorded, unless the user has accepted it and continues from the head of
                // the network.
                let recorded = self.with_head_store(move |store| store.record(&here)).await;
                recorded.map(|_| Some(there)).map_err(|error| self.store_error(error))
            }
            (there, here) => Ok(here.or(there)),
        }
    }

    /// Announces this node as a provider of the contents.
    pub(super) async fn provide(&self, contents: &[ContentId], steps: &mut Steps) -> Result<(), PublishError> {
        let mut fewest = u32::MAX;
        for content in contents {
            let answer = self.client.start_providing(content.provider_key()).await;
            // A node without an address serves the peers that it is connected to.
            fewest = fewest.min(steps.record(Step::Provide, answer)?.progress.successes);
        }
        // Peers do not acknowledge provider records.
        steps.set(
            Step::Provide,
            if fewest == 0 {
                StepOutcome::Failed { reason: "no peer took the announcement".into() }
            } else {
                StepOutcome::Done
            },
        );
        Ok(())
    }

    /// Signs the next head and writes it to the disk, in two places, before it is sent.
    pub(super) async fn sign(
        &self,
        package: &PackageId,
        before: Option<&SignedHead>,
        (index, size): (ContentId, u64),
        steps: &mut Steps,
    ) -> Result<SignedHead, PublishError> {
        let next = next_head(package, before, index, size, self.config.lifetime, SystemTime::now());
        let next = steps.record(Step::Head, next)?;
        let head = steps.record(Step::Head, SignedHead::sign(&self.keypair, next))?;
        let (published, store, kept) = (self.published.clone(), Arc::clone(&self.head_store), head.clone());
        let stored = unblock(move || {
            if !published.put(&kept)? {
                return Err(HeadNotStoredError::Superseded);
            }
            store.record(&kept)?;
            store.keep(&kept.head().package, true).map_err(HeadStoreError::from)?;
            Ok(())
        });
        steps.record(Step::Head, stored.await)?;
        Ok(head)
    }

    /// Returns whether more than half of the head's validity has passed.
    pub(super) fn is_due_for_renewal(&self, head: &SignedHead) -> bool {
        let left = head.head().not_after.saturating_sub(unix::seconds(SystemTime::now()));
        left.saturating_mul(2) < self.config.lifetime.validity.as_secs()
    }

    /// Stops offering the index of the previous head.
    async fn stop_offering_index_of(&self, before: Option<&SignedHead>, head: &SignedHead) {
        if let Some(before) = before
            && before.head().index != head.head().index
        {
            // Fails if the driver has stopped, and then nothing is offered.
            let _gone = self.client.stop_providing(before.head().index.provider_key()).await;
        }
    }

    /// Puts a head into the DHT and reads it back.
    pub(super) async fn put(&self, head: &SignedHead, steps: &mut Steps) -> Result<(), PublishError> {
        let record = steps.record(Step::Head, head.to_record(SystemTime::now(), std::time::Instant::now()))?;
        let key = record.key.clone();
        let put = self.client.put_record(record).quorum(Quorum::Majority).clamp_quorum().local_copy(LocalCopy::First);
        // Peers that did not answer may do so at the next attempt.
        let put = steps.record(Step::Head, put.retry(Retry::default().attempts(3)).await)?;
        steps.set(Step::Head, StepOutcome::Confirmed { by: put.acknowledged.len(), of: put.asked() });

        // The head is published. What follows cannot undo that.
        let found = self.client.get_record(key).best().fresh().timeout(self.config.lookup_timeout).await;
        steps.set(
            Step::ReadBack,
            match found {
                Ok(found) if found.value() == head.bytes() => {
                    // The local store is not counted.
                    let own = found.iter().filter(|record| record.peer.is_none()).count();
                    let by = found.agreeing.saturating_sub(own);
                    StepOutcome::Confirmed { by, of: by.saturating_add(found.dissenting) }
                }
                Ok(_) => StepOutcome::Failed { reason: "the network has another head".to_owned() },
                Err(error) => StepOutcome::Failed { reason: error.to_string() },
            },
        );
        Ok(())
    }

    /// Announces a head, and adds it to the discovered packages.
    pub(super) async fn announce(&self, head: &SignedHead, index: &Index, steps: &mut Steps) {
        let outcome = match self.signed_announcement(head, index) {
            Ok(announcement) => {
                lock(&self.discovered).add(&announcement, self.client.local_peer_id(), SystemTime::now());
                let (topic, bytes) = (self.topic.clone(), announcement.bytes().to_owned());
                let sent =
                    self.swarm.with(move |swarm| swarm.behaviour_mut().app.gossipsub.publish(topic, bytes)).await;
                match sent {
                    Ok(Ok(_)) => StepOutcome::Done,
                    // The same announcement was sent within this second.
                    Ok(Err(gossipsub::PublishError::Duplicate)) => StepOutcome::AlreadyThere,
                    Ok(Err(error)) => StepOutcome::Failed { reason: error.to_string() },
                    Err(error) => StepOutcome::Failed { reason: error.to_string() },
                }
            }
            Err(reason) => StepOutcome::Failed { reason },
        };
        steps.set(Step::Announce, outcome);
    }

    fn signed_announcement(&self, head: &SignedHead, index: &Index) -> Result<SignedAnnouncement, String> {
        // All versions may be yanked.
        let (version, _) =
            index.current().or_else(|| index.versions().last_key_value()).ok_or("there is no version")?;
        let announcement = Announcement {
            schema: Announcement::SCHEMA,
            package: index.package().clone(),
            version: version.clone(),
            seq: head.head().seq,
            head: head.hash(),
            index: head.head().index,
            title: truncated(&index.summary().title, MAX_TITLE_LEN).to_owned(),
            published_at: unix::seconds(SystemTime::now()),
        };
        SignedAnnouncement::sign(&self.keypair, announcement).map_err(|error| error.to_string())
    }

    async fn finish_publication(&self, head: &SignedHead, index: &Index) {
        let package = index.package();
        let readme = self.readme_of_current(index).await;
        lock(&self.head_cache).remove_older(package, head.head().seq);
        self.update_search_entry(index, readme).await;
        self.subscribers.send(&RegistryEvent::Published { package: package.clone(), seq: head.head().seq });
    }

    /// Returns the readme of an index's current version. Empty if its manifest is not here: another machine may have
    /// published it.
    async fn readme_of_current(&self, index: &Index) -> String {
        let Some((version, entry)) = index.current() else { return String::new() };
        let expected = Subject { package: index.package(), version: Some(version) };
        let manifest: Result<Package, GetError> = read_document(&self.blobs, entry.manifest, expected).await;
        manifest.map(|package| package.metadata().readme.clone()).unwrap_or_default()
    }

    fn check_publisher(&self, package: &PackageId) -> Result<(), PublishError> {
        if package.publisher() == self.publisher {
            return Ok(());
        }
        Err(PublishError::OtherPublisher { package: Box::new(package.clone()), publisher: Box::new(self.publisher) })
    }
}

/// Returns the content id and the size of an index.
fn id_and_size(index: &Index) -> (ContentId, u64) {
    let json = index.to_json();
    (ContentId::of(&json), json.len() as u64)
}

/// Error of storing a signed head, which is then not used.
#[derive(Debug, Error)]
enum HeadNotStoredError {
    /// Another call signed a head in the meantime.
    #[error("another call published in the meantime: try again")]
    Superseded,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Memory(#[from] HeadStoreError),
}

/// Returns the longest prefix of a text within this number of bytes.
fn truncated(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::truncated;

    #[test]
    fn a_text_is_truncated_between_characters() {
        for (max, cut) in [(0, ""), (1, ""), (2, "ä"), (3, "ä"), (4, "ä"), (5, "ä€"), (6, "ä€a"), (9, "ä€a")]
        {
            assert_eq!(truncated("ä€a", max), cut);
        }
    }
}
