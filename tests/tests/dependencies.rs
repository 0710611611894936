//! Checks the dependencies of packages: runtime-neutral ones need no runtime, and expensive ones are optional.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

const RUNTIMES: [&str; 7] =
    ["async-executor", "async-global-executor", "async-io", "async-std", "smol", "tokio", "tokio-util"];

/// Expensive dependencies that `cargo run -- demo` must not compile.
const EXPENSIVE: [&str; 4] = ["aws-lc-sys", "hickory-resolver", "libsqlite3-sys", "rusqlite"];

/// Returns the names of all packages that these packages need at run time, on any platform. As in a build of all of
/// them, features that one package enables are enabled for the others.
fn tree(packages: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--edges", "normal", "--prefix", "none", "--target", "all", "--offline", "--locked"])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let tree: BTreeSet<_> =
        lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(packages.iter().all(|package| tree.contains(*package)), "{packages:?} are not in {tree:?}");
    tree
}

fn runtimes(package: &str) -> Vec<&'static str> {
    let tree = tree(&[package]);
    assert!(tree.contains("libp2p-kad"), "{package} does not depend on kad: {tree:?}");
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
fn peer_timeouts_need_no_runtime_and_no_kadence() {
    assert_eq!(runtimes("libp2p-kad-timeouts"), [""; 0]);
    let tree = tree(&["libp2p-kad-timeouts"]);
    let kadence: Vec<_> = tree.iter().filter(|package| package.starts_with("kadence")).collect();
    assert!(kadence.is_empty(), "{kadence:?}");
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
fn the_async_io_transports_need_no_tokio() {
    let tree = tree(&["libp2p-async-io"]);
    assert!(tree.contains("async-io") && !tree.contains("tokio"), "{tree:?}");
}

#[test]
fn a_runtime_in_the_tree_is_detected() {
    assert!(runtimes("kadence-tokio").contains(&"tokio"));
}

#[test]
fn sqlite_is_compiled_only_on_request() {
    for package in ["kadence", "kadence-tokio", "kadence-smol", "kadence-async-std"] {
        let tree = tree(&[package]);
        assert!(tree.contains("kadence-store") && !tree.contains("rusqlite"), "{package}: {tree:?}");
    }
    assert!(tree(&["kadence-cli"]).contains("rusqlite"));
}

#[test]
fn the_demo_compiles_no_expensive_dependency() {
    let demo = tree(&["kadence-demo"]);
    let found: Vec<_> = EXPENSIVE.into_iter().filter(|package| demo.contains(*package)).collect();
    assert_eq!(found, [""; 0]);
    // A misspelled name would never be found.
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock")).unwrap();
    for package in EXPENSIVE {
        assert!(lock.contains(&format!("name = \"{package}\"\n")), "{package} is not in Cargo.lock");
    }
}

#[test]
fn a_runtime_crate_is_thin() {
    for package in ["driver-tokio", "driver-smol", "driver-async-std"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src");
        let mut lines = 0;
        for file in fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            if !file.ends_with("node.rs") && !file.ends_with("tcp_ports.rs") {
                let text = fs::read_to_string(file).unwrap();
                let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
                lines += text.lines().filter(code).count();
            }
        }
        assert!((1..80).contains(&lines), "{package} has {lines} lines of code besides its node");
    }
}
