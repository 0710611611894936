use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use semver::{Version, VersionReq};
use serde::Deserialize;
use thiserror::Error;

use super::{Dependency, InvalidPackageError, MANIFEST_FILE, Metadata, check, document, limits};
use crate::{PackageId, PackageIdError, PackageName};

/// Bytes reserved in the manifest for the fields that a draft does not have: ids, sizes and times, with their names.
const RESERVED_LEN: usize = 1024;

/// A version that is to be published: its manifest without the description of its archive and without times, which are
/// added when it is published.
///
/// Every draft is within the limits of [`Metadata`] and [`MAX_MANIFEST_LEN`](crate::MAX_MANIFEST_LEN):
/// [`DraftBuilder::build`], [`Draft::from_toml`] and [`Draft::with_readme`] check them.
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
    /// is a package of `publisher`. The readme is not part of the file: see [`Draft::with_readme`].
    ///
    /// # Errors
    ///
    /// If the text is too long, is not valid TOML, lacks the name or the version, has an unknown field (most likely a
    /// typing error), or has an invalid value, or if `publisher` is not the peer id of an Ed25519 key.
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

    /// Returns the text of a manifest file for a new package: version 0.1.0, with empty fields to fill in.
    /// [`Draft::from_toml`] accepts the text as it is.
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

    /// Returns the draft with another readme.
    ///
    /// # Errors
    ///
    /// If the readme is longer than 128 KiB or contains a forbidden character, or if the whole manifest becomes too
    /// long.
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

    /// Metadata of the version, with its readme.
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

    /// Sets all metadata, including the readme, and replaces metadata that was set before.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Sets the [title](Metadata::title).
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.0.metadata.title = title.into();
        self
    }

    /// Sets the [description](Metadata::description).
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.0.metadata.description = description.into();
        self
    }

    /// Sets the [licence](Metadata::licence), as an SPDX expression.
    pub fn licence(mut self, licence: impl Into<String>) -> Self {
        self.0.metadata.licence = licence.into();
        self
    }

    /// Adds an [author](Metadata::authors).
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.0.metadata.authors.push(author.into());
        self
    }

    /// Adds a [category](Metadata::categories).
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.0.metadata.categories.push(category.into());
        self
    }

    /// Adds a [tag](Metadata::tags).
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.0.metadata.tags.push(tag.into());
        self
    }

    /// Adds a [link](Metadata::links), or replaces the one with the same name.
    pub fn link(mut self, name: impl Into<String>, url: impl Into<String>) -> Self {
        self.0.metadata.links.insert(name.into(), url.into());
        self
    }

    /// Sets the text of the [readme](Metadata::readme).
    pub fn readme(mut self, readme: impl Into<String>) -> Self {
        self.0.metadata.readme = readme.into();
        self
    }

    /// Adds a dependency. A version can have up to 256 dependencies, at most one on each other package and none on its
    /// own package.
    pub fn dependency(mut self, package: PackageId, requirement: VersionReq) -> Self {
        self.0.dependencies.push(Dependency { package, requirement });
        self
    }

    /// Checks all values and returns the draft.
    ///
    /// # Errors
    ///
    /// The first invalid value, or [`InvalidPackageError::TooLong`] if the whole manifest is too long.
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

/// Error of [`Draft::from_toml`]. The cure is to change the manifest file or, for [`Publisher`](Self::Publisher), to
/// use an Ed25519 key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The text is longer than a manifest may be. Nothing of it was parsed.
    #[error("{file} has {len} bytes: the maximum is {max}", file = MANIFEST_FILE)]
    TooLong {
        /// Length of the text, in bytes.
        len: usize,
        /// Maximum length, in bytes.
        max: usize,
    },
    /// The text is not valid TOML, lacks the name or the version, has an unknown field, or has a field of a wrong type
    /// or syntax, such as an invalid package name.
    #[error("{file} is invalid: {0}", file = MANIFEST_FILE)]
    Toml(String),
    /// The publisher's peer id is not that of an Ed25519 key.
    #[error(transparent)]
    Publisher(#[from] PackageIdError),
    /// The name of a dependency is neither a package name nor `<publisher>/<name>` with the peer id of an Ed25519 key.
    #[error("{file}: invalid dependency {given:?}: {reason}", file = MANIFEST_FILE)]
    Dependency {
        /// The name of the dependency in the file.
        given: String,
        /// The reason why the name is invalid.
        reason: PackageIdError,
    },
    /// A value is invalid or exceeds a limit.
    #[error("{file}: {0}", file = MANIFEST_FILE)]
    Invalid(#[from] InvalidPackageError),
}
