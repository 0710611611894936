//! Archives: a folder as one blob, and back.
//!
//! [`pack`] writes a folder as a gzipped tar (ustar) that depends only on paths, bytes and executable bits: the same
//! folder always makes the same archive. [`unpack`] accepts untrusted archives: only plain files and folders, within
//! limits, and nothing outside the target.
//!
//! # Example
//!
//! ```
//! use kadence_registry::archive::{ArchiveLimits, pack, unpack};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("hello.txt"), "hello")?;
//!
//! let mut archive = Vec::new();
//! let packed = pack(folder.path(), &ArchiveLimits::default(), &mut archive)?;
//! assert_eq!((packed.files, packed.bytes), (1, 5));
//!
//! let target = folder.path().join("unpacked");
//! let unpacked = unpack(archive.as_slice(), &target, &ArchiveLimits::default())?;
//! assert_eq!(unpacked.files, 1);
//! assert_eq!(std::fs::read(target.join("hello.txt"))?, b"hello");
//! # Ok(())
//! # }
//! ```

mod limits;
mod pack;
mod path;
mod unpack;

#[cfg(test)]
mod tests;

pub use limits::ArchiveLimits;
pub use pack::{PackError, Packed, pack};
pub use path::PathError;
pub use unpack::{UnpackError, Unpacked, unpack};
