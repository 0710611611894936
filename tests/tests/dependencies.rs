//! What is runtime-neutral must not bring a runtime along.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

const RUNTIMES: [&str; 7] =
    ["async-executor", "async-global-executor", "async-io", "async-std", "smol", "tokio", "tokio-util"];

/// The names of all packages that a package of this workspace needs at run time, on any system.
fn tree(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--target", "all"])
        .args(["--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn runtimes(package: &str) -> Vec<&'static str> {
    let tree = tree(package);
    assert!(tree.contains(package) && tree.contains("libp2p-kad"), "not a tree: {tree:?}");
    RUNTIMES.into_iter().filter(|runtime| tree.contains(*runtime)).collect()
}

#[test]
fn the_tracker_needs_no_runtime() {
    assert_eq!(runtimes("kadence-core"), [""; 0]);
}

#[test]
fn the_driver_needs_no_runtime() {
    assert_eq!(runtimes("kadence"), [""; 0]);
}

#[test]
fn smol_brings_neither_tokio_nor_async_std() {
    let runtimes = runtimes("kadence-smol");
    assert!(runtimes.contains(&"smol"), "{runtimes:?}");
    assert!(!runtimes.iter().any(|other| ["async-std", "tokio", "tokio-util"].contains(other)), "{runtimes:?}");
}

#[test]
fn async_std_brings_no_tokio() {
    let runtimes = runtimes("kadence-async-std");
    assert!(runtimes.contains(&"async-std"), "{runtimes:?}");
    assert!(!runtimes.iter().any(|other| ["tokio", "tokio-util"].contains(other)), "{runtimes:?}");
}

#[test]
fn the_transports_need_no_tokio() {
    let tree = tree("libp2p-async-io");
    assert!(tree.contains("async-io") && !tree.contains("tokio"), "{tree:?}");
}

#[test]
fn a_runtime_in_the_tree_would_be_seen() {
    assert!(runtimes("kadence-tokio").contains(&"tokio"));
}

#[test]
fn a_database_is_compiled_for_the_program_and_for_who_asks_for_it() {
    for package in ["kadence", "kadence-tokio", "kadence-smol", "kadence-async-std"] {
        let tree = tree(package);
        assert!(tree.contains("kadence-store") && !tree.contains("rusqlite"), "{package}: {tree:?}");
    }
    assert!(tree("kadence-cli").contains("rusqlite"));
}

#[test]
fn a_runtime_crate_is_thin() {
    for package in ["driver-tokio", "driver-smol", "driver-async-std"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src");
        let mut lines = 0;
        for file in fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            if !file.ends_with("node.rs") {
                let text = fs::read_to_string(file).unwrap();
                let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
                lines += text.lines().filter(code).count();
            }
        }
        assert!((1..80).contains(&lines), "{package} has {lines} lines of code beside its node");
    }
}
