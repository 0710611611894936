//! Disks of hosts: folders whose files lose in a power failure what was not synced, and which can be full or fail.
//!
//! The files are ordinary ones, so that SQLite and all of `std::fs` use them as they are. The calls of the C library that
//! write, read and sync pass through `os.rs`, which asks here. A folder takes no notice of `sync`: names, deletions and
//! moves are on the disk at once.

#![expect(clippy::panic, reason = "a world that cannot go on is a failed test")]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tempfile::TempDir;

/// State of a host's disk. Changed by [`Host::set_disk`](crate::Host::set_disk).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DiskState {
    /// Everything works.
    #[default]
    Healthy,
    /// No file can grow: such a write fails with `ENOSPC`.
    Full,
    /// Every read, write and sync of a file fails with `EIO`. Opening, renaming and deleting work.
    Failing,
}

/// Call on an open file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Read,
    /// Write up to this offset, or change of the length to it.
    Write {
        end: u64,
    },
    Sync,
}

thread_local! {
    /// Folders of this thread's world.
    static FOLDERS: RefCell<Option<Folders>> = const { RefCell::new(None) };
    /// True while a disk is full or fails.
    static ARE_TROUBLED: Cell<bool> = const { Cell::new(false) };
}

/// Number of worlds of this process so far.
static WORLDS: AtomicU64 = AtomicU64::new(0);

/// Folders of a world. Their names are numbers, so that random names are not drawn from the world's random numbers.
struct Folders {
    world: u64,
    /// Deleted with this.
    _root: TempDir,
    /// As the system names it in the links of open files.
    root_path: PathBuf,
    number: usize,
    disks: Vec<Mounted>,
}

struct Mounted {
    folder: PathBuf,
    /// False after a power failure: what is left of the processes may go on with the old files, and changes nothing.
    has_power: bool,
    state: DiskState,
    /// Files at their last sync, by inode.
    synced: BTreeMap<u64, Synced>,
}

struct Synced {
    /// Keeps the inode from being given to another file.
    file: File,
    content: Vec<u8>,
}

/// Folder for the files of a world, which is deleted when this is dropped.
pub(crate) struct Root(TempDir);

impl Root {
    /// Creates the folder. Called outside of the world, whose random numbers a random name would change.
    pub(crate) fn create() -> io::Result<Self> {
        tempfile::Builder::new().prefix(&prefix(std::process::id())).tempdir().map(Self)
    }

    /// Makes this the folder of the world that begins in this thread.
    pub(crate) fn begin(self) -> io::Result<()> {
        let root_path = fs::canonicalize(self.0.path())?;
        let world = WORLDS.fetch_add(1, Relaxed) + 1;
        FOLDERS.set(Some(Folders { world, _root: self.0, root_path, number: 0, disks: Vec::new() }));
        Ok(())
    }
}

/// Beginning of the names of folders of a process's worlds. One that was killed leaves them behind.
fn prefix(process: u32) -> String {
    format!("kadence-world-{process}-")
}

/// Deletes what worlds of a process that was killed have left behind.
///
/// # Errors
///
/// If a folder cannot be read or deleted.
pub fn clean_up_after(process: u32) -> io::Result<()> {
    let prefix = prefix(process);
    for entry in fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Ends all disks of this thread's world, and deletes its files.
pub(crate) fn end() {
    ARE_TROUBLED.set(false);
    drop(FOLDERS.take());
}

fn no_world() -> io::Error {
    io::Error::other("not in a world, or in another one")
}

/// Returns a new empty folder that is on no host's disk.
pub(crate) fn new_folder() -> io::Result<PathBuf> {
    FOLDERS.with_borrow_mut(|folders| folders.as_mut().ok_or_else(no_world)?.new_folder())
}

impl Folders {
    fn new_folder(&mut self) -> io::Result<PathBuf> {
        self.number += 1;
        let folder = self.root_path.join(self.number.to_string());
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    fn add(&mut self, disk: Mounted) -> DiskId {
        self.disks.push(disk);
        DiskId { world: self.world, at: self.disks.len() - 1 }
    }
}

/// Number of a disk in its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskId {
    world: u64,
    at: usize,
}

impl DiskId {
    /// Creates an empty disk.
    pub(crate) fn create() -> io::Result<Self> {
        FOLDERS.with_borrow_mut(|folders| {
            let folders = folders.as_mut().ok_or_else(no_world)?;
            let folder = folders.new_folder()?;
            Ok(folders.add(Mounted::new(folder, DiskState::Healthy)))
        })
    }

    fn with<T>(self, use_it: impl FnOnce(&mut Mounted) -> T) -> io::Result<T> {
        FOLDERS.with_borrow_mut(|folders| {
            let folders = folders.as_mut().filter(|folders| folders.world == self.world);
            folders.and_then(|folders| folders.disks.get_mut(self.at)).map(use_it).ok_or_else(no_world)
        })
    }

    pub(crate) fn folder(self) -> io::Result<PathBuf> {
        self.with(|disk| disk.folder.clone())
    }

    pub(crate) fn set_state(self, state: DiskState) -> io::Result<()> {
        self.with(|disk| disk.state = state)?;
        note_troubles();
        Ok(())
    }

    /// Returns a new disk with what the disk has after a power failure: each file as it was last synced, and empty if it
    /// never was. It is full or fails if the disk did.
    pub(crate) fn after_power_failure(self) -> io::Result<Self> {
        let (from, synced, state) = self.with(|disk| {
            disk.has_power = false;
            (disk.folder.clone(), std::mem::take(&mut disk.synced), disk.state)
        })?;
        let mut after = Mounted::new(new_folder()?, state);
        let to = after.folder.clone();
        after.restore(&from, &to, &synced)?;
        let id = FOLDERS.with_borrow_mut(|folders| folders.as_mut().map(|folders| folders.add(after)));
        note_troubles();
        id.ok_or_else(no_world)
    }
}

impl Mounted {
    fn new(folder: PathBuf, state: DiskState) -> Self {
        Self { folder, has_power: true, state, synced: BTreeMap::new() }
    }

    /// Creates what a folder has after a power failure.
    fn restore(&mut self, from: &Path, to: &Path, synced: &BTreeMap<u64, Synced>) -> io::Result<()> {
        let entries = fs::read_dir(from)?.map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))));
        let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
        // Folders are read in an order that depends on the file system.
        entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        for (entry, kind) in entries {
            let Some(to) = entry.file_name().map(|name| to.join(name)) else { continue };
            if kind.is_dir() {
                fs::create_dir(&to)?;
                self.restore(&entry, &to, synced)?;
                fs::set_permissions(&to, fs::metadata(&entry)?.permissions())?;
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&entry)?, &to)?;
            } else if kind.is_file() {
                let metadata = fs::metadata(&entry)?;
                let content = synced.get(&metadata.ino()).map_or(&[][..], |synced| &synced.content);
                fs::write(&to, content)?;
                fs::set_permissions(&to, metadata.permissions())?;
                let file = File::open(&to)?;
                self.synced.insert(file.metadata()?.ino(), Synced { file, content: content.to_vec() });
            }
        }
        Ok(())
    }
}

/// Looks through the disks, so that a call of the C library need not.
fn note_troubles() {
    let is_troubled = |disk: &Mounted| disk.has_power && disk.state != DiskState::Healthy;
    let folders =
        |folders: &Option<Folders>| folders.as_ref().is_some_and(|folders| folders.disks.iter().any(is_troubled));
    ARE_TROUBLED.set(FOLDERS.with_borrow(folders));
}

/// Returns whether any disk is full or fails.
pub(crate) fn are_troubled() -> bool {
    // Files are also written while a thread ends.
    ARE_TROUBLED.try_with(Cell::get).unwrap_or(false)
}

/// Returns whether there is any disk.
pub(crate) fn are_there() -> bool {
    let are_there = |folders: &RefCell<Option<Folders>>| {
        // The disks themselves write files, too.
        folders.try_borrow().is_ok_and(|folders| folders.as_ref().is_some_and(|folders| !folders.disks.is_empty()))
    };
    FOLDERS.try_with(are_there).unwrap_or(false)
}

/// Returns the place of an open file, through which it can be read and looked at whatever its name is now.
fn place(file: i32) -> String {
    format!("/proc/self/fd/{file}")
}

/// Returns the length of an open file, or 0 if it has none.
pub(crate) fn len(file: i32) -> u64 {
    fs::metadata(place(file)).map_or(0, |file| file.len())
}

/// Returns what `look` sees of the disk that an open file is on, unless it is on none.
fn on_disk_of<T>(file: i32, look: impl FnOnce(&mut Mounted) -> T) -> Option<T> {
    if !are_there() {
        return None;
    }
    let path = fs::read_link(place(file)).ok()?;
    FOLDERS.with(|folders| {
        let mut folders = folders.try_borrow_mut().ok()?;
        let disks = &mut folders.as_mut()?.disks;
        disks.iter_mut().find(|disk| disk.has_power && path.starts_with(&disk.folder)).map(look)
    })
}

/// Returns the error with which a call on an open file fails, or `None` if the file is on no disk of a host, or the disk
/// lets the call pass.
pub(crate) fn error_of(file: i32, call: Call) -> Option<i32> {
    if !are_troubled() {
        return None;
    }
    match (on_disk_of(file, |disk| disk.state)?, call) {
        (DiskState::Failing, _) => Some(libc::EIO),
        (DiskState::Full, Call::Write { end }) if end > len(file) => Some(libc::ENOSPC),
        (DiskState::Full | DiskState::Healthy, _) => None,
    }
}

/// Notes that an open file was synced. Returns whether it is on a disk of a host, whose power failures are not real ones.
///
/// # Panics
///
/// Panics if the file cannot be read or kept open: the world would lose what was synced.
pub(crate) fn note_sync(file: i32) -> bool {
    if on_disk_of(file, |_| ()).is_none() {
        return false;
    }
    let place = place(file);
    let read = || -> io::Result<Option<(u64, Synced)>> {
        let metadata = fs::metadata(&place)?;
        if !metadata.is_file() || metadata.nlink() == 0 {
            return Ok(None);
        }
        Ok(Some((metadata.ino(), Synced { file: File::open(&place)?, content: fs::read(&place)? })))
    };
    match read() {
        Ok(Some((inode, synced))) => {
            on_disk_of(file, |disk| {
                // Those that were deleted meanwhile are let go.
                disk.synced.retain(|_, synced| synced.file.metadata().is_ok_and(|file| file.nlink() > 0));
                disk.synced.insert(inode, synced);
            });
        }
        Ok(None) => {}
        Err(error) => panic!("a synced file of a host cannot be kept: {error}"),
    }
    true
}
