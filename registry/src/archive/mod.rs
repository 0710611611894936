//! Archives: a folder as one blob, and back.
//!
//! [`pack`] writes everything that is in a folder, hidden files too, as a gzipped tar (ustar) that depends on nothing but
//! the paths, the bytes, and which files can be executed: the same folder makes the same archive. [`unpack`] takes
//! archives of strangers: nothing but plain files and folders, within limits, and nothing outside the target.

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
