//! The program `kadence`: runs a node, asks a network, publishes and installs packages, and demonstrates all of this
//! on one computer.

mod args;
mod exit;
mod node;
mod options;
mod output;
mod pkg;
mod query;
mod record;

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Args, Command},
    exit::Failure,
    pkg::Pkg,
};

fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr(&args);
    let json = args.command.json();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let Args { command, network, verbose: _ } = args;
    let result = runtime.block_on(async {
        match command {
            Command::Demo(args) => kadence_demo::run(args, network.protocol).await.map_err(Into::into),
            Command::Node(args) => node::run(args, network).await,
            Command::Get(args) => query::get(args, network).await,
            Command::Put(args) => query::put(args, network).await,
            Command::Provide(args) => query::provide(args, network).await,
            Command::Providers(args) => query::providers(args, network).await,
            Command::Closest(args) => query::closest(args, network).await,
            Command::Pkg(command) => pkg::run(command, network).await,
            Command::Replay(args) => record::run(&args),
            Command::Completions { shell } => completions(shell),
        }
    });
    // A name lookup that still blocks a thread must not delay the end.
    runtime.shutdown_background();
    result
}

/// Prints the completion script of a shell.
///
/// # Errors
///
/// If stdout cannot be written.
fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "kadence", &mut script);
    Ok(output::line(String::from_utf8_lossy(&script).trim_end())?)
}

/// Logs to stderr. `RUST_LOG` sets the filter; without it, `--verbose` raises the default of each command.
fn log_to_stderr(args: &Args) {
    let filter = match (args.verbose, &args.command) {
        (0, Command::Demo(_)) => "error",
        (0, Command::Node(_) | Command::Provide(_)) => "error,kadence=info",
        (0, Command::Pkg(Pkg::Serve(_))) => "error,kadence=info,kadence_registry=warn",
        (0, _) => "error,kadence=warn",
        (1, _) => "warn,kadence=info",
        (2, _) => "info,kadence=debug",
        (_, _) => "debug,kadence=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    // A closed stderr must not make the program fail or report that to the same stderr.
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    subscriber.with_ansi(ansi).init();
}
