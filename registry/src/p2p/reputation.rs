//! Reputation of peers: the order in which they are asked, and temporary bans.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use libp2p_identity::PeerId;
use rusqlite::{Connection, TransactionBehavior::Immediate, params};

use crate::{
    database::{self, DatabaseError, DatabaseOpenError, Format},
    unix,
};

/// Maximum number of peers in a [`Reputation`]: far more than one machine fetches from. They take a few megabytes of
/// memory.
pub const MAX_PEERS: usize = 10_000;

/// Maximum duration of a ban: 7 days. After that time a bad disk may have been replaced.
pub const MAX_BAN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Duration of the first ban. It doubles with each further one.
const FIRST_BAN: Duration = Duration::from_secs(10 * 60);

/// Time after which counts of successes and failures are halved. A peer that was overloaded recovers within a day; bad
/// data leads to a ban instead.
const HALF_LIFE: Duration = Duration::from_secs(6 * 60 * 60);

/// Time without bad data after which one instance of it is forgotten.
const BAD_FORGIVEN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Number of requests assumed for an unknown peer, half of them successful. One failure then does not ruin the score.
const PRIOR: f64 = 2.0;

/// Weight of the latest transfer in the smoothed speed. Three fast ones outweigh a slow one.
const SMOOTHING: f64 = 0.3;

/// Speed above which the score does not grow, in bytes per second.
const FULL_SPEED: f64 = 20.0 * 1024.0 * 1024.0;

/// Weight of the speed in a score; the rest is reliability.
const SPEED_WEIGHT: f64 = 0.3;

/// Minimum size of a transfer whose speed is measured. In smaller ones the round trip dominates.
const MEASURED_BYTES: u64 = 64 * 1024;

const FORMAT: Format = Format {
    application_id: *b"KDrp",
    steps: &["
        CREATE TABLE peers (
            peer BLOB NOT NULL PRIMARY KEY,
            successes REAL NOT NULL,
            failures REAL NOT NULL,
            bad INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            speed REAL NOT NULL,
            counted_at INTEGER NOT NULL,
            bad_at INTEGER NOT NULL
        ) STRICT;
    "],
    exclusive: false,
};

/// Experience with one peer, from which its score and its bans follow. The default is that of an unknown peer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct PeerReputation {
    /// Number of successful requests, at the time of the last update of the record. It decays with a half-life of six
    /// hours.
    pub successes: f64,
    /// Number of failed requests, at the time of the last update of the record. It decays with a half-life of six
    /// hours.
    pub failures: f64,
    /// Number of times that the peer sent bad data, at the time of the last update of the record. It falls by one for
    /// each 30 days without bad data.
    pub bad: u32,
    /// Number of bytes in all successful requests. It does not decay.
    pub bytes: u64,
    /// Smoothed speed of the peer's successful requests of at least 64 KiB, in bytes per second. It does not decay. 0
    /// if it was not measured.
    pub speed: f64,
    /// Time at which the counts were last updated, in seconds since 1970.
    counted_at: u64,
    /// Time of the last bad data, in seconds since 1970. It moves on by a month whenever one instance is forgotten.
    bad_at: u64,
}

impl PeerReputation {
    /// Returns the record with its counts reduced to those at the time `now`.
    #[must_use]
    pub fn decayed(mut self, now: SystemTime) -> Self {
        let now = unix::seconds(now);
        // A clock that was set back restores nothing.
        let age = now.saturating_sub(self.counted_at);
        let factor = half(age, HALF_LIFE);
        self.successes *= factor;
        self.failures *= factor;
        self.counted_at = now;
        if let Some(months) = now.saturating_sub(self.bad_at).checked_div(BAD_FORGIVEN.as_secs())
            && months > 0
        {
            self.bad = self.bad.saturating_sub(u32::try_from(months).unwrap_or(u32::MAX));
            self.bad_at = self.bad_at.saturating_add(months.saturating_mul(BAD_FORGIVEN.as_secs()));
        }
        self
    }

    /// Returns the score at the time `now`, from 0 to 1; unknown peers have 0.5. The score grows with the share of
    /// successful requests and with the speed, up to 20 MiB/s, and falls with [`bad`](Self::bad). It does not depend on
    /// bans.
    pub fn score(self, now: SystemTime) -> f64 {
        let now = self.decayed(now);
        let reliability = (now.successes + PRIOR / 2.0) / (now.successes + now.failures + PRIOR);
        // Logarithmic: a thousandth of the full speed scores about half, so that slow peers differ, too.
        let speed = (1.0 + now.speed).ln() / (1.0 + FULL_SPEED).ln();
        // An unmeasured speed is neutral.
        let speed = if now.speed > 0.0 { speed.min(1.0) } else { 0.5 };
        let score = reliability * (1.0 - SPEED_WEIGHT) + speed * SPEED_WEIGHT;
        score / f64::from(now.bad.saturating_add(1))
    }

    /// Returns the end of the latest ban, which may have passed. `None` if [`bad`](Self::bad) is 0. The ban is counted
    /// from the last bad data or, if [`decayed`](Self::decayed) has reduced `bad` since, from the time at which `bad`
    /// fell.
    pub fn banned_until(self) -> Option<SystemTime> {
        let again = self.bad.checked_sub(1)?;
        let ban = FIRST_BAN.saturating_mul(2_u32.saturating_pow(again)).min(MAX_BAN);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.bad_at).saturating_add(ban))
    }
}

/// Reputation of peers, from successful and failed requests: the order in which peers are asked, and temporary bans. It
/// is kept in memory, so that reading it does not block; [`save`](Self::save) writes changes to a file.
///
/// At most [`MAX_PEERS`] peers are remembered. A further peer replaces the one whose record was not updated for the
/// longest time: one without bad data, if there is any. A banned peer therefore cannot easily clear its name by
/// introducing others.
///
/// # Example
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::{Duration, SystemTime};
///
/// use kadence_registry::p2p::Reputation;
/// use libp2p_identity::PeerId;
///
/// let folder = tempfile::tempdir()?;
/// let reputation = Reputation::open(&folder.path().join("peers.db"))?;
/// let (good, slow, bad, now) = (PeerId::random(), PeerId::random(), PeerId::random(), SystemTime::now());
/// reputation.success(good, 1 << 20, Duration::from_millis(50), now);
/// reputation.failure(slow, now);
/// reputation.bad_data(bad, now);
///
/// assert_eq!(reputation.order(&[bad, slow, good], now), [good, slow]);
/// reputation.save()?;
/// # Ok(())
/// # }
/// ```
pub struct Reputation {
    connection: Mutex<Connection>,
    state: Mutex<State>,
}

struct State {
    capacity: usize,
    peers: BTreeMap<PeerId, PeerReputation>,
    /// Peers in the order of replacement: without bad data first, then by the time of their last use.
    by_age: BTreeSet<(bool, u64, PeerId)>,
    /// Peers that were changed or removed since the last save.
    dirty: BTreeSet<PeerId>,
}

impl Reputation {
    /// Opens the file, or creates it, and reads all of it. Its folder has to exist. Blocks.
    ///
    /// # Errors
    ///
    /// See [`DatabaseOpenError`]. Deleting the file loses the bans and the order of peers, and nothing else.
    pub fn open(path: &Path) -> Result<Self, DatabaseOpenError> {
        let connection = database::open(path, FORMAT)?;
        Self::load(connection, MAX_PEERS).map_err(|error| match error {
            DatabaseError::Damaged(what) => DatabaseOpenError::Damaged { path: path.to_owned(), what },
            error => DatabaseOpenError::Failed { path: path.to_owned(), error },
        })
    }

    /// Records a successful request that transferred this number of bytes in the time `took`. The speed is measured
    /// only if there were at least 64 KiB.
    pub fn success(&self, peer: PeerId, bytes: u64, took: Duration, now: SystemTime) {
        self.change(peer, now, |known| {
            known.successes += 1.0;
            known.bytes = known.bytes.saturating_add(bytes);
            if bytes >= MEASURED_BYTES && !took.is_zero() {
                #[expect(clippy::cast_precision_loss, reason = "a speed needs no more than 52 bits")]
                let speed = bytes as f64 / took.as_secs_f64();
                known.speed += (speed - known.speed) * if known.speed > 0.0 { SMOOTHING } else { 1.0 };
            }
        });
    }

    /// Records a failed request, such as a timeout or an error that an honest peer may have.
    pub fn failure(&self, peer: PeerId, now: SystemTime) {
        self.change(peer, now, |known| known.failures += 1.0);
    }

    /// Records data that no honest peer sends, such as bytes with a wrong hash, and bans the peer from `now` on.
    /// Returns the end of the ban, which lasts ten minutes if [`bad`](PeerReputation::bad) becomes 1, and twice as long for each
    /// further count, up to [`MAX_BAN`].
    pub fn bad_data(&self, peer: PeerId, now: SystemTime) -> SystemTime {
        let known = self.change(peer, now, |known| {
            known.bad = known.bad.saturating_add(1);
            known.bad_at = unix::seconds(now);
        });
        known.banned_until().unwrap_or(now)
    }

    /// Writes the changes since the last save, in one transaction. Blocks. Call it every minute or so, and at the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. The changes are kept for the next call.
    pub fn save(&self) -> Result<(), DatabaseError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let changes: Vec<_> = self.state(|state| {
            std::mem::take(&mut state.dirty).into_iter().map(|peer| (peer, state.peers.get(&peer).copied())).collect()
        });
        let result = write(&mut connection, &changes);
        if result.is_err() {
            self.state(|state| state.dirty.extend(changes.into_iter().map(|(peer, _)| peer)));
        }
        result
    }

    /// Returns these peers in the order of their [scores](PeerReputation::score), best first, without those that are
    /// banned at the time `now`. Peers with the same score stay in their order.
    pub fn order(&self, peers: &[PeerId], now: SystemTime) -> Vec<PeerId> {
        let mut scored: Vec<_> = self.state(|state| {
            let known = peers.iter().map(|peer| (*peer, state.peers.get(peer).copied().unwrap_or_default()));
            known.filter(|(_, known)| !is_banned(*known, now)).map(|(peer, known)| (peer, known.score(now))).collect()
        });
        scored.sort_by(|(_, left), (_, right)| right.total_cmp(left));
        scored.into_iter().map(|(peer, _)| peer).collect()
    }

    /// Returns the end of the ban if the peer is banned at the time `now`, and `None` otherwise.
    pub fn banned_until(&self, peer: &PeerId, now: SystemTime) -> Option<SystemTime> {
        self.get(peer).filter(|known| is_banned(*known, now)).and_then(PeerReputation::banned_until)
    }

    /// Returns the record of a peer, with the counts at its last update: see [`PeerReputation::decayed`]. `None` if the
    /// peer is not remembered.
    pub fn get(&self, peer: &PeerId) -> Option<PeerReputation> {
        self.state(|state| state.peers.get(peer).copied())
    }

    /// Returns the number of peers that are remembered.
    pub fn len(&self) -> usize {
        self.state(|state| state.peers.len())
    }

    /// Returns whether no peer is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn load(connection: Connection, capacity: usize) -> Result<Self, DatabaseError> {
        let mut state = State { capacity, peers: BTreeMap::new(), by_age: BTreeSet::new(), dirty: BTreeSet::new() };
        for (peer, known) in read(&connection)? {
            state.insert(peer, known);
        }
        Ok(Self { connection: Mutex::new(connection), state: Mutex::new(state) })
    }

    fn change(&self, peer: PeerId, now: SystemTime, change: impl FnOnce(&mut PeerReputation)) -> PeerReputation {
        self.state(|state| {
            let mut known = state.remove(&peer).unwrap_or_default().decayed(now);
            change(&mut known);
            state.insert(peer, known);
            state.dirty.insert(peer);
            known
        })
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn insert(&mut self, peer: PeerId, known: PeerReputation) {
        while self.peers.len() >= self.capacity
            && let Some((_, _, oldest)) = self.by_age.first().copied()
        {
            self.remove(&oldest);
            self.dirty.insert(oldest);
        }
        self.by_age.insert((known.bad > 0, known.counted_at, peer));
        self.peers.insert(peer, known);
    }

    fn remove(&mut self, peer: &PeerId) -> Option<PeerReputation> {
        let known = self.peers.remove(peer)?;
        self.by_age.remove(&(known.bad > 0, known.counted_at, *peer));
        Some(known)
    }
}

impl fmt::Debug for Reputation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reputation").field("peers", &self.len()).finish_non_exhaustive()
    }
}

fn is_banned(known: PeerReputation, now: SystemTime) -> bool {
    // A clock that was set back must not extend a ban beyond the maximum.
    known.banned_until().is_some_and(|until| now < until && until.duration_since(now).is_ok_and(|left| left <= MAX_BAN))
}

/// Returns the factor for this age in seconds: 0.5 after one half-life.
fn half(age: u64, half_life: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "half-lives are hours")]
    let age = age as f64;
    0.5_f64.powf(age / half_life.as_secs_f64())
}

fn write(connection: &mut Connection, changes: &[(PeerId, Option<PeerReputation>)]) -> Result<(), DatabaseError> {
    if changes.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(Immediate)?;
    {
        let mut put =
            transaction.prepare_cached("INSERT OR REPLACE INTO peers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
        let mut delete = transaction.prepare_cached("DELETE FROM peers WHERE peer = ?1")?;
        let column = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (peer, known) in changes {
            let Some(known) = known else {
                delete.execute([peer.to_bytes()])?;
                continue;
            };
            let PeerReputation { successes, failures, bad, bytes, speed, counted_at, bad_at } = *known;
            put.execute(params![
                peer.to_bytes(),
                successes,
                failures,
                bad,
                column(bytes),
                speed,
                column(counted_at),
                column(bad_at)
            ])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(connection: &Connection) -> Result<Vec<(PeerId, PeerReputation)>, DatabaseError> {
    let mut statement = connection.prepare(
        "SELECT peer, successes, failures, bad, bytes, speed, counted_at, bad_at FROM peers
         ORDER BY bad > 0, counted_at",
    )?;
    let rows = statement.query_map([], |row| {
        let known = PeerReputation {
            successes: row.get(1)?,
            failures: row.get(2)?,
            bad: row.get(3)?,
            bytes: row.get(4)?,
            speed: row.get(5)?,
            counted_at: row.get(6)?,
            bad_at: row.get(7)?,
        };
        Ok((row.get::<_, Vec<u8>>(0)?, known))
    })?;
    rows.map(|row| {
        let (peer, known) = row?;
        let is_count = |number: f64| number.is_finite() && number >= 0.0;
        let peer = PeerId::from_bytes(&peer)
            .ok()
            .filter(|_| is_count(known.successes) && is_count(known.failures) && is_count(known.speed));
        Ok((peer.ok_or_else(|| DatabaseError::Damaged("what is known of a peer".to_owned()))?, known))
    })
    .collect()
}

#[cfg(test)]
mod tests;
