//! Running programs, and installing those that are missing.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::files;

/// A tool that `cargo install` builds into `<target>/ci-tools`. Its version is raised by hand: a new one may bring new
/// findings, which belong into a change of their own.
pub(crate) struct Tool {
    pub(crate) package: &'static str,
    pub(crate) binary: &'static str,
    pub(crate) version: &'static str,
    pub(crate) args: &'static [&'static str],
}

pub(crate) const CARGO_DENY: Tool =
    Tool { package: "cargo-deny", binary: "cargo-deny", version: "0.20.2", args: &["--no-default-features"] };
pub(crate) const CARGO_HACK: Tool = Tool { package: "cargo-hack", binary: "cargo-hack", version: "0.6.46", args: &[] };
pub(crate) const CARGO_SEMVER_CHECKS: Tool =
    Tool { package: "cargo-semver-checks", binary: "cargo-semver-checks", version: "0.51.0", args: &[] };
pub(crate) const CARGO_TARPAULIN: Tool =
    Tool { package: "cargo-tarpaulin", binary: "cargo-tarpaulin", version: "0.37.5", args: &[] };
pub(crate) const TYPOS: Tool = Tool { package: "typos-cli", binary: "typos", version: "1.52.0", args: &[] };

impl Tool {
    /// Returns the path of the tool, after building it if it is missing.
    ///
    /// # Errors
    ///
    /// If it cannot be built.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        let root = target_dir().join("ci-tools");
        let path = root.join("bin").join(format!("{}{}", self.binary, env::consts::EXE_SUFFIX));
        let version = Command::new(&path).arg("--version").stderr(Stdio::null()).output();
        if version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(self.version)) {
            return Ok(path);
        }
        let mut install = cargo(&["install", self.package, "--locked", "--version", self.version]);
        install.args(self.args).arg("--root").arg(&root);
        // Tools' release profiles ask for minutes of optimisation that save milliseconds here.
        install.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        run(&mut install).with_context(|| format!("cannot install {}", self.package))?;
        Ok(path)
    }

    /// Returns a command that runs the tool at the root of the repository.
    ///
    /// # Errors
    ///
    /// As [`path`](Self::path).
    pub(crate) fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(self.path()?);
        command.args(args).current_dir(files::root());
        Ok(command)
    }
}

/// Returns the folder that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| files::root().join("target"), |dir| files::root().join(dir))
}

/// Returns a cargo command at the root of the repository.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(files::root());
    command
}

/// Returns a command of another toolchain than the one that runs this: `cargo +nightly`, for one.
pub(crate) fn cargo_of(toolchain: &str, args: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, "cargo"]).args(args).current_dir(files::root());
    // Otherwise the inner cargo uses the compiler of the outer one.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
///
/// # Errors
///
/// If it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    println!("$ {}", shown(command));
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a command, and ends it after `limit`: a test that hangs must not keep the other steps from their say.
///
/// # Errors
///
/// If it cannot be started, fails, or takes too long.
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> anyhow::Result<()> {
    println!("$ {}", shown(command));
    // A group of its own, so that what cargo has started ends with it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {}", shown(command)))?;
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!("{} ended with {status}", shown(command));
        }
        if Instant::now() > end {
            if cfg!(unix) {
                let group = format!("-{}", child.id());
                let _status = Command::new("kill").args(["-KILL", "--", &group]).status();
            }
            child.kill()?;
            child.wait()?;
            bail!("{} took more than {} s", shown(command), limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs a command and returns its standard output.
///
/// # Errors
///
/// If it cannot be started or fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    println!("$ {}", shown(command));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", shown(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        print!("{text}");
        bail!("{} ended with {}", shown(command), output.status);
    }
    Ok(text)
}

fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let mut text = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}
