use std::{collections::BTreeMap, fs, io, path::Path};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use tempfile::tempdir;

use super::*;

const LIMITS: ArchiveLimits =
    ArchiveLimits { entries: 20, file_bytes: 100_000, total_bytes: 150_000, path_len: usize::MAX };

/// Content of a folder by path: `None` for a folder; bytes and executable bit for a file.
type Tree = BTreeMap<String, Node>;

type Node = Option<(Vec<u8>, bool)>;

fn write_tree(root: &Path, tree: &Tree) {
    for (path, node) in tree {
        let path = root.join(path);
        match node {
            None => fs::create_dir_all(path).unwrap(),
            Some((bytes, executable)) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, bytes).unwrap();
                set_executable(&path, *executable);
            }
        }
    }
}

fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for child in fs::read_dir(folder).unwrap() {
            let path = child.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                tree.insert(name, None);
                folders.push(path);
            } else {
                tree.insert(name, Some((fs::read(&path).unwrap(), is_executable(&path))));
            }
        }
    }
    tree
}

#[cfg(unix)]
fn set_executable(path: &Path, executable: bool) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if executable { 0o775 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    mode(path) & 0o111 != 0
}

#[cfg(not(unix))]
fn set_executable(_: &Path, _: bool) {}

#[cfg(not(unix))]
fn is_executable(_: &Path) -> bool {
    false
}

fn pack_tree(tree: &Tree) -> Vec<u8> {
    let folder = tempdir().unwrap();
    write_tree(folder.path(), tree);
    let mut archive = Vec::new();
    pack(folder.path(), &PackOptions::default(), &mut archive).unwrap();
    archive
}

fn file(bytes: &[u8]) -> Node {
    Some((bytes.to_vec(), false))
}

fn tree<const N: usize>(nodes: [(&str, Node); N]) -> Tree {
    nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect()
}

/// Creates an entry as an attacker would, without any check.
fn entry(path: &[u8], kind: EntryType, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    if matches!(kind, EntryType::Symlink | EntryType::Link) {
        header.set_link_name("/etc").unwrap();
    }
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, content).unwrap();
    let mut bytes = tar.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes
}

fn plain(path: &str, content: &[u8]) -> Vec<u8> {
    entry(path.as_bytes(), EntryType::Regular, 0o644, content)
}

fn folder(path: &str) -> Vec<u8> {
    entry(path.as_bytes(), EntryType::Directory, 0o755, b"")
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    io::Write::write_all(&mut gzip, tar).unwrap();
    gzip.finish().unwrap()
}

/// Unpacks entries next to an existing file, and checks that an error leaves everything unchanged.
fn unpack_entries(entries: &[Vec<u8>]) -> Result<Unpacked, UnpackError> {
    unpack_bytes(&gzip(&[entries.concat(), vec![0; 1024]].concat()))
}

fn unpack_bytes(archive: &[u8]) -> Result<Unpacked, UnpackError> {
    let around = tempdir().unwrap();
    let before = tree([("a", file(b"before")), ("above", None), ("above/a", file(b"before"))]);
    write_tree(around.path(), &before);
    let result = unpack(archive, &around.path().join("above/target"), &LIMITS);
    if result.is_err() {
        assert_eq!(read_tree(around.path()), before);
    }
    result
}

fn name() -> impl Strategy<Value = String> {
    // Lower case, and no dot or space at the end: other names are errors.
    "[a-z0-9ä._ -]{0,6}[a-z0-9ä]".prop_filter("never packed", |name| exclude::by_name(name).is_none())
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let path = prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/"));
    let content = (prop::collection::vec(any::<u8>(), 0..2000), any::<bool>());
    prop::collection::btree_map(path, prop::option::weighted(0.8, content), 0..12).prop_map(|mut tree| {
        // A file has no children.
        let files: Vec<String> =
            tree.iter().filter(|(_, node)| node.is_some()).map(|(path, _)| format!("{path}/")).collect();
        tree.retain(|path, _| !files.iter().any(|file| path.starts_with(file)));
        let above: Vec<String> = tree.keys().flat_map(|path| path::ancestors(path)).map(str::to_owned).collect();
        tree.extend(above.into_iter().map(|path| (path, None)));
        tree
    })
}

proptest! {
    #[test]
    fn packing_and_unpacking_restores_the_folder(tree in any_tree()) {
        let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
        write_tree(from.path(), &tree);
        let mut archive = Vec::new();
        let packed = pack(from.path(), &PackOptions::default(), &mut archive).unwrap();
        let unpacked = unpack(archive.as_slice(), to.path(), &ArchiveLimits::default()).unwrap();
        prop_assert!(read_tree(to.path()) == tree);
        prop_assert_eq!((packed.files, packed.bytes), (unpacked.files, unpacked.bytes));
        prop_assert_eq!(packed.files, tree.values().flatten().count());
        prop_assert_eq!(pack_tree(&tree), archive);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), wrap in any::<bool>()) {
        let bytes = if wrap { gzip(&bytes) } else { bytes };
        if unpack_bytes(&bytes).is_ok() {
            prop_assert!(bytes.len() > 10);
        }
    }
}

#[test]
fn an_archive_depends_on_content_alone() {
    let content =
        tree([(".hidden", file(b"x")), ("a-b", file(b"")), ("a", None), ("a/b", Some((b"y".to_vec(), true)))]);
    let archive = pack_tree(&content);
    assert_eq!(pack_tree(&content), archive);
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
    let entries: Vec<_> = tar
        .entries()
        .unwrap()
        .map(|entry| {
            let header = entry.unwrap().header().clone();
            let path = String::from_utf8(header.path_bytes().into_owned()).unwrap();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            (path, header.mode().unwrap())
        })
        .collect();
    let expected = [(".hidden", 0o644), ("a", 0o755), ("a-b", 0o644), ("a/b", 0o755)];
    assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode)));
}

#[test]
fn paths_up_to_the_limit_of_the_format_are_restored() {
    let name = "d".repeat(77);
    let (above, long) = (format!("{name}/{name}"), format!("{name}/{name}/{}", "f".repeat(99)));
    assert_eq!(long.len(), 255);
    let content = tree([(name.as_str(), None), (above.as_str(), None), (long.as_str(), file(b"deep"))]);
    let to = tempdir().unwrap();
    unpack(pack_tree(&content).as_slice(), to.path(), &ArchiveLimits::default()).unwrap();
    assert_eq!(read_tree(to.path()), content);
}

fn pack_error(content: &Tree, limits: ArchiveLimits) -> PackError {
    let folder = tempdir().unwrap();
    write_tree(folder.path(), content);
    pack(folder.path(), &limits.into(), io::sink()).unwrap_err()
}

#[test]
fn pack_errors_name_the_path() {
    let error = |name: &str| pack_error(&tree([(name, file(b"x"))]), LIMITS);
    for name in ["a\\b", "C:x", "dot.", "space ", "bell\u{7}"] {
        assert!(matches!(error(name), PackError::Path { reason: PathError::NotPortable, .. }), "{name}");
    }
    for name in ["x".repeat(101), format!("{}/x", "x".repeat(156)), vec!["x".repeat(90); 3].join("/")] {
        assert!(matches!(error(&name), PackError::Path { reason: PathError::TooLong, .. }), "{name}");
    }
    let case = tree([("README", file(b"")), ("readme", file(b""))]);
    assert!(matches!(pack_error(&case, LIMITS), PackError::Ambiguous { .. }));
    let missing = pack(Path::new("/does/not/exist"), &LIMITS.into(), io::sink());
    assert!(matches!(missing, Err(PackError::Read { .. })));
}

#[cfg(unix)]
#[test]
fn links_and_names_that_are_not_utf_8_are_errors() {
    use std::os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener};
    let folder = tempdir().unwrap();
    let link = folder.path().join("link");
    symlink("/etc/passwd", &link).unwrap();
    let error = pack(folder.path(), &LIMITS.into(), io::sink()).unwrap_err();
    assert!(matches!(&error, PackError::NotAFile { path } if *path == link), "{error}");
    fs::remove_file(link).unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    assert!(
        matches!(pack(folder.path(), &LIMITS.into(), io::sink()), Err(PackError::NotAFile { path }) if path == socket)
    );
    drop(listener);
    fs::remove_file(socket).unwrap();
    fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
    let error = pack(folder.path(), &LIMITS.into(), io::sink()).unwrap_err();
    assert!(matches!(error, PackError::Path { reason: PathError::NotUtf8, .. }), "{error}");
}

#[test]
fn a_folder_over_the_limits_is_not_packed() {
    let many: Tree = (0..21).map(|number| (number.to_string(), file(b""))).collect();
    assert!(matches!(pack_error(&many, LIMITS), PackError::TooManyEntries { max: 20 }));
    let large = tree([("large", file(&[0; 100_001]))]);
    assert!(matches!(pack_error(&large, LIMITS), PackError::FileTooLarge { max: 100_000, .. }));
    let sum = tree([("a", file(&[0; 75_001])), ("b", file(&[0; 75_000]))]);
    assert!(matches!(pack_error(&sum, LIMITS), PackError::TooLarge { max: 150_000 }));
    let short = ArchiveLimits { path_len: 3, ..LIMITS };
    assert!(matches!(pack_error(&tree([("four", None)]), short), PackError::Path { reason: PathError::TooLong, .. }));
}

#[test]
fn an_archive_that_cannot_be_written_is_an_error() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("a"), vec![7; 90_000]).unwrap();
    let error = pack(folder.path(), &LIMITS.into(), Full).unwrap_err();
    assert!(matches!(&error, PackError::Write(error) if error.kind() == io::ErrorKind::StorageFull), "{error}");
}

#[test]
fn attack_path_traversal_ends_in_an_error_and_nothing_is_written_outside() {
    let paths = ["../a", "..", "x/../../a", "x/..", "/etc/a", "//a", "./a", ".", "", "x//a", "x/./a", "a/"];
    for path in paths {
        let result = unpack_entries(&[plain("ok", b"ok"), plain(path, b"evil")]);
        assert!(matches!(result, Err(UnpackError::Path { reason: PathError::NotPlain, .. })), "{path:?} {result:?}");
    }
    for path in ["..\\a", "C:\\a", "C:a", "\\\\host\\a", "a:stream", "x\u{1}", "a.", "a /b"] {
        let result = unpack_entries(&[plain("ok", b"ok"), plain(path, b"evil")]);
        assert!(matches!(result, Err(UnpackError::Path { reason: PathError::NotPortable, .. })), "{path:?} {result:?}");
    }
    for path in ["../a/", "/", "./", "x//"] {
        assert!(matches!(unpack_entries(&[folder(path)]), Err(UnpackError::Path { .. })), "{path:?}");
    }
    let result = unpack_entries(&[entry(b"a\xff", EntryType::Regular, 0o644, b"")]);
    assert!(matches!(result, Err(UnpackError::Path { reason: PathError::NotUtf8, .. })), "{result:?}");
}

#[test]
fn attack_links_and_devices_in_an_archive_are_refused() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::GNUSparse,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        let content: &[u8] = if kind == EntryType::GNULongName { b"../../a\0" } else { b"" };
        let result = unpack_entries(&[entry(b"link", kind, 0o777, content), plain("link/a", b"evil")]);
        assert!(matches!(&result, Err(UnpackError::NotAFile { path }) if path == "link"), "{kind:?} {result:?}");
    }
}

#[test]
fn attack_two_entries_of_one_path_are_refused() {
    for entries in [
        [plain("a", b"1"), plain("a", b"2")],
        [plain("a", b"1"), plain("A", b"2")],
        [plain("dir/a", b"1"), plain("DIR/b", b"2")],
        [plain("Ä", b"1"), plain("ä", b"2")],
        [plain("a", b"1"), plain("a/b", b"2")],
        [plain("a", b"1"), folder("a")],
        [folder("a"), folder("a/")],
        [plain("a/b", b"1"), plain("a", b"2")],
    ] {
        let result = unpack_entries(&entries);
        assert!(matches!(result, Err(UnpackError::Ambiguous { .. })), "{result:?}");
    }
    assert!(unpack_entries(&[plain("a/b", b"1"), folder("a/"), plain("a/c", b"2")]).is_ok());
}

#[test]
fn attack_an_archive_over_the_limits_is_refused() {
    let many: Vec<_> = (0..21).map(|number| plain(&number.to_string(), b"")).collect();
    assert!(matches!(unpack_entries(&many), Err(UnpackError::TooManyEntries { max: 20 })));
    let deep = plain(&["d"; 21].join("/"), b"");
    assert!(matches!(unpack_entries(&[deep]), Err(UnpackError::TooManyEntries { max: 20 })));
    let large = plain("large", &[0; 100_001]);
    assert!(matches!(unpack_entries(&[large]), Err(UnpackError::FileTooLarge { max: 100_000, .. })));
    let sum = [plain("a", &[0; 75_001]), plain("b", &[0; 75_000])];
    assert!(matches!(unpack_entries(&sum), Err(UnpackError::TooLarge { max: 150_000 })));
    assert!(unpack_entries(&[plain("a", &[0; 75_000]), plain("b", &[0; 75_000])]).is_ok());
}

#[test]
fn attack_a_gzip_bomb_is_stopped_by_what_comes_out_of_it() {
    // After a folder, which has no content, and after the end: no file's size includes these bytes.
    let hidden = entry(b"dir", EntryType::Directory, 0o755, &[0; 1 << 20]);
    let trailing = [plain("a", b""), vec![0; 1 << 20]];
    for entries in [vec![hidden, plain("a", b"")], trailing.to_vec()] {
        let result = unpack_entries(&entries);
        assert!(matches!(result, Err(UnpackError::TooLarge { .. })), "{result:?}");
    }
}

#[cfg(unix)]
#[test]
fn attack_modes_of_an_archive_are_not_taken_over() {
    let to = tempdir().unwrap();
    let entries = [
        entry(b"setuid", EntryType::Regular, 0o4777, b""),
        entry(b"plain", EntryType::Regular, 0o666, b""),
        entry(b"dir", EntryType::Directory, 0o1777, b""),
    ];
    unpack(gzip(&[entries.concat(), vec![0; 1024]].concat()).as_slice(), to.path(), &LIMITS).unwrap();
    assert_eq!(["setuid", "plain"].map(|name| mode(&to.path().join(name))), [0o755, 0o644]);
    assert_eq!(mode(&to.path().join("dir")) & 0o7022, 0);
    assert_eq!(mode(to.path()), 0o755);
}

#[test]
fn a_cut_or_changed_archive_is_an_error() {
    let archive = pack_tree(&tree([("a", file(&[7; 5000])), ("b", file(b"b"))]));
    for cut in [0, 5, archive.len() / 2, archive.len() - 9, archive.len() - 1] {
        assert!(matches!(unpack_bytes(&archive[..cut]), Err(UnpackError::Malformed(_))), "{cut}");
    }
    let mut changed = archive;
    let at = changed.len() - 6;
    changed[at] ^= 1;
    assert!(matches!(unpack_bytes(&changed), Err(UnpackError::Malformed(_))));
    let mut wrong = plain("a", b"");
    wrong[0] = b'b';
    assert!(matches!(unpack_entries(&[wrong]), Err(UnpackError::Malformed(_))));
    let mut announced = plain("a", b"1");
    announced.truncate(513);
    assert!(matches!(unpack_bytes(&gzip(&announced)), Err(UnpackError::Malformed(_))));
}

#[test]
fn an_existing_target_is_not_changed() {
    let around = tempdir().unwrap();
    let archive = pack_tree(&tree([("new", file(b"new"))]));
    write_tree(around.path(), &tree([("full/old", file(b"old")), ("file", file(b"old")), ("empty", None)]));
    for name in ["full", "file"] {
        let result = unpack(archive.as_slice(), &around.path().join(name), &LIMITS);
        assert!(matches!(result, Err(UnpackError::Occupied { .. })), "{result:?}");
    }
    unpack(archive.as_slice(), &around.path().join("empty"), &LIMITS).unwrap();
    unpack(archive.as_slice(), &around.path().join("made/on/the/way"), &LIMITS).unwrap();
    let expected = tree([
        ("empty", None),
        ("empty/new", file(b"new")),
        ("file", file(b"old")),
        ("full", None),
        ("full/old", file(b"old")),
        ("made", None),
        ("made/on", None),
        ("made/on/the", None),
        ("made/on/the/way", None),
        ("made/on/the/way/new", file(b"new")),
    ]);
    assert_eq!(read_tree(around.path()), expected);
    let below_a_file = unpack(archive.as_slice(), &around.path().join("file/x"), &LIMITS);
    assert!(matches!(below_a_file, Err(UnpackError::Write { .. })), "{below_a_file:?}");
}

#[test]
fn limits_that_are_set_by_name_apply_to_packing() {
    let limits = ArchiveLimits::default().entries(3).file_bytes(100).total_bytes(150).path_len(8);
    assert_eq!(limits, ArchiveLimits { entries: 3, file_bytes: 100, total_bytes: 150, path_len: 8 });
    let file = |len: usize| Some((vec![1; len], false));
    let rejected = |files: &[(&str, usize)]| {
        pack_error(&files.iter().map(|(path, len)| ((*path).to_owned(), file(*len))).collect(), limits).to_string()
    };
    let errors = [
        rejected(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]),
        rejected(&[("a", 101)]),
        rejected(&[("a", 90), ("b", 90)]),
        rejected(&[("123456789", 1)]),
    ];
    let different: std::collections::BTreeSet<_> = errors.iter().collect();
    assert_eq!(different.len(), errors.len(), "{errors:?}");
}
