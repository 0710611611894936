//! What the command line may say.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Parser, Subcommand};
use clap_complete::Shell;
use kadence_tokio::kadence::{
    Key as DhtKey,
    libp2p::{Multiaddr, PeerId, StreamProtocol, kad::RecordKey},
    node::DEFAULT_PROTOCOL,
};

use kadence_demo::{DemoArgs, protocol, span};

use crate::pkg::Pkg;

/// Runs, asks and demonstrates a libp2p Kademlia DHT.
///
/// Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found, 4 timed out, 5 no peer reached.
#[derive(Debug, Parser)]
#[command(name = "kadence", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Name of the network's kad protocol; only nodes with the same name find each other
    #[arg(long, global = true, value_name = "NAME", default_value_t = DEFAULT_PROTOCOL, value_parser = protocol)]
    pub(crate) protocol: StreamProtocol,

    /// Log more to stderr; twice and three times for still more. RUST_LOG overrides it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole network on this computer, and show that it works
    ///
    /// Starts nodes on loopback TCP in this process, stores files as records and reads them back from other nodes,
    /// announces and finds providers, cancels queries, kills a node, and shuts down. Needs no configuration and no
    /// network. Succeeds only if every check does.
    Demo(DemoArgs),
    /// Run a node until Ctrl-C or SIGTERM
    ///
    /// Prints each address that others can give to --peer, one a line.
    Node(NodeArgs),
    /// Look up a record, and print its value
    Get(GetArgs),
    /// Store a record at the peers closest to its key
    ///
    /// A majority of the peers found must acknowledge it. The record lives there until it expires (after 48 hours),
    /// unless it is put again: this program does not stay to republish it.
    Put(PutArgs),
    /// Announce this computer as a provider of a key, until Ctrl-C or SIGTERM
    ///
    /// Listens, and answers others, since a provider that cannot be reached is none.
    Provide(ProvideArgs),
    /// Find the peers that provide a key
    Providers(ProvidersArgs),
    /// Find the up to 20 peers closest to a key or a peer id
    Closest(ClosestArgs),
    /// Publish, find and install packages of a decentralised registry
    #[command(subcommand)]
    Pkg(Pkg),
    /// Print what a shell needs to complete these commands
    ///
    /// For bash, for example: kadence completions bash > ~/.local/share/bash-completion/completions/kadence
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl Command {
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
            Self::Completions { .. } => false,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) listen: Listen,
    /// A node to join through, as it prints itself; repeatable. Without one, this node waits for others
    #[arg(long = "peer", value_name = "MULTIADDR")]
    pub(crate) peers: Vec<Multiaddr>,
    /// The file with the key pair, made if there is none. Without it, the node has another id at every start
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Keep records and providers in this file, made if there is none; best with --identity. Without it, they end with
    /// the node
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// Print each address as a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    /// Where to listen; repeatable
    #[arg(
        long = "listen",
        value_name = "MULTIADDR",
        default_values = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"],
    )]
    pub(crate) addresses: Vec<Multiaddr>,
}

/// What every command that asks the network has.
#[derive(Debug, clap::Args)]
pub(crate) struct Ask {
    /// A node to ask through, as it prints itself; repeatable
    #[arg(long = "peer", value_name = "MULTIADDR", required = true)]
    pub(crate) peers: Vec<Multiaddr>,
    /// How long to wait in all, for a peer and for the answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span)]
    pub(crate) timeout: Duration,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// The record's key: text, or `hex:` and bytes
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// Write the value to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    /// The record's key: text, or `hex:` and bytes
    pub(crate) key: Key,
    /// The value, as text. Without it and without --file, the value is read from stdin
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(crate) value: Option<String>,
    /// The file with the value; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ProvideArgs {
    /// The key to provide: text, or `hex:` and bytes
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) listen: Listen,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ProvidersArgs {
    /// The key that is provided: text, or `hex:` and bytes
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// Stop at this many providers
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ClosestArgs {
    /// A peer id, or a key: text, or `hex:` and bytes
    #[arg(value_name = "KEY-OR-PEERID")]
    pub(crate) target: ClosestTo,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// A key as it is written on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn to_record_key(&self) -> RecordKey {
        RecordKey::new(&self.0)
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = match text.strip_prefix("hex:") {
            Some(digits) => hex::decode(digits).map_err(|error| format!("no hexadecimal bytes: {error}"))?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.is_empty() { Err("a key has at least one byte".to_owned()) } else { Ok(Self(bytes)) }
    }
}

/// As it can be written again.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with("hex:") && !text.contains(char::is_control) => f.write_str(text),
            _ => write!(f, "hex:{}", hex::encode(&self.0)),
        }
    }
}

/// What the closest peers are looked up of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClosestTo {
    Peer(PeerId),
    Key(Key),
}

impl ClosestTo {
    pub(crate) fn target(&self) -> DhtKey {
        match self {
            Self::Peer(peer) => DhtKey::from(*peer),
            Self::Key(key) => DhtKey::from(key.to_record_key()),
        }
    }
}

impl FromStr for ClosestTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self::Peer).or_else(|_not_a_peer| text.parse().map(Self::Key))
    }
}

impl std::fmt::Display for ClosestTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Key(key) => key.fmt(f),
        }
    }
}

pub(crate) fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a limit of zero asks for nothing".to_owned()),
        Ok(limit) => Ok(limit),
        Err(error) => Err(format!("{error}")),
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

    #[test]
    fn a_key_is_text_or_hexadecimal_bytes() {
        assert_eq!("café".parse(), Ok(Key("café".as_bytes().to_vec())));
        assert_eq!("hex:00ffAb".parse(), Ok(Key(vec![0, 255, 0xab])));
        assert!("hex:0".parse::<Key>().is_err());
        assert!("hex:xy".parse::<Key>().is_err());
        assert!("hex:".parse::<Key>().is_err());
        assert!("".parse::<Key>().is_err());
    }

    #[test]
    fn a_key_is_printed_as_it_can_be_written_again() {
        for bytes in [b"plain".as_slice(), b"hex:00", b"\x00\xff", b"line\nline", "日本".as_bytes()] {
            let key = Key(bytes.to_vec());
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn the_closest_peers_are_those_of_a_peer_id_if_it_is_one() {
        let peer = PeerId::random();
        assert_eq!(peer.to_string().parse(), Ok(ClosestTo::Peer(peer)));
        assert_eq!("12D3Koo".parse(), Ok(ClosestTo::Key(Key(b"12D3Koo".to_vec()))));
    }

    #[test]
    fn spans_and_limits_of_nothing_are_refused() {
        assert_eq!(span("1m30s"), Ok(Duration::from_secs(90)));
        assert!(span("0s").is_err());
        assert!(span("soon").is_err());
        assert!(span("9999years").is_err());
        assert_eq!(limit("3"), Ok(3));
        assert!(limit("0").is_err());
    }
}
