use std::collections::BTreeMap;

use semver::VersionReq;
use serde::{Deserialize, Serialize};

use super::{FieldError, InvalidPackage, check, limits};
use crate::{ContentId, PackageId};

/// What a version of a package says about itself, for people. It is checked when it becomes part of a
/// [`Draft`](super::Draft) or is read as part of a [`Package`](super::Package).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// What to call it in a list: a line of up to 128 bytes. May be empty.
    pub title: String,
    /// What it is, in a paragraph of up to 1,024 bytes. May be empty.
    pub description: String,
    /// The licence, as an SPDX expression: a line of up to 128 bytes, which is not checked against SPDX's list. Empty
    /// means that none is stated.
    #[serde(alias = "license")]
    pub licence: String,
    /// Who wrote it: up to 32, each a line of up to 128 bytes.
    pub authors: Vec<String>,
    /// What it belongs to: up to 8 words in lower case, each up to 48 bytes.
    pub categories: Vec<String>,
    /// What to find it by: up to 32 words in lower case, each up to 48 bytes.
    pub tags: Vec<String>,
    /// Where to find more, by a word for it (`repository`): up to 16 `http://` or `https://` URLs.
    pub links: BTreeMap<String, String>,
    /// The text of its readme, up to 128 KiB. May be empty.
    pub readme: String,
}

impl Metadata {
    pub(super) fn check(&self) -> Result<(), InvalidPackage> {
        check::line("title", &self.title, limits::MAX_TITLE)?;
        check::lines("description", &self.description, limits::MAX_DESCRIPTION)?;
        check::line("licence", &self.licence, limits::MAX_LICENCE)?;
        check::count("authors", self.authors.len(), limits::MAX_AUTHORS)?;
        self.authors.iter().try_for_each(|author| self::author(author))?;
        check::distinct("authors", self.authors.iter())?;
        check::words("categories", &self.categories, limits::MAX_CATEGORIES)?;
        check::words("tags", &self.tags, limits::MAX_TAGS)?;
        check::count("links", self.links.len(), limits::MAX_LINKS)?;
        self.links.iter().try_for_each(|(name, url)| link(name, url))?;
        check::lines("readme", &self.readme, limits::MAX_README)?;
        Ok(())
    }
}

/// What an index keeps of the metadata of the newest version: enough for a search.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// As [`Metadata::title`].
    pub title: String,
    /// As [`Metadata::description`].
    pub description: String,
    /// As [`Metadata::authors`].
    pub authors: Vec<String>,
    /// As [`Metadata::categories`].
    pub categories: Vec<String>,
    /// As [`Metadata::tags`].
    pub tags: Vec<String>,
}

impl Summary {
    pub(super) fn check(&self) -> Result<(), InvalidPackage> {
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

/// What a package needs: another one, in a version that meets a requirement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dependency {
    /// Which package.
    pub package: PackageId,
    /// Which of its versions will do, as Cargo writes it: `^1.2`, `>=1, <3`, `*`.
    pub requirement: VersionReq,
}

impl Dependency {
    /// Checks the dependencies of a package.
    pub(super) fn check_all(package: &PackageId, dependencies: &[Self]) -> Result<(), InvalidPackage> {
        check::count("dependencies", dependencies.len(), limits::MAX_DEPENDENCIES)?;
        for dependency in dependencies {
            check::line("dependencies", &dependency.requirement.to_string(), limits::MAX_VERSION_TEXT)?;
            if dependency.package == *package {
                return Err(InvalidPackage::DependsOnItself);
            }
        }
        Ok(check::distinct("dependencies", dependencies.iter().map(|dependency| &dependency.package))?)
    }
}

/// What a version consists of: its archive, a `tar.gz` of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The archive's name.
    pub archive: ContentId,
    /// Its size, in bytes.
    pub archive_size: u64,
    /// How many files are in it.
    pub files: u64,
    /// How many bytes the files have together.
    pub unpacked_size: u64,
}

impl Contents {
    pub(super) fn check(&self) -> Result<(), InvalidPackage> {
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
    check::line("authors", author, limits::MAX_AUTHOR)
}

/// Only what a browser opens as a web page: other schemes run programs or read files, and a user before the `@` makes an
/// address look like another.
fn link(name: &str, url: &str) -> Result<(), InvalidPackage> {
    check::word("links", name)?;
    check::line("links", url, limits::MAX_URL)?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let is_plain = !url.contains(|character: char| character.is_whitespace() || "\"'<>\\`".contains(character));
    if authority.is_empty() || authority.contains('@') || !is_plain {
        return Err(InvalidPackage::NotALink { name: name.to_owned(), url: url.to_owned() });
    }
    Ok(())
}
