use std::{
    fmt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior::Immediate, params};
use thiserror::Error;

use super::{
    Accepted, Checkpoint, EquivocationProof, HeadRejectedError, SignedHead, policy::validate_chain, validate_head,
};
use crate::{
    PackageId,
    database::{self, DatabaseError, DatabaseOpenError, Format},
};

/// How many packages are remembered: more than one machine ever installs, in some 50 MB.
pub const MAX_PACKAGES: u64 = 50_000;

/// `envelope` is the head with that number; it is null after an equivocation was forgiven. `other` is the head that
/// contradicts it, if there is one. `touched` grows from row to row: the smallest was not used for the longest time.
const FORMAT: Format = Format {
    application_id: *b"KDhd",
    steps: &["
        CREATE TABLE heads (
            package TEXT NOT NULL PRIMARY KEY,
            seq INTEGER NOT NULL,
            envelope BLOB,
            other BLOB,
            touched INTEGER NOT NULL,
            kept INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX heads_by_age ON heads (kept, other IS NOT NULL, touched);
        CREATE INDEX heads_by_touch ON heads (touched);
        CREATE INDEX heads_with_proof ON heads (package) WHERE other IS NOT NULL;
    "],
    exclusive: false,
};

/// The highest head seen of each package, in a file: so that nobody can show this machine an older one later.
///
/// All of it blocks: call it where blocking is allowed (`blocking::unblock`). What a method has changed is on the disk when
/// it returns. The file may be open in several processes at once; whatever they do, a package's number never falls, other
/// than by [`forget`](Self::forget).
///
/// At most [`MAX_PACKAGES`] are remembered. A further one takes the place of that which was not used for the longest time;
/// first of those whose publisher has done nothing wrong, and never of those that are [kept](Self::keep): keep what is
/// installed or published here.
///
/// After two heads that contradict each other the package is refused, by every method, until the user
/// [forgives](Self::accept_equivocation) it: nobody here can know which of them is the publisher's.
pub struct HeadStore {
    connection: Mutex<Connection>,
    capacity: u64,
}

impl HeadStore {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    ///
    /// See [`DatabaseOpenError`]. The memory is a protection: whoever goes on without it, or with an empty one, should say so.
    pub fn open(path: &Path) -> Result<Self, DatabaseOpenError> {
        database::open(path, FORMAT).map(|connection| Self::with(connection, MAX_PACKAGES))
    }

    /// Whether the head may be believed. Nothing is remembered of it, unless it contradicts the head that was seen: both are
    /// kept then, as a proof.
    ///
    /// # Errors
    ///
    /// If it is refused, or the file fails: it cannot be believed then, either.
    pub fn validate(&self, candidate: &SignedHead, now: SystemTime) -> Result<Accepted, HeadStoreError> {
        let known = read(&self.connection(), &candidate.head().package)?;
        match known
            .as_ref()
            .map_or(Ok(()), KnownHead::check)
            .and_then(|()| validate_head(checkpoint(known.as_ref()), candidate, now))
        {
            Ok(accepted) => Ok(accepted),
            Err(HeadRejectedError::Equivocation { .. }) => self.record(candidate),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Remembers the head if it is newer than what was seen, in one step: of two that are remembered at once, the newer one
    /// stays. It does not ask for the time: also a head that has expired shows how far its package has come.
    ///
    /// # Errors
    ///
    /// If it is refused, by anything but the time, or the file fails.
    pub fn record(&self, candidate: &SignedHead) -> Result<Accepted, HeadStoreError> {
        let package = &candidate.head().package;
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(Immediate).map_err(DatabaseError::from)?;
        let known = read(&transaction, package)?;
        let accepted = match known
            .as_ref()
            .map_or(Ok(()), KnownHead::check)
            .and_then(|()| validate_chain(checkpoint(known.as_ref()), candidate))
        {
            Ok(Accepted::First) => {
                make_room(&transaction, self.capacity)?;
                insert(&transaction, candidate)?;
                Accepted::First
            }
            Ok(Accepted::Newer) => {
                update(&transaction, candidate)?;
                Accepted::Newer
            }
            Ok(Accepted::Same) => {
                touch(&transaction, package, self.capacity)?;
                Accepted::Same
            }
            Err(refused) => {
                if let HeadRejectedError::Equivocation { proof } = &refused {
                    transaction
                        .execute(
                            "UPDATE heads SET other = ?2 WHERE package = ?1 AND other IS NULL",
                            params![package.to_string(), proof.second],
                        )
                        .map_err(DatabaseError::from)?;
                    transaction.commit().map_err(DatabaseError::from)?;
                }
                return Err(refused.into());
            }
        };
        transaction.commit().map_err(DatabaseError::from)?;
        Ok(accepted)
    }

    /// Remembers the head and says whether it may be believed now: what a reader does with the best head that it got.
    ///
    /// # Errors
    ///
    /// If it is refused, or the file fails.
    pub fn accept(&self, candidate: &SignedHead, now: SystemTime) -> Result<Accepted, HeadStoreError> {
        let accepted = self.record(candidate)?;
        // Without a mark, which it would be the same as: what is left to look at is the time.
        validate_head(None, candidate, now)?;
        Ok(accepted)
    }

    /// Takes the package again after an equivocation: any head of it that is not older than both. True if there was one.
    ///
    /// # Errors
    ///
    /// If the file fails.
    pub fn accept_equivocation(&self, package: &PackageId) -> Result<bool, DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(Immediate)?;
        let Some(KnownHead { checkpoint, other: Some(other) }) = read(&transaction, package)? else { return Ok(false) };
        let seq = checkpoint.seq.max(other.head().seq);
        transaction.execute(
            "UPDATE heads SET seq = ?2, envelope = NULL, other = NULL WHERE package = ?1",
            params![package.to_string(), to_column(seq)],
        )?;
        transaction.commit()?;
        Ok(true)
    }

    /// Remembers nothing of the package any more: as if it had never been seen. True if it had been.
    ///
    /// # Errors
    ///
    /// If the file fails.
    pub fn forget(&self, package: &PackageId) -> Result<bool, DatabaseError> {
        let rows = self.connection().execute("DELETE FROM heads WHERE package = ?1", [package.to_string()])?;
        Ok(rows > 0)
    }

    /// From now on the package never makes room for others, or may again. False if nothing of it is remembered.
    ///
    /// # Errors
    ///
    /// If the file fails.
    pub fn keep(&self, package: &PackageId, kept: bool) -> Result<bool, DatabaseError> {
        let rows = self
            .connection()
            .execute("UPDATE heads SET kept = ?2 WHERE package = ?1", params![package.to_string(), kept])?;
        Ok(rows > 0)
    }

    /// What was seen of the package.
    ///
    /// # Errors
    ///
    /// If the file fails.
    pub fn checkpoint(&self, package: &PackageId) -> Result<Option<Checkpoint>, DatabaseError> {
        Ok(read(&self.connection(), package)?.map(|known| known.checkpoint))
    }

    /// The contradiction that the package is refused for.
    ///
    /// # Errors
    ///
    /// If the file fails.
    pub fn equivocation(&self, package: &PackageId) -> Result<Option<EquivocationProof>, DatabaseError> {
        Ok(read(&self.connection(), package)?.and_then(|known| known.check().err()).and_then(|refused| match refused {
            HeadRejectedError::Equivocation { proof } => Some(proof),
            _ => None,
        }))
    }

    /// The packages that are refused for a contradiction, in their order, from after this one on; at most `limit`.
    ///
    /// # Errors
    ///
    /// If the file fails.
    pub fn equivocations(&self, after: Option<&PackageId>, limit: u32) -> Result<Vec<PackageId>, DatabaseError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT package FROM heads WHERE other IS NOT NULL AND package > ?1 ORDER BY package LIMIT ?2",
        )?;
        let after = after.map(ToString::to_string).unwrap_or_default();
        let rows = statement.query_map(params![after, limit], |row| row.get::<_, String>(0))?;
        rows.map(|package| package?.parse().map_err(|_| DatabaseError::Damaged("a package's name".to_owned())))
            .collect()
    }

    /// How many packages are remembered.
    ///
    /// # Errors
    ///
    /// If the file fails.
    pub fn count(&self) -> Result<u64, DatabaseError> {
        count(&self.connection())
    }

    pub(super) fn with(connection: Connection, capacity: u64) -> Self {
        Self { connection: Mutex::new(connection), capacity }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A transaction of somebody who has panicked was rolled back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file for one test, in which nothing can be written any more.
    #[cfg(test)]
    pub(super) fn break_it(&self) {
        self.connection().pragma_update(None, "query_only", true).unwrap();
    }

    #[cfg(test)]
    pub(super) fn execute(&self, sql: &str) {
        self.connection().execute_batch(sql).unwrap();
    }
}

impl fmt::Debug for HeadStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadStore").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// A column that may be null.
type Envelope = Option<Vec<u8>>;

/// A row.
struct KnownHead {
    checkpoint: Checkpoint,
    /// Contradicts the mark's head.
    other: Option<SignedHead>,
}

impl KnownHead {
    fn check(&self) -> Result<(), HeadRejectedError> {
        let proof =
            self.checkpoint.head.as_ref().zip(self.other.as_ref()).and_then(|(a, b)| EquivocationProof::of(a, b));
        proof.map_or(Ok(()), |proof| Err(HeadRejectedError::Equivocation { proof }))
    }
}

fn checkpoint(known: Option<&KnownHead>) -> Option<&Checkpoint> {
    known.map(|known| &known.checkpoint)
}

fn read(connection: &Connection, package: &PackageId) -> Result<Option<KnownHead>, DatabaseError> {
    let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let row: Option<(i64, Envelope, Envelope)> = connection
        .prepare_cached("SELECT seq, envelope, other FROM heads WHERE package = ?1")?
        .query_row([package.to_string()], columns)
        .optional()?;
    let Some((seq, envelope, other)) = row else { return Ok(None) };
    let damaged = |what: &str| DatabaseError::Damaged(format!("{what} of {package}"));
    let head = |bytes: Envelope| {
        bytes.map(|bytes| SignedHead::verify(&bytes, package)).transpose().map_err(|_| damaged("a head"))
    };
    let seq = u64::try_from(seq).map_err(|_| damaged("the number"))?;
    let (head, other) = (head(envelope)?, head(other)?);
    if head.as_ref().is_some_and(|head| head.head().seq != seq) {
        return Err(damaged("the number"));
    }
    Ok(Some(KnownHead { checkpoint: Checkpoint { seq, head }, other }))
}

fn insert(connection: &Connection, head: &SignedHead) -> Result<(), DatabaseError> {
    connection
        .prepare_cached("INSERT INTO heads (package, seq, envelope, touched, kept) VALUES (?1, ?2, ?3, ?4, 0)")?
        .execute(params![
            head.head().package.to_string(),
            to_column(head.head().seq),
            head.bytes(),
            next_touch(connection)?
        ])?;
    Ok(())
}

fn update(connection: &Connection, head: &SignedHead) -> Result<(), DatabaseError> {
    connection.prepare_cached("UPDATE heads SET seq = ?2, envelope = ?3, touched = ?4 WHERE package = ?1")?.execute(
        params![head.head().package.to_string(), to_column(head.head().seq), head.bytes(), next_touch(connection)?],
    )?;
    Ok(())
}

/// Notes that the package was used. Only if it is not among the last ones already: each note waits for the disk.
fn touch(connection: &Connection, package: &PackageId, capacity: u64) -> Result<(), DatabaseError> {
    let next = next_touch(connection)?;
    connection
        .prepare_cached("UPDATE heads SET touched = ?2 WHERE package = ?1 AND touched < ?2 - ?3")?
        .execute(params![package.to_string(), next, to_column(capacity / 4)])?;
    Ok(())
}

fn next_touch(connection: &Connection) -> Result<i64, DatabaseError> {
    Ok(connection.prepare_cached("SELECT coalesce(max(touched), 0) + 1 FROM heads")?.query_row([], |row| row.get(0))?)
}

fn make_room(connection: &Connection, capacity: u64) -> Result<(), HeadStoreError> {
    if count(connection)? < capacity {
        return Ok(());
    }
    let dropped = connection
        .prepare_cached(
            "DELETE FROM heads WHERE rowid =
             (SELECT rowid FROM heads WHERE kept = 0 ORDER BY other IS NOT NULL, touched LIMIT 1)",
        )
        .and_then(|mut statement| statement.execute([]))
        .map_err(DatabaseError::from)?;
    if dropped == 0 { Err(HeadStoreError::Full) } else { Ok(()) }
}

fn count(connection: &Connection) -> Result<u64, DatabaseError> {
    let rows: i64 = connection.prepare_cached("SELECT count(*) FROM heads")?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(rows).unwrap_or_default())
}

fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Why a head is not believed, or could not be remembered.
#[derive(Debug, Clone, Error)]
pub enum HeadStoreError {
    /// It contradicts what was seen, or the time.
    #[error(transparent)]
    Rejected(#[from] HeadRejectedError),
    /// Every package in the memory is kept. Keep fewer.
    #[error("the memory of heads is full of packages that are kept")]
    Full,
    /// The file cannot be read or written: it is not known what was seen.
    #[error("the memory of heads cannot be used")]
    Database(#[from] DatabaseError),
}
