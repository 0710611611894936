use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use rusqlite::Connection;

use super::*;

const FIRST: Format = Format { application_id: *b"TST1", steps: &["CREATE TABLE a (x INTEGER) STRICT"] };
const SECOND: Format = Format {
    application_id: *b"TST1",
    steps: &["CREATE TABLE a (x INTEGER) STRICT", "CREATE TABLE b (y TEXT NOT NULL) STRICT"],
};
const OTHER: Format = Format { application_id: *b"TST2", steps: FIRST.steps };

fn open(path: &Path, format: Format) -> Result<Connection, DatabaseOpenError> {
    OpenOptions::new(format).open(path)
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.db");
    (folder, path)
}

#[test]
fn a_file_is_created_reopened_and_upgraded() {
    let (_folder, path) = file();
    open(&path, FIRST).unwrap().execute("INSERT INTO a VALUES (7)", []).unwrap();
    let connection = open(&path, SECOND).unwrap();
    connection.execute("INSERT INTO b VALUES ('seven')", []).unwrap();
    let x: i64 = connection.query_row("SELECT x FROM a", [], |row| row.get(0)).unwrap();
    assert_eq!(x, 7);
    drop(connection);
    assert!(open(&path, SECOND).is_ok());
    let error = open(&path, FIRST).unwrap_err();
    assert!(matches!(error, DatabaseOpenError::Version { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn a_commit_is_synced_unless_only_the_process_may_end() {
    let (_folder, path) = file();
    for (durability, expected) in [(Durability::Power, 2), (Durability::Process, 1)] {
        let connection = OpenOptions::new(FIRST).durability(durability).open(&path).unwrap();
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", expected));
    }
}

#[test]
fn files_of_another_kind_are_rejected_and_left_unchanged() {
    let (_folder, path) = file();
    drop(open(&path, OTHER).unwrap());
    assert!(matches!(open(&path, FIRST), Err(DatabaseOpenError::Foreign { .. })));
    let text = "this is a text, and no database at all. ".repeat(20);
    fs::write(&path, &text).unwrap();
    assert!(matches!(open(&path, FIRST), Err(DatabaseOpenError::Foreign { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    // A database without an application id.
    let (_folder, path) = file();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE c (z)").unwrap();
    let bytes = fs::read(&path).unwrap();
    assert!(matches!(open(&path, FIRST), Err(DatabaseOpenError::Foreign { .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_damaged_file_is_an_error() {
    let (_folder, path) = file();
    let connection = open(&path, FIRST).unwrap();
    for x in 0..5000 {
        connection.execute("INSERT INTO a VALUES (?1)", [x]).unwrap();
    }
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    for check in [IntegrityCheck::Quick, IntegrityCheck::Full] {
        let error = OpenOptions::new(FIRST).check(check).open(&path).unwrap_err();
        assert!(matches!(error, DatabaseOpenError::Damaged { .. }), "{error:?}");
    }
}

#[test]
fn a_path_that_cannot_be_opened_is_an_error() {
    let (folder, _) = file();
    let error = open(&folder.path().join("no/such/folder"), FIRST).unwrap_err();
    assert!(matches!(error, DatabaseOpenError::Failed { error: DatabaseError::Failed(_), .. }), "{error:?}");
    assert!(matches!(open(Path::new(""), FIRST), Err(DatabaseOpenError::Failed { .. })));
}

#[test]
fn many_connections_can_open_a_new_file_at_once() {
    let (_folder, path) = file();
    let threads: Vec<_> = (0..8)
        .map(|x| {
            let path = path.clone();
            thread::spawn(move || open(&path, FIRST).unwrap().execute("INSERT INTO a VALUES (?1)", [x]).unwrap())
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 1);
    }
    let rows: i64 = open(&path, FIRST).unwrap().query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 8);
}

#[test]
fn errors_are_told_apart() {
    let of = |code| DatabaseError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
    assert!(matches!(of(rusqlite::ffi::SQLITE_BUSY), DatabaseError::Busy));
    assert!(matches!(of(rusqlite::ffi::SQLITE_FULL), DatabaseError::Full));
    assert!(matches!(of(rusqlite::ffi::SQLITE_CORRUPT), DatabaseError::Damaged(_)));
    assert!(matches!(of(rusqlite::ffi::SQLITE_NOTADB), DatabaseError::Foreign));
    assert!(matches!(of(rusqlite::ffi::SQLITE_IOERR), DatabaseError::Failed(_)));
    let connection = OpenOptions::new(SECOND).open_in_memory().unwrap();
    connection.execute("INSERT INTO b VALUES ('seven')", []).unwrap();
    let error = connection.query_row("SELECT y FROM b", [], |row| row.get::<_, i64>(0)).unwrap_err();
    assert!(matches!(DatabaseError::from(error), DatabaseError::Damaged(_)));
}

#[test]
fn an_exclusive_connection_has_the_file_alone() {
    let (_folder, path) = file();
    let options = OpenOptions::new(FIRST).exclusive(true);
    let first = options.open(&path).unwrap();
    assert!(matches!(options.open(&path), Err(DatabaseOpenError::InUse { .. })));
    drop(first);
    options.open(&path).unwrap();
}

#[test]
fn a_file_lock_holds_for_all_names_of_a_file() {
    let (folder, path) = file();
    fs::write(&path, []).unwrap();
    let lock = FileLock::acquire(&path).unwrap();
    let detour = folder.path().join(".").join("file.db");
    assert!(matches!(FileLock::acquire(&detour), Err(DatabaseOpenError::InUse { .. })));
    drop(lock);
    FileLock::acquire(&detour).unwrap();
    let nowhere = FileLock::acquire(&folder.path().join("no/such/file"));
    assert!(matches!(nowhere, Err(DatabaseOpenError::Failed { .. })), "{nowhere:?}");
}

#[test]
fn a_version_that_is_no_number_of_steps_is_not_known() {
    let (_folder, path) = file();
    drop(open(&path, FIRST).unwrap());
    for version in [-1, 7] {
        Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
        let error = open(&path, FIRST).unwrap_err();
        assert!(matches!(error, DatabaseOpenError::Version { found, known: 1, .. } if found == version), "{error}");
    }
}
