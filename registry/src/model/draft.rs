use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use semver::{Version, VersionReq};
use serde::Deserialize;
use thiserror::Error;

use super::{Dependency, InvalidPackageError, MANIFEST_FILE, Metadata, check, document, limits};
use crate::{PackageId, PackageIdError, PackageName};

/// Bytes reserved in the manifest for the fields that a draft does not have: ids, sizes and times, with their names.
const RESERVED_LEN: usize = 1024;

/// A version that is to be published: its manifest without the contents, which are hashed when it is published.
///
/// Every draft keeps the limits: [`DraftBuilder::build`], [`Draft::from_toml`] and [`Draft::with_readme`] check them.
///
/// # Example
///
/// ```
/// use kadence_registry::{Draft, Package, PackageId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
/// let built = Package::builder(PackageId::new(publisher, "left-pad".parse()?)?, "1.0.0".parse()?)
///     .title("Left pad")
///     .tag("padding")
///     .build()?;
///
/// // The same from a manifest file.
/// let manifest = r#"
///     name = "left-pad"
///     version = "1.0.0"
///     title = "Left pad"
///     tags = ["padding"]
/// "#;
/// assert_eq!(Draft::from_toml(publisher, manifest)?, built);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    id: PackageId,
    version: Version,
    metadata: Metadata,
    dependencies: Vec<Dependency>,
}

impl Draft {
    /// Parses a manifest file ([`MANIFEST_FILE`](crate::MANIFEST_FILE)). A dependency without a publisher in its name
    /// is a package of the same publisher.
    ///
    /// # Errors
    ///
    /// If the text is too long, is not valid TOML, lacks a required field, has an unknown field (most likely a typing
    /// error), or if a value breaks a limit.
    pub fn from_toml(publisher: PeerId, text: &str) -> Result<Self, SourceError> {
        if text.len() > limits::MAX_MANIFEST_FILE_LEN {
            return Err(SourceError::TooLong { len: text.len(), max: limits::MAX_MANIFEST_FILE_LEN });
        }
        let source: Source = toml::from_str(text).map_err(|error| SourceError::Toml(error.to_string()))?;
        let mut builder = DraftBuilder::new(PackageId::new(publisher, source.name)?, source.version);
        for (package, requirement) in source.dependencies {
            let id = if package.contains('/') {
                package.parse()
            } else {
                package.parse().and_then(|name| PackageId::new(publisher, name))
            };
            let id = id.map_err(|reason| SourceError::Dependency { given: package, reason })?;
            builder = builder.dependency(id, requirement);
        }
        let metadata = Metadata {
            title: source.title,
            description: source.description,
            licence: source.licence,
            authors: source.authors,
            categories: source.categories,
            tags: source.tags,
            links: source.links,
            readme: String::new(),
        };
        Ok(builder.metadata(metadata).build()?)
    }

    /// Returns a manifest file for a new package, with empty fields to fill in. [`Draft::from_toml`] accepts it as it
    /// is.
    pub fn template(name: &PackageName) -> String {
        format!(
            r#"name = "{name}"
version = "0.1.0"
title = ""
description = ""
licence = ""
authors = []
categories = []
tags = []

[links]
# repository = "https://example.com/{name}"

[dependencies]
# "<publisher>/<name>" = "^1.0"
"#
        )
    }

    /// Sets the readme.
    ///
    /// # Errors
    ///
    /// If the readme is too long or contains control characters.
    pub fn with_readme(mut self, readme: impl Into<String>) -> Result<Self, InvalidPackageError> {
        self.metadata.readme = readme.into();
        self.checked()
    }

    /// Package that the version belongs to.
    pub fn id(&self) -> &PackageId {
        &self.id
    }

    /// Version number.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Metadata of the version.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Dependencies of the version.
    pub fn dependencies(&self) -> &[Dependency] {
        &self.dependencies
    }

    pub(super) fn into_parts(self) -> (PackageId, Version, Metadata, Vec<Dependency>) {
        (self.id, self.version, self.metadata, self.dependencies)
    }

    fn checked(self) -> Result<Self, InvalidPackageError> {
        check::version(&self.version)?;
        self.metadata.check()?;
        Dependency::check_all(&self.id, &self.dependencies)?;
        let len = document::write(&(&self.metadata, &self.dependencies)).len() + RESERVED_LEN;
        if len > limits::MAX_MANIFEST_LEN {
            return Err(InvalidPackageError::TooLong { len, max: limits::MAX_MANIFEST_LEN });
        }
        Ok(self)
    }
}

/// Builder of a [`Draft`]. Nothing is checked before [`DraftBuilder::build`].
#[derive(Debug, Clone)]
#[must_use]
pub struct DraftBuilder(Draft);

impl DraftBuilder {
    pub(super) fn new(id: PackageId, version: Version) -> Self {
        Self(Draft { id, version, metadata: Metadata::default(), dependencies: Vec::new() })
    }

    /// Sets all metadata, and replaces metadata that was set before.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Sets the title: a line for lists.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.0.metadata.title = title.into();
        self
    }

    /// Sets the description.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.0.metadata.description = description.into();
        self
    }

    /// Sets the licence, as an SPDX expression.
    pub fn licence(mut self, licence: impl Into<String>) -> Self {
        self.0.metadata.licence = licence.into();
        self
    }

    /// Adds an author.
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.0.metadata.authors.push(author.into());
        self
    }

    /// Adds a category.
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.0.metadata.categories.push(category.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.0.metadata.tags.push(tag.into());
        self
    }

    /// Sets a link, and replaces an earlier one of the same name.
    pub fn link(mut self, name: impl Into<String>, url: impl Into<String>) -> Self {
        self.0.metadata.links.insert(name.into(), url.into());
        self
    }

    /// Sets the readme's text.
    pub fn readme(mut self, readme: impl Into<String>) -> Self {
        self.0.metadata.readme = readme.into();
        self
    }

    /// Adds a dependency.
    pub fn dependency(mut self, package: PackageId, requirement: VersionReq) -> Self {
        self.0.dependencies.push(Dependency { package, requirement });
        self
    }

    /// Validates the contents and returns the draft.
    ///
    /// # Errors
    ///
    /// The first limit that is broken.
    pub fn build(self) -> Result<Draft, InvalidPackageError> {
        self.0.checked()
    }
}

/// Contents of a manifest file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    name: PackageName,
    version: Version,
    #[serde(default)]
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default, alias = "license")]
    licence: String,
    #[serde(default)]
    authors: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    links: BTreeMap<String, String>,
    #[serde(default)]
    dependencies: BTreeMap<String, VersionReq>,
}

/// Error of reading a manifest file. The file's author has to change it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The file is longer than any manifest. Nothing of it was parsed.
    #[error("{file} has {len} bytes: the maximum is {max}", file = MANIFEST_FILE)]
    TooLong {
        /// Length of the file, in bytes.
        len: usize,
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The file is not valid TOML, lacks the name or the version, or has an unknown field.
    #[error("{file} is invalid: {0}", file = MANIFEST_FILE)]
    Toml(String),
    /// The publisher's peer id is not that of an Ed25519 key.
    #[error(transparent)]
    Publisher(#[from] PackageIdError),
    /// The name of a dependency is neither `<publisher>/<name>` nor a package name.
    #[error("{file}: invalid dependency {given:?}: {reason}", file = MANIFEST_FILE)]
    Dependency {
        /// The name.
        given: String,
        /// The reason why the name is invalid.
        reason: PackageIdError,
    },
    /// A value breaks a limit.
    #[error("{file}: {0}", file = MANIFEST_FILE)]
    Invalid(#[from] InvalidPackageError),
}
