//! Breaks the tracker, the registry, the driver or the whole in many small ways, one at a time, and requires that a test
//! fails each time.
//!
//! ```text
//! cargo xtask mutants                          all of the tracker's
//! cargo xtask mutants slot retry               only those whose line contains one of the words
//! cargo xtask mutants --each                   goes on after the first suite that fails, and names all that do
//! cargo xtask mutants --suite=orders           only one suite: the model, the orderings or the tests
//! cargo xtask mutants --registry [words]       the registry's
//! cargo xtask mutants --driver [words]         the driver's, against the races of `cargo xtask races`
//! cargo xtask mutants --worlds [words]         some of all crates, against the random worlds of `cargo xtask sim`
//! cargo xtask mutants --list [--registry | --driver | --worlds]   checks that every entry applies, and runs nothing
//! ```
//!
//! The lists are `mutants/*.txt`, `registry/mutants/*.txt`, `kadence/mutants/*.txt` and `sim/mutants/*.txt`. An entry is a
//! line that says what it breaks, a file below `core/src`, `registry/src`, `kadence/src` or the root, and lines to remove
//! and to put in their place:
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
//! Of the registry, an entry whose line begins with `attack` takes away a defence, and a test has to fail that shows
//! the attack: one whose name begins with `attack_`. Any of the unit tests may find the others.

use std::{
    env,
    ffi::OsStr,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context, anyhow, bail};

use crate::{files, races, tools};

/// Seconds after which tests that hang have failed.
const LIMIT: &str = "600";

const CANNOT_RUN: &str = "cannot run `timeout` and cargo";

/// Seconds for sixty worlds. Each of them has a limit of its own.
const WORLDS_LIMIT: &str = "7200";

/// Seconds for the first build, of all dependencies.
const FIRST_BUILD_LIMIT: &str = "3600";

/// A program to break, and the tests that have to notice.
#[derive(Clone, Copy)]
struct Subject {
    /// The folder of the lists.
    lists: &'static str,
    /// The folder that the entries' files are in.
    source: &'static str,
    /// The packages of the copied workspace.
    members: &'static [&'static str],
    /// Further files to copy.
    others: &'static [&'static str],
    /// Cases of each property test; far fewer than in an ordinary run of the model find all mutants.
    cases: &'static str,
    /// Test suites in the order in which they run, until one fails.
    suites: &'static [Suite],
}

#[derive(Clone, Copy)]
struct Suite {
    name: &'static str,
    /// Returns whether the suite runs for an entry with this line.
    is_for: fn(&str) -> bool,
    args: &'static [&'static str],
    tests: Tests,
}

/// Tests of a suite that run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tests {
    All,
    /// Those of the module that the entry changes.
    Near,
    /// Those of `cargo xtask races`, which need a compilation of their own.
    Races,
    /// Random worlds of the simulator, which is a workspace of its own, until one of them finds something.
    Worlds,
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
            tests: Tests::All,
        },
        Suite {
            name: "orders",
            is_for: |_| true,
            args: &["-p", "kadence-core", "--lib", "tracker::explore::"],
            tests: Tests::All,
        },
        Suite {
            name: "tests",
            is_for: |_| true,
            args: &["-p", "kadence-core", "--lib", "--tests", "--", "--skip", "tracker::explore::"],
            tests: Tests::All,
        },
    ],
};

const REGISTRY: Subject = Subject {
    lists: "registry/mutants",
    source: "registry/src",
    members: &[
        "core",
        "sqlite",
        "store",
        "libp2p-kad-timeouts",
        "kadence",
        "driver-tokio",
        "driver-smol",
        "libp2p-async-io",
        "registry",
    ],
    others: &["Cargo.lock", "clippy.toml"],
    cases: "256",
    suites: &[
        Suite {
            name: "attack",
            is_for: is_attack,
            args: &["-p", "kadence-registry", "--lib", "attack_"],
            tests: Tests::All,
        },
        // Most are found within the module, in a fraction of the time.
        Suite {
            name: "near",
            is_for: |line| !is_attack(line),
            args: &["-p", "kadence-registry", "--lib"],
            tests: Tests::Near,
        },
        Suite {
            name: "unit",
            is_for: |line| !is_attack(line),
            args: &["-p", "kadence-registry", "--lib"],
            tests: Tests::All,
        },
    ],
};

const DRIVER: Subject = Subject {
    lists: "kadence/mutants",
    source: "kadence/src",
    members: &["core", "sqlite", "store", "libp2p-kad-timeouts", "kadence", "driver-tokio"],
    others: &["Cargo.lock", "clippy.toml"],
    cases: "256",
    suites: &[Suite { name: "races", is_for: |_| true, args: &races::COMPILE, tests: Tests::Races }],
};

const WORLDS: Subject = Subject {
    lists: "sim/mutants",
    source: ".",
    members: REGISTRY.members,
    others: &["Cargo.lock", "clippy.toml", "sim"],
    cases: "256",
    suites: &[Suite {
        name: "worlds",
        is_for: |_| true,
        args: &["--locked", "--example", "worlds", "--", "--until-violation", "--seeds", "60"],
        tests: Tests::Worlds,
    }],
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

/// Runs the mutants chosen by `args`, or with `--list` only checks that every entry applies.
///
/// # Errors
///
/// If a mutant survives, does not build or does not apply.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let root = files::root();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let words: Vec<_> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let each = has("--each");
    let only = args.iter().find_map(|arg| arg.strip_prefix("--suite="));
    let subject = match () {
        () if has("--registry") => REGISTRY,
        () if has("--driver") => DRIVER,
        () if has("--worlds") => WORLDS,
        () => TRACKER,
    };
    if has("--suite") {
        bail!("name the suite in the same argument: --suite=orders");
    }
    let suites = subject.suites.iter().filter(|suite| only.is_none_or(|only| suite.name == only));
    let suites: Vec<_> = suites.copied().collect();
    if suites.is_empty() {
        bail!("no suite is named {}", only.unwrap_or_default());
    }
    let mut mutants = Vec::new();
    for list in lists(&root.join(subject.lists))? {
        mutants.extend(parse(&list)?);
    }
    let mut failures = 0;
    // Every entry has to apply, also when only some are run.
    for mutant in &mutants {
        if let Err(why) = mutate(mutant, &read(&root.join(subject.source).join(&mutant.file))?) {
            println!("{:9} {:>5}  {}: {why}", "OUTDATED", "", mutant.breaks);
            failures += 1;
        }
    }
    if has("--list") {
        println!("{} mutants, {failures} of them outdated", mutants.len());
        // The copy has to be a workspace that resolves, or no mutant can be tried.
        let workspace = Workspace::copy(&root, subject, suites, 0)?;
        let mut metadata = tools::cargo(&["metadata", "--offline", "--format-version", "1"]);
        tools::output(metadata.current_dir(&workspace.root)).context("the copy does not resolve")?;
        return if failures == 0 { Ok(()) } else { bail!("{failures} mutants do not apply") };
    }
    let is_covered = |mutant: &Mutant| suites.iter().any(|suite| (suite.is_for)(&mutant.breaks));
    let is_named = |mutant: &Mutant| words.is_empty() || words.iter().any(|word| mutant.breaks.contains(*word));
    let is_chosen = |mutant: &&Mutant| is_named(mutant) && is_covered(mutant);
    let chosen: Vec<_> = mutants.iter().filter(is_chosen).collect();
    let next = AtomicUsize::new(0);
    let tried = AtomicUsize::new(0);
    // Compiling one crate leaves most of the cores without work, so each of them has a copy and its own mutants.
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(chosen.len());
    let found = thread::scope(|scope| {
        let work = |worker| {
            let workspace = Workspace::copy(&root, subject, suites.clone(), worker)?;
            workspace.check_unbroken()?;
            let mut survivors = 0;
            while let Some(mutant) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                survivors += workspace.attempt(mutant, each)?;
                tried.fetch_add(1, Ordering::Relaxed);
            }
            Ok(survivors)
        };
        let started: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        let ended = started.into_iter().map(|worker| worker.join().map_err(|_panic| anyhow!("a worker panicked"))?);
        ended.sum::<anyhow::Result<usize>>()
    })?;
    failures += found;
    let tried = tried.into_inner();
    println!("{} mutants, {tried} of them tried; {failures} failures", mutants.len());
    if failures > 0 {
        bail!("{failures} mutants survive, do not build or do not apply");
    }
    Ok(())
}

/// Returns the text of each list in a folder.
fn lists(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn parse(list: &str) -> anyhow::Result<Vec<Mutant>> {
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
            _ => bail!("line {} of a list begins with none of `# @ - +`: {line}", at + 1),
        }
    }
    Ok(mutants)
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
    target: PathBuf,
    subject: Subject,
    /// Those that run.
    suites: Vec<Suite>,
}

impl Workspace {
    fn copy(root: &Path, subject: Subject, suites: Vec<Suite>, worker: usize) -> anyhow::Result<Self> {
        let copy = env::temp_dir().join(format!("kadence-mutants-{}-{worker}", std::process::id()));
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| copy.join("target"), PathBuf::from);
        for name in subject.members.iter().chain(subject.others) {
            copy_all(&root.join(name), &copy.join(name))?;
        }
        let members = format!("members = {:?}", subject.members);
        let manifest = read(&root.join("Cargo.toml"))?;
        // The other members would have to be resolved, and what is not optimised compiles sooner.
        let (head, rest) = manifest.split_once("members = [").context("the root manifest has no members")?;
        let (_, rest) = rest.split_once("exclude = ").context("the root manifest excludes nothing")?;
        let shortened = format!("{head}{members}\nexclude = {rest}")
            .replace("opt-level = 2", "opt-level = 1")
            .replace("\"line-tables-only\"", "false");
        write(&copy.join("Cargo.toml"), &shortened)?;
        Ok(Self { root: copy, target: target.join(format!("mutants-{worker}")), subject, suites })
    }

    /// Builds and runs the tests without any mutant.
    fn check_unbroken(&self) -> anyhow::Result<()> {
        for suite in &self.suites {
            if !self.compiles(suite, FIRST_BUILD_LIMIT)? {
                bail!("the {} tests do not compile without any mutant", suite.name);
            }
            // Random worlds without a mutant are played by `cargo xtask sim`.
            if matches!(suite.tests, Tests::All | Tests::Races) && self.fails(suite, &[])? {
                bail!("the {} tests fail without any mutant", suite.name);
            }
        }
        Ok(())
    }

    /// Tries a mutant and prints the verdict. Returns the number of failures: 0 or 1.
    fn attempt(&self, mutant: &Mutant, each: bool) -> anyhow::Result<usize> {
        let path = self.root.join(self.subject.source).join(&mutant.file);
        let original = read(&path)?;
        let Ok(mutated) = mutate(mutant, &original) else { return Ok(0) };
        let began = Instant::now();
        write(&path, &mutated)?;
        let killed_by = self.killed_by(mutant, each)?;
        write(&path, &original)?;
        let (verdict, failures) = match killed_by.as_deref() {
            None => ("NO BUILD".to_owned(), 1),
            Some([]) => ("SURVIVES".to_owned(), 1),
            Some(suites) => (suites.join("+"), 0),
        };
        println!("{verdict:9} {:>4}s  {}", began.elapsed().as_secs(), mutant.breaks);
        Ok(failures)
    }

    /// Returns the suites that notice the mutant: the first one, or each. `None` if it does not compile. A suite is
    /// compiled only when it runs.
    fn killed_by(&self, mutant: &Mutant, each: bool) -> anyhow::Result<Option<Vec<&'static str>>> {
        let mut killed_by = Vec::new();
        for suite in self.suites.iter().filter(|suite| (suite.is_for)(&mutant.breaks)) {
            if !self.compiles(suite, LIMIT)? {
                return Ok(None);
            }
            let near = module_of(&mutant.file);
            let filter: &[&str] = if suite.tests == Tests::Near { &[near.as_str()] } else { &[] };
            if self.fails(suite, filter)? {
                killed_by.push(suite.name);
                if !each {
                    break;
                }
            }
        }
        Ok(Some(killed_by))
    }

    fn compiles(&self, suite: &Suite, limit: &str) -> anyhow::Result<bool> {
        Ok(match suite.tests {
            Tests::Races => self.compile_races(limit, suite)?.is_some(),
            Tests::Worlds => {
                let mut build = self.cargo(limit, &["build", "--locked", "--example", "worlds"]);
                self.succeeds(build.current_dir(self.root.join("sim")))?
            }
            Tests::All | Tests::Near => {
                self.succeeds(&mut self.cargo(limit, &[&["test", "--no-run"], suite.args].concat()))?
            }
        })
    }

    fn fails(&self, suite: &Suite, filter: &[&str]) -> anyhow::Result<bool> {
        let mut tests = match suite.tests {
            Tests::Races => {
                let program = self.compile_races(LIMIT, suite)?.context("what had compiled does not compile")?;
                let mut races = self.within(LIMIT, program.as_os_str());
                races.arg(races::FILTER).args(filter);
                races
            }
            Tests::Worlds => {
                let mut worlds = self.cargo(WORLDS_LIMIT, &[&["run"], suite.args, filter].concat());
                worlds.current_dir(self.root.join("sim")).stdout(Stdio::piped());
                let output = worlds.output().context(CANNOT_RUN)?;
                // Seeds are played in order, so that this is also their number.
                if let Some(found) = String::from_utf8_lossy(&output.stdout).lines().find(|l| l.starts_with("seed ")) {
                    println!("{found}");
                }
                return Ok(!output.status.success());
            }
            Tests::All | Tests::Near => self.cargo(LIMIT, &[&["test"], suite.args, filter].concat()),
        };
        Ok(!self.succeeds(&mut tests)?)
    }

    /// Returns the test program, or `None` if it does not compile.
    fn compile_races(&self, limit: &str, suite: &Suite) -> anyhow::Result<Option<PathBuf>> {
        let output = self.cargo(limit, suite.args).stdout(Stdio::piped()).output().context(CANNOT_RUN)?;
        let messages = String::from_utf8_lossy(&output.stdout);
        Ok(races::program_of(&messages).filter(|_| output.status.success()))
    }

    fn succeeds(&self, command: &mut Command) -> anyhow::Result<bool> {
        Ok(command.status().context(CANNOT_RUN)?.success())
    }

    fn cargo(&self, limit: &str, args: &[&str]) -> Command {
        let mut cargo = self.within(limit, "cargo".as_ref());
        cargo.args(["--offline", "--quiet"]).args(args);
        cargo
    }

    /// Returns a command that is ended after `limit` seconds.
    fn within(&self, limit: &str, program: &OsStr) -> Command {
        let mut command = Command::new("timeout");
        command
            .arg(limit)
            .arg(program)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("PROPTEST_CASES", self.subject.cases)
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("KADENCE_EXPLORE_DEPTH", "6")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Returns the path of the module that a file is part of: `blob::` for `blob/store.rs`.
fn module_of(file: &str) -> String {
    match file.rsplit_once('/') {
        Some((folder, _)) => folder.replace('/', "::") + "::",
        None => file.trim_end_matches(".rs").to_owned() + "::",
    }
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let path = entry?.path();
            copy_all(&path, &to.join(path.file_name().unwrap_or_default()))?;
        }
        return Ok(());
    }
    write(to, "")?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(|_bytes| ())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    written.with_context(|| format!("cannot write {}", path.display()))
}
