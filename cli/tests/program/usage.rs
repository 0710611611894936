//! Wrong usage, which is rejected before anything is done.

use crate::process::run;

#[test]
fn wrong_usage_is_exit_code_2_with_a_reason() {
    let cases: [(&[&str], &str); 14] = [
        (&[], "Usage"),
        (&["fly"], "unrecognized subcommand"),
        (&["get", "key"], "--peer"),
        (&["get", "", "--peer", "/ip4/127.0.0.1/tcp/1"], "at least one byte"),
        (&["get", "hex:xyz", "--peer", "/ip4/127.0.0.1/tcp/1"], "hexadecimal"),
        (&["get", "key", "--peer", "127.0.0.1:1"], "invalid value"),
        (&["get", "key", "--peer", "/ip4/127.0.0.1/tcp/1", "--timeout", "soon"], "10s"),
        (&["put", "key", "--peer", "/ip4/127.0.0.1/tcp/1", "--value", "a", "--file", "b"], "cannot be used with"),
        (&["demo", "--nodes", "1"], "4..=64"),
        (&["demo", "--registry", "--mixed"], "cannot be used with"),
        (&["pkg", "install", "units"], "--peer"),
        (&["pkg", "install", "units@new", "--offline"], "NAME[@REQ]"),
        (&["pkg", "yank", "units", "--peer", "/ip4/127.0.0.1/tcp/1"], "a version is missing"),
        (&["pkg", "info", "Units", "--peer", "/ip4/127.0.0.1/tcp/1"], "invalid value"),
    ];
    for (args, reason) in cases {
        let ended = run(args).expect_code(2);
        assert!(ended.stderr.contains(reason), "{args:?}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_succeed() {
    assert!(run(["--version"]).expect_code(0).text().starts_with("kadence "));
    for command in ["demo", "node", "get", "put", "provide", "providers", "closest"] {
        assert!(run([command, "--help"]).expect_code(0).text().contains("Usage"), "{command}");
    }
    assert!(run(["put", "--help"]).text().contains("expires"));
    for command in ["init", "publish", "search", "info", "versions", "install", "yank", "unyank", "serve"] {
        assert!(run(["pkg", command, "--help"]).expect_code(0).text().contains("Usage"), "{command}");
    }
}

#[test]
fn a_peer_without_an_id_is_an_error_of_one_line() {
    let ended = run(["get", "key", "--peer", "/ip4/127.0.0.1/tcp/1"]).expect_code(1);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains("/p2p/"), "{}", ended.stderr);
}
