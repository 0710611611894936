//! Tests of the program `kadence-demo` as a process: with `--json`, it always prints exactly one object.

#![expect(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kadence-demo");

/// Returns the only line on stdout, which is a JSON object, after checking the exit code.
fn only_object(output: &Output, code: i32) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let stdout = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 1, "stdout: {stdout}\nstderr: {stderr}");
    let object: Value = serde_json::from_str(stdout).unwrap();
    assert!(object.is_object(), "{object}");
    object
}

#[test]
fn a_demonstration_prints_its_report() {
    let output = Command::new(PROGRAM).args(["demo", "--nodes", "4", "--json"]).output().unwrap();
    let report = only_object(&output, 0);
    assert_eq!((&report["ok"], &report["nodes"]), (&true.into(), &4.into()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("\nall checks passed in "));
}

#[test]
fn a_missing_folder_prints_an_error() {
    let object =
        only_object(&Command::new(PROGRAM).args(["demo", "--json", "--path", "/no/such"]).output().unwrap(), 1);
    assert_eq!(object["ok"], false);
    assert!(object["error"].as_str().unwrap().starts_with("cannot read the folder /no/such: "), "{object}");
}

#[cfg(unix)]
#[test]
fn a_network_that_does_not_start_prints_an_error() {
    let script = format!("ulimit -n 64 && exec '{PROGRAM}' demo --nodes 64 --json");
    let object = only_object(&Command::new("sh").args(["-c", &script]).output().unwrap(), 1);
    assert_eq!(object["ok"], false);
    assert!(object["error"].as_str().unwrap().contains("the system allows 64 open files"), "{object}");
}

#[test]
fn a_demonstration_that_takes_too_long_prints_its_phase() {
    let object = only_object(&Command::new(PROGRAM).args(["demo", "--json", "--timeout", "1ms"]).output().unwrap(), 1);
    assert_eq!(object["ok"], false);
    assert!(object["phase"].is_string() && object["error"].as_str().unwrap().contains("within 1ms"), "{object}");
}

#[cfg(not(feature = "registry"))]
#[test]
fn a_build_without_the_registry_prints_the_command_that_has_it() {
    let object = only_object(&Command::new(PROGRAM).args(["demo", "--registry", "--json"]).output().unwrap(), 1);
    let error = object["error"].as_str().unwrap();
    assert!(error.contains("cargo run --features attackers -- demo --registry"), "{error}");
}
