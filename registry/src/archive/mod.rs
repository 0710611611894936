//! Archives: packing a folder into a single file, and unpacking it.
//!
//! [`pack`] writes a folder as a gzipped tar (ustar) that depends only on paths, bytes and executable bits: with the
//! same build of this crate, equal folders make equal archives. Version control, environment files, key files, Kadence
//! homes ([`ExclusionReason::Home`]) and the private paths in [`PackOptions`] are left out, and a private key that is
//! recognised in any other file ([`PrivateKeyKind`]) is an error. [`unpack`] is safe for untrusted archives: it accepts
//! only plain files and folders, within limits, and no path in an archive leads out of the target.
//!
//! # Example
//!
//! ```
//! use kadence_registry::archive::{ArchiveLimits, PackOptions, pack, unpack};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("hello.txt"), "hello")?;
//! std::fs::write(folder.path().join(".env"), "PASSWORD=secret")?;
//!
//! let mut archive = Vec::new();
//! let packed = pack(folder.path(), &PackOptions::default(), &mut archive)?;
//! assert_eq!((packed.files, packed.bytes), (1, 5));
//! assert_eq!(packed.excluded[0].path, ".env");
//!
//! let target = folder.path().join("unpacked");
//! let unpacked = unpack(archive.as_slice(), &target, &ArchiveLimits::default())?;
//! assert_eq!(unpacked.files, 1);
//! assert_eq!(std::fs::read(target.join("hello.txt"))?, b"hello");
//! # Ok(())
//! # }
//! ```

mod exclude;
mod limits;
mod pack;
mod path;
mod secrets;
mod unpack;

#[cfg(test)]
mod private_tests;
#[cfg(test)]
mod tests;

pub use exclude::{Excluded, ExclusionReason};
pub use limits::ArchiveLimits;
pub use pack::{PackError, PackOptions, Packed, pack};
pub use path::PathError;
pub use secrets::PrivateKeyKind;
pub(crate) use secrets::PrivateKeys;
pub use unpack::{UnpackError, Unpacked, unpack};
