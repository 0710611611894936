//! The functions of the C library that are replaced: the clock, the source of randomness, the start of threads, and what
//! reads, writes and syncs a file.
//!
//! `Instant`, `SystemTime`, the seeds of hash maps and `rand` end in the first two, in every crate. A program that
//! defines them decides what a simulated world reads; threads without a world get what the system says. The third only
//! counts: a thread that a world starts runs outside of its time. The last are the system's, unless the file is on the
//! disk of a host (`disk.rs`). This is the one file with unsafe code: functions of the C library cannot be defined without
//! it.
#![expect(unsafe_code, reason = "functions of the C library have raw pointers")]

use std::{cell::Cell, ffi::CStr, mem, slice};

use futures_timer::schedule;
use libc::{
    c_int, c_long, c_uint, c_void, clockid_t, iovec, off_t, pthread_attr_t, pthread_t, size_t, ssize_t, timespec,
};

use crate::{
    disk::{self, Call},
    splitmix,
};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the types of these functions are those of 64-bit systems");

const SECOND: u64 = 1_000_000_000;

/// Reading of the monotonic clock at the start of a world, in seconds: far from zero, as on a real machine.
const MONOTONIC_START: u64 = 1_000_000;

/// Reading of the wall clock at the start of a world: 2026-01-01, 00:00 UTC.
const WALL_START: u64 = 1_767_225_600;

thread_local! {
    /// State of the random numbers of a world.
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
    /// Number of threads that this one has started in its world.
    static THREADS: Cell<u64> = const { Cell::new(0) };
}

/// Returns the number of threads that the world of this thread has started.
pub(crate) fn threads() -> u64 {
    THREADS.get()
}

/// Returns whether crates that look for functions at run time find those of this file. The other ones are named so that
/// they become part of the program.
pub(crate) fn is_exported() -> bool {
    let files = [
        read as *const c_void,
        pread as *const c_void,
        pread64 as *const c_void,
        write as *const c_void,
        pwrite as *const c_void,
        pwrite64 as *const c_void,
        ftruncate as *const c_void,
        ftruncate64 as *const c_void,
        fsync as *const c_void,
        fdatasync as *const c_void,
        readv as *const c_void,
        writev as *const c_void,
        copy_file_range as *const c_void,
        sendfile64 as *const c_void,
    ];
    std::hint::black_box(files);
    // SAFETY: the names end with a zero byte.
    let found = |name: &CStr| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    std::ptr::eq(found(c"getrandom"), getrandom as *const c_void)
        && std::ptr::eq(found(c"clock_gettime"), clock_gettime as *const c_void)
}

/// Seeds the random numbers of this thread. `None`: they are the system's again.
pub(crate) fn seed(seed: Option<u64>) {
    RANDOM.set(seed);
}

/// # Safety
///
/// As for the function of the C library: `time` is null or points to a `timespec`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let (Some(now), false) = (schedule::now(), time.is_null()) else {
        // SAFETY: the arguments are the caller's.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), time) } as c_int;
    };
    let nanos = match clock {
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
            MONOTONIC_START * SECOND + now
        }
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            (WALL_START * SECOND + now).saturating_add_signed(schedule::wall_offset())
        }
        // The processor time of a thread, for one.
        // SAFETY: the arguments are the caller's.
        _ => return unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), time) } as c_int,
    };
    // SAFETY: the caller passes a valid pointer, and it is not null.
    unsafe {
        (*time).tv_sec = (nanos / SECOND) as libc::time_t;
        (*time).tv_nsec = (nanos % SECOND) as c_long;
    }
    0
}

/// # Safety
///
/// As for the function of the C library: `buffer` has room for `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
    let Some(mut state) = RANDOM.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the arguments are the caller's.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) } as ssize_t;
    };
    if len > 0 {
        // SAFETY: the caller passes a buffer of this length, which nobody else uses during the call.
        let bytes = unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
        for chunk in bytes.chunks_mut(8) {
            let random = splitmix::next(&mut state).to_le_bytes();
            chunk.iter_mut().zip(random).for_each(|(byte, random)| *byte = random);
        }
    }
    RANDOM.set(Some(state));
    len as ssize_t
}

type Start = extern "C" fn(*mut c_void) -> *mut c_void;

/// # Safety
///
/// As for the function of the C library.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    if schedule::now().is_some() {
        let _at_exit = THREADS.try_with(|threads| threads.set(threads.get() + 1));
    }
    // SAFETY: the name ends with a zero byte.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) };
    if next.is_null() {
        return libc::ENOSYS;
    }
    type Create = unsafe extern "C" fn(*mut pthread_t, *const pthread_attr_t, Start, *mut c_void) -> c_int;
    // SAFETY: the C library's function of this name has this type.
    let create: Create = unsafe { mem::transmute(next) };
    // SAFETY: the arguments are the caller's.
    unsafe { create(thread, attributes, start, argument) }
}

/// Returns `false`, and sets the error of the C library, if the disk of a host fails a call.
fn passes(file: c_int, call: Call) -> bool {
    let Some(error) = disk::error_of(file, call) else { return true };
    // SAFETY: the place of this thread's error is always valid.
    unsafe { *libc::__errno_location() = error };
    false
}

/// As [`passes`], for a write of `len` bytes at an offset, or at the current one.
fn takes(file: c_int, offset: Option<off_t>, len: size_t) -> bool {
    if !disk::are_troubled() {
        return true;
    }
    // SAFETY: no pointer is passed.
    let (appends, current) =
        unsafe { (libc::fcntl(file, libc::F_GETFL) & libc::O_APPEND != 0, libc::lseek(file, 0, libc::SEEK_CUR)) };
    let offset = if appends { disk::len(file) } else { u64::try_from(offset.unwrap_or(current)).unwrap_or(0) };
    passes(file, Call::Write { end: offset.saturating_add(len as u64) })
}

/// # Safety
///
/// As for the function of the C library: `buffer` has room for `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn read(file: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
    if !passes(file, Call::Read) {
        return -1;
    }
    // SAFETY: the arguments are the caller's.
    unsafe { libc::syscall(libc::SYS_read, file, buffer, len) as ssize_t }
}

/// # Safety
///
/// As for the function of the C library: `buffer` has room for `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pread(file: c_int, buffer: *mut c_void, len: size_t, offset: off_t) -> ssize_t {
    if !passes(file, Call::Read) {
        return -1;
    }
    // SAFETY: the arguments are the caller's.
    unsafe { libc::syscall(libc::SYS_pread64, file, buffer, len, offset) as ssize_t }
}

/// # Safety
///
/// As for the function of the C library: `buffer` has room for `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pread64(file: c_int, buffer: *mut c_void, len: size_t, offset: off_t) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    unsafe { pread(file, buffer, len, offset) }
}

/// # Safety
///
/// As for the function of the C library: `buffer` has `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn write(file: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
    if !takes(file, None, len) {
        return -1;
    }
    // SAFETY: the arguments are the caller's.
    unsafe { libc::syscall(libc::SYS_write, file, buffer, len) as ssize_t }
}

/// # Safety
///
/// As for the function of the C library: `buffer` has `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwrite(file: c_int, buffer: *const c_void, len: size_t, offset: off_t) -> ssize_t {
    if !takes(file, Some(offset), len) {
        return -1;
    }
    // SAFETY: the arguments are the caller's.
    unsafe { libc::syscall(libc::SYS_pwrite64, file, buffer, len, offset) as ssize_t }
}

/// # Safety
///
/// As for the function of the C library: `buffer` has `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwrite64(file: c_int, buffer: *const c_void, len: size_t, offset: off_t) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    unsafe { pwrite(file, buffer, len, offset) }
}

/// # Safety
///
/// As for the function of the C library: `parts` are `count` buffers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn readv(file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    if !passes(file, Call::Read) {
        return -1;
    }
    // SAFETY: the arguments are the caller's.
    unsafe { libc::syscall(libc::SYS_readv, file, parts, count) as ssize_t }
}

/// # Safety
///
/// As for the function of the C library: `parts` are `count` buffers.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    if disk::are_troubled() && !parts.is_null() {
        // SAFETY: the caller passes as many buffers.
        let parts = unsafe { slice::from_raw_parts(parts, usize::try_from(count).unwrap_or(0)) };
        if !takes(file, None, parts.iter().map(|part| part.iov_len).sum()) {
            return -1;
        }
    }
    // SAFETY: the arguments are the caller's.
    unsafe { libc::syscall(libc::SYS_writev, file, parts, count) as ssize_t }
}

/// In a world with disks the system cannot copy by itself, so that the standard library reads and writes instead.
fn copies_itself() -> bool {
    if !disk::are_there() {
        return true;
    }
    // SAFETY: the place of this thread's error is always valid.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    false
}

/// # Safety
///
/// As for the function of the C library: the offsets are null or valid.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_offset: *mut i64,
    to: c_int,
    to_offset: *mut i64,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    if !copies_itself() {
        return -1;
    }
    // SAFETY: the arguments are the caller's.
    unsafe { libc::syscall(libc::SYS_copy_file_range, from, from_offset, to, to_offset, len, flags) as ssize_t }
}

/// # Safety
///
/// As for the function of the C library: the offset is null or valid.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendfile64(to: c_int, from: c_int, offset: *mut i64, len: size_t) -> ssize_t {
    if !copies_itself() {
        return -1;
    }
    // SAFETY: the arguments are the caller's.
    unsafe { libc::syscall(libc::SYS_sendfile, to, from, offset, len) as ssize_t }
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ftruncate(file: c_int, len: off_t) -> c_int {
    if !passes(file, Call::Write { end: u64::try_from(len).unwrap_or(0) }) {
        return -1;
    }
    // SAFETY: no pointer is passed.
    unsafe { libc::syscall(libc::SYS_ftruncate, file, len) as c_int }
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ftruncate64(file: c_int, len: off_t) -> c_int {
    ftruncate(file, len)
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn fsync(file: c_int) -> c_int {
    if !passes(file, Call::Sync) {
        return -1;
    }
    if disk::note_sync(file) {
        return 0;
    }
    // SAFETY: no pointer is passed.
    unsafe { libc::syscall(libc::SYS_fsync, file) as c_int }
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn fdatasync(file: c_int) -> c_int {
    fsync(file)
}
