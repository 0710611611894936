//! The program `kadence-demo`: the demonstrations without the rest of the program `kadence`, which compiles faster.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use kadence_demo::{DemoArgs, output, parse_protocol};
use kadence_tokio::kadence::{libp2p::StreamProtocol, node::DEFAULT_PROTOCOL};

/// Demonstrates Kadence on this computer. The program `kadence` has the same command, and those that use a network.
///
/// Exit codes: 0 all checks passed, 1 a check or the demonstration failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "kadence-demo", version)]
struct Args {
    #[command(subcommand)]
    command: Command,

    /// Name of the kad protocol of the network
    #[arg(long, global = true, value_name = "NAME", default_value_t = DEFAULT_PROTOCOL, value_parser = parse_protocol)]
    protocol: StreamProtocol,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole network on this computer and check its answers
    Demo(DemoArgs),
}

fn main() -> ExitCode {
    let Args { command: Command::Demo(args), protocol } = Args::parse();
    let json = args.json;
    let result =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
            let result = runtime.block_on(kadence_demo::run(args, protocol));
            runtime.shutdown_timeout(Duration::ZERO);
            result
        });
    let Err(error) = result else { return ExitCode::SUCCESS };
    output::error(&error, json);
    ExitCode::FAILURE
}
