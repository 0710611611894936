//! The demonstrations as a program of their own, which compiles less than the program `kadence`.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use kadence_demo::{DemoArgs, output, protocol};
use kadence_tokio::kadence::{libp2p::StreamProtocol, node::DEFAULT_PROTOCOL};
use serde_json::json;

/// Demonstrates Kadence on this computer. The program `kadence` has the same command, and those that use a network.
#[derive(Debug, Parser)]
#[command(name = "kadence-demo", version)]
struct Args {
    #[command(subcommand)]
    command: Command,

    /// Name of the network's kad protocol
    #[arg(long, global = true, value_name = "NAME", default_value_t = DEFAULT_PROTOCOL, value_parser = protocol)]
    protocol: StreamProtocol,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole network on this computer, and check its answers
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
    let text = output::chain(error.as_ref());
    output::note(format_args!("error: {text}"));
    if json && !error.is::<kadence_demo::ChecksFailed>() {
        // There is no other place to report to.
        let _lost = output::json(&json!({ "ok": false, "reason": "failure", "error": text }));
    }
    ExitCode::FAILURE
}
