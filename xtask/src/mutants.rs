//! Breaks the tracker or the registry in many small ways, one at a time, and requires that a test fails each time.
//!
//! ```text
//! mutants/run                          all of the tracker's
//! mutants/run slot retry               only those whose line contains one of these words
//! mutants/run --registry [words]       the registry's
//! ```
//!
//! The lists are `mutants/*.txt` and `marketplace/mutants/*.txt`. An entry is what it breaks, a file below `core/src` or
//! `marketplace/src`, and lines to take away and to put in their place:
//!
//! ```text
//! # what it breaks
//! @ tracker/waiting.rs
//! - class.queue.pop_first()
//! + class.queue.pop_last()
//! ```
//!
//! What is taken away has to occur exactly once, indentation aside, or the list is out of date, and that is a failure,
//! too. So is a mutant that does not compile. Only copies are changed.
//!
//! Of the registry, an entry whose line begins with `attack` takes away a defence, and a test has to fail that shows the
//! attack: one whose name begins with `attack_`. Any of the unit tests may find the others.

#![expect(clippy::panic, reason = "a tool for tests: it reports by failing")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// Seconds after which tests that hang have failed.
const LIMIT: &str = "600";

/// Seconds for the first build, of all dependencies.
const FIRST_BUILD_LIMIT: &str = "3600";

/// What is broken, and what has to notice it.
struct Subject {
    /// The folder of the lists.
    lists: &'static str,
    /// The folder that the entries' files are in.
    source: &'static str,
    /// The packages of the copied workspace.
    members: &'static [&'static str],
    /// What is copied beside them.
    others: &'static [&'static str],
    /// Cases of each property test; far fewer than in an ordinary run of the model find all of these faults.
    cases: &'static str,
    /// What is run, in this order, until something fails.
    suites: &'static [Suite],
}

struct Suite {
    name: &'static str,
    /// Whether it is run for an entry with this line.
    is_for: fn(&str) -> bool,
    args: &'static [&'static str],
}

/// Regressions are left out: each pins one single finding.
const TRACKER: Subject = Subject {
    lists: "mutants",
    source: "core/src",
    members: &["core", "model"],
    others: &["Cargo.lock", "clippy.toml", "fuzz/Cargo.toml", "fuzz/corpus", "fuzz/fuzz_targets"],
    cases: "1500",
    suites: &[
        Suite {
            name: "model",
            is_for: |_| true,
            args: &["-p", "kadence-model", "--test", "schedules", "--test", "corpus"],
        },
        Suite { name: "core", is_for: |_| true, args: &["-p", "kadence-core", "--lib", "--tests"] },
    ],
};

const REGISTRY: Subject = Subject {
    lists: "marketplace/mutants",
    source: "marketplace/src",
    members: &["core", "store", "driver", "driver-smol", "async-io-transport", "marketplace"],
    others: &["Cargo.lock", "clippy.toml"],
    cases: "256",
    suites: &[
        Suite { name: "attack", is_for: is_attack, args: &["-p", "ggen-marketplace", "--lib", "attack_"] },
        Suite { name: "unit", is_for: |line| !is_attack(line), args: &["-p", "ggen-marketplace", "--lib"] },
    ],
};

fn is_attack(line: &str) -> bool {
    line.starts_with("attack ")
}

#[derive(Debug, Default)]
struct Mutant {
    breaks: String,
    file: String,
    old: Vec<String>,
    new: Vec<String>,
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut words: Vec<_> = env::args().skip(1).collect();
    let given = words.len();
    words.retain(|word| word != "--registry");
    let subject = if words.len() < given { REGISTRY } else { TRACKER };
    let mutants: Vec<_> = lists(&root.join(subject.lists)).iter().flat_map(|list| parse(list)).collect();

    let mut failures = 0;
    // Every entry has to apply, also when only some are run.
    for mutant in &mutants {
        if let Err(why) = mutate(mutant, &read(&root.join(subject.source).join(&mutant.file))) {
            println!("{:9} {:>5}  {}: {why}", "OUTDATED", "", mutant.breaks);
            failures += 1;
        }
    }
    let workspace = Workspace::copy(&root, subject);
    let suites = &workspace.subject.suites;
    assert!(workspace.compiles(FIRST_BUILD_LIMIT), "it does not compile without any mutant");
    if let Some(suite) = suites.iter().find(|suite| workspace.fails(suite)) {
        panic!("the {} tests fail without any mutant", suite.name);
    }
    let is_chosen = |mutant: &&Mutant| words.is_empty() || words.iter().any(|word| mutant.breaks.contains(word));
    let mut tried = 0;
    for mutant in mutants.iter().filter(is_chosen) {
        let path = workspace.root.join(workspace.subject.source).join(&mutant.file);
        let original = read(&path);
        let Ok(mutated) = mutate(mutant, &original) else { continue };
        let began = Instant::now();
        write(&path, &mutated);
        let verdict = if workspace.compiles(LIMIT) {
            let mut suites = suites.iter().filter(|suite| (suite.is_for)(&mutant.breaks));
            suites.find(|suite| workspace.fails(suite)).map_or("SURVIVES", |suite| suite.name)
        } else {
            "NO BUILD"
        };
        write(&path, &original);
        tried += 1;
        failures += usize::from(matches!(verdict, "SURVIVES" | "NO BUILD"));
        println!("{verdict:9} {:>4}s  {}", began.elapsed().as_secs(), mutant.breaks);
    }
    println!("{} mutants, {tried} of them tried; {failures} failures", mutants.len());
    if failures > 0 {
        drop(workspace);
        std::process::exit(1);
    }
}

/// The text of each list in a folder.
fn lists(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
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

/// A copy of some packages, as a workspace of their own, which is quick to build. It is gone when this is.
struct Workspace {
    root: PathBuf,
    subject: Subject,
}

impl Workspace {
    fn copy(root: &Path, subject: Subject) -> Self {
        let copy = env::temp_dir().join(format!("kadence-mutants-{}", std::process::id()));
        for name in subject.members.iter().chain(subject.others) {
            copy_all(&root.join(name), &copy.join(name));
        }
        let members = format!("members = {:?}", subject.members);
        let manifest = read(&root.join("Cargo.toml"));
        let mut shortened = String::new();
        for line in manifest.lines() {
            // The others would have to be resolved, and what is not optimised compiles sooner.
            shortened += match line {
                line if line.starts_with("members = ") => &members,
                line if line.starts_with("default-members = ") => "",
                "opt-level = 2" => "opt-level = 1",
                line => line,
            };
            shortened += "\n";
        }
        write(&copy.join("Cargo.toml"), &shortened);
        Self { root: copy, subject }
    }

    fn compiles(&self, limit: &str) -> bool {
        self.subject.suites.iter().all(|suite| self.cargo(limit, &[&["test", "--no-run"], suite.args].concat()))
    }

    fn fails(&self, suite: &Suite) -> bool {
        !self.cargo(LIMIT, &[&["test"], suite.args].concat())
    }

    fn cargo(&self, limit: &str, args: &[&str]) -> bool {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from);
        let status = Command::new("timeout")
            .args([limit, env!("CARGO")])
            .args(args)
            .args(["--offline", "--quiet"])
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", target.join("mutants"))
            .env("PROPTEST_CASES", self.subject.cases)
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.unwrap_or_else(|error| panic!("cargo cannot be run: {error}")).success()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_dir() {
        let entries = fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            copy_all(&path, &to.join(path.file_name().unwrap_or_default()));
        }
    } else {
        let folder = to.parent().map_or(Ok(()), fs::create_dir_all);
        let copied = folder.and_then(|()| fs::copy(from, to));
        assert!(copied.is_ok(), "{}: {copied:?}", from.display());
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    assert!(written.is_ok(), "{}: {written:?}", path.display());
}
