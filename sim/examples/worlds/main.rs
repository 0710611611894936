//! Random worlds: nodes of all kinds make calls while faults happen, and invariants are checked all the time.
//!
//! ```text
//! worlds --seeds 100 [--from 1] [--log FILE]   plays worlds, each in a process of its own; goes on where FILE ends
//!        [--until-violation]                   ends at the first violation
//! worlds --seed 17                             plays one, and prints the events around each violation
//! worlds --shrink 17                           removes faults, calls and nodes as long as a violation stays, and prints the rest
//! worlds --plan FILE                           plays a plan that was printed
//! ```

mod packages;
mod plan;
mod play;
mod shrink;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    env,
    error::Error,
    fs::{self, OpenOptions},
    io::{self, Write},
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use plan::{Kind, Plan};
use play::{Report, Violation};
use tikv_jemallocator::Jemalloc;

type AnyError = Box<dyn Error + Send + Sync>;

/// A fifth of the time of a large world is saved.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Violations that are known: an invariant, the kind of node that leads to them, and the issue that ends them. They are
/// counted and printed, and fail nothing.
const KNOWN: [(&str, Kind, &str); 5] = [
    ("found at last", Kind::InventedPeers, "19.2"),
    ("package at last", Kind::InventedPeers, "19.2"),
    ("published at last", Kind::InventedPeers, "19.2"),
    ("provider found at last", Kind::InventedPeers, "19.2"),
    // kad takes providers for closer peers, and asks them.
    ("provider found at last", Kind::InventedProviders, "19.2"),
];

/// Moves the violations that are known to [`Report::known`]: those that are gone when the plan has honest nodes in place of
/// the kind that leads to them.
fn without_known(plan: &Plan, report: Report) -> Result<Report, AnyError> {
    let mut left = Report { violations: Vec::new(), ..report };
    let in_plan = |kind: Kind| plan.nodes.iter().any(|node| node.kind == kind);
    // One for each invariant, however often it is violated.
    let mut honest = BTreeMap::new();
    for violation in report.violations {
        let leads_to_it =
            |(invariant, kind, _): &&(&str, Kind, &str)| *invariant == violation.invariant && in_plan(*kind);
        let Some((invariant, _, issue)) = KNOWN.iter().find(leads_to_it) else {
            left.violations.push(violation);
            continue;
        };
        let honest = match honest.entry(*invariant) {
            Entry::Occupied(played) => played.into_mut(),
            Entry::Vacant(place) => {
                let kinds = KNOWN.iter().filter(leads_to_it).map(|(_, kind, _)| *kind);
                place.insert(play_in_a_process(&kinds.fold(plan.clone(), |plan, kind| plan.without(kind)))?)
            }
        };
        if violates(honest, &violation) {
            left.violations.push(violation);
        } else {
            *left.known.entry(format!("{invariant} ({issue})")).or_default() += 1;
        }
    }
    Ok(left)
}

/// Returns whether a report has a violation of the same kind: of the same invariant, or the same end of the process.
fn violates(report: &Report, violation: &Violation) -> bool {
    // The status, the place and the message of a panic, without the number of its thread.
    let end =
        |text: &str| text.lines().take(3).flat_map(str::chars).filter(|c| !c.is_ascii_digit()).collect::<String>();
    report.violations.iter().any(|other| {
        let is_same_end = || end(&other.text) == end(&violation.text);
        other.invariant == violation.invariant && (violation.invariant != PROCESS || is_same_end())
    })
}

/// Invariants, each of which has to be at stake in [`LEAST_PERCENT`] of at least [`ENOUGH`] worlds.
const INVARIANTS: [&str; 12] = [
    "acknowledged",
    "conclusive",
    "conclusive providers",
    "deadline",
    "found at last",
    "leak",
    "package",
    "package at last",
    "package rollback",
    "provider found at last",
    "published at last",
    "value",
];
const LEAST_PERCENT: usize = 5;
const ENOUGH: usize = 20;

/// Invariant that is violated by a world that panics or hangs.
const PROCESS: &str = "process";

/// Seconds after which the process of a world is ended, which has hung.
const LIMIT: Duration = Duration::from_secs(300);

const USAGE: &str = "usage: worlds --seeds N [--from M] [--log FILE] [--until-violation] | --seed S | --shrink S | --plan FILE [--json]";

/// Arguments of the program.
#[derive(Debug, Default)]
struct Args {
    numbers: BTreeMap<String, u64>,
    paths: BTreeMap<String, String>,
    flags: BTreeSet<String>,
}

impl Args {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, AnyError> {
        let (mut parsed, mut args) = (Self::default(), args);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seed" | "--seeds" | "--from" | "--shrink" => {
                    let number = args.next().ok_or(USAGE)?.parse().map_err(|_| USAGE)?;
                    parsed.numbers.insert(arg, number);
                }
                "--log" | "--plan" => {
                    let path = args.next().ok_or(USAGE)?;
                    parsed.paths.insert(arg, path);
                }
                "--until-violation" | "--json" => {
                    parsed.flags.insert(arg);
                }
                _ => return Err(USAGE.into()),
            }
        }
        Ok(parsed)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).copied()
    }
}

fn main() -> Result<ExitCode, AnyError> {
    let args = Args::parse(env::args().skip(1))?;
    if let Some(seed) = args.number("--seed") {
        return show(&plan::draw(seed));
    }
    if let Some(seed) = args.number("--shrink") {
        let smallest = shrink::shrink(plan::draw(seed))?;
        println!("{}", serde_json::to_string(&smallest)?);
        return show(&smallest);
    }
    if let Some(path) = args.paths.get("--plan") {
        let plan: Plan = serde_json::from_str(&fs::read_to_string(path)?)?;
        if args.flags.contains("--json") {
            println!("{}", serde_json::to_string(&play::play(plan))?);
            return Ok(ExitCode::SUCCESS);
        }
        return show(&plan);
    }
    let seeds = args.number("--seeds").ok_or(USAGE)?;
    let log = args.paths.get("--log").map(String::as_str);
    many(args.number("--from").unwrap_or(1), seeds, log, args.flags.contains("--until-violation"))
}

/// Plays a plan, and prints what happened for people.
fn show(plan: &Plan) -> Result<ExitCode, AnyError> {
    let names = plan.nodes.iter().enumerate().filter(|(_, node)| node.kind != Kind::Server);
    let names: Vec<_> = names.map(|(at, node)| format!("{at} {:?}", node.kind)).collect();
    println!("{} nodes, servers but for {}", plan.nodes.len(), names.join(", "));
    let report = without_known(plan, play_in_a_process(plan)?)?;
    println!(
        "seed {}: {} virtual seconds, {} steps, trace {}",
        report.seed, report.virtual_s, report.steps, report.trace
    );
    println!("faults: {:?}\nstakes: {:?}\noutcomes: {:?}", report.faults, report.stakes, report.outcomes);
    for violation in &report.violations {
        println!("\n{}: {}", violation.invariant, violation.text);
        violation.events.iter().for_each(|event| println!("  {event}"));
    }
    println!("\n{} violations; known ones: {:?}", report.violations.len(), report.known);
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays a plan in a process of its own, as libp2p counts ids up for all of a process.
fn play_in_a_process(plan: &Plan) -> Result<Report, AnyError> {
    let mut child = Command::new(env::current_exe()?);
    child.args(["--plan", "/dev/stdin", "--json"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (id, plan_text, began) = (child.id(), serde_json::to_string(plan)?, Instant::now());
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(plan_text.as_bytes())?;
    }
    let output = thread::scope(|scope| {
        let waits = scope.spawn(|| child.wait_with_output());
        let mut is_killed = false;
        while !waits.is_finished() {
            thread::sleep(Duration::from_millis(20));
            if began.elapsed() > LIMIT && !is_killed {
                is_killed = Command::new("kill").args(["-KILL", &id.to_string()]).status().is_ok();
            }
        }
        waits.join()
    });
    if let Err(error) = kadence_sim::clean_up_after(id) {
        eprintln!("files of a world are left: {error}");
    }
    let output = output.map_err(|_panic| "the waiting thread has panicked")??;
    match String::from_utf8(output.stdout)?.lines().last() {
        Some(line) if output.status.success() => Ok(serde_json::from_str(line)?),
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let text = errors.lines().filter(|line| !line.is_empty()).take(12).collect::<Vec<_>>().join("\n");
            let text = format!("the world ends with {}:\n{text}", output.status);
            let violation = Violation { invariant: PROCESS.to_owned(), text, events: Vec::new() };
            Ok(Report { seed: plan.seed, violations: vec![violation], ..Report::default() })
        }
    }
}

/// Reads the reports of earlier worlds. A last line that is not complete was being written when the program ended.
fn read_log(path: &str) -> Result<Vec<Report>, AnyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    if complete.len() + 1 < text.len() {
        fs::write(path, format!("{complete}\n").trim_start())?;
    }
    Ok(complete.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Plays many worlds, as many at a time as there are processors, and if `stops` only until one violates an invariant.
fn many(from: u64, seeds: u64, log: Option<&str>, stops: bool) -> Result<ExitCode, AnyError> {
    let mut reports = log.map_or(Ok(Vec::new()), read_log)?;
    reports.retain(|report| (from..from + seeds).contains(&report.seed));
    let done: BTreeSet<u64> = reports.iter().map(|report| report.seed).collect();
    let file = log.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
    let (file, next, found) = (Mutex::new(file), AtomicU64::new(from), Mutex::new(Vec::new()));
    let began = Instant::now();
    let play_some = || -> Result<(), AnyError> {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= from + seeds {
                return Ok(());
            }
            if done.contains(&seed) {
                continue;
            }
            let plan = plan::draw(seed);
            let report = without_known(&plan, play_in_a_process(&plan)?)?;
            for violation in &report.violations {
                println!("seed {seed}: {}: {}", violation.invariant, violation.text);
                if stops {
                    next.store(from + seeds, Relaxed);
                }
            }
            if let Some(file) = &mut *file.lock().unwrap_or_else(PoisonError::into_inner) {
                file.write_all((serde_json::to_string(&report)? + "\n").as_bytes())?;
            }
            found.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        }
    };
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        let started: Vec<_> = (0..workers).map(|_| scope.spawn(play_some)).collect();
        started.into_iter().try_for_each(|worker| worker.join().map_err(|_panic| "a worker has panicked")?)
    })?;
    reports.extend(found.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(summarize(&reports, began.elapsed()))
}

fn summarize(reports: &[Report], took: Duration) -> ExitCode {
    let worlds = reports.len().max(1);
    let (mut faults, mut stakes, mut outcomes, mut known, mut violations) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::<_, BTreeSet<u64>>::new());
    for report in reports {
        report.faults.iter().for_each(|fault| *faults.entry(fault.as_str()).or_insert(0) += 1);
        report.stakes.keys().for_each(|stake| *stakes.entry(stake.as_str()).or_insert(0) += 1);
        report.outcomes.iter().for_each(|(outcome, count)| *outcomes.entry(outcome.as_str()).or_insert(0) += count);
        report.known.keys().for_each(|name| *known.entry(name.as_str()).or_insert(0) += 1);
        for violation in &report.violations {
            violations.entry(&violation.invariant).or_default().insert(report.seed);
        }
    }
    let percent = |counts: &BTreeMap<&str, usize>| {
        let texts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {}%", count * 100 / worlds)).collect();
        texts.join(", ")
    };
    println!("\n{worlds} worlds in {took:.1?}");
    println!("worlds with each kind of fault: {}", percent(&faults));
    println!("worlds in which each invariant was at stake: {}", percent(&stakes));
    println!("outcomes: {outcomes:?}");
    println!("worlds with known violations, and the issue that ends each: {}", percent(&known));
    for (invariant, seeds) in &violations {
        println!(
            "violated: {invariant}, in {} worlds, seeds {:?}",
            seeds.len(),
            seeds.iter().take(20).collect::<Vec<_>>()
        );
    }
    if let Some(seed) = violations.values().flatten().next() {
        println!("replay: cargo xtask sim --seed {seed}; shorten: cargo xtask sim --shrink {seed}");
        return ExitCode::FAILURE;
    }
    let missed: Vec<_> = INVARIANTS
        .iter()
        .filter(|name| stakes.get(**name).copied().unwrap_or(0) * 100 < worlds * LEAST_PERCENT)
        .collect();
    let of = |outcome: &str| outcomes.get(outcome).copied().unwrap_or(0);
    let puts: u64 = outcomes.iter().filter(|(name, _)| name.starts_with("Put ")).map(|(_, count)| *count).sum();
    // A world in which nothing works violates nothing, either.
    let works = of("Put Ok") * 3 > puts && of("Get Ok") > 0 && of("Closest Ok") > of("Closest Timeout");
    if reports.len() >= ENOUGH && (!missed.is_empty() || !works) {
        println!("too little was at stake: {missed:?}, {} of {puts} puts succeeded", of("Put Ok"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
