//! Runs the programs of `examples/` and checks their output.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use kadence_tokio::{
    NodeConfig,
    kadence::libp2p::kad::{Mode, Record},
};

/// Returns the command of an example. Cargo builds a package's examples before it runs its tests, unless it runs a
/// single test target.
fn example(name: &str) -> Command {
    let tests = env::current_exe().unwrap();
    let path: PathBuf =
        tests.ancestors().nth(2).unwrap().join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: build it with `cargo build -p kadence-tests --examples`", path.display());
    Command::new(path)
}

fn succeeded(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    printed
}

/// Examples are outside of any package, so cargo builds only those that the manifest lists.
#[test]
fn every_example_is_listed_in_the_manifest() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    let files = fs::read_dir(package.join("../examples")).unwrap().map(|entry| entry.unwrap().path());
    let mut examples = 0;
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(manifest.contains(&format!("path = \"../examples/{name}\"")), "{name} is not listed");
        examples += 1;
    }
    assert!(examples > 0, "no example was found");
}

#[test]
fn own_loop_runs_kadence_in_an_application() {
    let printed = succeeded(&example("own_loop").output().unwrap());
    assert!(printed.contains("stored at 1 of 1 peers; read \"hello\""), "{printed}");
    assert!(printed.contains("work of the application"), "{printed}");
}

#[test]
fn tracker_alone_needs_no_driver() {
    assert_eq!(succeeded(&example("tracker_alone").output().unwrap()), "\"hello\"\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_works_on_each_runtime() {
    let config = |bootstrap_peers| {
        NodeConfig::default()
            .listen(["/ip4/127.0.0.1/tcp/0".parse().unwrap()])
            .bootstrap_peers(bootstrap_peers)
            .mode(Mode::Server)
    };
    let first = kadence_tokio::node(config(Vec::new())).await.unwrap();
    let second = kadence_tokio::node(config(first.listen_addrs())).await.unwrap();
    second.ready(Duration::from_secs(10)).await.unwrap();
    second.client().put_record(Record::new(b"greeting".to_vec(), b"hello".to_vec())).await.unwrap();
    for name in ["get_tokio", "get_async_std", "get_smol"] {
        let mut example = example(name);
        example.arg(first.listen_addrs()[0].to_string()).arg("greeting");
        let output = tokio::task::spawn_blocking(move || example.output()).await.unwrap().unwrap();
        assert_eq!(succeeded(&output), "hello\n", "{name}");
    }
}
