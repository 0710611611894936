//! What is known of peers from what they have done: who is asked first, and who is not asked for a while.

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

/// How many peers are known: far more than provide what one machine fetches, in some megabytes.
pub const MAX_PEERS: usize = 10_000;

/// The longest time for which a peer is not asked. A disk that was bad may have been replaced since.
pub const MAX_BAN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long a peer is not asked after its first bad data. Each further time takes twice as long.
const FIRST_BAN: Duration = Duration::from_secs(10 * 60);

/// After that time, what a peer has done counts half. Within a day a peer that was overloaded is as good as new; bad data
/// has a ban of its own.
const HALF_LIFE: Duration = Duration::from_secs(6 * 60 * 60);

/// After that time without bad data, one time less of it counts.
const BAD_FORGIVEN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How many successes and failures of an unknown peer are assumed: half of it each, so that one failure is not the end.
const PRIOR: f64 = 2.0;

/// A transfer's part in the smoothed speed: three fast ones make up for a slow one.
const SMOOTHING: f64 = 0.3;

/// The speed at which it stops to matter, in bytes per second: a fast line.
const FULL_SPEED: f64 = 20.0 * 1024.0 * 1024.0;

/// How far the speed moves a score, at most: less than a third of what reliability does.
const SPEED_WEIGHT: f64 = 0.3;

/// Transfers shorter than that say nothing about speed: it is the round trip that they measure.
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

/// What is known of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PeerReputation {
    /// Requests that it has answered well. It halves every six hours, as the failures do.
    pub successes: f64,
    /// Requests that it has not answered, or with an error.
    pub failures: f64,
    /// How often it has served bad data. One less for each month without.
    pub bad: u32,
    /// What it has served, in bytes.
    pub bytes: u64,
    /// The smoothed speed of its transfers, in bytes per second; 0 if none was measured.
    pub speed: f64,
    /// When the counts were as they are, in seconds since 1970.
    counted_at: u64,
    /// When it has served bad data last.
    bad_at: u64,
}

impl PeerReputation {
    /// The counts as they are now.
    #[must_use]
    pub fn decayed(mut self, now: SystemTime) -> Self {
        let now = unix::seconds(now);
        // A clock that was set back does not bring anything back.
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

    /// From 0 to 1, of a peer that was not heard of: a half. Grows with what it answers, and with its speed.
    pub fn score(self, now: SystemTime) -> f64 {
        let now = self.decayed(now);
        let reliability = (now.successes + PRIOR / 2.0) / (now.successes + now.failures + PRIOR);
        // Half of the way is a speed of a thousandth: slow peers are told apart, too.
        let speed = (1.0 + now.speed).ln() / (1.0 + FULL_SPEED).ln();
        // What nobody has measured is neither good nor bad.
        let speed = if now.speed > 0.0 { speed.min(1.0) } else { 0.5 };
        let score = reliability * (1.0 - SPEED_WEIGHT) + speed * SPEED_WEIGHT;
        score / f64::from(now.bad.saturating_add(1))
    }

    /// Until when it is not asked, if it has ever served bad data.
    pub fn banned_until(self) -> Option<SystemTime> {
        let again = self.bad.checked_sub(1)?;
        let ban = FIRST_BAN.saturating_mul(2_u32.saturating_pow(again)).min(MAX_BAN);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.bad_at).saturating_add(ban))
    }
}

/// What is known of peers. In memory, where all of it is judged without waiting; [`save`](Self::save) writes what has changed
/// to a file.
///
/// At most [`MAX_PEERS`]: a further one takes the place of the one that was not met for the longest time, first of those who
/// have done nothing bad, so that nobody gets rid of a bad name by bringing in others.
pub struct Reputation {
    connection: Mutex<Connection>,
    state: Mutex<State>,
}

struct State {
    capacity: usize,
    peers: BTreeMap<PeerId, PeerReputation>,
    /// By whether they were bad, and when they were met last.
    by_age: BTreeSet<(bool, u64, PeerId)>,
    /// Changed or dropped since it was saved.
    dirty: BTreeSet<PeerId>,
}

impl Reputation {
    /// Opens the file, or makes it, and reads it. Blocks.
    ///
    /// # Errors
    ///
    /// See [`DatabaseOpenError`]. Nothing is lost but good advice if the file is deleted.
    pub fn open(path: &Path) -> Result<Self, DatabaseOpenError> {
        let connection = database::open(path, FORMAT)?;
        Self::load(connection, MAX_PEERS).map_err(|error| match error {
            DatabaseError::Damaged(what) => DatabaseOpenError::Damaged { path: path.to_owned(), what },
            error => DatabaseOpenError::Failed { path: path.to_owned(), error },
        })
    }

    /// The peer has answered a request well, with so many bytes in this time.
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

    /// The peer has not answered a request, or with an error that an honest one may have.
    pub fn failure(&self, peer: PeerId, now: SystemTime) {
        self.change(peer, now, |known| known.failures += 1.0);
    }

    /// The peer has served what no honest one serves, such as bytes with another hash. Gives back until when it is not to be
    /// asked: ten minutes, each further time twice as long, up to [`MAX_BAN`].
    pub fn bad_data(&self, peer: PeerId, now: SystemTime) -> SystemTime {
        let known = self.change(peer, now, |known| {
            known.bad = known.bad.saturating_add(1);
            known.bad_at = unix::seconds(now);
        });
        known.banned_until().unwrap_or(now)
    }

    /// Writes what has changed since the last time, in one transaction. Blocks; call it every minute or so, and at the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. Nothing is lost: the next call writes it.
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

    /// These peers in the order in which to ask them: the best first, without those that are banned. Of two that are as good
    /// the one that was first stays first.
    pub fn order(&self, peers: &[PeerId], now: SystemTime) -> Vec<PeerId> {
        let mut scored: Vec<_> = self.state(|state| {
            let known = peers.iter().map(|peer| (*peer, state.peers.get(peer).copied().unwrap_or_default()));
            known.filter(|(_, known)| !is_banned(*known, now)).map(|(peer, known)| (peer, known.score(now))).collect()
        });
        scored.sort_by(|(_, left), (_, right)| right.total_cmp(left));
        scored.into_iter().map(|(peer, _)| peer).collect()
    }

    /// Until when the peer is not to be asked, if it is banned now.
    pub fn banned_until(&self, peer: &PeerId, now: SystemTime) -> Option<SystemTime> {
        self.get(peer).filter(|known| is_banned(*known, now)).and_then(PeerReputation::banned_until)
    }

    /// What is known of the peer, as it was when it was counted last.
    pub fn get(&self, peer: &PeerId) -> Option<PeerReputation> {
        self.state(|state| state.peers.get(peer).copied())
    }

    /// How many peers are known.
    pub fn len(&self) -> usize {
        self.state(|state| state.peers.len())
    }

    /// Whether none is.
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
    // A clock that was set back does not make a ban longer than bans are.
    known.banned_until().is_some_and(|until| now < until && until.duration_since(now).is_ok_and(|left| left <= MAX_BAN))
}

/// What is left of 1 after this time, in seconds.
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
