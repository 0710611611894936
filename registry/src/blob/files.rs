//! File operations whose errors carry the path.

use std::{
    fs::{self, DirEntry, File},
    io,
    path::Path,
};

use super::BlobError;

/// Opens a file for reading. `None` if it does not exist.
pub(super) fn open(path: &Path) -> Result<Option<File>, BlobError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BlobError::at(path)(error)),
    }
}

/// Removes a file. Returns whether it existed.
pub(super) fn remove_file(path: &Path) -> Result<bool, BlobError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(BlobError::at(path)(error)),
    }
}

type Children = Box<dyn Iterator<Item = Result<DirEntry, BlobError>> + Send>;

/// Iterates over the entries of a folder. A folder that does not exist has none.
pub(super) fn children(folder: &Path) -> Children {
    let folder = folder.to_owned();
    match fs::read_dir(&folder) {
        Ok(children) => Box::new(children.map(move |child| child.map_err(BlobError::at(&folder)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Box::new(std::iter::empty()),
        Err(error) => Box::new(std::iter::once(Err(BlobError::at(&folder)(error)))),
    }
}
