#![doc = include_str!("../README.md")]

mod error;
mod lock;
mod open;

pub use self::{
    error::{DatabaseError, DatabaseOpenError},
    lock::FileLock,
    open::{Durability, Format, IntegrityCheck, OpenOptions, connect, with_suffix},
};
pub use rusqlite;

#[cfg(test)]
mod tests;
