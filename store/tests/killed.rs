//! Acknowledged records survive a killed process.
//!
//! The process runs this test's own program, with a path in its environment.

#![cfg(feature = "disk")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use kadence_store::{Store, StoreConfig};
use libp2p::{
    PeerId,
    kad::{ProviderRecord, Record, RecordKey, store::RecordStore},
};
use tempfile::tempdir;

const PUTS: usize = 1000;
const ROUNDS: u64 = 20;
const PATH: &str = "KADENCE_STORE_KILLED_PATH";

fn config() -> StoreConfig {
    StoreConfig::default().max_records_per_publisher(PUTS).max_keys_per_provider(PUTS)
}

/// Returns a value whose length depends on the number, so that a write ends anywhere in a page.
fn value(number: usize) -> Vec<u8> {
    vec![number as u8; number * 37 % 5000]
}

/// Not a test of its own: does nothing without the variable.
#[test]
fn child() {
    let Ok(path) = env::var(PATH) else { return };
    let provider = PeerId::random();
    let mut store = Store::open(path, PeerId::random(), config()).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nopen").unwrap();
    for number in 0..PUTS {
        let key = RecordKey::new(&number.to_be_bytes());
        store.put(Record::new(key.clone(), value(number))).unwrap();
        store.add_provider(ProviderRecord::new(key, provider, Vec::new())).unwrap();
        writeln!(out, "put {number}").unwrap();
        out.flush().unwrap();
    }
    writeln!(out, "all").unwrap();
    out.flush().unwrap();
    // Until it is killed.
    thread::sleep(Duration::from_secs(60));
}

/// Kills the process after this many acknowledgements, and returns the acknowledged numbers.
fn kill_after(path: &Path, lines: usize) -> BTreeSet<usize> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeSet::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(number) = line.strip_prefix("put ") {
            acknowledged.insert(number.parse().unwrap());
        }
        // Lines that it prints before it has ended are read as well.
        if acknowledged.len() == lines {
            child.kill().unwrap();
        }
    }
    let _killed = child.wait().unwrap();
    acknowledged
}

#[test]
fn every_acknowledged_record_is_found_after_a_kill() {
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    for round in 0..ROUNDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let folder = tempdir().unwrap();
        let path = folder.path().join("store");
        let lines = if round == 0 { PUTS } else { (seed >> 33) as usize % PUTS + 1 };
        let acknowledged = kill_after(&path, lines);
        assert!(acknowledged.len() >= lines);
        let store = Store::open(&path, PeerId::random(), config()).unwrap();
        for number in &acknowledged {
            let key = RecordKey::new(&number.to_be_bytes());
            assert_eq!(store.get(&key).unwrap().value, value(*number), "round {round}");
            assert_eq!(store.providers(&key).len(), 1, "round {round}");
        }
        // One record may be written and not acknowledged yet.
        assert!((0..=1).contains(&(store.records().count() - acknowledged.len())), "round {round}");
    }
}
