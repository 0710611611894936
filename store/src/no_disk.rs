//! Replaces the module of the file without the feature `disk`.

use libp2p::{
    PeerId,
    kad::{ProviderRecord, Record, RecordKey},
};

use crate::DiskError;

#[derive(Debug)]
pub(crate) enum Change<'a> {
    Record(#[expect(dead_code, reason = "nothing writes it without a file")] &'a Record),
    Provider(#[expect(dead_code, reason = "nothing writes it without a file")] &'a ProviderRecord),
    Remove(#[expect(dead_code, reason = "nothing removes it without a file")] Row),
}

#[derive(Debug)]
pub(crate) enum Row {
    Record(#[expect(dead_code, reason = "nothing reads it without a file")] RecordKey),
    Provider(
        #[expect(dead_code, reason = "nothing reads it without a file")] RecordKey,
        #[expect(dead_code, reason = "nothing reads it without a file")] PeerId,
    ),
}

/// Has no values: there is never a file.
#[derive(Debug)]
pub(crate) enum Disk {}

impl Disk {
    pub(crate) fn write(&mut self, _: &[Change<'_>]) -> Result<(), DiskError> {
        match *self {}
    }

    pub(crate) fn remove(&mut self, _: Vec<Row>) -> Result<(), DiskError> {
        match *self {}
    }

    pub(crate) fn flush(&mut self) -> Result<(), DiskError> {
        match *self {}
    }
}
