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

/// Maximum number of packages in a [`HeadStore`]: well above what a single machine installs. A full store takes some
/// 50 MB.
pub const MAX_PACKAGES: u64 = 50_000;

/// `envelope` is the head with the number `seq`; it is null after an equivocation was accepted. `other` is a head that
/// conflicts with it, if any. `touched` orders the rows by their last use.
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

/// Store of the highest head that was seen of each package, in an SQLite file. It protects this machine from peers that
/// serve outdated heads.
///
/// All methods block: call them where blocking is allowed, for example in `blocking::unblock`. A change is on the disk
/// when the method returns. Several processes may open the file at the same time. The recorded sequence number of a
/// package never decreases, unless the package is removed by [`forget`](Self::forget) or replaced.
///
/// The store holds at most [`MAX_PACKAGES`] packages. A further package replaces one of which no head was recorded for
/// a long time: a package without an equivocation, if there is any that is not kept. The replaced package then counts
/// as never seen. Packages that are [kept](Self::keep) are never replaced: keep those that are installed or published
/// on this machine.
///
/// When the store has recorded an equivocation, which is two conflicting heads signed by the publisher, it rejects
/// every head of the package, because nobody can tell which one is genuine.
/// [`accept_equivocation`](Self::accept_equivocation) ends that.
pub struct HeadStore {
    connection: Mutex<Connection>,
    capacity: u64,
}

impl HeadStore {
    /// Opens the file, or creates it. Its folder has to exist.
    ///
    /// # Errors
    ///
    /// See [`DatabaseOpenError`]. A program that continues without the file, or with an empty one, should warn its
    /// user, who loses the protection against outdated heads.
    pub fn open(path: &Path) -> Result<Self, DatabaseOpenError> {
        database::open(path, FORMAT).map(|connection| Self::with(connection, MAX_PACKAGES))
    }

    /// Checks whether a head may be used at the time `now`, without recording it. Only a head that reveals an
    /// equivocation is recorded, as a proof.
    ///
    /// # Errors
    ///
    /// If the head is rejected, or if the file cannot be read or written. In both cases the head must not be used.
    pub fn validate(&self, candidate: &SignedHead, now: SystemTime) -> Result<Accepted, HeadStoreError> {
        let known = read(&self.connection(), &candidate.head().package)?;
        match known
            .as_ref()
            .map_or(Ok(()), KnownHead::check)
            .and_then(|()| validate_head(checkpoint(known.as_ref()), candidate, now))
        {
            Ok(accepted) => Ok(accepted),
            Err(HeadRejectedError::Equivocation { .. }) => self.record(candidate),
            Err(rejected) => Err(rejected.into()),
        }
    }

    /// Records a head in one transaction, if it is the first one of its package or newer than the recorded one. The
    /// expiry is not checked: an expired head also shows how far the package has come. A head that reveals an
    /// equivocation is recorded as a proof.
    ///
    /// # Errors
    ///
    /// If the head is a [rollback](HeadRejectedError::Rollback) or a [fast-forward](HeadRejectedError::FastForward), or
    /// conflicts with the recorded one ([`Equivocation`](HeadRejectedError::Equivocation)). Once an equivocation is
    /// recorded, every head of the package is rejected, until [`accept_equivocation`](Self::accept_equivocation) or
    /// [`forget`](Self::forget). Further, if the store is [full](HeadStoreError::Full), or if the file cannot be read
    /// or written.
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
            Err(rejected) => {
                if let HeadRejectedError::Equivocation { proof } = &rejected {
                    transaction
                        .execute(
                            "UPDATE heads SET other = ?2 WHERE package = ?1 AND other IS NULL",
                            params![package.to_string(), proof.second],
                        )
                        .map_err(DatabaseError::from)?;
                    transaction.commit().map_err(DatabaseError::from)?;
                }
                return Err(rejected.into());
            }
        };
        transaction.commit().map_err(DatabaseError::from)?;
        Ok(accepted)
    }

    /// [Records](Self::record) a head, then checks whether it may be used at the time `now`. Use this method for the
    /// best head of a lookup.
    ///
    /// # Errors
    ///
    /// As for [`record`](Self::record). Also if the head has expired or is valid for too long; in that case it was
    /// recorded nevertheless.
    pub fn accept(&self, candidate: &SignedHead, now: SystemTime) -> Result<Accepted, HeadStoreError> {
        let accepted = self.record(candidate)?;
        // The chain was checked above. What is left is the time.
        validate_head(None, candidate, now)?;
        Ok(accepted)
    }

    /// Ends the rejection of a package after an equivocation, and deletes the proof. Returns whether there was an
    /// equivocation.
    ///
    /// Until a head with a higher number is recorded, any head is accepted if its sequence number is at least that of
    /// the higher one of the two conflicting heads, and at most [`MAX_JUMP`](super::MAX_JUMP) above that number. The
    /// expiry is checked as always.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written.
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

    /// Removes the package with its head, its proof of an equivocation, and its protection by [`keep`](Self::keep), as
    /// if it had never been seen. Returns whether it was in the store.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written.
    pub fn forget(&self, package: &PackageId) -> Result<bool, DatabaseError> {
        let rows = self.connection().execute("DELETE FROM heads WHERE package = ?1", [package.to_string()])?;
        Ok(rows > 0)
    }

    /// Sets whether the package is protected from replacement. A package that is recorded for the first time is not
    /// protected. Returns `false`, and changes nothing, if the package is not in the store.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written.
    pub fn keep(&self, package: &PackageId, kept: bool) -> Result<bool, DatabaseError> {
        let rows = self
            .connection()
            .execute("UPDATE heads SET kept = ?2 WHERE package = ?1", params![package.to_string(), kept])?;
        Ok(rows > 0)
    }

    /// Returns the highest recorded sequence number of the package, and the head with that number, which is missing
    /// after [`accept_equivocation`](Self::accept_equivocation). A head that is stored only as the proof of an
    /// equivocation does not count. `None` if the package is not in the store.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is damaged.
    pub fn checkpoint(&self, package: &PackageId) -> Result<Option<Checkpoint>, DatabaseError> {
        Ok(read(&self.connection(), package)?.map(|known| known.checkpoint))
    }

    /// Returns the proof of the equivocation for which the package is rejected. `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is damaged.
    pub fn equivocation(&self, package: &PackageId) -> Result<Option<EquivocationProof>, DatabaseError> {
        Ok(read(&self.connection(), package)?.and_then(|known| known.check().err()).and_then(
            |rejected| match rejected {
                HeadRejectedError::Equivocation { proof } => Some(proof),
                _ => None,
            },
        ))
    }

    /// Returns the packages that are rejected for an equivocation, in the order of their ids as text: at most `limit`,
    /// beginning with the one that follows `after`. `None` begins with the first.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is damaged.
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

    /// Returns the number of packages in the store.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is damaged.
    pub fn count(&self) -> Result<u64, DatabaseError> {
        count(&self.connection())
    }

    pub(super) fn with(connection: Connection, capacity: u64) -> Self {
        Self { connection: Mutex::new(connection), capacity }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic in another thread has rolled its transaction back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes all later writes fail.
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

/// Nullable column.
type Envelope = Option<Vec<u8>>;

/// A row.
struct KnownHead {
    checkpoint: Checkpoint,
    /// Head that conflicts with the checkpoint.
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

/// Updates the time of the last use, unless the package is among the most recent ones: each update waits for the disk.
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

/// Error of checking or recording a head.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum HeadStoreError {
    /// The head is rejected and must not be used.
    #[error(transparent)]
    Rejected(#[from] HeadRejectedError),
    /// The head of a further package cannot be recorded, because the store has [`MAX_PACKAGES`] packages, and all are
    /// [kept](HeadStore::keep). Keep fewer.
    #[error("head store is full: every package in it is kept")]
    Full,
    /// The file cannot be read or written, so the head was not checked, or not recorded. Do not use the head.
    #[error("head store failed")]
    Database(#[from] DatabaseError),
}
