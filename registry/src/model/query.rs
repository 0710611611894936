use semver::Version;
use serde::{Deserialize, Serialize};

use super::{FieldError, Summary, check, limits, metadata};
use crate::PackageId;

/// What to search for. An empty text finds every package that the filters leave.
///
/// One that comes from a peer is checked as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "QueryBuilder", into = "QueryBuilder")]
pub struct Query(QueryBuilder);

impl Query {
    /// A query for this text, without filters, of 20 hits.
    ///
    /// # Errors
    ///
    /// If the text has more than 256 bytes or control characters.
    pub fn text(text: impl Into<String>) -> Result<Self, FieldError> {
        Self::builder().text(text).build()
    }

    /// Begins a query for everything.
    pub fn builder() -> QueryBuilder {
        QueryBuilder::default()
    }

    /// The words to look for, as somebody typed them.
    pub fn words(&self) -> &str {
        &self.0.text
    }

    /// Only packages of all these categories.
    pub fn categories(&self) -> &[String] {
        &self.0.categories
    }

    /// Only packages with all these tags.
    pub fn tags(&self) -> &[String] {
        &self.0.tags
    }

    /// Only packages of this author, as the packages write it.
    pub fn author(&self) -> Option<&str> {
        self.0.author.as_deref()
    }

    /// The most hits wanted.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// How many of the best hits are to be passed over.
    pub fn offset(&self) -> usize {
        self.0.offset
    }
}

/// Puts a [`Query`] together. Nothing is checked before [`QueryBuilder::build`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[must_use]
pub struct QueryBuilder {
    text: String,
    categories: Vec<String>,
    tags: Vec<String>,
    author: Option<String>,
    limit: usize,
    offset: usize,
}

impl Default for QueryBuilder {
    fn default() -> Self {
        Self {
            text: String::new(),
            categories: Vec::new(),
            tags: Vec::new(),
            author: None,
            limit: limits::DEFAULT_PAGE,
            offset: 0,
        }
    }
}

impl QueryBuilder {
    /// The words to look for, all of which have to be found; the last may be the beginning of a word. Up to 256 bytes.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Only packages of this category too. Up to 8.
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.categories.push(category.into());
        self
    }

    /// Only packages with this tag too. Up to 8.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Only packages of this author.
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }

    /// The most hits wanted, 1 to 100. Default: 20.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// How many of the best hits are passed over, up to 10,000. Default: none.
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    /// The query.
    ///
    /// # Errors
    ///
    /// If something breaks a limit: the first that does, with what was given.
    pub fn build(self) -> Result<Query, FieldError> {
        check::line("text", &self.text, limits::MAX_QUERY_TEXT)?;
        check::words("categories", &self.categories, limits::MAX_FILTERS)?;
        check::words("tags", &self.tags, limits::MAX_FILTERS)?;
        self.author.as_deref().map_or(Ok(()), metadata::author)?;
        check::range("limit", self.limit as u64, 1, limits::MAX_PAGE as u64)?;
        check::range("offset", self.offset as u64, 0, limits::MAX_OFFSET as u64)?;
        Ok(Query(self))
    }
}

impl TryFrom<QueryBuilder> for Query {
    type Error = FieldError;

    fn try_from(builder: QueryBuilder) -> Result<Self, FieldError> {
        builder.build()
    }
}

impl From<Query> for QueryBuilder {
    fn from(query: Query) -> Self {
        query.0
    }
}

/// A package that a search has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchHit {
    /// Which package.
    pub package: PackageId,
    /// Its newest version, as far as is known here.
    pub version: Version,
    /// What it says about itself.
    pub summary: Summary,
    /// When that version was published, in unix seconds, as its publisher says.
    pub updated: u64,
    /// How well it matches, more is better. To be compared within one answer only; 0 if there was no text to match.
    pub score: f64,
}

/// A page of hits, best first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchPage {
    /// The hits of this page.
    pub hits: Vec<SearchHit>,
    /// How many there are on all pages.
    pub total: usize,
}
