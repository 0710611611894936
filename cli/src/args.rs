//! Command line of the program.

use clap::{ArgAction, Parser, Subcommand};
use clap_complete::Shell;
use kadence_demo::{DemoArgs, parse_protocol};
use kadence_tokio::kadence::{libp2p::StreamProtocol, node::DEFAULT_PROTOCOL};

use crate::{
    options::{ClosestArgs, GetArgs, NodeArgs, ProvideArgs, ProvidersArgs, PutArgs},
    pkg::Pkg,
    record::ReplayArgs,
};

/// Runs a node of a libp2p Kademlia DHT, asks such a network, and publishes and installs packages on it.
///
/// Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found, 4 timed out, 5 no peer reached. An error is one line
/// on stderr; with --json, it is also a JSON object on stdout.
#[derive(Debug, Parser)]
#[command(name = "kadence", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) network: NetworkArgs,

    /// Log more to stderr; repeat up to three times for more. RUST_LOG overrides it. Default: warnings;
    /// commands that stay also log connections
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The network that a command joins.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NetworkArgs {
    /// Name of the kad protocol of the network; only nodes with the same name find each other
    #[arg(long, global = true, value_name = "NAME", default_value_t = DEFAULT_PROTOCOL, value_parser = parse_protocol)]
    pub(crate) protocol: StreamProtocol,

    /// Number of nodes of the network, if it has fewer than four: without it, "not found" is never certain there
    #[arg(long, global = true, value_name = "NODES")]
    pub(crate) network_size: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole network on this computer and check its answers
    ///
    /// Starts nodes on loopback TCP in this process, stores files as records and reads them back from other nodes,
    /// announces and finds providers, cancels calls, kills a node, and shuts down. Needs no configuration and no
    /// network. The exit code is 0 if all answers were right, and 1 otherwise. How long they took does not matter,
    /// unless a call hangs.
    Demo(DemoArgs),
    /// Run a node until Ctrl-C or SIGTERM
    ///
    /// Prints each address that others can pass to --peer, one per line.
    Node(NodeArgs),
    /// Look up a record and print its value
    Get(GetArgs),
    /// Store a record at the peers closest to its key
    ///
    /// A majority of the peers found must acknowledge it. They keep the record until it expires, after 48 hours. Put it
    /// again before then: this program ends and does not republish it.
    Put(PutArgs),
    /// Announce this computer as a provider of a key, until Ctrl-C or SIGTERM
    ///
    /// Runs a node that listens and answers others, because a provider has to be reachable.
    Provide(ProvideArgs),
    /// Find the peers that provide a key
    Providers(ProvidersArgs),
    /// Find the peers closest to a key or a peer id, at most 20
    Closest(ClosestArgs),
    /// Publish, find and install packages of a decentralised registry
    #[command(subcommand)]
    Pkg(Pkg),
    /// Repeat what --record has written, and check that the same queries give the same results
    ///
    /// For the report of a fault, and for those who look for it: the decisions of a command are repeated without a
    /// network, by this version of the program. The exit code is 0 if every action is the same, and 1 otherwise.
    Replay(ReplayArgs),
    /// Print a script that completes these commands in a shell
    ///
    /// For bash: kadence completions bash > ~/.local/share/bash-completion/completions/kadence
    Completions {
        /// Shell to print the script for
        shell: Shell,
    },
}

impl Command {
    /// Returns whether the command prints JSON.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Demo(args) => args.json,
            Self::Node(args) => args.json,
            Self::Get(args) => args.ask.json,
            Self::Put(args) => args.ask.json,
            Self::Provide(args) => args.ask.json,
            Self::Providers(args) => args.ask.json,
            Self::Closest(args) => args.ask.json,
            Self::Pkg(pkg) => pkg.json(),
            Self::Replay(args) => args.json,
            Self::Completions { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
