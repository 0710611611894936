//! Virtual time of a thread, and what happens when.
//!
//! Entries of the same time act in the order in which they were made.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    task::Waker,
    time::Duration,
};

/// Time and number of an entry.
pub type Key = (u64, u64);

enum Entry {
    Wake(Waker),
    /// A function, and the wall clock in which it runs.
    Call(Box<dyn FnOnce()>, i64),
}

#[derive(Default)]
struct Queue {
    entries: BTreeMap<Key, Entry>,
    last: u64,
}

thread_local! {
    /// Readable without allocation, because the clock of the process is read from here.
    static NOW: Cell<Option<u64>> = const { Cell::new(None) };
    /// Difference between the wall clock of the host that runs and the world's, in nanoseconds.
    static WALL_OFFSET: Cell<i64> = const { Cell::new(0) };
    static QUEUE: RefCell<Queue> = RefCell::default();
}

/// Starts the virtual time of this thread, at zero.
pub fn begin() {
    NOW.set(Some(0));
}

/// Ends the virtual time of this thread, and drops all entries.
pub fn end() {
    // Entries may own delays, which cancel themselves.
    while let Some((_, entry)) = QUEUE.with_borrow_mut(|queue| queue.entries.pop_first()) {
        drop(entry);
    }
    NOW.set(None);
}

/// Returns the nanoseconds since the start. `None` if this thread has no virtual time.
pub fn now() -> Option<u64> {
    NOW.try_with(Cell::get).ok().flatten()
}

/// Returns the difference between the wall clock of the host that runs and the world's, in nanoseconds.
pub fn wall_offset() -> i64 {
    WALL_OFFSET.try_with(Cell::get).unwrap_or_default()
}

/// Sets the difference between the wall clock of the host that runs and the world's, and returns the one before.
pub fn set_wall_offset(nanos: i64) -> i64 {
    WALL_OFFSET.replace(nanos)
}

#[expect(clippy::panic, reason = "a delay that never ends would hide the mistake")]
pub(crate) fn now_or_panic() -> u64 {
    now().unwrap_or_else(|| panic!("a delay is polled in a thread without virtual time"))
}

/// Returns the time `span` from now.
pub fn after(span: Duration) -> u64 {
    now().unwrap_or_default().saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

fn insert(at: u64, entry: Entry) -> Key {
    QUEUE.with_borrow_mut(|queue| {
        queue.last += 1;
        let key = (at, queue.last);
        queue.entries.insert(key, entry);
        key
    })
}

/// Wakes a task at this time. An entry that it made before is changed instead.
pub(crate) fn wake_at(at: u64, key: Option<Key>, waker: &Waker) -> Key {
    if let Some(key) = key
        && QUEUE.with_borrow_mut(|queue| match queue.entries.get_mut(&key) {
            Some(Entry::Wake(old)) => {
                old.clone_from(waker);
                true
            }
            _ => false,
        })
    {
        return key;
    }
    insert(at, Entry::Wake(waker.clone()))
}

/// Calls a function at this time, or, if it has passed, as soon as all tasks wait. It reads the wall clock of the caller.
pub fn call_at(at: u64, call: impl FnOnce() + 'static) {
    insert(at, Entry::Call(Box::new(call), wall_offset()));
}

pub(crate) fn cancel(key: Key) {
    let _dropped_outside = QUEUE.try_with(|queue| match queue.try_borrow_mut() {
        Ok(mut queue) => queue.entries.remove(&key),
        Err(_) => None,
    });
}

/// Returns the time of the next entry.
pub fn next() -> Option<u64> {
    QUEUE.with_borrow(|queue| queue.entries.first_key_value().map(|((at, _), _)| *at))
}

/// Moves the time to the next entry and carries it out. Returns whether there was one, at `limit` at the latest;
/// otherwise moves the time to `limit`.
pub fn advance(limit: u64) -> bool {
    let due = QUEUE.with_borrow_mut(|queue| {
        let first = queue.entries.first_entry()?;
        let (at, _) = *first.key();
        (at <= limit).then(|| (at, first.remove()))
    });
    let now = now().unwrap_or_default();
    match due {
        None => {
            NOW.set(Some(now.max(limit)));
            false
        }
        Some((at, entry)) => {
            NOW.set(Some(now.max(at)));
            match entry {
                Entry::Wake(waker) => waker.wake(),
                Entry::Call(call, offset) => {
                    let before = set_wall_offset(offset);
                    call();
                    set_wall_offset(before);
                }
            }
            true
        }
    }
}
