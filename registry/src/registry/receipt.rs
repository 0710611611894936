use std::{collections::BTreeMap, error::Error, fmt};

use semver::Version;
use serde::Serialize;

use super::PublishError;
use crate::{ContentId, PackageId, archive::Excluded};

/// What was published or withdrawn, and what became of each step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Which package.
    pub package: PackageId,
    /// Which version.
    pub version: Version,
    /// The version's manifest.
    pub manifest: ContentId,
    /// The version's archive.
    pub archive: ContentId,
    /// The index that has it.
    pub index: ContentId,
    /// What became of each step.
    pub steps: Steps,
    /// Files and folders of the package's folder that were not published, sorted by path: keys, `.git`, `.env`. Empty for a
    /// version that was withdrawn.
    pub excluded: Vec<Excluded>,
}

/// The steps of publishing, in their order: nothing is named before it can be had, so that whoever is told of a version finds
/// all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The folder becomes an archive in the store.
    Archive,
    /// The manifest is written to the store.
    Manifest,
    /// The index is written to the store.
    Index,
    /// The network is told who has archive, manifest and index.
    Provide,
    /// The head that names the index is put: from here on it is published. Of a local registry it is a row of its database.
    Head,
    /// The head is read back from the network.
    ReadBack,
    /// It is announced to whoever listens.
    Announce,
}

impl Step {
    /// All of them, in their order.
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

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// It is done.
    Done,
    /// What it would have made was there before.
    AlreadyThere,
    /// It is done, and this many peers have confirmed it of those that were asked.
    Confirmed {
        /// Peers that have.
        by: usize,
        /// Peers that were asked.
        of: usize,
    },
    /// It has failed. If nothing depends on it, the version is published all the same.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What became of the steps that were begun. A step that is not in it was not reached, or the registry has none such.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Steps(BTreeMap<Step, StepOutcome>);

impl Steps {
    /// Notes what became of a step.
    pub fn set(&mut self, step: Step, outcome: StepOutcome) {
        self.0.insert(step, outcome);
    }

    /// What became of a step, if it was begun.
    pub fn get(&self, step: Step) -> Option<&StepOutcome> {
        self.0.get(&step)
    }

    /// What became of those that were begun, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Step, &StepOutcome)> {
        self.0.iter().map(|(step, outcome)| (*step, outcome))
    }

    /// Notes what became of a step that everything behind it depends on.
    pub(crate) fn record<T, E: Error + Send + Sync + 'static>(
        &mut self,
        step: Step,
        result: Result<T, E>,
    ) -> Result<T, PublishError> {
        let outcome = match &result {
            Ok(_) => StepOutcome::Done,
            Err(error) => StepOutcome::Failed { reason: error.to_string() },
        };
        self.set(step, outcome);
        result.map_err(|error| PublishError::Failed { step, steps: self.clone(), source: error.into() })
    }

    /// Whether none of them has failed.
    pub fn all_well(&self) -> bool {
        !self.0.values().any(|outcome| matches!(outcome, StepOutcome::Failed { .. }))
    }
}
