use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::PathBuf,
};

use tempfile::{TempDir, tempdir};

use super::*;
use crate::ContentId;

/// Sizes: one group, its edges, several groups, an incomplete tree.
const SIZES: [usize; 12] = [0, 1, 1023, 1024, 1025, 16_383, 16_384, 16_385, 32_768, 100_000, 1 << 20, (1 << 20) + 1];

fn store() -> (TempDir, BlobStore) {
    let folder = tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    (folder, store)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

fn path(folder: &TempDir, id: &ContentId) -> PathBuf {
    let hex = id.hash().to_hex();
    folder.path().join("blobs").join(&hex[..2]).join(hex.as_str())
}

/// Returns the number of files outside the folder of blobs.
fn leftovers(folder: &TempDir) -> usize {
    ["tmp", "damaged", "partial"].iter().flat_map(|name| fs::read_dir(folder.path().join(name))).flatten().count()
}

#[test]
fn read_returns_the_stored_bytes() {
    let (folder, store) = store();
    for size in SIZES {
        let bytes = bytes(size);
        let id = store.put(&bytes).unwrap();
        assert_eq!(id, ContentId::of(&bytes));
        assert_eq!(store.put_reader(bytes.as_slice(), size as u64).unwrap(), (id, size as u64));
        assert!(store.contains(&id));
        assert_eq!((store.size(&id), store.verify(&id).unwrap()), (Some(size as u64), size as u64));
        assert_eq!(store.read(&id, size as u64).unwrap(), bytes);
        let mut reader = store.open_reader(&id).unwrap();
        assert_eq!(reader.size(), size as u64);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes, "{size}");
    }
    assert_eq!(leftovers(&folder), 0);
}

#[test]
fn all_blobs_are_listed_after_a_restart_too() {
    let (folder, store) = store();
    let put: BTreeMap<ContentId, u64> =
        SIZES.iter().map(|size| (store.put(&bytes(*size)).unwrap(), *size as u64)).collect();
    let list = |store: &BlobStore| store.iter().collect::<Result<BTreeMap<_, _>, _>>().unwrap();
    assert_eq!(list(&store), put);
    fs::write(folder.path().join("blobs/notes.txt"), b"not ours").unwrap();
    fs::remove_file(folder.path().join("blobs/notes.txt")).unwrap();
    let reopened = BlobStore::open(folder.path()).unwrap();
    assert_eq!(list(&reopened), put);
    assert_eq!(reopened.total_bytes().unwrap(), put.values().sum::<u64>());
}

#[test]
fn a_removed_blob_is_not_found() {
    let (folder, store) = store();
    let id = store.put(&bytes(40_000)).unwrap();
    let mut reader = store.open_reader(&id).unwrap();
    assert!(store.remove(&id).unwrap());
    assert!(!store.remove(&id).unwrap());
    assert!(!store.contains(&id));
    assert_eq!(store.size(&id), None);
    assert!(matches!(store.read(&id, 40_000), Err(BlobError::NotFound(of)) if of == id));
    assert!(matches!(store.verify(&id), Err(BlobError::NotFound(_))));
    assert!(matches!(store.open_reader(&id), Err(BlobError::NotFound(_))));
    assert!(reader.read(&mut [0; 10]).is_err());
    assert_eq!((store.iter().count(), store.total_bytes().unwrap()), (0, 0));
    assert!(!path(&folder, &id).with_extension("tree").exists());
}

#[test]
fn nothing_larger_than_allowed_is_stored_or_read() {
    let (folder, store) = store();
    assert!(matches!(store.put_reader(io::repeat(7), 100_000), Err(BlobError::TooLarge { max: 100_000 })));
    assert_eq!((store.iter().count(), leftovers(&folder)), (0, 0));
    let (id, _) = store.put_reader(bytes(100_000).as_slice(), 100_000).unwrap();
    assert!(matches!(store.read(&id, 99_999), Err(BlobError::TooLarge { max: 99_999 })));
    assert_eq!(store.read(&id, 100_000).unwrap().len(), 100_000);
}

#[test]
fn a_source_that_fails_leaves_nothing() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => Err(io::ErrorKind::Interrupted.into()),
                2 => Ok(into.len()),
                _ => Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
    }
    let (folder, store) = store();
    let error = store.put_reader(Failing(0), u64::MAX).unwrap_err();
    assert!(matches!(&error, BlobError::Source(error) if error.kind() == io::ErrorKind::ConnectionReset), "{error}");
    assert_eq!((store.iter().count(), leftovers(&folder)), (0, 0));
}

#[test]
fn incomplete_writes_are_deleted_on_restart() {
    let (folder, _) = store();
    fs::write(folder.path().join("tmp/half"), b"half").unwrap();
    BlobStore::open(folder.path()).unwrap();
    assert_eq!(leftovers(&folder), 0);
}

#[test]
fn attack_a_blob_that_has_gone_bad_is_never_handed_out() {
    let changes: [fn(&mut Vec<u8>); 4] =
        [|bytes| bytes[20_000] ^= 1, |bytes| bytes.truncate(30_000), |bytes| bytes.push(0), Vec::clear];
    let original = bytes(40_000);
    for (at, change) in changes.into_iter().enumerate() {
        let mut damaged = original.clone();
        change(&mut damaged);
        let ways: [fn(&BlobStore, &ContentId) -> BlobError; 4] = [
            |store, id| store.read(id, 1 << 20).unwrap_err(),
            |store, id| store.verify(id).unwrap_err(),
            |store, id| {
                let mut read = Vec::new();
                let error = store.open_reader(id).unwrap().read_to_end(&mut read).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                assert!(bytes(40_000).starts_with(&read), "wrong bytes were read");
                *error.into_inner().unwrap().downcast().unwrap()
            },
            |store, id| store.encode(id, 0..3, &mut Vec::new()).unwrap_err(),
        ];
        for (way, read) in ways.into_iter().enumerate() {
            let (folder, store) = store();
            let id = store.put(&original).unwrap();
            fs::write(path(&folder, &id), &damaged).unwrap();
            let error = read(&store, &id);
            assert!(matches!(error, BlobError::Damaged(of) if of == id), "{at} {way} {error}");
            assert!(!store.contains(&id), "{at} {way}");
            assert!(matches!(store.read(&id, 1 << 20), Err(BlobError::NotFound(_))));
            assert_eq!(leftovers(&folder), 1, "it is kept to be looked at");
            assert_eq!(store.put(&original).unwrap(), id);
            assert_eq!(store.read(&id, 1 << 20).unwrap(), original);
        }
    }
}

#[test]
fn putting_a_damaged_blob_again_repairs_it() {
    let (folder, store) = store();
    let original = bytes(40_000);
    let id = store.put(&original).unwrap();
    fs::write(path(&folder, &id), b"bad").unwrap();
    assert_eq!(store.put(&original).unwrap(), id);
    assert_eq!(store.read(&id, 40_000).unwrap(), original);
}

#[test]
fn only_a_few_damaged_blobs_are_kept() {
    let (folder, store) = store();
    for number in 0..20_u8 {
        let id = store.put(&[number; 100]).unwrap();
        fs::write(path(&folder, &id), b"bad").unwrap();
        assert!(matches!(store.read(&id, 100), Err(BlobError::Damaged(_))));
        assert!(!store.contains(&id));
    }
    assert_eq!(leftovers(&folder), 16);
}

#[test]
fn a_missing_or_wrong_tree_is_rebuilt() {
    let (folder, store) = store();
    let original = bytes(100_000);
    let id = store.put(&original).unwrap();
    let tree = path(&folder, &id).with_extension("tree");
    let right = fs::read(&tree).unwrap();
    assert_eq!(right.len(), 6 * 64);
    let break_it: [&dyn Fn(); 3] =
        [&|| fs::remove_file(&tree).unwrap(), &|| fs::write(&tree, &right[..100]).unwrap(), &|| {
            fs::write(&tree, vec![1; right.len()]).unwrap();
        }];
    for break_it in break_it {
        break_it();
        let mut read = Vec::new();
        store.open_reader(&id).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, original);
        assert_eq!(fs::read(&tree).unwrap(), right);
    }
}

#[test]
fn write_errors_name_the_path() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = BlobStore::open(&file).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    let (folder, store) = store();
    fs::remove_dir_all(folder.path().join("tmp")).unwrap();
    assert!(matches!(store.put(b"x"), Err(BlobError::Io { .. })));
    assert!(matches!(store.put_reader(b"x".as_slice(), 1), Err(BlobError::Io { .. })));
}

#[test]
fn several_threads_put_the_same_at_once() {
    let (folder, store) = store();
    let bytes = bytes(300_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let id = store.put(&bytes).unwrap();
                assert_eq!(store.read(&id, 1 << 20).unwrap(), bytes);
            });
        }
    });
    assert_eq!((store.iter().count(), leftovers(&folder)), (1, 0));
}
