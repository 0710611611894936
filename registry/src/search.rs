//! Full-text search over the packages that are known here.

#[cfg(test)]
mod tests;
mod words;

use std::{path::PathBuf, time::SystemTime};

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter, types::Value};
use semver::Version;

use crate::{
    Index, PackageId, Query, SearchHit, SearchPage, StorageError, Summary, database::Format, storage::Database, unix,
};

/// Maximum length of the indexed part of a readme, in bytes. A readme describes its package at the beginning.
const MAX_INDEXED_README_LEN: usize = 16 * 1024;

/// Exclusive: another process would not see new entries. The application id stays as it is: existing files have it.
const FORMAT: Format = Format { application_id: *b"GGsx", steps: &[SCHEMA], exclusive: true };

/// The columns of `words` are in the order of their weights in [`search`]. They are indexed but not stored; the fields
/// of a hit are in `packages`.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE packages (
        rowid INTEGER PRIMARY KEY,
        package TEXT NOT NULL UNIQUE,
        version TEXT NOT NULL,
        summary TEXT NOT NULL,
        updated INTEGER NOT NULL,
        seen INTEGER NOT NULL
    );
    CREATE INDEX packages_by_age ON packages (seen, rowid);
    CREATE TABLE labels (
        kind INTEGER NOT NULL,
        label TEXT NOT NULL,
        package INTEGER NOT NULL,
        PRIMARY KEY (kind, label, package)
    ) WITHOUT ROWID;
    CREATE INDEX labels_by_package ON labels (package);
    CREATE VIRTUAL TABLE words USING fts5 (
        name, title, tags, description, readme,
        content = '', contentless_delete = 1, prefix = '2 3', tokenize = 'unicode61 remove_diacritics 2'
    );
";

/// Kinds of labels.
const CATEGORY: i64 = 0;
const TAG: i64 = 1;
const AUTHOR: i64 = 2;

/// Entry of a [`SearchIndex`]: one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchEntry {
    /// The package.
    pub package: PackageId,
    /// Version that the entry describes.
    pub version: Version,
    /// Summary of the package, usually that of this version.
    pub summary: Summary,
    /// Readme of the version, of which only the first 16 KiB are indexed. Empty if it is unknown.
    pub readme: String,
    /// Time of the version's publication according to the publisher, in Unix seconds.
    pub updated: u64,
}

impl SearchEntry {
    /// Returns the entry of a package's [current](Index::current) version, with the given readme and the index's
    /// [summary](Index::summary), which after a yank may be that of another version. `None` if the index has no version
    /// that is not yanked.
    pub fn from_index(index: &Index, readme: String) -> Option<Self> {
        let (version, entry) = index.current()?;
        let (package, summary) = (index.package().clone(), index.summary().clone());
        Some(Self { package, version: version.clone(), summary, readme, updated: entry.published })
    }
}

/// Full-text index of packages in SQLite, in a file or in memory. Cloning is cheap, and all clones are the same index.
///
/// A package is found as soon as [`upsert`](Self::upsert) returns. An index that exceeds its capacity evicts the
/// packages with the oldest `now` of their last `upsert` or [`insert`](Self::insert), possibly the new package itself.
///
/// # Example
///
/// ```
/// use std::time::SystemTime;
///
/// use kadence_registry::{PackageId, Query, SearchEntry, SearchIndex, Summary};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # futures::executor::block_on(async {
/// let publisher = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
/// let entry = SearchEntry {
///     package: PackageId::new(publisher, "left-pad".parse()?)?,
///     version: "1.0.0".parse()?,
///     summary: Summary { title: "Pads on the left".to_owned(), ..Summary::default() },
///     readme: String::new(),
///     updated: 0,
/// };
/// let index = SearchIndex::in_memory(SearchIndex::DEFAULT_CAPACITY).await?;
/// index.upsert(entry, SystemTime::now()).await?;
///
/// let page = index.search(&Query::text("pads")?).await?;
/// assert_eq!((page.total, page.hits[0].package.name().as_str()), (1, "left-pad"));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SearchIndex {
    database: Database,
    capacity: usize,
}

impl SearchIndex {
    /// Suggested capacity for an index to which any peer can add packages: 50,000. With 3 kB of text for each package,
    /// the index takes 180 MB, and a search takes some milliseconds, or a tenth of a second if half of the packages
    /// match.
    pub const DEFAULT_CAPACITY: usize = 50_000;

    /// Opens the index in a file, and creates the file if it does not exist. Its folder has to exist. `capacity` is the
    /// maximum number of packages; packages above it are evicted at the next insertion.
    ///
    /// # Errors
    ///
    /// See [`StorageError`]: the file is already open, damaged, of another kind, of a later format, or cannot be read
    /// or written. A damaged index can be deleted and built again from the packages.
    pub async fn open(file: impl Into<PathBuf>, capacity: usize) -> Result<Self, StorageError> {
        Ok(Self { database: Database::open(file.into(), FORMAT).await?, capacity })
    }

    /// Creates an index in memory, for at most `capacity` packages. The content is lost when the index and all of its
    /// clones were dropped.
    ///
    /// # Errors
    ///
    /// If there is not enough memory.
    pub async fn in_memory(capacity: usize) -> Result<Self, StorageError> {
        Ok(Self { database: Database::in_memory(FORMAT).await?, capacity })
    }

    /// Adds a package, or replaces its entry. `now` is recorded with the entry: the oldest entries are evicted first.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. The index is unchanged then.
    pub async fn upsert(&self, entry: SearchEntry, now: SystemTime) -> Result<(), StorageError> {
        let capacity = self.capacity;
        let seen = unix::seconds(now);
        self.database.transaction(move |database| upsert(database, &entry, seen, capacity)).await
    }

    /// Adds a package if it has no entry yet. `now` is recorded with the entry: the oldest entries are evicted first.
    /// Returns `false` if the package had an entry, which then stays unchanged.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. The index is unchanged then.
    pub async fn insert(&self, entry: SearchEntry, now: SystemTime) -> Result<bool, StorageError> {
        let capacity = self.capacity;
        let seen = unix::seconds(now);
        let insert = move |database: &rusqlite::Transaction<'_>| {
            let mut existing = database.prepare_cached("SELECT 1 FROM packages WHERE package = ?")?;
            if existing.exists([entry.package.to_string()])? {
                return Ok(false);
            }
            upsert(database, &entry, seen, capacity).map(|()| true)
        };
        self.database.transaction(insert).await
    }

    /// Removes a package. Returns whether it had an entry.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. The index is unchanged then.
    pub async fn remove(&self, package: &PackageId) -> Result<bool, StorageError> {
        let package = package.clone();
        self.database.transaction(move |database| remove(database, &package)).await
    }

    /// Returns a page of the packages that match, best first.
    ///
    /// A word in the name counts most, then one in the title, in tags or categories, in the description or an author,
    /// and in the readme. Hits of equal score, and all hits of a query without text, are in the order of their ids as
    /// text. A text that is not blank, but has no letter or digit, matches nothing.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is damaged.
    pub async fn search(&self, query: &Query) -> Result<SearchPage, StorageError> {
        let query = query.clone();
        self.database.transaction(move |database| search(database, &query)).await
    }

    /// Returns the number of packages.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub async fn len(&self) -> Result<usize, StorageError> {
        let count = |database: &rusqlite::Transaction<'_>| {
            database.query_row("SELECT count(*) FROM packages", [], |row| row.get(0))
        };
        self.database.transaction(count).await
    }

    /// Returns whether the index is empty.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub async fn is_empty(&self) -> Result<bool, StorageError> {
        Ok(self.len().await? == 0)
    }
}

pub(crate) fn upsert(database: &Connection, entry: &SearchEntry, seen: u64, capacity: usize) -> rusqlite::Result<()> {
    let SearchEntry { package, version, summary, readme, updated } = entry;
    remove(database, package)?;
    let summary_json = serde_json::to_string(summary).unwrap_or_default();
    // Times in Unix seconds up to the year 9999 fit; later ones are capped.
    let (updated, seen) = (signed(*updated), signed(seen));
    database
        .prepare_cached("INSERT INTO packages (package, version, summary, updated, seen) VALUES (?, ?, ?, ?, ?)")?
        .execute(params![package.to_string(), version.to_string(), summary_json, updated, seen])?;
    let row = database.last_insert_rowid();
    let Summary { title, description, authors, categories, tags } = summary;
    let mut label = database.prepare_cached("INSERT OR IGNORE INTO labels (kind, label, package) VALUES (?, ?, ?)")?;
    for (kind, labels) in [(CATEGORY, categories), (TAG, tags), (AUTHOR, authors)] {
        for text in labels {
            label.execute(params![kind, text, row])?;
        }
    }
    database
        .prepare_cached("INSERT INTO words (rowid, name, title, tags, description, readme) VALUES (?, ?, ?, ?, ?, ?)")?
        .execute(params![
            row,
            package.name().as_str(),
            title,
            format!("{} {}", tags.join(" "), categories.join(" ")),
            format!("{description} {}", authors.join(" ")),
            prefix(readme),
        ])?;
    shrink(database, capacity)
}

pub(crate) fn remove(database: &Connection, package: &PackageId) -> rusqlite::Result<bool> {
    let row = database
        .prepare_cached("SELECT rowid FROM packages WHERE package = ?")?
        .query_row([package.to_string()], |row| row.get(0))
        .optional()?;
    row.map_or(Ok(false), |row| remove_row(database, row).map(|()| true))
}

pub(crate) fn search(database: &Connection, query: &Query) -> rusqlite::Result<SearchPage> {
    let Some(text) = words::expression(query.words()) else { return Ok(SearchPage::default()) };
    let mut values = Vec::new();
    let mut conditions = vec!["1"];
    let from = if text.is_empty() {
        "packages AS p"
    } else {
        conditions.push("words MATCH ?");
        values.push(Value::from(text.clone()));
        "words JOIN packages AS p ON p.rowid = words.rowid"
    };
    let labels = |kind: i64, labels: &[String]| labels.iter().map(|label| (kind, label.clone())).collect::<Vec<_>>();
    let author = query.author().map(str::to_owned);
    let filters = [labels(CATEGORY, query.categories()), labels(TAG, query.tags()), labels(AUTHOR, author.as_slice())];
    for (kind, label) in filters.into_iter().flatten() {
        conditions.push("EXISTS (SELECT 1 FROM labels AS l WHERE l.kind = ? AND l.label = ? AND l.package = p.rowid)");
        values.extend([Value::from(kind), Value::from(label)]);
    }
    let conditions = conditions.join(" AND ");

    let count = format!("SELECT count(*) FROM {from} WHERE {conditions}");
    let total = database.prepare_cached(&count)?.query_row(params_from_iter(values.iter()), |row| row.get(0))?;
    // One weight for each column: name, title, tags, description, readme.
    let score = if text.is_empty() { "0.0" } else { "-bm25(words, 16.0, 8.0, 4.0, 2.0, 1.0)" };
    let page = format!(
        "SELECT p.package, p.version, p.summary, p.updated, {score} AS score FROM {from} WHERE {conditions}
         ORDER BY score DESC, p.package LIMIT ? OFFSET ?"
    );
    values.extend([Value::from(signed(query.limit() as u64)), Value::from(signed(query.offset() as u64))]);
    let mut page = database.prepare_cached(&page)?;
    let hits = page.query_map(params_from_iter(values.iter()), hit)?.collect::<rusqlite::Result<_>>()?;
    Ok(SearchPage { hits, total })
}

fn hit(row: &Row<'_>) -> rusqlite::Result<SearchHit> {
    fn parsed<T, E: std::error::Error + Send + Sync + 'static>(
        column: usize,
        row: &Row<'_>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> rusqlite::Result<T> {
        let text: String = row.get(column)?;
        let other =
            |error: E| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
        parse(&text).map_err(other)
    }
    Ok(SearchHit {
        package: parsed(0, row, str::parse)?,
        version: parsed(1, row, str::parse)?,
        summary: parsed(2, row, |json| serde_json::from_str(json))?,
        updated: u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default(),
        score: row.get(4)?,
    })
}

/// Evicts the packages with the oldest updates until there are at most `capacity`.
fn shrink(database: &Connection, capacity: usize) -> rusqlite::Result<()> {
    let count: usize = database.prepare_cached("SELECT count(*) FROM packages")?.query_row([], |row| row.get(0))?;
    for _ in capacity..count {
        let oldest = "SELECT rowid FROM packages ORDER BY seen, rowid LIMIT 1";
        let row = database.prepare_cached(oldest)?.query_row([], |row| row.get(0))?;
        remove_row(database, row)?;
    }
    Ok(())
}

fn remove_row(database: &Connection, row: i64) -> rusqlite::Result<()> {
    for from in [
        "DELETE FROM words WHERE rowid = ?",
        "DELETE FROM labels WHERE package = ?",
        "DELETE FROM packages WHERE rowid = ?",
    ] {
        database.prepare_cached(from)?.execute([row])?;
    }
    Ok(())
}

fn prefix(text: &str) -> &str {
    let end = (0..=MAX_INDEXED_README_LEN.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
