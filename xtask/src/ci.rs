//! Runs steps one after the other, and says at the end which have failed.

use std::{fmt::Write, time::Instant};

use anyhow::bail;

/// A check with a name.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> anyhow::Result<()>,
}

/// Runs the steps named, or all. Every step runs even when one fails.
///
/// # Errors
///
/// If a step fails or there is no such step.
pub(crate) fn run(steps: &[Step], args: &[String]) -> anyhow::Result<()> {
    let names: Vec<&str> = steps.iter().map(|step| step.name).collect();
    if args.iter().any(|arg| arg == "--list") {
        println!("{}", names.join("\n"));
        return Ok(());
    }
    if let Some(unknown) = args.iter().find(|arg| !names.contains(&arg.as_str())) {
        bail!("no such step: {unknown} (there are: {})", names.join(" "));
    }
    let began = Instant::now();
    let mut table = String::new();
    let (mut count, mut failed) = (0, 0);
    for step in steps.iter().filter(|step| args.is_empty() || args.iter().any(|arg| arg == step.name)) {
        println!("==> {}", step.name);
        let began = Instant::now();
        let result = (step.run)();
        let seconds = began.elapsed().as_secs();
        count += 1;
        let verdict = match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                failed += 1;
                println!("error: {error:#}");
                "FAILED".to_owned()
            }
        };
        println!("<== {}: {verdict}, {seconds} s", step.name);
        writeln!(table, "{:<12} {seconds:>6} s  {verdict}", step.name)?;
    }
    println!("\n{table}{:<12} {:>6} s", "total", began.elapsed().as_secs());
    if failed > 0 {
        bail!("{failed} of {count} steps failed");
    }
    println!("all {count} steps passed");
    Ok(())
}
