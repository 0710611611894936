//! In the place of the file, without the feature `disk`: there is none.

use libp2p::{
    PeerId,
    kad::{ProviderRecord, Record, RecordKey},
};

use crate::DiskError;

#[derive(Debug)]
pub(crate) enum Change<'a> {
    Record(#[expect(dead_code, reason = "there is no file to write it to")] &'a Record),
    Provider(#[expect(dead_code, reason = "there is no file to write it to")] &'a ProviderRecord),
    Remove(#[expect(dead_code, reason = "there is no file to remove it from")] Row),
}

#[derive(Debug)]
pub(crate) enum Row {
    Record(#[expect(dead_code, reason = "as above")] RecordKey),
    Provider(#[expect(dead_code, reason = "as above")] RecordKey, #[expect(dead_code, reason = "as above")] PeerId),
}

/// There is never one.
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
