//! A decentralised package registry on Kadence.
//!
//! A package's name has its publisher's key in it, so nobody else can publish under it. What is small and changes, a signed
//! head for each package, is a record of the DHT; everything else is immutable, has the hash of its content for a name, and
//! travels from peer to peer, verified as it arrives.

pub mod archive;
pub mod blob;
mod content;
mod database;
mod disk;
mod local;
mod model;
#[cfg(feature = "p2p")]
pub mod p2p;
mod package_id;
mod registry;
pub mod resolve;
mod search;
mod storage;
mod unix;

pub use content::{ContentId, ContentIdError};
pub use database::{DatabaseError, DatabaseOpenError};
pub use local::LocalRegistry;
pub use model::*;
pub use package_id::{PackageId, PackageIdError, PackageName};
pub use registry::{GetError, PublishError, Receipt, Registry, Step, StepOutcome, Steps, VersionInfo};
pub use search::{SearchEntry, SearchIndex};
pub use storage::StorageError;
