//! `kadence demo`.

use std::fs::File;
#[cfg(unix)]
use std::process::Command;

use crate::process::{Running, run};

#[test]
fn a_small_demo_succeeds_and_prints_its_report() {
    let figures = run(["demo", "--nodes", "6", "--json"]).expect_code(0).only_object();
    assert_eq!(figures["ok"], true);
    assert_eq!(figures["nodes"], 6);
    assert_eq!(figures["rejected"], 0);
    assert_eq!(figures["stored"], figures["files"]);
    let operations = &figures["operations"];
    for operation in ["put", "get", "provide", "providers", "closest", "bootstrap"] {
        assert_eq!(operations[operation]["failed"], 0, "{operation}");
        assert!(operations[operation]["p95_ms"].as_f64().is_some(), "{operation}");
    }
    assert!(operations["get"]["count"].as_u64() >= Some(200));
    assert_eq!(figures["closest"]["wrong"].as_array().map(Vec::len), Some(0));
    assert_eq!(figures["cancelled"]["left_alive"], 0);
    assert_eq!(figures["killed"]["get"]["failed"], 0);
}

#[test]
fn nodes_on_three_runtimes_are_one_network() {
    let figures = run(["demo", "--mixed", "--nodes", "6", "--json"]).expect_code(0).json();
    assert_eq!((&figures["ok"], &figures["mixed"]), (&true.into(), &true.into()));
    let checks = figures["checks"].as_array().unwrap();
    let across = checks.iter().find(|check| check["detail"] == "9 of 9 pairs").unwrap();
    assert_eq!(across["ok"], true);
}

#[test]
fn files_of_a_folder_are_stored_and_those_over_the_limit_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub").join("small.txt"), "small").unwrap();
    std::fs::write(folder.path().join("below.bin"), vec![7; 64 * 1024 - 1]).unwrap();
    std::fs::write(folder.path().join("over.bin"), vec![7; 64 * 1024 + 1]).unwrap();
    File::create(folder.path().join("far over.bin")).unwrap().set_len(1 << 32).unwrap();
    let path = folder.path().to_str().unwrap();
    let ended = run(["demo", "--nodes", "4", "--path", path, "--json", "--seed", "7"]).expect_code(0);
    let figures = ended.json();
    assert_eq!(figures["ok"], true);
    assert_eq!(figures["files"], 4);
    assert_eq!(figures["stored"], 2);
    assert_eq!(figures["stored_bytes"], 64 * 1024 + 4);
    assert_eq!(figures["rejected"], 2);
}

#[test]
fn a_missing_folder_is_an_error_of_one_line_and_one_object() {
    let ended = run(["demo", "--path", "/no/such/folder", "--json"]).expect_code(1);
    assert!(ended.stderr.starts_with("error: cannot read the folder /no/such/folder: "), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1);
    assert_eq!(ended.only_object()["ok"], false);
}

#[cfg(unix)]
#[test]
fn a_network_that_does_not_start_is_an_error_of_one_object() {
    let program = env!("CARGO_BIN_EXE_kadence");
    let script = format!("ulimit -n 64 && exec '{program}' demo --nodes 64 --json");
    let ended = Running::spawn(Command::new("sh").args(["-c", &script])).end().expect_code(1);
    let object = ended.only_object();
    assert_eq!((&object["ok"], &object["reason"]), (&false.into(), &"failure".into()));
    assert!(object["error"].as_str().unwrap().contains("the system allows 64 open files"), "{object}");
}

#[test]
fn a_demo_that_takes_too_long_is_ended_and_its_phase_named() {
    let ended = run(["demo", "--nodes", "8", "--timeout", "1ms", "--json"]).expect_code(1);
    assert!(ended.stderr.contains("did not end within 1ms"), "{}", ended.stderr);
    let object = ended.only_object();
    assert_eq!(object["ok"], false);
    assert!(object["phase"].is_string());
}

#[test]
fn a_closed_stdout_does_not_disturb_the_demo() {
    let mut demo = Running::start(["demo", "--nodes", "4"]);
    demo.hang_up();
    assert_eq!(demo.end().expect_code(0).stderr.matches("panicked").count(), 0);
}

#[test]
fn a_registry_of_packages_withstands_its_attackers() {
    let figures = run(["demo", "--registry", "--json"]).expect_code(0).only_object();
    assert_eq!((&figures["ok"], &figures["nodes"], &figures["publishers"]), (&true.into(), &12.into(), &5.into()));
    assert_eq!(figures["attackers"], true);
    // Five samples, and one made for an attack.
    assert_eq!(figures["packages"].as_array().map(Vec::len), Some(6));
    assert_eq!(figures["checks"].as_array().map(Vec::len), Some(11));
}

#[test]
fn folders_that_are_not_packages_are_published_as_packages() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("Some Notes").join("sub")).unwrap();
    std::fs::write(folder.path().join("Some Notes").join("sub").join("note.txt"), "a note").unwrap();
    let path = folder.path().to_str().unwrap();
    let figures = run(["demo", "--registry", "--json", "--path", path]).expect_code(0).only_object();
    let packages = figures["packages"].as_array().unwrap();
    assert!(packages[0].as_str().unwrap().ends_with("/some-notes"), "{packages:?}");
    assert_eq!(figures["ok"], true);
    run(["demo", "--registry", "--path", "/no/such/folder"]).expect_code(1);
}
