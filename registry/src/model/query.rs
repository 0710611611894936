use semver::Version;
use serde::{Deserialize, Serialize};

use super::{FieldError, Summary, check, limits, metadata};
use crate::PackageId;

/// Search query. Without text it matches every package that passes the filters.
///
/// A query from a peer is checked when it is deserialised.
///
/// # Example
///
/// ```
/// use kadence_registry::Query;
///
/// # fn main() -> Result<(), kadence_registry::FieldError> {
/// let query = Query::builder().text("left pad").tag("padding").limit(10).build()?;
/// assert_eq!(query.words(), "left pad");
/// assert!(Query::builder().limit(0).build().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "QueryBuilder", into = "QueryBuilder")]
pub struct Query(QueryBuilder);

impl Query {
    /// Returns a query for a text, without filters and with the default limit of 20 hits.
    ///
    /// # Errors
    ///
    /// If the text is longer than 256 bytes or contains control characters.
    pub fn text(text: impl Into<String>) -> Result<Self, FieldError> {
        Self::builder().text(text).build()
    }

    /// Returns a builder of a query that matches every package.
    pub fn builder() -> QueryBuilder {
        QueryBuilder::default()
    }

    /// Words to search for, as they were typed.
    pub fn words(&self) -> &str {
        &self.0.text
    }

    /// Filter: packages that belong to all of the categories.
    pub fn categories(&self) -> &[String] {
        &self.0.categories
    }

    /// Filter: packages that have all of the tags.
    pub fn tags(&self) -> &[String] {
        &self.0.tags
    }

    /// Filter: packages of the author. The comparison is exact. `None`: any author.
    pub fn author(&self) -> Option<&str> {
        self.0.author.as_deref()
    }

    /// Maximum number of hits.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Number of the best hits to skip.
    pub fn offset(&self) -> usize {
        self.0.offset
    }
}

/// Builder of a [`Query`]. Nothing is checked before [`QueryBuilder::build`].
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
            limit: limits::DEFAULT_PAGE_SIZE,
            offset: 0,
        }
    }
}

impl QueryBuilder {
    /// Sets the words to search for, up to 256 bytes. A hit contains all of the words; the last one may be the
    /// beginning of a word.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Adds a category to the filter, up to 8.
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.categories.push(category.into());
        self
    }

    /// Adds a tag to the filter, up to 8.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets the author to filter by.
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }

    /// Sets the maximum number of hits, from 1 to 100. Default: 20.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the number of the best hits to skip, up to 10,000. Default: 0.
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    /// Checks the limits and returns the query.
    ///
    /// # Errors
    ///
    /// The first limit that is broken.
    pub fn build(self) -> Result<Query, FieldError> {
        check::line("text", &self.text, limits::MAX_QUERY_LEN)?;
        check::words("categories", &self.categories, limits::MAX_FILTERS)?;
        check::words("tags", &self.tags, limits::MAX_FILTERS)?;
        self.author.as_deref().map_or(Ok(()), metadata::author)?;
        check::range("limit", self.limit as u64, 1, limits::MAX_PAGE_SIZE as u64)?;
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

/// A package that matches a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchHit {
    /// The package.
    pub package: PackageId,
    /// Newest version that is known here.
    pub version: Version,
    /// Summary of that version.
    pub summary: Summary,
    /// Time of that version's publication according to the publisher, in Unix seconds.
    pub updated: u64,
    /// Relevance: higher is better. Comparable within one page of results only; 0 if the query has no text.
    pub score: f64,
}

/// A page of hits, best first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchPage {
    /// Hits of this page.
    pub hits: Vec<SearchHit>,
    /// Number of hits on all pages.
    pub total: usize,
}
