//! Disks of hosts: folders whose files lose in a power failure what was not synced, and which can be full or fail.
//!
//! The files are ordinary ones, so that SQLite and all of `std::fs` use them as they are. The calls of the C library that
//! write, read and sync pass through `os.rs`, which asks here. A folder takes no notice of `sync`: names, deletions and
//! moves are on the disk at once.

use std::{cell::RefCell, collections::BTreeMap, fs, io, os::unix::fs::MetadataExt, path::Path};

use tempfile::TempDir;

/// State of a host's disk. Changed by [`Host::set_disk`](crate::Host::set_disk).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DiskState {
    /// Everything works.
    #[default]
    Working,
    /// No file can grow: such a write fails with `ENOSPC`.
    Full,
    /// Every read, write and sync fails with `EIO`.
    Failing,
}

/// Call on an open file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Read,
    /// Write up to this offset.
    Write {
        end: u64,
    },
    /// Change of the length to this one.
    Resize(u64),
    Sync,
}

thread_local! {
    /// Disks of the hosts of this thread's world.
    static DISKS: RefCell<Vec<Mounted>> = const { RefCell::new(Vec::new()) };
}

struct Mounted {
    folder: TempDir,
    /// False after a power failure: what is left of the processes may go on with the old files, and changes nothing.
    has_power: bool,
    state: DiskState,
    /// Contents of files at their last sync, by inode.
    synced: BTreeMap<u64, Vec<u8>>,
}

/// Number of a disk in its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskId(usize);

impl DiskId {
    /// Creates an empty disk.
    pub(crate) fn create() -> io::Result<Self> {
        let mounted = Mounted::new()?;
        Ok(DISKS.with_borrow_mut(|disks| {
            disks.push(mounted);
            Self(disks.len() - 1)
        }))
    }

    /// Returns the folder of the disk, or `None` outside of its world.
    pub(crate) fn folder(self) -> Option<std::path::PathBuf> {
        DISKS.with_borrow(|disks| disks.get(self.0).map(|disk| disk.folder.path().to_owned()))
    }

    pub(crate) fn set_state(self, state: DiskState) {
        DISKS.with_borrow_mut(|disks| {
            if let Some(disk) = disks.get_mut(self.0) {
                disk.state = state;
            }
        });
    }

    /// Returns a new disk with what the disk has after a power failure: each file as it was last synced, and empty if it
    /// never was.
    pub(crate) fn after_power_failure(self) -> io::Result<Self> {
        let Some((folder, synced)) = DISKS.with_borrow_mut(|disks| {
            let disk = disks.get_mut(self.0)?;
            disk.has_power = false;
            Some((disk.folder.path().to_owned(), std::mem::take(&mut disk.synced)))
        }) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut after = Mounted::new()?;
        let to = after.folder.path().to_owned();
        after.restore(&folder, &to, &synced)?;
        Ok(DISKS.with_borrow_mut(|disks| {
            disks.push(after);
            Self(disks.len() - 1)
        }))
    }
}

impl Mounted {
    fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("disk").tempdir()?;
        Ok(Self { folder, has_power: true, state: DiskState::Working, synced: BTreeMap::new() })
    }

    /// Creates what a folder has after a power failure.
    fn restore(&mut self, from: &Path, to: &Path, synced: &BTreeMap<u64, Vec<u8>>) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let (entry, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            let Some(to) = entry.file_name().map(|name| to.join(name)) else { continue };
            if kind.is_dir() {
                fs::create_dir(&to)?;
                self.restore(&entry, &to, synced)?;
            } else if kind.is_file() {
                let metadata = fs::metadata(&entry)?;
                let content = synced.get(&metadata.ino()).map_or(&[][..], Vec::as_slice);
                fs::write(&to, content)?;
                fs::set_permissions(&to, metadata.permissions())?;
                self.synced.insert(fs::metadata(&to)?.ino(), content.to_vec());
            }
        }
        Ok(())
    }
}

/// Ends all disks of this thread's world.
pub(crate) fn end_all() {
    DISKS.take();
}

/// Returns whether any disk is full or fails.
pub(crate) fn are_troubled() -> bool {
    let is_troubled = |disk: &Mounted| disk.has_power && disk.state != DiskState::Working;
    // Files are also written while a thread ends, and by the disks themselves.
    let are_troubled =
        |disks: &RefCell<Vec<Mounted>>| disks.try_borrow().is_ok_and(|disks| disks.iter().any(is_troubled));
    DISKS.try_with(are_troubled).unwrap_or(false)
}

/// Returns the error with which a call on an open file fails, or `None` if the file is on no disk of a host, or the disk
/// lets the call pass.
pub(crate) fn error_of(file: i32, call: Call) -> Option<i32> {
    if !are_troubled() {
        return None;
    }
    let path = fs::read_link(format!("/proc/self/fd/{file}")).ok()?;
    let state = DISKS.with(|disks| {
        let disks = disks.try_borrow().ok()?;
        let disk = disks.iter().find(|disk| disk.has_power && path.starts_with(disk.folder.path()))?;
        Some(disk.state)
    })?;
    let grows_to = |end: u64| fs::metadata(&path).is_ok_and(|file| end > file.len());
    match (state, call) {
        (DiskState::Failing, _) => Some(libc::EIO),
        (DiskState::Full, Call::Write { end } | Call::Resize(end)) if grows_to(end) => Some(libc::ENOSPC),
        (DiskState::Full | DiskState::Working, _) => None,
    }
}

/// Notes that an open file was synced. Returns whether it is on a disk of a host, whose power failures are not real ones.
pub(crate) fn note_sync(file: i32) -> bool {
    if !DISKS.try_with(|disks| disks.try_borrow().is_ok_and(|disks| !disks.is_empty())).unwrap_or(false) {
        return false;
    }
    let place = format!("/proc/self/fd/{file}");
    let Ok(path) = fs::read_link(&place) else { return false };
    let is_on = |disk: &Mounted| disk.has_power && path.starts_with(disk.folder.path());
    if !DISKS.with(|disks| disks.try_borrow().is_ok_and(|disks| disks.iter().any(is_on))) {
        return false;
    }
    if let Ok(metadata) = fs::metadata(&place)
        && metadata.is_file()
        && let Ok(content) = fs::read(&place)
    {
        DISKS.with_borrow_mut(|disks| {
            if let Some(disk) = disks.iter_mut().find(|disk| is_on(disk)) {
                disk.synced.insert(metadata.ino(), content);
            }
        });
    }
    true
}
