#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//!
//! # What to read next
//!
//! - [`Registry`]: the trait of every registry, with the common operations.
//! - [`LocalRegistry`]: a registry in a folder.
#![cfg_attr(feature = "p2p", doc = "- [`p2p`]: the registry on a network.")]
//! - [`PackageId`], [`Draft`], [`Release`], [`Package`] and [`Index`]: package ids, manifests, and the list of a
//!   package's versions.
//! - [`Query`] and [`SearchIndex`]: full-text search.
//! - [`resolve`]: choosing versions, lock files, and installing.
//! - [`archive`] and [`blob`]: archives of folders, and the store of content by hash.

pub mod archive;
pub mod blob;
mod content;
mod database;
mod disk;
mod local;
mod model;
#[cfg(feature = "p2p")]
#[cfg_attr(docsrs, doc(cfg(feature = "p2p")))]
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
