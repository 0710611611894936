use semver::Version;
use serde::{Deserialize, Serialize};

use super::{FieldError, Summary, check, limits, metadata};
use crate::PackageId;

/// Search query: words, filters, and a page of the result. With a blank text it matches every package that passes the
/// filters.
///
/// Deserialising checks the limits, so that a query from a peer is within them, too.
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
    /// Returns a query for the words of a text, without filters, and for the first 20 hits.
    ///
    /// # Errors
    ///
    /// If the text is longer than 256 bytes or contains line breaks or another forbidden character
    /// ([`FieldError::Character`]).
    pub fn text(text: impl Into<String>) -> Result<Self, FieldError> {
        Self::builder().text(text).build()
    }

    /// Returns a builder of a query that matches every package.
    pub fn builder() -> QueryBuilder {
        QueryBuilder::default()
    }

    /// Text to search for, as it was given to the builder. Blank: no search for words.
    pub fn words(&self) -> &str {
        &self.0.text
    }

    /// Filter: only packages that belong to all of the categories. Empty: no filter.
    pub fn categories(&self) -> &[String] {
        &self.0.categories
    }

    /// Filter: only packages that have all of the tags. Empty: no filter.
    pub fn tags(&self) -> &[String] {
        &self.0.tags
    }

    /// Filter: only packages that list this author, in exactly this spelling. `None`: no filter.
    pub fn author(&self) -> Option<&str> {
        self.0.author.as_deref()
    }

    /// Maximum number of hits to return, from 1 to 100.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Number of the best hits to skip, up to 10,000.
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
    /// Sets the words to search for, up to 256 bytes in total. A hit contains all of the words. Only letters and digits
    /// are compared: `left-pad` finds `left` followed by `pad`, and `c++` counts as `c`. Words without a letter or digit
    /// are ignored; if that leaves no word of a text that is not blank, nothing matches. Unless the text ends with white
    /// space, the last word also matches longer words that begin with it. Default: empty.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Adds a category to the filter, up to 8 different ones. Each is a word in lower case of up to 48 bytes.
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.categories.push(category.into());
        self
    }

    /// Adds a tag to the filter, up to 8 different ones. Each is a word in lower case of up to 48 bytes.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets the author to filter by, of up to 128 bytes. The spelling has to be the same as in the package. Default: no
    /// filter.
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }

    /// Sets the maximum number of hits to return, from 1 to 100. Default: 20.
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
    /// The first value that is invalid or exceeds a limit.
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

/// Package that matches a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchHit {
    /// The package.
    pub package: PackageId,
    /// Version in the search index. A newer one may exist that this index has not learned of.
    pub version: Version,
    /// Summary in the search index.
    pub summary: Summary,
    /// Time of publication of `version` according to the publisher, in Unix seconds. On a network, until the package's
    /// index has been read, the time of its announcement.
    pub updated: u64,
    /// Relevance: higher is better. Only scores from the same search can be compared. 0 if the query has no text.
    pub score: f64,
}

/// A page of hits, best first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchPage {
    /// Hits of this page.
    pub hits: Vec<SearchHit>,
    /// Number of packages that match the query, on all pages together.
    pub total: usize,
}
