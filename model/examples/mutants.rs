//! Breaks the tracker in many small ways, one at a time, and requires that a test fails each time.
//!
//! ```text
//! mutants/run                  all of them
//! mutants/run slot retry       only those whose line contains one of these words
//! ```
//!
//! The list is `mutants/list.txt`. An entry is what it breaks, a file below `core/src`, and lines to take away and to
//! put in their place:
//!
//! ```text
//! # what it breaks
//! @ tracker/waiting.rs
//! - class.queue.pop_first()
//! + class.queue.pop_last()
//! ```
//!
//! What is taken away has to occur exactly once, indentation aside, or the list is out of date, and that is a failure,
//! too. Only copies are changed.

#![expect(clippy::panic, reason = "a tool for tests: it reports by failing")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// Schedules of each of the model's property tests; far fewer than in an ordinary run find all of these faults.
const SCHEDULES: &str = "1500";

/// Seconds after which tests that hang have failed.
const LIMIT: &str = "600";

/// What is run, in this order, until something fails. Regressions are left out: each pins one single finding.
const SUITES: &[(&str, &[&str])] = &[
    ("model", &["-p", "kadence-model", "--test", "schedules", "--test", "corpus"]),
    ("core", &["-p", "kadence-core", "--lib", "--tests"]),
];

#[derive(Debug, Default)]
struct Mutant {
    breaks: String,
    file: String,
    old: Vec<String>,
    new: Vec<String>,
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let words: Vec<_> = env::args().skip(1).collect();
    let mutants = parse(&read(&root.join("mutants/list.txt")));
    let copy = env::temp_dir().join(format!("kadence-mutants-{}", std::process::id()));
    prepare(&root, &copy);

    let mut failures = 0;
    // Every entry has to apply, also when only some are run.
    for mutant in &mutants {
        if let Err(why) = mutate(mutant, &read(&root.join("core/src").join(&mutant.file))) {
            println!("{:9} {:>5}  {}: {why}", "OUTDATED", "", mutant.breaks);
            failures += 1;
        }
    }
    if let Some(suite) = killer(&copy) {
        panic!("the {suite} tests fail without any mutant");
    }
    for mutant in &mutants {
        let chosen = words.is_empty() || words.iter().any(|word| mutant.breaks.contains(word));
        let path = copy.join("core/src").join(&mutant.file);
        let original = read(&path);
        let Ok(mutated) = mutate(mutant, &original) else { continue };
        if !chosen {
            continue;
        }
        let began = Instant::now();
        write(&path, &mutated);
        let verdict = if compiles(&copy) { killer(&copy) } else { Some("BUILD") };
        write(&path, &original);
        let verdict = match verdict {
            Some("BUILD") => {
                failures += 1;
                "NO BUILD"
            }
            Some(suite) => suite,
            None => {
                failures += 1;
                "SURVIVES"
            }
        };
        println!("{verdict:9} {:>4}s  {}", began.elapsed().as_secs(), mutant.breaks);
    }
    let _ = fs::remove_dir_all(&copy);
    println!("{} mutants, {failures} of them not killed", mutants.len());
    if failures > 0 {
        std::process::exit(1);
    }
}

fn parse(list: &str) -> Vec<Mutant> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for (at, line) in list.lines().enumerate() {
        let (mark, rest) = line.split_at_checked(1).unwrap_or(("", ""));
        let rest = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
        match (mark, mutants.last_mut()) {
            ("#", _) => mutants.push(Mutant { breaks: rest, ..Mutant::default() }),
            ("@", Some(mutant)) => mutant.file = rest,
            ("-", Some(mutant)) => mutant.old.push(rest),
            ("+", Some(mutant)) => mutant.new.push(rest),
            ("", _) => {}
            _ => panic!("line {} of the list is none of its lines: {line}", at + 1),
        }
    }
    mutants
}

/// The file with the mutant's change, or why it does not apply.
fn mutate(mutant: &Mutant, file: &str) -> Result<String, String> {
    let text = unindented(file);
    let (old, new) = (unindented(&mutant.old.join("\n")), mutant.new.join("\n"));
    let old = old.trim_end();
    match text.matches(old).count() {
        1 if !old.is_empty() => Ok(text.replacen(old, &new, 1)),
        count => Err(format!("`{old}` occurs {count} times in {}", mutant.file)),
    }
}

/// Rust does not mind.
fn unindented(text: &str) -> String {
    text.lines().map(|line| line.trim_start().to_owned() + "\n").collect()
}

/// Copies the core and the model into a workspace of their own, which is quick to build.
fn prepare(root: &Path, copy: &Path) {
    for folder in ["core", "model", "fuzz/corpus", "fuzz/fuzz_targets"] {
        copy_all(&root.join(folder), &copy.join(folder));
    }
    for file in ["Cargo.lock", "clippy.toml", "fuzz/Cargo.toml"] {
        write(&copy.join(file), &read(&root.join(file)));
    }
    let manifest = read(&root.join("Cargo.toml"));
    let mut shortened = String::new();
    for line in manifest.lines() {
        // The others would have to be resolved, and what is not optimised compiles sooner.
        shortened += match line {
            line if line.starts_with("members = ") => "members = [\"core\", \"model\"]",
            line if line.starts_with("default-members = ") => "",
            "opt-level = 2" => "opt-level = 1",
            line => line,
        };
        shortened += "\n";
    }
    write(&copy.join("Cargo.toml"), &shortened);
}

fn copy_all(from: &Path, to: &Path) {
    let entries = fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            let copied = fs::create_dir_all(to).and_then(|()| fs::copy(&path, &target));
            assert!(copied.is_ok(), "{}: {copied:?}", path.display());
        }
    }
}

fn compiles(copy: &Path) -> bool {
    SUITES.iter().all(|(_, args)| cargo(copy, &[&["test", "--no-run"], *args].concat()))
}

/// The first suite that fails.
fn killer(copy: &Path) -> Option<&'static str> {
    SUITES.iter().find(|(_, args)| !cargo(copy, &[&["test"], *args].concat())).map(|(suite, _)| *suite)
}

fn cargo(copy: &Path, args: &[&str]) -> bool {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| copy.join("target"), PathBuf::from);
    let status = Command::new("timeout")
        .args([LIMIT, env!("CARGO")])
        .args(args)
        .args(["--offline", "--quiet"])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target.join("mutants"))
        .env("PROPTEST_CASES", SCHEDULES)
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap_or_else(|error| panic!("cargo cannot be run: {error}")).success()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    assert!(written.is_ok(), "{}: {written:?}", path.display());
}
