//! Counts the dependencies that the README's second command compiles again.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::tools::{cargo, target_dir};

/// Builds what the first command runs, and remembers the dependencies that it needed.
///
/// # Errors
///
/// If the build fails.
pub(crate) fn first(args: &[&str]) -> anyhow::Result<()> {
    let (needed, compiled) = build(args)?;
    println!("{} dependencies, {} of them compiled now", needed.len(), compiled.len());
    let list: Vec<&str> = needed.iter().map(String::as_str).collect();
    fs::write(list_path(), list.join("\n")).context("cannot remember the dependencies")
}

/// Builds what the second command runs, and prints how many dependencies of the first one were compiled again.
///
/// # Errors
///
/// If the build fails.
pub(crate) fn again(args: &[&str]) -> anyhow::Result<()> {
    let (needed, compiled) = build(args)?;
    let Ok(list) = fs::read_to_string(list_path()) else { return Ok(()) };
    let of_first: BTreeSet<&str> = list.lines().collect();
    let again: Vec<&str> = compiled.iter().map(String::as_str).filter(|id| of_first.contains(id)).collect();
    println!(
        "{} dependencies, {} of them compiled now; {} of the demo's {} were compiled again: {}",
        needed.len(),
        compiled.len(),
        again.len(),
        of_first.len(),
        again.join(" ")
    );
    Ok(())
}

fn list_path() -> PathBuf {
    target_dir().join("dependencies-of-the-demo.txt")
}

/// Runs a cargo build. Returns its dependencies from outside the workspace, and those of them that were compiled.
fn build(args: &[&str]) -> anyhow::Result<(BTreeSet<String>, BTreeSet<String>)> {
    println!("$ cargo {}", args.join(" "));
    let mut command = cargo(args);
    command.args(["--message-format", "json-render-diagnostics"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run cargo")?;
    let (mut needed, mut compiled) = (BTreeSet::new(), BTreeSet::new());
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let message: Value = serde_json::from_str(&line?).context("not a message of cargo")?;
        let text = |field: &str| message.get(field).and_then(Value::as_str);
        let (Some("compiler-artifact"), Some(id)) = (text("reason"), text("package_id")) else { continue };
        if let Some((_, name)) = id.split_once('#').filter(|(source, _)| source.starts_with("registry+")) {
            needed.insert(name.to_owned());
            if message.get("fresh") == Some(&Value::Bool(false)) {
                compiled.insert(name.to_owned());
            }
        }
    }
    if !child.wait()?.success() {
        bail!("the build failed");
    }
    Ok((needed, compiled))
}
