//! Archives: a folder as one blob, and back.
//!
//! [`pack`] writes everything that is in a folder, hidden files too, as a gzipped tar (ustar) that depends on nothing but
//! the paths, the bytes, and which files can be executed: the same folder makes the same archive. Version control, environments,
//! keys and homes are left out, and a private key in any other file is an error. [`unpack`] takes
//! archives of strangers: nothing but plain files and folders, within limits, and nothing outside the target.

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
