use std::{collections::BTreeMap, fmt};

use semver::Version;
use serde::Serialize;

use crate::{ContentId, PackageId, archive::Excluded};

/// Result of publishing, yanking or unyanking a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The package.
    pub package: PackageId,
    /// The version.
    pub version: Version,
    /// Content id of the version's manifest.
    pub manifest: ContentId,
    /// Content id of the version's archive.
    pub archive: ContentId,
    /// Content id of the package's newest index, which lists the version.
    pub index: ContentId,
    /// Outcome of each step that was started.
    pub steps: Steps,
    /// Files and folders in the package's folder that were left out of the archive, sorted by path: for example keys,
    /// `.git` and `.env`. Empty after a yank or unyank.
    pub excluded: Vec<Excluded>,
}

/// Step of publishing, yanking or unyanking. The steps are taken in the order of the variants: content is stored before
/// anything refers to it, so that a peer that learns of a version can fetch all of its content.
/// `P2PRegistry::republish` reports its steps with the same names, but takes [`Head`](Self::Head) and
/// [`ReadBack`](Self::ReadBack) first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Packs the folder and puts the archive into the local store. Not part of a yank or unyank.
    Archive,
    /// Puts the manifest into the local store. Not part of a yank or unyank.
    Manifest,
    /// Puts the new index into the local store. `P2PRegistry::republish` reports this step as failed if the head could
    /// not be renewed or the index that the head names could not be read.
    Index,
    /// Announces this node in the DHT as a provider of the content. Only on a network.
    Provide,
    /// Stores the head, which names the new index: after this step the change is published. On a network the head is a
    /// signed record in the DHT, in a local registry a row of its database.
    Head,
    /// Reads the head back from the DHT. Only on a network.
    ReadBack,
    /// Announces the change to the peers that subscribe to the registry's gossipsub topic. Only on a network.
    Announce,
}

impl Step {
    /// All steps in their order.
    pub const ALL: [Self; 7] =
        [Self::Archive, Self::Manifest, Self::Index, Self::Provide, Self::Head, Self::ReadBack, Self::Announce];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Archive => "archive",
            Self::Manifest => "manifest",
            Self::Index => "index",
            Self::Provide => "provide",
            Self::Head => "head",
            Self::ReadBack => "read back",
            Self::Announce => "announce",
        })
    }
}

/// Outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// The step succeeded.
    Done,
    /// The step succeeded without doing anything: its result existed before.
    AlreadyThere,
    /// The step succeeded, and `by` of `of` peers have confirmed it.
    Confirmed {
        /// Number of peers that acknowledged the head or, for [`Step::ReadBack`], returned it.
        by: usize,
        /// Number of peers that were selected for the head or, for [`Step::ReadBack`], that returned any head of the
        /// package.
        of: usize,
    },
    /// The step failed. In a [`Receipt`] the change is published nevertheless: publication does not depend on this
    /// step.
    Failed {
        /// Description of the cause.
        reason: String,
    },
}

/// Outcomes of the steps that were started. A step is missing if it was not reached, or if the operation or the
/// registry does not have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Steps(BTreeMap<Step, StepOutcome>);

impl Steps {
    /// Records the outcome of a step, in place of an earlier one.
    pub fn set(&mut self, step: Step, outcome: StepOutcome) {
        self.0.insert(step, outcome);
    }

    /// Returns the outcome of a step, or `None` if it was not started.
    pub fn get(&self, step: Step) -> Option<&StepOutcome> {
        self.0.get(&step)
    }

    /// Returns the steps that were started with their outcomes, in the order of [`Step::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Step, &StepOutcome)> {
        self.0.iter().map(|(step, outcome)| (*step, outcome))
    }

    /// Returns whether none of the recorded outcomes is a failure. True if there are none.
    pub fn all_succeeded(&self) -> bool {
        !self.0.values().any(|outcome| matches!(outcome, StepOutcome::Failed { .. }))
    }
}
