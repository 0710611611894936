use std::fs;

use super::*;

const SOURCE: &str = r#"
name = "left-pad"
version = "1.2.3"
title = "Left pad"
description = "Pads."
license = "MIT"
authors = ["Ada"]
categories = ["text"]
tags = ["padding"]
[links]
repository = "https://example.com"
[dependencies]
other = "^1"
"#;

fn from_toml(text: &str) -> Result<Draft, SourceError> {
    Draft::from_toml(id("x").publisher(), text)
}

#[test]
fn a_draft_is_read_from_toml() {
    let theirs = publisher(2).package("theirs");
    let draft = from_toml(&format!("{SOURCE}\"{theirs}\" = \">=1, <3\"")).unwrap();
    assert_eq!((draft.id(), draft.version()), (&id("left-pad"), &version("1.2.3")));
    assert_eq!(draft.metadata().licence, "MIT");
    assert_eq!(draft.metadata().links["repository"], "https://example.com");
    let dependencies = [(theirs, ">=1, <3"), (id("other"), "^1")];
    for (package, text) in dependencies {
        let dependency = Dependency { package, requirement: requirement(text) };
        assert!(draft.dependencies().contains(&dependency), "{dependency:?}");
    }
    assert_eq!(draft.dependencies().len(), 2);
}

#[test]
fn the_template_is_a_draft() {
    let draft = from_toml(&Draft::template(&"new_one".parse().unwrap())).unwrap();
    assert_eq!((draft.id(), draft.version()), (&id("new_one"), &version("0.1.0")));
    assert_eq!(draft.metadata(), &Metadata::default());
}

#[test]
fn typing_errors_in_a_manifest_file_are_reported() {
    for (text, part) in [
        ("name = \"x\"", "version"),
        ("name = \"x\"\nversion = \"1\"", "version"),
        ("name = \"X\"\nversion = \"1.0.0\"", "lower-case"),
        ("name = \"x\"\nversion = \"1.0.0\"\ntitel = \"y\"", "titel"),
        ("name = \"x\"\nversion = \"1.0.0\"\n[dependencies]\ny = \"one\"", "one"),
    ] {
        match from_toml(text) {
            Err(SourceError::Toml(error)) => assert!(error.contains(part), "{error}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let dependency = from_toml("name = \"x\"\nversion = \"1.0.0\"\n[dependencies]\n\"me/y\" = \"1\"");
    let reason = crate::PackageIdError::Publisher;
    assert_eq!(dependency, Err(SourceError::Dependency { given: "me/y".to_owned(), reason }));
    let itself = from_toml("name = \"x\"\nversion = \"1.0.0\"\n[dependencies]\nx = \"1\"");
    assert_eq!(itself, Err(SourceError::Invalid(InvalidPackageError::DependsOnItself)));
    let long = from_toml(&" ".repeat(256 * 1024 + 1));
    assert_eq!(long, Err(SourceError::TooLong { len: 256 * 1024 + 1, max: 256 * 1024 }));
    let random = Draft::from_toml(libp2p_identity::PeerId::random(), SOURCE);
    assert_eq!(random, Err(SourceError::Publisher(crate::PackageIdError::Publisher)));
}

#[test]
fn a_draft_that_would_not_fit_into_a_manifest_is_rejected() {
    // Each quote takes two bytes in the document.
    let readme = "\"".repeat(128 * 1024);
    let built = Package::builder(id("x"), version("1.0.0")).readme(readme).build();
    assert!(matches!(built, Err(InvalidPackageError::TooLong { max: MAX_MANIFEST_LEN, .. })), "{built:?}");
}

#[test]
fn every_draft_leaves_room_for_the_rest_of_its_manifest() {
    let long = version(&format!("1.0.0-{}", "a".repeat(122)));
    let fill = |len: usize| {
        let authors = (0..32).map(|n| format!("{n:03}{}", "\"".repeat(125)));
        let metadata = Metadata {
            authors: authors.collect(),
            readme: format!("{}{}", "\"".repeat(125_000), "a".repeat(len)),
            ..Metadata::default()
        };
        Package::builder(id(&"n".repeat(64)), long.clone()).metadata(metadata).build()
    };
    let largest = (0..6_000).rev().step_by(10).find_map(|len| fill(len).ok()).unwrap();
    let contents = Contents { archive_size: MAX_ARCHIVE_SIZE, files: 999_999, unpacked_size: 1 << 35, ..contents("x") };
    let package = Package::new(largest, contents, 253_402_300_799, 253_402_300_799).unwrap();
    assert!((MAX_MANIFEST_LEN - 1024..=MAX_MANIFEST_LEN).contains(&package.to_json().len()));
}

#[test]
fn a_release_is_read_from_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let read = || smol::block_on(Release::read(id("x").publisher(), dir.path()));
    assert!(matches!(read(), Err(ReleaseError::MissingManifest { .. })));
    fs::write(dir.path().join(MANIFEST_FILE), SOURCE).unwrap();
    assert_eq!(read().unwrap().draft.metadata().readme, "");
    fs::write(dir.path().join("README.md"), "# Hello\n").unwrap();
    let release = read().unwrap();
    assert_eq!((release.draft.metadata().readme.as_str(), release.dir.as_path()), ("# Hello\n", dir.path()));

    fs::write(dir.path().join("README.md"), "\u{1b}").unwrap();
    assert!(matches!(read(), Err(ReleaseError::Invalid(_))));
    fs::write(dir.path().join("README.md"), [0xff]).unwrap();
    assert!(matches!(read(), Err(ReleaseError::NotUtf8 { .. })));
    fs::write(dir.path().join("README.md"), vec![b'a'; 128 * 1024 + 1]).unwrap();
    assert!(matches!(read(), Err(ReleaseError::TooLong { .. })));
    fs::remove_file(dir.path().join("README.md")).unwrap();
    fs::create_dir(dir.path().join("README.md")).unwrap();
    assert!(matches!(read(), Err(ReleaseError::Read { .. })));
    fs::write(dir.path().join(MANIFEST_FILE), "name = 1").unwrap();
    assert!(matches!(read(), Err(ReleaseError::Source(SourceError::Toml(_)))));
}
