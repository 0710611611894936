//! Publishing: nothing is named before it can be had, and nothing is sent that could not be repeated.

use std::{sync::Arc, time::SystemTime};

use blocking::unblock;
use kadence::{LocalCopy, Retry, Runtime};
use libp2p::{gossipsub, kad::Quorum};
use semver::Version;
use thiserror::Error;

use super::{Event, Inner, heads::OnlyForged, lock};
use crate::{
    ContentId, GetError, Index, IndexEntry, IndexError, PackageId, PublishError, Receipt, Release, Step, StepOutcome,
    Steps, StorageError,
    archive::PackOptions,
    p2p::{
        announce::{Announcement, MAX_TITLE_BYTES, SignedAnnouncement},
        head::{RememberError, SignedHead, next_head},
    },
    registry::{Staged, stage},
    unix,
};

impl<R: Runtime> Inner<R> {
    pub(super) async fn publish(self: &Arc<Self>, release: Release) -> Result<Receipt, PublishError> {
        let id = release.draft.id().clone();
        self.check_publisher(&id)?;
        let _turn = self.publishing.lock().await;
        let before = self.before(&id).await.map_err(PublishError::Versions)?;
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
            Some(head) if is_published && !self.is_ending(head) => head.clone(),
            before => self.sign(&id, before.as_ref(), document(&index), &mut steps).await?,
        };
        self.put(&head, &mut steps).await?;
        self.supersede(before.as_ref(), &head).await;
        self.announce(&head, &index, &mut steps).await;
        let readme = package.metadata().readme.clone();
        self.published(&head, &index, readme).await;
        let (package, version) = (package.id().clone(), package.version().clone());
        Ok(Receipt { package, version, manifest, archive, index: head.head().index, steps, excluded })
    }

    fn pack_options(&self) -> PackOptions {
        let mut private_paths = self.config.private_paths.clone();
        private_paths.push(self.config.folder.clone());
        PackOptions { limits: self.config.archive, private_paths, private_keys: vec![self.keypair.clone()] }
    }

    pub(super) async fn delete(
        self: &Arc<Self>,
        package: &PackageId,
        version: &Version,
    ) -> Result<Receipt, PublishError> {
        self.check_publisher(package)?;
        let _turn = self.publishing.lock().await;
        let Some(before) = self.before(package).await.map_err(PublishError::Versions)? else {
            return Err(PublishError::NoSuchPackage(Box::new(package.clone())));
        };
        let index = self.index_of(&before).await.map_err(PublishError::Versions)?;
        let next = index.with_yanked(version, true)?;
        let Some(IndexEntry { manifest, archive, .. }) = next.versions().get(version).cloned() else {
            return Err(IndexError::NoSuchVersion { version: version.clone() }.into());
        };
        let mut steps = Steps::default();
        let (blobs, json) = (self.blobs.clone(), next.to_json());
        let content = steps.record(Step::Index, unblock(move || blobs.put(&json)).await)?;
        self.provide(&[content], &mut steps).await?;
        let head = if next == index && !self.is_ending(&before) {
            before.clone()
        } else {
            self.sign(package, Some(&before), document(&next), &mut steps).await?
        };
        self.put(&head, &mut steps).await?;
        self.supersede(Some(&before), &head).await;
        self.announce(&head, &next, &mut steps).await;
        self.published(&head, &next, String::new()).await;
        let (package, version) = (package.clone(), version.clone());
        Ok(Receipt { package, version, manifest, archive, index: content, steps, excluded: Vec::new() })
    }

    /// The newest head, of those that the network has or had and the one that was signed here last. The latter may never
    /// have arrived anywhere, or somewhere: it counts, so that no other is signed with its number.
    pub(super) async fn before(self: &Arc<Self>, package: &PackageId) -> Result<Option<SignedHead>, GetError> {
        let there = match self.look_up(package, OnlyForged::IsNothing).await {
            // It is renewed by what is published now; or what was seen has not arrived where they are. Somebody else may
            // have published it with the same key, so that it need not be what was signed here.
            Err(error @ (GetError::Expired { .. } | GetError::Rollback { .. })) => {
                Some(self.last_seen(package).await?.ok_or(error)?)
            }
            there => there?,
        };
        match (there, self.own_head(package).await?) {
            (Some(there), Some(here)) if there.head().seq > here.head().seq => Ok(Some(there)),
            (Some(there), Some(here)) if there.head().seq == here.head().seq && there != here => {
                // A contradiction, which is kept as such: unless the user has forgiven it, and goes on from what the
                // others have.
                let remembered = self.remembered(move |memory| memory.remember(&here)).await;
                remembered.map(|_| Some(there)).map_err(|error| self.not_accepted(error))
            }
            (there, here) => Ok(here.or(there)),
        }
    }

    /// Tells the network who has it.
    pub(super) async fn provide(&self, contents: &[ContentId], steps: &mut Steps) -> Result<(), PublishError> {
        let mut fewest = usize::MAX;
        for content in contents {
            let answer = self.client.start_providing(content.provider_key()).await;
            fewest = fewest.min(steps.record(Step::Provide, answer)?.sent_to as usize);
        }
        // Nobody acknowledges that.
        steps.set(
            Step::Provide,
            if fewest == 0 { StepOutcome::Failed { reason: "nobody was told".into() } } else { StepOutcome::Done },
        );
        Ok(())
    }

    /// The next head, which is on the disk when it is there, in two places: nothing was ever sent that contradicts it.
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
        let (own, memory, kept) = (self.own.clone(), Arc::clone(&self.memory), head.clone());
        let stored = unblock(move || {
            if !own.put(&kept)? {
                return Err(NotSigned::Superseded);
            }
            memory.remember(&kept)?;
            memory.keep(&kept.head().package, true).map_err(RememberError::from)?;
            Ok(())
        });
        steps.record(Step::Head, stored.await)?;
        Ok(head)
    }

    /// Whether most of its time is over.
    pub(super) fn is_ending(&self, head: &SignedHead) -> bool {
        let left = head.head().not_after.saturating_sub(unix::seconds(SystemTime::now()));
        left.saturating_mul(2) < self.config.lifetime.validity.as_secs()
    }

    /// The index of the head before is offered no longer.
    async fn supersede(&self, before: Option<&SignedHead>, head: &SignedHead) {
        if let Some(before) = before
            && before.head().index != head.head().index
        {
            // If the driver is gone, nothing is offered.
            let _gone = self.client.stop_providing(before.head().index.provider_key()).await;
        }
    }

    /// Puts a head, and reads it back.
    pub(super) async fn put(&self, head: &SignedHead, steps: &mut Steps) -> Result<(), PublishError> {
        let record = steps.record(Step::Head, head.to_record(SystemTime::now(), std::time::Instant::now()))?;
        let key = record.key.clone();
        let put = self.client.put_record(record).quorum(Quorum::Majority).clamp_quorum().local_copy(LocalCopy::First);
        // What fails because too much is going on may not fail a moment later.
        let put = steps.record(Step::Head, put.retry(Retry::default()).await)?;
        steps.set(Step::Head, StepOutcome::Confirmed { by: put.acknowledged.len(), of: put.asked() });

        // It is published now, whatever comes of this.
        let found = self.client.get_record(key).best().fresh().timeout(self.config.lookup_timeout).await;
        steps.set(
            Step::ReadBack,
            match found {
                Ok(found) if found.value() == head.bytes() => {
                    // The own store is no witness.
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

    /// Announces a head, and adds it to what is known here.
    pub(super) async fn announce(&self, head: &SignedHead, index: &Index, steps: &mut Steps) {
        let outcome = match self.signed_announcement(head, index) {
            Ok(announcement) => {
                lock(&self.discovered).add(&announcement, self.client.local_peer_id(), SystemTime::now());
                let (topic, bytes) = (self.topic.clone(), announcement.bytes().to_owned());
                let sent =
                    self.swarm.with(move |swarm| swarm.behaviour_mut().app.gossipsub.publish(topic, bytes)).await;
                match sent {
                    Ok(Ok(_)) => StepOutcome::Done,
                    // In this very second.
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
        // All of its versions may have been withdrawn.
        let (version, _) =
            index.current().or_else(|| index.versions().last_key_value()).ok_or("there is no version")?;
        let announcement = Announcement {
            schema: Announcement::SCHEMA,
            package: index.package().clone(),
            version: version.clone(),
            seq: head.head().seq,
            head: head.hash(),
            index: head.head().index,
            title: beginning(&index.summary().title, MAX_TITLE_BYTES).to_owned(),
            published_at: unix::seconds(SystemTime::now()),
        };
        SignedAnnouncement::sign(&self.keypair, announcement).map_err(|error| error.to_string())
    }

    async fn published(&self, head: &SignedHead, index: &Index, readme: String) {
        let package = index.package();
        lock(&self.fresh).heard_of(package, head.head().seq);
        self.find(index, readme).await;
        self.readers.tell(&Event::Published { package: package.clone(), seq: head.head().seq });
    }

    fn check_publisher(&self, package: &PackageId) -> Result<(), PublishError> {
        if package.publisher() == self.publisher {
            return Ok(());
        }
        Err(PublishError::NotOurs { package: Box::new(package.clone()), publisher: Box::new(self.publisher) })
    }
}

/// The name of a document and its size.
fn document(index: &Index) -> (ContentId, u64) {
    let json = index.to_json();
    (ContentId::of(&json), json.len() as u64)
}

/// Why a head that was signed is not used.
#[derive(Debug, Error)]
enum NotSigned {
    /// A call that was given up has gone on.
    #[error("another call has published meanwhile")]
    Superseded,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Memory(#[from] RememberError),
}

/// As much of a text as fits.
fn beginning(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::beginning;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        for (max, cut) in [(0, ""), (1, ""), (2, "ä"), (3, "ä"), (4, "ä"), (5, "ä€"), (6, "ä€a"), (9, "ä€a")]
        {
            assert_eq!(beginning("ä€a", max), cut);
        }
    }
}
