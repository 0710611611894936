//! Commands that ask a node in another process.

use crate::process::{Running, run, run_with_input};

const LOOPBACK: [&str; 2] = ["--listen", "/ip4/127.0.0.1/tcp/0"];

/// Starts a node. Returns it and its address.
fn node() -> (Running, String) {
    let mut node = Running::start(["node"].into_iter().chain(LOOPBACK));
    let address = node.line();
    assert!(address.starts_with("/ip4/127.0.0.1/tcp/") && address.contains("/p2p/"), "{address}");
    (node, address)
}

#[test]
fn a_record_put_by_one_process_is_found_by_another() {
    let (_node, peer) = node();
    let put = run(["put", "greeting", "--value", "hello", "--peer", &peer]).expect_code(0);
    assert!(put.text().contains("stored 5 bytes under greeting at 1 of 1 peers"), "{}", put.text());
    let get = run(["get", "greeting", "--peer", &peer]).expect_code(0);
    assert_eq!(get.stdout, b"hello", "without a line end");
    assert!(get.stderr.is_empty(), "{}", get.stderr);

    let json = run(["get", "hex:6772656574696e67", "--peer", &peer, "--json"]).expect_code(0).json();
    assert_eq!(json["ok"], true);
    assert_eq!(json["key"], "greeting");
    assert_eq!(json["value"], "hello");
    assert!(peer.ends_with(json["from"].as_str().unwrap()));
}

#[test]
fn a_recorded_command_is_replayed_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("queries.log");
    let log = log.to_str().unwrap();
    {
        let (_node, peer) = node();
        run(["put", "greeting", "--value", "hello", "--peer", &peer]).expect_code(0);
        run(["get", "greeting", "--peer", &peer, "--record", log]).expect_code(0);
        let again = run(["get", "greeting", "--peer", &peer, "--record", log]).expect_code(1);
        assert!(again.stderr.starts_with(&format!("error: cannot create {log}: ")), "{}", again.stderr);
    }
    let text = std::fs::read_to_string(log).unwrap();
    let hello: String = b"hello".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(text.contains("> ") && !text.contains(&hello), "{text}");

    // The end of a line is missing after a crash.
    std::fs::write(log, text.trim_end()).unwrap();
    assert_eq!(run(["replay", log, "--json"]).expect_code(0).json()["lines"], text.lines().count() - 1);
    std::fs::write(log, text.replace(" first", " all")).unwrap();
    let changed = run(["replay", log]).expect_code(1);
    assert!(changed.stderr.contains("differs from its replay: line "), "{}", changed.stderr);
    let header = text.lines().next().unwrap();
    std::fs::write(log, format!("{header}\n< \u{1b}[2J\n")).unwrap();
    let stranger = run(["replay", log]).expect_code(1);
    assert!(stranger.stderr.contains("[2J") && !stranger.stderr.contains('\u{1b}'), "{}", stranger.stderr);
    std::fs::write(log, "hello\n").unwrap();
    let other = run(["replay", log]).expect_code(1);
    assert!(other.stderr.contains("is no recording of this version"), "{}", other.stderr);
    std::fs::write(log, "").unwrap();
    run(["replay", log]).expect_code(1);
    run(["replay", "no/such/file"]).expect_code(1);
}

#[test]
fn bytes_from_stdin_and_from_a_file_arrive_unchanged() {
    let (_node, peer) = node();
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..60_000_u32).map(|n| (n % 251) as u8).collect();
    run_with_input(["put", "hex:00ff", "--peer", &peer], &bytes).expect_code(0);
    let output = folder.path().join("output");
    let get = run(["get", "hex:00ff", "--peer", &peer, "--output", output.to_str().unwrap()]).expect_code(0);
    assert!(get.stdout.is_empty());
    assert_eq!(std::fs::read(&output).unwrap(), bytes);

    let put = run(["put", "copy", "--file", output.to_str().unwrap(), "--peer", &peer, "--json"]).expect_code(0);
    assert_eq!(put.json()["bytes"], 60_000);
    assert_eq!(put.json()["acknowledged"].as_array().unwrap().len(), 1);
    assert_eq!(run(["get", "copy", "--peer", &peer]).expect_code(0).stdout, bytes);
    let json = run(["get", "copy", "--peer", &peer, "--json"]).expect_code(0).json();
    assert!(json["value_hex"].as_str().unwrap().starts_with("00010203"));
}

#[test]
fn a_missing_record_or_provider_is_exit_code_3() {
    let (_node, peer) = node();
    for (command, error) in [("get", "error: record not found: "), ("providers", "error: no provider found: ")] {
        let ended = run([command, "missing", "--peer", &peer, "--json"]).expect_code(3);
        assert!(ended.stderr.starts_with(error), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert_eq!(ended.json()["reason"], "not_found");
    }
    assert!(run(["get", "missing", "--peer", &peer]).expect_code(3).stdout.is_empty());
}

#[test]
fn a_value_over_the_limit_is_an_error_that_names_the_limit() {
    let (_node, peer) = node();
    let ended = run_with_input(["put", "large", "--peer", &peer], &vec![0; 70_000]).expect_code(1);
    assert_eq!(
        ended.stderr,
        "error: invalid request: value of 70000 bytes is too long: at most 65536 are allowed under this key\n"
    );
}

#[test]
fn an_unreachable_peer_is_exit_code_5() {
    let peer = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR";
    let ended = run(["get", "key", "--peer", peer, "--timeout", "1s"]).expect_code(5);
    assert!(ended.stderr.starts_with("error: no peer of this network found within"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn nodes_of_another_protocol_are_not_found() {
    let (_node, peer) = node();
    run(["get", "key", "--peer", &peer, "--protocol", "/other/kad/1", "--timeout", "1s"]).expect_code(5);
}

#[test]
fn the_closest_peers_are_printed_with_their_addresses() {
    let (_node, peer) = node();
    let (_, id) = peer.rsplit_once("/p2p/").unwrap();
    let closest = run(["closest", "some key", "--peer", &peer]).expect_code(0);
    assert_eq!(closest.text().trim_end().split_once(' '), Some((id, &*peer)));
    let json = run(["closest", id, "--peer", &peer, "--json"]).expect_code(0).json();
    assert_eq!(json["peers"][0]["peer"], id);
    assert_eq!(json["peers"][0]["addresses"][0], peer);
}

#[cfg(unix)]
#[test]
fn a_provider_is_found_while_it_stays() {
    let (_node, peer) = node();
    let mut provider = Running::start(["provide", "a thing", "--peer", &peer].into_iter().chain(LOOPBACK));
    let line = provider.line();
    let (id, _) = line.split_once(" provides a thing").expect("it is announced");
    // An announcement is not acknowledged, so it may still be under way.
    let found = (0..100).find_map(|_| {
        let providers = run(["providers", "a thing", "--peer", &peer]);
        (providers.code == Some(0)).then(|| providers.text().to_owned())
    });
    assert_eq!(found.as_deref().map(str::trim_end), Some(id));
    let json = run(["providers", "a thing", "--peer", &peer, "--limit", "1", "--json"]).expect_code(0).json();
    assert_eq!(json["providers"][0], id);
    provider.terminate();
    provider.end().expect_code(0);
}

#[cfg(unix)]
#[test]
fn a_node_ends_at_sigterm_and_has_the_same_peer_id_at_its_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let identity = folder.path().join("node.key");
    let run_once = || {
        let args = ["node", "--json", "--identity", identity.to_str().unwrap()];
        let mut node = Running::start(args.into_iter().chain(LOOPBACK));
        let line: serde_json::Value = serde_json::from_str(&node.line()).unwrap();
        node.terminate();
        node.end().expect_code(0);
        assert!(line["address"].as_str().unwrap().ends_with(line["peer"].as_str().unwrap()));
        line["peer"].as_str().unwrap().to_owned()
    };
    assert_eq!(run_once(), run_once());
}

#[test]
fn a_killed_node_has_its_records_again_from_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let [identity, store] = ["node.key", "store"].map(|name| folder.path().join(name));
    let start = || {
        let args = ["node", "--identity", identity.to_str().unwrap(), "--store", store.to_str().unwrap()];
        let mut node = Running::start(args.into_iter().chain(LOOPBACK));
        let address = node.line();
        (node, address)
    };
    let (node, peer) = start();
    run(["put", "greeting", "--value", "hello", "--peer", &peer]).expect_code(0);
    let second = run(["node", "--store", store.to_str().unwrap()].into_iter().chain(LOOPBACK)).expect_code(1);
    assert_eq!(
        second.stderr,
        format!("error: store cannot be opened: {} is in use by another store\n", store.display())
    );
    // Dropping it kills the process.
    drop(node);
    let (_node, peer) = start();
    assert_eq!(run(["get", "greeting", "--peer", &peer]).expect_code(0).stdout, b"hello");
}

#[cfg(unix)]
#[test]
fn a_node_joins_through_another_and_logs_its_peers() {
    let (first, peer) = node();
    let mut second = Running::start(["node", "--peer", &peer].into_iter().chain(LOOPBACK));
    let other = second.line();
    let id = other.rsplit_once("/p2p/").unwrap().1.to_owned();
    // The address is printed before the two nodes connect.
    let found = (0..100).any(|_| {
        run(["closest", &id, "--peer", &peer]).expect_code(0).text().lines().any(|line| line.starts_with(&id))
    });
    assert!(found);
    second.terminate();
    let log = second.end().expect_code(0).stderr;
    assert!(log.contains("connected") && log.contains("shutting down"), "{log}");
    first.terminate();
    first.end().expect_code(0);
}
