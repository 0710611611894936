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
    /// Content id of the index that lists the version.
    pub index: ContentId,
    /// Outcome of each step.
    pub steps: Steps,
    /// Files and folders of the package's folder that were not published, sorted by path: keys, `.git`, `.env`. Empty for a
    /// version that was withdrawn.
    pub excluded: Vec<Excluded>,
}

/// Steps of publishing, in their order. Content is available before anything refers to it, so that a peer that learns
/// of a version can fetch all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Packs the folder and stores the archive.
    Archive,
    /// Stores the manifest.
    Manifest,
    /// Stores the index.
    Index,
    /// Announces this node to the network as provider of archive, manifest and index.
    Provide,
    /// Puts the head that names the index: after this step the version is published. In a local registry the head is a
    /// row of its database.
    Head,
    /// Reads the head back from the network.
    ReadBack,
    /// Announces the version to subscribers.
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
    /// The step's result existed before.
    AlreadyThere,
    /// The step succeeded, and `by` of the `of` peers that were asked have confirmed it.
    Confirmed {
        /// Number of peers that have confirmed it.
        by: usize,
        /// Number of peers that were asked.
        of: usize,
    },
    /// The step failed. If no later step depends on it, the version is published nevertheless.
    Failed {
        /// Cause.
        reason: String,
    },
}

/// Outcomes of the steps that were started. A missing step was not reached, or the registry does not have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Steps(BTreeMap<Step, StepOutcome>);

impl Steps {
    /// Records the outcome of a step.
    pub fn set(&mut self, step: Step, outcome: StepOutcome) {
        self.0.insert(step, outcome);
    }

    /// Returns the outcome of a step, or `None` if it was not started.
    pub fn get(&self, step: Step) -> Option<&StepOutcome> {
        self.0.get(&step)
    }

    /// Returns the steps that were started with their outcomes, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Step, &StepOutcome)> {
        self.0.iter().map(|(step, outcome)| (*step, outcome))
    }

    /// Returns whether no step failed.
    pub fn all_succeeded(&self) -> bool {
        !self.0.values().any(|outcome| matches!(outcome, StepOutcome::Failed { .. }))
    }
}
