//! Random worlds: nodes of all kinds make calls while faults happen, and invariants are checked all the time.
//!
//! ```text
//! worlds --seeds 100 [--from 1] [--log FILE]   plays worlds, each in a process of its own; goes on where FILE ends
//!        [--until-violation]                   ends at the first violation
//! worlds --seed 17                             plays one, and prints the events around each violation
//! worlds --shrink 17                           removes faults, calls and nodes as long as a violation stays, and prints the rest
//! worlds --plan FILE                           plays a plan that was printed
//! ```

mod plan;
mod play;
mod shrink;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    fs::{self, OpenOptions},
    io::Write,
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

type AnyError = Box<dyn Error + Send + Sync>;

/// Violations that are known: an invariant, the kind of node that leads to them, and the issue that ends them. They are
/// counted and printed, and fail nothing.
const KNOWN: [(&str, Kind, &str); 2] = [
    ("provider found at last", Kind::InventedPeers, "19.2"),
    // kad takes providers for closer peers, and asks them.
    ("provider found at last", Kind::InventedProviders, "19.2"),
];

/// Returns the issue that ends a violation, if it is known.
fn issue_of(violation: &Violation, plan: &Plan) -> Option<&'static str> {
    let is_known = |(invariant, kind, _): &&(&str, Kind, &str)| {
        *invariant == violation.invariant && plan.nodes.iter().any(|node| node.kind == *kind)
    };
    KNOWN.iter().find(is_known).map(|(_, _, issue)| *issue)
}

/// Seconds after which the process of a world is ended, which has hung.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> Result<ExitCode, AnyError> {
    let args: Vec<String> = env::args().skip(1).collect();
    let option = |name: &str| args.iter().skip_while(|arg| *arg != name).nth(1).map(String::as_str);
    let number = |name: &str| option(name).map(str::parse::<u64>).transpose();
    if let Some(seed) = number("--seed")? {
        return Ok(show(plan::draw(seed)));
    }
    if let Some(seed) = number("--shrink")? {
        let smallest = shrink::shrink(plan::draw(seed), in_a_process)?;
        println!("{}", serde_json::to_string(&smallest)?);
        return Ok(show(smallest));
    }
    if let Some(path) = option("--plan") {
        let plan: Plan = serde_json::from_str(&fs::read_to_string(path)?)?;
        if args.iter().any(|arg| arg == "--json") {
            println!("{}", serde_json::to_string(&play::play(plan))?);
            return Ok(ExitCode::SUCCESS);
        }
        return Ok(show(plan));
    }
    let stops = args.iter().any(|arg| arg == "--until-violation");
    let (from, seeds) = (number("--from")?.unwrap_or(1), number("--seeds")?.unwrap_or(40));
    many(from, seeds, option("--log"), stops)
}

/// Plays a plan, and prints what happened for people.
fn show(plan: Plan) -> ExitCode {
    let names = plan.nodes.iter().enumerate().filter(|(_, node)| node.kind != Kind::Server);
    let names: Vec<_> = names.map(|(at, node)| format!("{at} {:?}", node.kind)).collect();
    println!("{} nodes, servers but for {}", plan.nodes.len(), names.join(", "));
    let report = play::play(plan);
    println!(
        "seed {}: {} virtual seconds, {} steps, trace {}",
        report.seed, report.virtual_s, report.steps, report.trace
    );
    println!("faults: {:?}\nstakes: {:?}\noutcomes: {:?}", report.faults, report.stakes, report.outcomes);
    for violation in &report.violations {
        println!("\n{}: {}", violation.invariant, violation.text);
        violation.events.iter().for_each(|event| println!("  {event}"));
    }
    println!("\n{} violations", report.violations.len());
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a plan in a process of its own, as libp2p counts ids up for all of a process.
fn in_a_process(plan: &Plan) -> Result<Report, AnyError> {
    let file = env::temp_dir().join(format!("kadence-world-{}-{:?}.json", std::process::id(), thread::current().id()));
    fs::write(&file, serde_json::to_string(plan)?)?;
    let mut child = Command::new(env::current_exe()?);
    child.arg("--plan").arg(&file).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn()?;
    let id = child.id();
    let began = Instant::now();
    let output = thread::scope(|scope| {
        let waits = scope.spawn(|| child.wait_with_output());
        while !waits.is_finished() {
            thread::sleep(Duration::from_millis(20));
            if began.elapsed() > LIMIT {
                let _gone = Command::new("kill").arg(id.to_string()).status();
                break;
            }
        }
        waits.join()
    });
    let output = output.map_err(|_panic| "the waiting thread has panicked")??;
    fs::remove_file(&file)?;
    match String::from_utf8(output.stdout)?.lines().last() {
        Some(line) if output.status.success() => Ok(serde_json::from_str(line)?),
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let text = errors.lines().take(12).collect::<Vec<_>>().join("\n");
            let violation = Violation {
                invariant: "world".to_owned(),
                text: format!("the world ends with {}:\n{text}", output.status),
                events: Vec::new(),
            };
            Ok(Report { seed: plan.seed, violations: vec![violation], ..Report::default() })
        }
    }
}

/// Plays many worlds, as many at a time as there are processors, and if `stops` only until one violates an invariant.
fn many(from: u64, seeds: u64, log: Option<&str>, stops: bool) -> Result<ExitCode, AnyError> {
    let mut reports: Vec<Report> = match log.map(fs::read_to_string) {
        Some(Ok(text)) => text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?,
        Some(Err(_)) | None => Vec::new(),
    };
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
            let mut report = in_a_process(&plan)?;
            for violation in std::mem::take(&mut report.violations) {
                if let Some(issue) = issue_of(&violation, &plan) {
                    *report.known.entry(format!("{} ({issue})", violation.invariant)).or_default() += 1;
                } else {
                    println!("seed {seed}: {}: {}", violation.invariant, violation.text);
                    if stops {
                        next.store(from + seeds, Relaxed);
                    }
                    report.violations.push(violation);
                }
            }
            if let Some(file) = &mut *file.lock().unwrap_or_else(PoisonError::into_inner) {
                writeln!(file, "{}", serde_json::to_string(&report)?)?;
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
        report.faults.iter().for_each(|fault| *faults.entry(fault).or_insert(0) += 1);
        report.stakes.keys().for_each(|stake| *stakes.entry(stake).or_insert(0) += 1);
        report.outcomes.iter().for_each(|(outcome, count)| *outcomes.entry(outcome).or_insert(0) += count);
        report.known.keys().for_each(|name| *known.entry(name).or_insert(0) += 1);
        for violation in &report.violations {
            violations.entry(&violation.invariant).or_default().insert(report.seed);
        }
    }
    let percent = |counts: &BTreeMap<&String, usize>| {
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
    ExitCode::SUCCESS
}
