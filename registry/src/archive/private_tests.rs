//! Tests that keys, homes and other private files are never packed.

use std::{fs, io, path::Path};

use libp2p_identity::Keypair;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::MANIFEST_FILE;

/// Creates a folder with files, and with a manifest file and `src/lib.rs`, which are always packed.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempdir().unwrap();
    for (path, bytes) in files.iter().chain(&[(MANIFEST_FILE, b"name = \"a\"".as_slice()), ("src/lib.rs", b"//")]) {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn key() -> (Keypair, PackOptions) {
    let key = Keypair::generate_ed25519();
    (key.clone(), PackOptions { private_keys: vec![key], ..PackOptions::default() })
}

/// Packs a folder. Returns the packed paths and the exclusions.
fn contents(folder: &Path, options: &PackOptions) -> (Vec<String>, Vec<(String, ExclusionReason)>) {
    let mut archive = Vec::new();
    let packed = pack(folder, options, &mut archive).unwrap();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
    let paths = tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned());
    let paths = paths.filter(|path| ![MANIFEST_FILE, "src", "src/lib.rs"].contains(&path.as_str())).collect();
    (paths, packed.excluded.into_iter().map(|Excluded { path, reason }| (path, reason)).collect())
}

fn excluded(files: &[(&str, &[u8])], options: &PackOptions) -> Vec<(String, ExclusionReason)> {
    let folder = folder(files);
    contents(folder.path(), options).1
}

/// Returns the kind of key in a rejected file with this content.
fn refused(bytes: &[u8], options: &PackOptions) -> Option<PrivateKeyKind> {
    let folder = folder(&[("deep/er/notes.txt", bytes)]);
    match pack(folder.path(), options, io::sink()) {
        Ok(_) => None,
        Err(PackError::PrivateKey { path, kind }) => {
            assert_eq!(path, folder.path().join("deep/er/notes.txt"));
            Some(kind)
        }
        Err(other) => panic!("{other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(*group.get(at).unwrap_or(&0)));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= group.len() { char::from(digits[value]) } else { '=' });
        }
    }
    text
}

fn wrapped(text: &str, width: usize, between: &str) -> String {
    let lines: Vec<&str> = text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join(between)
}

#[test]
fn version_control_environments_and_key_files_are_left_out_at_any_depth_in_any_case() {
    use ExclusionReason::{Environment, KeyFile, VersionControl};
    let names = [
        (".git", VersionControl),
        (".hg", VersionControl),
        (".env", Environment),
        (".env.local", Environment),
        (".envrc", Environment),
        (".ssh", KeyFile),
        ("id_rsa", KeyFile),
        ("id_ed25519", KeyFile),
        ("id_ecdsa", KeyFile),
        ("id_dsa", KeyFile),
        ("node.key", KeyFile),
        ("server.pem", KeyFile),
        ("a.b.p12", KeyFile),
        ("c.pfx", KeyFile),
        ("d.der", KeyFile),
        ("e.pk8", KeyFile),
    ];
    for (name, reason) in names {
        let (upper, title) = (name.to_uppercase(), format!("{}{}", name[..2].to_uppercase(), &name[2..]));
        for path in [name.to_owned(), format!("a/b/{name}"), format!("a/{upper}"), format!("b/{title}")] {
            assert_eq!(excluded(&[(&path, b"x")], &PackOptions::default()), [(path.clone(), reason)]);
            // A folder of that name with all that is in it.
            let inside = format!("{path}/hooks/config");
            let folder = folder(&[(&inside, b"x")]);
            let (packed, left_out) = contents(folder.path(), &PackOptions::default());
            assert_eq!(left_out, [(path.clone(), reason)]);
            assert!(!packed.iter().any(|packed| packed.starts_with(&path)), "{packed:?}");
        }
    }
}

#[test]
fn names_that_only_look_like_those_are_packed() {
    let names = [
        ".env.example",
        ".github/workflow",
        ".gitignore",
        "env",
        "git",
        "id_rsa.pub",
        "key",
        "keys.rs",
        "my.env",
        "pem.rs",
    ];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, b"x".as_slice())).collect();
    let folder = folder(&files);
    let (packed, left_out) = contents(folder.path(), &PackOptions::default());
    assert_eq!(left_out, []);
    for name in names {
        assert!(packed.contains(&name.to_owned()), "{name} {packed:?}");
    }
}

#[test]
fn what_is_left_out_counts_as_an_entry_and_need_not_be_packable() {
    let folder = folder(&[(".git/a\\b", b"x"), ("k:.pem", b"x")]);
    let limits = ArchiveLimits { entries: 5, ..ArchiveLimits::default() };
    assert_eq!(pack(folder.path(), &limits.into(), io::sink()).unwrap().excluded.len(), 2);
    let limits = ArchiveLimits { entries: 4, ..limits };
    let error = pack(folder.path(), &limits.into(), io::sink()).unwrap_err();
    assert!(matches!(error, PackError::TooManyEntries { max: 4 }), "{error}");
}

#[test]
fn private_paths_are_left_out_wherever_they_are() {
    let folder = folder(&[("deep/mine/store", b"x"), ("secret", b"x"), ("other", b"x")]);
    let given = |paths: &[&Path]| {
        let private_paths = paths.iter().map(|path| path.to_path_buf()).collect();
        contents(folder.path(), &PackOptions { private_paths, ..PackOptions::default() }).1
    };
    let (mine, secret) = (folder.path().join("deep/mine"), folder.path().join("secret"));
    let expected = ["deep/mine", "secret"].map(|path| (path.to_owned(), ExclusionReason::Private));
    assert_eq!(given(&[&mine, &secret]), expected);
    // A detour, and a path that does not exist.
    let detour = folder.path().join("deep/../src/../deep/./mine/");
    assert_eq!(given(&[&detour, &folder.path().join("nowhere"), &secret.join("x")]), expected[..1]);
    // Relative to the working directory.
    let up: std::path::PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    let relative = up.join(mine.strip_prefix("/").unwrap_or(&mine));
    assert_eq!(given(&[&relative]), expected[..1]);
}

#[cfg(unix)]
#[test]
fn links_hide_neither_a_home_nor_a_key() {
    use std::os::unix::fs::symlink;
    let (folder, elsewhere) = (folder(&[("mine/store", b"x")]), tempdir().unwrap());
    let options = |path: &Path| PackOptions { private_paths: vec![path.to_owned()], ..PackOptions::default() };
    // The home is given as a link, or is elsewhere and a link in the folder leads to it.
    let link = elsewhere.path().join("link");
    symlink(folder.path().join("mine"), &link).unwrap();
    let private = |path: &str| [(path.to_owned(), ExclusionReason::Private)];
    assert_eq!(contents(folder.path(), &options(&link)).1, private("mine"));
    fs::remove_dir_all(folder.path().join("mine")).unwrap();
    symlink(elsewhere.path(), folder.path().join("linked")).unwrap();
    assert_eq!(contents(folder.path(), &options(elsewhere.path())).1, private("linked"));
    fs::remove_file(folder.path().join("linked")).unwrap();

    // The key under another name: a symbolic link is an error as always, and a hard link is a file with a key.
    let (key, options) = key();
    let file = elsewhere.path().join("node.key");
    fs::write(&file, key.to_protobuf_encoding().unwrap()).unwrap();
    symlink(&file, folder.path().join("notes")).unwrap();
    assert!(matches!(pack(folder.path(), &options, io::sink()), Err(PackError::NotAFile { .. })));
    fs::remove_file(folder.path().join("notes")).unwrap();
    fs::hard_link(&file, folder.path().join("notes")).unwrap();
    for options in [&options, &PackOptions::default()] {
        assert!(matches!(pack(folder.path(), options, io::sink()), Err(PackError::PrivateKey { .. })));
    }
}

/// Returns the result of a call, and fails if it hangs.
#[cfg(unix)]
fn soon<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(call()));
    result.recv_timeout(std::time::Duration::from_secs(60)).unwrap()
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_does_not_block() {
    let folder = folder(&[("a/x", b"x"), ("b/x", b"x")]);
    let pipe = folder.path().join("a/node.key");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink(&pipe, folder.path().join("b/node.key")).unwrap();
    let root = folder.path().to_owned();
    let left_out = soon(move || contents(&root, &PackOptions::default()).1);
    let key_file = |path: &str| (path.to_owned(), ExclusionReason::KeyFile);
    assert_eq!(left_out, [key_file("a/node.key"), key_file("b/node.key")]);

    // A pipe that takes the place of a file after the folder was listed.
    let (path, renamed) = (pipe.clone(), folder.path().join("notes"));
    assert!(soon(move || pack::open_file(&path)).unwrap().is_none());
    fs::rename(&pipe, &renamed).unwrap();
    let root = folder.path().to_owned();
    let error = soon(move || pack(&root, &PackOptions::default(), io::sink())).unwrap_err();
    assert!(matches!(&error, PackError::NotAFile { path } if *path == renamed), "{error}");
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_searched_is_an_error_and_not_left_out() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder(&[("a/x", b"x")]);
    let closed = folder.path().join("a");
    for mode in [0o600, 0o000] {
        fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
        let packed = pack(folder.path(), &PackOptions::default(), io::sink());
        // Permissions do not apply to root.
        let is_root = fs::metadata(closed.join("x")).is_ok();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        match packed {
            Err(PackError::Read { path, .. }) => assert_eq!(path, closed),
            other => assert!(is_root, "{other:?}"),
        }
    }
}

#[test]
fn homes_of_others_are_left_out_and_a_home_itself_is_not_packed() {
    let key = Keypair::generate_ed25519().to_protobuf_encoding().unwrap();
    let home = |path: &str| [(path.to_owned(), ExclusionReason::Home)];
    let files = [("a/.kadence/node.key", key.as_slice()), ("a/.kadence/store", b"x")];
    assert_eq!(excluded(&files, &PackOptions::default()), home("a/.kadence"));
    assert_eq!(excluded(&[("b/registry/heads.db", b"x")], &PackOptions::default()), home("b"));
    // A file of that name with another kind of key excludes nothing else.
    let tls = excluded(&[("tls/node.key", b"tls"), ("tls/config", b"x")], &PackOptions::default());
    assert_eq!(tls, [("tls/node.key".to_owned(), ExclusionReason::KeyFile)]);

    let whole = folder(&[("registry/heads.db", b"x")]);
    assert!(matches!(pack(whole.path(), &PackOptions::default(), io::sink()), Err(PackError::Home { .. })));
    let given = folder(&[]);
    let options = PackOptions { private_paths: vec![given.path().to_owned()], ..PackOptions::default() };
    assert!(matches!(pack(given.path(), &options, io::sink()), Err(PackError::Home { .. })));
}

#[test]
fn the_key_in_use_is_found_in_any_form_anywhere_in_a_file() {
    let (key, options) = key();
    let pair = key.clone().try_into_ed25519().unwrap();
    let (encoded, whole) = (key.to_protobuf_encoding().unwrap(), pair.to_bytes());
    let secret = pair.secret();
    for bytes in [encoded.as_slice(), whole.as_slice(), secret.as_ref()] {
        let (hex, b64) = (hex(bytes), base64(bytes));
        let shifted = |by: usize| base64(&[&vec![b'x'; by], bytes, b"more"].concat());
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let forms = [
            bytes.to_vec(),
            [b"before ", bytes, b" after"].concat(),
            hex.clone().into_bytes(),
            hex.to_uppercase().into_bytes(),
            format!("key = \"{}\"", wrapped(&hex, 2, ":")).into_bytes(),
            format!("{{ 0x{} }}", wrapped(&hex, 2, ", 0x")).into_bytes(),
            format!("b\"\\x{}\"", wrapped(&hex, 2, "\\x")).into_bytes(),
            format!("[{}]", numbers.join(", ")).into_bytes(),
            format!("[\n  {},\n]", numbers.join(",\n  ")).into_bytes(),
            b64.clone().into_bytes(),
            b64.trim_end_matches('=').replace('+', "-").replace('/', "_").into_bytes(),
            format!("[node]\nkey = \"{b64}\"\nport = 1\n").into_bytes(),
            wrapped(&b64, 10, "\r\n").into_bytes(),
            wrapped(&b64, 1, " ").into_bytes(),
            format!("{{\"key\":\"{}\"}}", wrapped(&b64, 20, "\\n")).into_bytes(),
            format!("key: >\n    {}\n", wrapped(&b64, 20, "\n    ")).into_bytes(),
            format!("\"{}\"", wrapped(&b64, 20, "\"\n  \"")).into_bytes(),
            b64.bytes().flat_map(|byte| [byte, 0]).collect(),
            numbers.join(", ").bytes().flat_map(|byte| [0, byte]).collect(),
            shifted(1).into_bytes(),
            shifted(2).into_bytes(),
        ];
        for form in forms {
            // Behind much else, across the borders of chunks, and with much behind it.
            let refused = |before: usize| {
                let filling = |byte: u8, len| vec![byte; len];
                refused(&[filling(b'.', before), form.clone(), filling(b'\n', 3000)].concat(), &options)
            };
            assert_eq!(refused(0), Some(PrivateKeyKind::InUse), "{}", form.escape_ascii());
            assert_eq!(refused(65_500), Some(PrivateKeyKind::InUse), "{}", form.escape_ascii());
        }
    }
}

#[test]
fn what_is_public_of_a_key_is_no_key() {
    let (key, options) = key();
    let public = key.public().encode_protobuf();
    let signature = key.sign(b"message").unwrap();
    let text = format!("{} {} {}", key.public().to_peer_id(), hex(&public), base64(&public));
    for bytes in [public.as_slice(), signature.as_slice(), text.as_bytes()] {
        assert_eq!(refused(bytes, &options), None);
    }
}

#[test]
fn key_pairs_of_libp2p_are_found_whosever_they_are() {
    let encoded = Keypair::generate_ed25519().to_protobuf_encoding().unwrap();
    // Encodings of other kinds, as other implementations write them.
    let rsa = [b"\x08\x00\x12\xa9\x09\x30\x82\x04\xa5\x02\x01\x00\x02\x82\x01\x01".as_slice(), &[7; 1180]].concat();
    let ecdsa = [b"\x08\x03\x12\x79\x30\x77\x02\x01\x01\x04\x20".as_slice(), &[7; 112]].concat();
    let p384 = [b"\x08\x03\x12\xa7\x01\x30\x81\xa4\x02\x01\x01\x04\x30".as_slice(), &[7; 161]].concat();
    let secp256k1 = [b"\x08\x02\x12\x20".as_slice(), &[7; 32]].concat();
    let old = [b"\x08\x01\x12\x60", &encoded[4..], &encoded[36..]].concat();
    for bytes in [&encoded, &rsa, &ecdsa, &p384, &old] {
        let config = format!("{{\"Identity\": {{\"PrivKey\": \"{}\"}}}}", base64(bytes));
        let hex = format!("key: {}", hex(bytes));
        let embedded = [vec![0; 5000], bytes.clone(), vec![0; 5000]].concat();
        for form in [bytes.as_slice(), &embedded, config.as_bytes(), hex.as_bytes()] {
            let found = refused(form, &PackOptions::default());
            assert_eq!(found, Some(PrivateKeyKind::Libp2p), "{}", form.escape_ascii());
        }
    }
    for form in [secp256k1.as_slice(), base64(&secp256k1).as_bytes(), hex(&secp256k1).as_bytes()] {
        assert_eq!(refused(form, &PackOptions::default()), Some(PrivateKeyKind::Libp2p));
    }
    // The start of a key is not a key, nor is a pair whose halves do not match.
    let mut broken = encoded.clone();
    broken[10] ^= 1;
    for bytes in [&encoded[..40], &broken] {
        assert_eq!(refused(bytes, &PackOptions::default()), None);
    }
}

#[test]
fn private_keys_in_pem_are_found_and_their_mention_is_not_one() {
    let body = base64(&[0x5a; 120]);
    for label in
        ["PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PGP PRIVATE KEY BLOCK"]
    {
        let block = |between: &str, extra: &str| {
            let body = wrapped(&body, 64, between);
            format!("-----BEGIN {label}-----{between}{extra}{body}{between}-----END {label}-----{between}")
        };
        let headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233\n\n";
        let forms = [
            block("\n", ""),
            block("\r\n", ""),
            block("\\n", ""),
            block("\n", headers),
            block("\n    ", ""),
            format!("certificate first\n{}", block("\n", "")),
            base64(block("\n", "").as_bytes()),
        ];
        for form in forms {
            let long = format!("{}{form}", "filling. ".repeat(9000));
            for form in [form, long] {
                let wide =
                    |bytes: fn(u16) -> [u8; 2]| "\u{feff}".encode_utf16().chain(form.encode_utf16()).flat_map(bytes);
                let (little, big) = (wide(u16::to_le_bytes).collect(), wide(u16::to_be_bytes).collect());
                for bytes in [form.clone().into_bytes(), little, big] {
                    let found = refused(&bytes, &PackOptions::default());
                    assert_eq!(found, Some(PrivateKeyKind::Pem), "{}", form.escape_default());
                }
            }
        }
    }
    let mentions = [
        "if text.starts_with(\"-----BEGIN PRIVATE KEY-----\") { return Err(InvalidCertificateOrPrivateKeyError) }",
        "A key begins with -----BEGIN PRIVATE KEY-----, then\nhas some lines of base64, and ends like it began.",
        &format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----"),
        &format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----"),
    ];
    for mention in mentions {
        assert_eq!(refused(mention.as_bytes(), &PackOptions::default()), None, "{mention}");
    }
}

/// Returns a DER element.
fn der(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    match u8::try_from(content.len()) {
        Ok(len @ 0..=127) => [&[tag, len], content.as_slice()].concat(),
        _ => [&[tag, 0x82], u16::try_from(content.len()).unwrap().to_be_bytes().as_slice(), &content].concat(),
    }
}

#[test]
fn private_keys_in_der_are_found_at_the_start_of_a_file() {
    let (zero, one) = (der(2, &[&[0]]), der(2, &[&[1]]));
    let octets = |len| der(4, &[&vec![7; len]]);
    let numbers = |len| [der(2, &[&vec![7; len]]), der(2, &[&[1, 0, 1]]), der(2, &[&vec![7; len]])].concat();
    let ed25519 = der(0x30, &[b"\x06\x03\x2b\x65\x70"]);
    let curve = der(0xa0, &[b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"]);
    let public = der(0xa1, &[b"\x03\x42", &[0; 66]]);
    let rsa = der(0x30, &[b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"]);
    let keys = [
        der(0x30, &[&zero, &ed25519, &octets(34)]),
        der(0x30, &[&one, &ed25519, &octets(34), b"\x81\x21\x00", &[9; 32]]),
        der(0x30, &[&zero, &rsa, &octets(1200)]),
        der(0x30, &[&zero, &numbers(257)]),
        der(0x30, &[&zero, &numbers(2049)]),
        der(0x30, &[&one, &octets(32)]),
        der(0x30, &[&one, &octets(32), &curve]),
        der(0x30, &[&one, &octets(66), &public]),
    ];
    for key in &keys {
        let followed = [key.as_slice(), &[0; 100_000]].concat();
        let (hex, base64) = (hex(key).into_bytes(), wrapped(&base64(key), 64, "\n").into_bytes());
        let is_small = hex.len() <= 4096;
        for bytes in [key, &followed, &hex, &base64].into_iter().take(if is_small { 4 } else { 2 }) {
            assert_eq!(refused(bytes, &PackOptions::default()), Some(PrivateKeyKind::Der), "{}", bytes.escape_ascii());
        }
    }
    let others = [
        // A public key of each kind, a certificate's start, a request, and a message of SNMP.
        der(0x30, &[&ed25519, &der(3, &[&[0; 33]])]),
        der(0x30, &[&numbers(257)]),
        der(0x30, &[&der(0x30, &[&der(0xa0, &[&one]), &one, &rsa]), &rsa, &octets(64)]),
        der(0x30, &[&der(0x30, &[&zero, &der(0x30, &[]), &rsa]), &rsa, &octets(64)]),
        der(0x30, &[&one, &octets(20), &der(0xa0, &[&one, &zero])]),
        der(0x30, &[&zero, &octets(32)]),
        der(0x30, &[&zero]),
        vec![0x30, 0x82],
    ];
    for bytes in &others {
        assert_eq!(refused(bytes, &PackOptions::default()), None, "{}", bytes.escape_ascii());
    }
}

#[test]
fn the_start_of_a_key_repeated_does_not_hide_the_key() {
    let key = base64(&Keypair::generate_ed25519().to_protobuf_encoding().unwrap());
    for start in ["CAES", "CAESQ", "CAESQAAA", "-----BEGIN PRIVATE KEY-----", "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t"] {
        let text = start.repeat(200_000 / start.len());
        assert_eq!(refused(text.as_bytes(), &PackOptions::default()), None, "{start}");
        let text = format!("{text}\n{key}");
        assert_eq!(refused(text.as_bytes(), &PackOptions::default()), Some(PrivateKeyKind::Libp2p), "{start}");
    }
}

#[test]
fn an_error_names_the_file_and_the_cure() {
    let (key, options) = key();
    let folder = folder(&[("notes.txt", &key.to_protobuf_encoding().unwrap())]);
    let error = pack(folder.path(), &options, io::sink()).unwrap_err().to_string();
    let file = folder.path().join("notes.txt");
    assert_eq!(
        error,
        format!("{} contains the private key in use: move it out of the package's folder", file.display())
    );
    assert!(!format!("{options:?}").contains(&hex(&key.to_protobuf_encoding().unwrap()[4..36])));
}

#[test]
fn archives_of_others_are_unpacked_as_before() {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()));
    let key = Keypair::generate_ed25519().to_protobuf_encoding().unwrap();
    for name in ["node.key", ".env", "notes"] {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_mode(0o644);
        header.set_size(key.len() as u64);
        header.set_cksum();
        tar.append(&header, key.as_slice()).unwrap();
    }
    let archive = tar.into_inner().unwrap().finish().unwrap();
    let to = tempdir().unwrap();
    let unpacked = unpack(archive.as_slice(), to.path(), &ArchiveLimits::default()).unwrap();
    assert_eq!(unpacked.files, 3);
    assert_eq!(fs::read(to.path().join("node.key")).unwrap(), key);
}
