//! Pauses that a store causes in its swarm: 10,000 puts, 10,000 gets, and the puts that sweep expired records, in
//! memory and with a file. The file is made in the folder named, by default the system's for temporary files, which
//! must not be in memory.
//!
//! `cargo run --release -p xtask --features kadence -- stalls [FOLDER]`

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use kadence_store::{Store, StoreConfig};
use libp2p::{
    PeerId,
    kad::{Record, RecordKey, store::RecordStore},
};

const PUTS: u32 = 10_000;

/// Prints the table.
///
/// # Errors
///
/// If the store's file cannot be opened.
pub(crate) fn measure(args: &[String]) -> anyhow::Result<()> {
    let folder = args.first().map_or_else(env::temp_dir, Into::into);
    let path = folder.join(format!("kadence-store-stalls-{}", std::process::id()));
    println!("{:>7} {:>9}  {:>32}  {:>32}  {:>32}", "store", "value", "put", "get", "put that sweeps 32");
    println!("{:>7} {:>9}{}", "", "", format!("  {:>10}{:>11}{:>11}", "median", "99.9 %", "longest").repeat(3));
    for bytes in [100, 4 * 1024, 64 * 1024] {
        let local_peer = PeerId::random();
        measure_store("memory", bytes, local_peer, Store::memory(local_peer, config()));
        measure_store("file", bytes, local_peer, Store::open(&path, local_peer, config())?);
        for suffix in ["", "-wal", "-shm", ".lock"] {
            // Some of them are gone already.
            let _gone = fs::remove_file(format!("{}{suffix}", path.display()));
        }
    }
    Ok(())
}

fn config() -> StoreConfig {
    let (max_records, max_total_bytes) = (PUTS as usize, 1024 * 1024 * 1024);
    StoreConfig::default()
        .max_records(max_records)
        .max_total_bytes(max_total_bytes)
        .max_records_per_publisher(max_records)
        .max_bytes_per_publisher(max_total_bytes)
}

fn measure_store(name: &str, bytes: usize, local_peer: PeerId, mut store: Store) {
    // Our own may say for themselves when they expire.
    let record = |number: u32, expires| Record {
        key: RecordKey::new(&number.to_be_bytes()),
        value: vec![number.to_le_bytes()[0]; bytes],
        publisher: Some(local_peer),
        expires,
    };
    let mut put = |record| {
        let started = Instant::now();
        let result = store.put(record);
        let took = started.elapsed();
        assert!(result.is_ok(), "{result:?}");
        took
    };
    let started = Instant::now();
    let puts = (0..PUTS).map(|number| put(record(number, None))).collect();
    let expires = Instant::now() + 3 * started.elapsed() + Duration::from_millis(500);
    for number in 0..PUTS {
        put(record(number, Some(expires)));
    }
    let mut gets = Vec::new();
    for number in 0..PUTS {
        let started = Instant::now();
        let found = store.get(&RecordKey::new(&number.to_be_bytes())).is_some();
        gets.push(started.elapsed());
        assert!(found, "it has expired too early");
    }
    thread::sleep(expires.saturating_duration_since(Instant::now()));
    let mut sweeps = Vec::new();
    let stats = store.stats_handle();
    while stats.read().expired < u64::from(PUTS) {
        let started = Instant::now();
        let result = store.put(record(PUTS, None));
        sweeps.push(started.elapsed());
        assert!(result.is_ok(), "{result:?}");
    }
    println!("{name:>7} {bytes:>9}{}{}{}", column(puts), column(gets), column(sweeps));
}

fn column(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |per_mille: usize| {
        let place = (times.len() * per_mille / 1000).min(times.len().saturating_sub(1));
        times.get(place).map_or_else(|| "-".to_owned(), |time| format!("{:.1} µs", time.as_secs_f64() * 1e6))
    };
    format!("  {:>10}{:>11}{:>11}", at(500), at(999), at(1000))
}
