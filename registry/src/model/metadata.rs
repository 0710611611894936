use std::collections::BTreeMap;

use semver::VersionReq;
use serde::{Deserialize, Serialize};

use super::{FieldError, InvalidPackageError, check, limits};
use crate::{ContentId, PackageId};

/// Description of a version, for people. Its limits are checked when it becomes part of a [`Draft`](super::Draft) or is
/// parsed as part of a [`Package`](super::Package).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Title for lists: a line of up to 128 bytes. May be empty.
    pub title: String,
    /// Description: a paragraph of up to 1,024 bytes. May be empty.
    pub description: String,
    /// Licence as an SPDX expression: a line of up to 128 bytes. Its syntax and names are not checked. Empty means
    /// that no licence is stated.
    #[serde(alias = "license")]
    pub licence: String,
    /// Authors: up to 32 different lines, not blank, of up to 128 bytes each.
    pub authors: Vec<String>,
    /// Categories: up to 8 different words in lower case, without white space, of 1 to 48 bytes each.
    pub categories: Vec<String>,
    /// Tags for searches: up to 32 different words in lower case, without white space, of 1 to 48 bytes each.
    pub tags: Vec<String>,
    /// Links by their names, for example `repository`: up to 16 `http://` or `https://` URLs of up to 2,048 bytes each.
    /// A name is a word like a tag.
    pub links: BTreeMap<String, String>,
    /// Text of the readme, up to 128 KiB. May be empty.
    pub readme: String,
}

impl Metadata {
    pub(super) fn check(&self) -> Result<(), InvalidPackageError> {
        check::line("title", &self.title, limits::MAX_TITLE_LEN)?;
        check::lines("description", &self.description, limits::MAX_DESCRIPTION_LEN)?;
        check::line("licence", &self.licence, limits::MAX_LICENCE_LEN)?;
        check::count("authors", self.authors.len(), limits::MAX_AUTHORS)?;
        self.authors.iter().try_for_each(|author| self::author(author))?;
        check::distinct("authors", self.authors.iter())?;
        check::words("categories", &self.categories, limits::MAX_CATEGORIES)?;
        check::words("tags", &self.tags, limits::MAX_TAGS)?;
        check::count("links", self.links.len(), limits::MAX_LINKS)?;
        self.links.iter().try_for_each(|(name, url)| link(name, url))?;
        check::lines("readme", &self.readme, limits::MAX_README_LEN)?;
        Ok(())
    }
}

/// Part of a version's [`Metadata`] that its package's [`Index`](super::Index) contains, for searches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// See [`Metadata::title`].
    pub title: String,
    /// See [`Metadata::description`].
    pub description: String,
    /// See [`Metadata::authors`].
    pub authors: Vec<String>,
    /// See [`Metadata::categories`].
    pub categories: Vec<String>,
    /// See [`Metadata::tags`].
    pub tags: Vec<String>,
}

impl Summary {
    pub(super) fn check(&self) -> Result<(), InvalidPackageError> {
        Metadata {
            title: self.title.clone(),
            description: self.description.clone(),
            authors: self.authors.clone(),
            categories: self.categories.clone(),
            tags: self.tags.clone(),
            ..Metadata::default()
        }
        .check()
    }
}

impl From<&Metadata> for Summary {
    fn from(metadata: &Metadata) -> Self {
        let Metadata { title, description, licence: _, authors, categories, tags, links: _, readme: _ } = metadata;
        Self {
            title: title.clone(),
            description: description.clone(),
            authors: authors.clone(),
            categories: categories.clone(),
            tags: tags.clone(),
        }
    }
}

/// Dependency on another package.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dependency {
    /// Package that is needed.
    pub package: PackageId,
    /// Requirement on the version of that package, in Cargo's syntax: `^1.2`, `>=1, <3`, `*`.
    pub requirement: VersionReq,
}

impl Dependency {
    /// Checks the dependencies of a package.
    pub(super) fn check_all(package: &PackageId, dependencies: &[Self]) -> Result<(), InvalidPackageError> {
        check::count("dependencies", dependencies.len(), limits::MAX_DEPENDENCIES)?;
        for dependency in dependencies {
            check::line("dependencies", &dependency.requirement.to_string(), limits::MAX_VERSION_LEN)?;
            if dependency.package == *package {
                return Err(InvalidPackageError::DependsOnItself);
            }
        }
        Ok(check::distinct("dependencies", dependencies.iter().map(|dependency| &dependency.package))?)
    }
}

/// Description of the archive (`tar.gz`) with a version's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Content id of the archive.
    pub archive: ContentId,
    /// Size of the archive, in bytes, after compression.
    pub archive_size: u64,
    /// Number of files in the archive.
    pub files: u64,
    /// Total size of the files in the archive, in bytes, before compression.
    pub unpacked_size: u64,
}

impl Contents {
    pub(super) fn check(&self) -> Result<(), InvalidPackageError> {
        check::range("archive_size", self.archive_size, 1, limits::MAX_ARCHIVE_SIZE)?;
        check::range("files", self.files, 0, limits::MAX_FILES)?;
        check::range("unpacked_size", self.unpacked_size, 0, limits::MAX_UNPACKED_SIZE)?;
        Ok(())
    }
}

pub(super) fn author(author: &str) -> Result<(), FieldError> {
    if author.trim().is_empty() {
        return Err(FieldError::Empty { field: "authors" });
    }
    check::line("authors", author, limits::MAX_AUTHOR_LEN)
}

/// Checks a link: its URL has to open as a web page. Other schemes run programs or read files, and a user before the
/// `@` makes a URL look like that of another host.
fn link(name: &str, url: &str) -> Result<(), InvalidPackageError> {
    check::word("links", name)?;
    check::line("links", url, limits::MAX_URL_LEN)?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let is_plain = !url.contains(|character: char| character.is_whitespace() || "\"'<>\\`".contains(character));
    if authority.is_empty() || authority.contains('@') || !is_plain {
        return Err(InvalidPackageError::InvalidLink { name: name.to_owned(), url: url.to_owned() });
    }
    Ok(())
}
