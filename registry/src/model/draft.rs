use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use semver::{Version, VersionReq};
use serde::Deserialize;
use thiserror::Error;

use super::{Dependency, InvalidPackage, Metadata, check, document, limits};
use crate::{PackageId, PackageIdError, PackageName};

/// Room that a manifest needs beside what a draft says: ids, sizes and times, with their names.
const REST_OF_MANIFEST: usize = 1024;

/// A version that is to be published: all that its manifest says but its contents, which get their name when it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    id: PackageId,
    version: Version,
    metadata: Metadata,
    dependencies: Vec<Dependency>,
}

impl Draft {
    /// Reads a `ggen.toml`. A dependency that is named without a publisher is a package of the same publisher.
    ///
    /// # Errors
    ///
    /// If it is too long, no such file, or says what no package may say. A field that is not known is an error, since it is
    /// most likely a slip of the pen.
    pub fn from_toml(publisher: PeerId, text: &str) -> Result<Self, SourceError> {
        if text.len() > limits::MAX_SOURCE_LEN {
            return Err(SourceError::TooLarge { len: text.len(), max: limits::MAX_SOURCE_LEN });
        }
        let source: Source = toml::from_str(text).map_err(|error| SourceError::Toml(error.to_string()))?;
        let mut builder = DraftBuilder::new(PackageId::new(publisher, source.name)?, source.version);
        for (package, requirement) in source.dependencies {
            let id = if package.contains('/') {
                package.parse()
            } else {
                package.parse().and_then(|name| PackageId::new(publisher, name))
            };
            let id = id.map_err(|why| SourceError::Dependency { given: package, why })?;
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

    /// A `ggen.toml` to begin with, which [`Draft::from_toml`] reads as it is.
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

    /// The same with this readme.
    ///
    /// # Errors
    ///
    /// If the readme is too long or has control characters.
    pub fn with_readme(mut self, readme: impl Into<String>) -> Result<Self, InvalidPackage> {
        self.metadata.readme = readme.into();
        self.checked()
    }

    /// Which package it is to be a version of.
    pub fn id(&self) -> &PackageId {
        &self.id
    }

    /// Which version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What it says about itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What it needs.
    pub fn dependencies(&self) -> &[Dependency] {
        &self.dependencies
    }

    pub(super) fn into_parts(self) -> (PackageId, Version, Metadata, Vec<Dependency>) {
        (self.id, self.version, self.metadata, self.dependencies)
    }

    fn checked(self) -> Result<Self, InvalidPackage> {
        check::version(&self.version)?;
        self.metadata.check()?;
        Dependency::check_all(&self.id, &self.dependencies)?;
        let len = document::write(&(&self.metadata, &self.dependencies)).len() + REST_OF_MANIFEST;
        if len > limits::MAX_MANIFEST_LEN {
            return Err(InvalidPackage::TooLarge { len, max: limits::MAX_MANIFEST_LEN });
        }
        Ok(self)
    }
}

/// Puts a [`Draft`] together. Nothing is checked before [`DraftBuilder::build`].
#[derive(Debug, Clone)]
#[must_use]
pub struct DraftBuilder(Draft);

impl DraftBuilder {
    pub(super) fn new(id: PackageId, version: Version) -> Self {
        Self(Draft { id, version, metadata: Metadata::default(), dependencies: Vec::new() })
    }

    /// All that it says about itself, in place of what was set before.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// What to call it in a list.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.0.metadata.title = title.into();
        self
    }

    /// What it is.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.0.metadata.description = description.into();
        self
    }

    /// Its licence.
    pub fn licence(mut self, licence: impl Into<String>) -> Self {
        self.0.metadata.licence = licence.into();
        self
    }

    /// Another author.
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.0.metadata.authors.push(author.into());
        self
    }

    /// Another category.
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.0.metadata.categories.push(category.into());
        self
    }

    /// Another tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.0.metadata.tags.push(tag.into());
        self
    }

    /// A link by this name, in place of one that was set before.
    pub fn link(mut self, name: impl Into<String>, url: impl Into<String>) -> Self {
        self.0.metadata.links.insert(name.into(), url.into());
        self
    }

    /// The text of its readme.
    pub fn readme(mut self, readme: impl Into<String>) -> Self {
        self.0.metadata.readme = readme.into();
        self
    }

    /// Another package that it needs.
    pub fn dependency(mut self, package: PackageId, requirement: VersionReq) -> Self {
        self.0.dependencies.push(Dependency { package, requirement });
        self
    }

    /// The draft.
    ///
    /// # Errors
    ///
    /// If something breaks a limit: the first that does, with what was given.
    pub fn build(self) -> Result<Draft, InvalidPackage> {
        self.0.checked()
    }
}

/// A `ggen.toml`.
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

/// Why a `ggen.toml` cannot be published as it is. Its author has to change it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceError {
    /// It is longer than any manifest; nothing of it was read.
    #[error("ggen.toml has {len} bytes, the limit is {max}")]
    TooLarge {
        /// Bytes it has.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// It is no TOML, lacks a name or a version, or has a field that there is not.
    #[error("ggen.toml cannot be read: {0}")]
    Toml(String),
    /// The publisher's id is not that of an Ed25519 key.
    #[error(transparent)]
    Publisher(#[from] PackageIdError),
    /// A dependency is not `<publisher>/<name>`, nor a name.
    #[error("ggen.toml: the dependency {given:?} is no package: {why}")]
    Dependency {
        /// What it is called.
        given: String,
        /// What is wrong with it.
        why: PackageIdError,
    },
    /// It says what no package may say.
    #[error("ggen.toml: {0}")]
    Invalid(#[from] InvalidPackage),
}
