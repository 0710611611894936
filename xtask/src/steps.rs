//! The checks, each a step of `cargo xtask ci` or `cargo xtask nightly`.

use std::{env, fs, process::Command, time::Duration};

use anyhow::{Context, bail};

use crate::{
    builds,
    ci::Step,
    files, mutants, names, prose, races, sim,
    tools::{
        CARGO_DENY, CARGO_HACK, CARGO_SEMVER_CHECKS, CARGO_TARPAULIN, TYPOS, cargo, cargo_of, output, run, run_within,
        target_dir,
    },
};

/// Every check that a change passes. Under 45 minutes on two cores, from nothing.
pub(crate) const CI: &[Step] = &[
    Step { name: "lock", run: lock },
    Step { name: "fmt", run: fmt },
    Step { name: "prose", run: prose::check },
    Step { name: "names", run: names::check },
    Step { name: "mutant-lists", run: mutant_lists },
    Step { name: "clippy", run: clippy },
    Step { name: "features", run: features },
    Step { name: "wasm", run: wasm },
    Step { name: "demo", run: demo },
    Step { name: "test", run: test },
    Step { name: "races", run: races },
    Step { name: "sim", run: sim::check },
    Step { name: "doc", run: doc },
    Step { name: "deny", run: deny },
    Step { name: "typos", run: typos },
    Step { name: "publish", run: publish },
];

/// Longer checks, some of which need other toolchains.
pub(crate) const NIGHTLY: &[Step] = &[
    Step { name: "msrv", run: msrv },
    Step { name: "powerset", run: powerset },
    Step { name: "minimal", run: minimal_versions },
    Step { name: "semver", run: semver },
    Step { name: "fuzz-build", run: fuzz_build },
    Step { name: "schedules", run: schedules },
    Step { name: "release-demo", run: release_demo },
    Step { name: "instructions", run: instructions },
    Step { name: "coverage", run: coverage },
    Step { name: "mutants", run: all_mutants },
];

/// Libraries, in the order in which they depend on each other. All but the last are published.
const LIBRARIES: [&str; 11] = [
    "kadence-core",
    "libp2p-kad-timeouts",
    "kadence-sqlite",
    "kadence-store",
    "libp2p-async-io",
    "kadence",
    "kadence-tokio",
    "kadence-smol",
    "kadence-async-std",
    "kadence-registry",
    "ggen-marketplace",
];

/// Oldest compiler that builds the libraries, as in the root manifest.
const MSRV: &str = "1.88";

/// Limits for what hangs. A cold build on two cores is part of them; a healthy run stays far below.
const TEST_LIMIT: Duration = Duration::from_secs(2400);
const DEMO_LIMIT: Duration = Duration::from_secs(600);

/// The lock file is what was tested: it must fit the manifests. Also downloads every crate, so that no other step's
/// seconds depend on the network.
fn lock() -> anyhow::Result<()> {
    run(&mut cargo(&["fetch", "--locked"]))
}

fn fmt() -> anyhow::Result<()> {
    component("rustfmt", "fmt")?;
    run(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> anyhow::Result<()> {
    component("clippy", "clippy")?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]))?;
    // The user's own command.
    run(&mut cargo(&["clippy", "-p", "ggen-marketplace", "--features", "p2p", "--", "-D", "warnings"]))
}

/// Every entry of the mutants' lists has to apply to the source as it is.
fn mutant_lists() -> anyhow::Result<()> {
    mutants::run(&["--list".to_owned()])?;
    mutants::run(&["--list".to_owned(), "--registry".to_owned()])?;
    mutants::run(&["--list".to_owned(), "--driver".to_owned()])?;
    mutants::run(&["--list".to_owned(), "--worlds".to_owned()])
}

/// Each library without its default features.
fn features() -> anyhow::Result<()> {
    for library in LIBRARIES {
        run(&mut cargo(&["clippy", "--package", library, "--no-default-features", "--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// The crates that a program in a browser needs compile for it: the tracker, the client and driver, the peer timeouts.
fn wasm() -> anyhow::Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    run(Command::new("rustup").args(["target", "add", TARGET]))?;
    for library in ["kadence-core", "libp2p-kad-timeouts", "kadence"] {
        run(&mut cargo(&["check", "--package", library, "--no-default-features", "--target", TARGET]))?;
    }
    Ok(())
}

/// The README's first command, whose last line is one JSON object.
fn demo() -> anyhow::Result<()> {
    demo_with(&[])
}

fn release_demo() -> anyhow::Result<()> {
    demo_with(&["--release"])
}

fn demo_with(profile: &[&str]) -> anyhow::Result<()> {
    builds::first(&[&["build"], profile].concat())?;
    let printed = target_dir().join("demo.json");
    let file = fs::File::create(&printed).with_context(|| format!("cannot create {}", printed.display()))?;
    run_within(DEMO_LIMIT, cargo(&[&["run"], profile, &["--", "demo", "--json"]].concat()).stdout(file))?;
    let text = fs::read_to_string(&printed)?;
    let last = text.lines().last().unwrap_or_default();
    println!("last line: {last}");
    if !last.starts_with('{') || !last.ends_with('}') || !last.contains("\"ok\":true") {
        bail!("the last line is not a JSON object with \"ok\":true");
    }
    Ok(())
}

/// The README's second command: unit tests, suites, replayed fuzz corpora and doctests.
fn test() -> anyhow::Result<()> {
    builds::again(&["test", "--workspace", "--no-run"])?;
    run_within(TEST_LIMIT, &mut cargo(&["test", "--workspace", "--no-fail-fast"]))?;
    // The user's own command; without the feature the package has no tests.
    run_within(TEST_LIMIT, &mut cargo(&["test", "-p", "ggen-marketplace", "--features", "p2p", "--", "--nocapture"]))
}

/// Callers against the driver, in some thousand orders each.
fn races() -> anyhow::Result<()> {
    races::check(&[])
}

fn doc() -> anyhow::Result<()> {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Not `advisories`: their database is another repository, and it changes without a change here. See CONTRIBUTING.md.
fn deny() -> anyhow::Result<()> {
    let args = ["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    run(&mut CARGO_DENY.command(&args)?)
}

fn typos() -> anyhow::Result<()> {
    run(&mut TYPOS.command(&[])?)
}

/// Packs every published crate, and builds each from its package.
fn publish() -> anyhow::Result<()> {
    // A package has no profile. With that of the workspace, its dependencies are those that are there already.
    const PROFILE: [&str; 3] = [
        r#"profile.dev.debug="line-tables-only""#,
        r#"profile.dev.package."*".opt-level=1"#,
        r#"profile.dev.package."*".debug=false"#,
    ];
    let mut publish = cargo(&["publish", "--workspace", "--dry-run", "--locked"]);
    publish.args(PROFILE.iter().flat_map(|setting| ["--config", *setting]));
    if env::var_os("CI").is_none() {
        publish.arg("--allow-dirty");
    }
    run(&mut publish)
}

fn msrv() -> anyhow::Result<()> {
    toolchain(MSRV)?;
    for library in LIBRARIES {
        let mut check = cargo_of(MSRV, &["check", "--package", library, "--all-features"]);
        run(check.env("CARGO_TARGET_DIR", target_dir().join("msrv")))?;
    }
    Ok(())
}

fn powerset() -> anyhow::Result<()> {
    let mut args = vec!["hack", "check", "--feature-powerset", "--no-dev-deps"];
    args.extend(LIBRARIES.iter().flat_map(|library| ["--package", *library]));
    let mut check = CARGO_HACK.command(&args)?;
    run(check.env("RUSTFLAGS", "-D warnings").env("CARGO_TARGET_DIR", target_dir().join("features")))
}

/// The libraries with the oldest versions of their direct dependencies that the manifests allow.
fn minimal_versions() -> anyhow::Result<()> {
    toolchain("nightly")?;
    let lock = files::root().join("Cargo.lock");
    let tested = fs::read(&lock)?;
    let result = (|| {
        run(&mut cargo_of("nightly", &["update", "-Z", "direct-minimal-versions"]))?;
        for library in LIBRARIES {
            let mut check = cargo(&["check", "--package", library, "--all-features"]);
            run(check.env("CARGO_TARGET_DIR", target_dir().join("minimal")))?;
        }
        Ok(())
    })();
    fs::write(&lock, tested)?;
    result
}

/// Compares the public API with that of the newest released version, by its tag.
fn semver() -> anyhow::Result<()> {
    let tags =
        output(Command::new("git").args(["tag", "--list", "v*", "--sort=-v:refname"]).current_dir(files::root()))?;
    let Some(released) = tags.lines().next() else {
        println!("nothing was released yet: there is no API to keep");
        return Ok(());
    };
    run(&mut CARGO_SEMVER_CHECKS.command(&["semver-checks", "--workspace", "--baseline-rev", released])?)
}

fn fuzz_build() -> anyhow::Result<()> {
    toolchain("nightly")?;
    let mut check = cargo_of("nightly", &["check", "--locked", "--manifest-path", "fuzz/Cargo.toml"]);
    run(check.env("CARGO_TARGET_DIR", target_dir().join("fuzz")))
}

/// Random schedules against the model, a hundred times as many as in the ordinary tests.
fn schedules() -> anyhow::Result<()> {
    let mut test = cargo(&["test", "--release", "-p", "kadence-model", "--test", "schedules"]);
    run(test.env("PROPTEST_CASES", "500000"))
}

/// Counts the instructions of a request's whole life, by the number of pending requests, with valgrind's callgrind: the
/// same on every run, however busy the machine is.
///
/// # Errors
///
/// If valgrind is missing or the program does not build.
pub(crate) fn instructions() -> anyhow::Result<()> {
    const FEW: u64 = 1_000;
    const MANY: u64 = 21_000;
    run(&mut cargo(&["build", "--release", "-p", "kadence-core", "--example", "lifecycles"]))?;
    let program = target_dir().join("release/examples/lifecycles");
    let out = env::temp_dir().join(format!("kadence-callgrind-{}", std::process::id()));
    let count = |pending: u64, lifecycles: u64| -> anyhow::Result<u64> {
        let mut valgrind = Command::new("valgrind");
        valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
        let output = valgrind.arg(&program).args([pending.to_string(), lifecycles.to_string()]).output();
        let text = String::from_utf8_lossy(&output.context("valgrind cannot be run: install it")?.stderr).into_owned();
        let counted = text.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
        counted.context("callgrind counted nothing")?.parse().context("not a count")
    };
    println!("| pending requests | instructions per request |\n|---:|---:|");
    for pending in [1_000, 10_000, 100_000, 1_000_000] {
        println!("| {pending} | {} |", (count(pending, MANY)? - count(pending, FEW)?) / (MANY - FEW));
    }
    Ok(fs::remove_file(out)?)
}

/// At least 90 % of the lines of the published libraries.
fn coverage() -> anyhow::Result<()> {
    let mut args = vec!["tarpaulin", "--engine", "llvm", "--workspace", "--out", "Html", "--fail-under", "90"];
    // Tests, tools, and a workspace of its own.
    for folder in ["tests/*", "xtask/*", "model/*", "sim/*"] {
        args.extend(["--exclude-files", folder]);
    }
    // Programs that run networks say nothing for minutes.
    args.extend(["--timeout", "1200", "--no-fail-fast", "--output-dir", "target/coverage"]);
    run(&mut CARGO_TARPAULIN.command(&args)?)
}

fn all_mutants() -> anyhow::Result<()> {
    mutants::run(&[])?;
    mutants::run(&["--registry".to_owned()])?;
    mutants::run(&["--driver".to_owned()])?;
    mutants::run(&["--worlds".to_owned()])
}

/// Installs a component of the toolchain if its command is missing.
fn component(name: &str, command: &str) -> anyhow::Result<()> {
    let mut version = cargo(&[command, "--version"]);
    if version.output().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    run(Command::new("rustup").args(["component", "add", name]))
}

fn toolchain(name: &str) -> anyhow::Result<()> {
    let mut version = cargo_of(name, &["--version"]);
    if version.output().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    run(Command::new("rustup").args(["toolchain", "install", name, "--profile", "minimal"]))
}
