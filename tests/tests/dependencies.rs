//! What is runtime-neutral must not bring a runtime along.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

const RUNTIMES: [&str; 7] =
    ["async-executor", "async-global-executor", "async-io", "async-std", "smol", "tokio", "tokio-util"];

/// The names of all packages that a package of this workspace needs at run time.
fn tree(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--offline", "--locked"])
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

/// The reactor and the executors of smol and of async-std alike; the global one is that of the netlink sockets which tell
/// a listener of new interfaces.
const ASYNC_IO: [&str; 3] = ["async-executor", "async-global-executor", "async-io"];

#[test]
fn smol_brings_neither_tokio_nor_async_std() {
    assert_eq!(runtimes("kadence-smol"), [&ASYNC_IO[..], &["smol"]].concat());
}

#[test]
fn async_std_brings_neither_tokio_nor_smol() {
    assert_eq!(runtimes("kadence-async-std"), [&ASYNC_IO[..], &["async-std"]].concat());
}

#[test]
fn tokio_brings_no_other_runtime() {
    assert_eq!(runtimes("kadence-tokio"), ["tokio"]);
}

#[test]
fn a_runtime_in_the_tree_would_be_seen() {
    assert!(runtimes("kadence-tokio").contains(&"tokio"));
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
