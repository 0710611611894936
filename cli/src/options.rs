//! Options and arguments of the commands, and their parsers. They depend on no command.

use std::{path::PathBuf, str::FromStr, time::Duration};

use kadence_demo::parse_timeout;
use kadence_tokio::kadence::{
    Key as DhtKey,
    libp2p::{Multiaddr, PeerId, kad::RecordKey},
};

use crate::record::RecordArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) listen: Listen,
    /// Address of a node to join through, as `kadence node` prints it; repeatable. Default: none, so that this node
    /// waits for others
    #[arg(long = "peer", value_name = "MULTIADDR")]
    pub(crate) peers: Vec<Multiaddr>,
    /// File of the key pair, created if it does not exist. Default: a new key pair, and so a new peer id, at every
    /// start
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// File in which records and providers are kept, created if it does not exist; use it with --identity. Default: in
    /// memory, so that they are lost when the node ends
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) record: RecordArgs,
    /// Print each address as a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    /// Address to listen on; repeatable
    #[arg(
        long = "listen",
        value_name = "MULTIADDR",
        default_values = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"],
    )]
    pub(crate) addresses: Vec<Multiaddr>,
}

/// Options of every command that asks the network.
#[derive(Debug, clap::Args)]
pub(crate) struct Ask {
    /// Address of a node to join through, as `kadence node` prints it; repeatable
    #[arg(long = "peer", value_name = "MULTIADDR", required = true)]
    pub(crate) peers: Vec<Multiaddr>,
    /// Maximum time of the whole command, such as 10s or 1m30s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_timeout)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) record: RecordArgs,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// Key of the record: text, or `hex:` and hexadecimal bytes
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// Write the value to this file. Default: stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    /// Key of the record: text, or `hex:` and hexadecimal bytes
    pub(crate) key: Key,
    /// Value as text. Default, without --file: read from stdin
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(crate) value: Option<String>,
    /// File with the value; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ProvideArgs {
    /// Key to provide: text, or `hex:` and hexadecimal bytes
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) listen: Listen,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ProvidersArgs {
    /// Key whose providers are looked up: text, or `hex:` and hexadecimal bytes
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// Stop after this number of providers. Default: no limit
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ClosestArgs {
    /// Peer id, or key: text, or `hex:` and hexadecimal bytes
    #[arg(value_name = "KEY-OR-PEERID")]
    pub(crate) target: ClosestTo,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// Key on the command line: text, or `hex:` and hexadecimal bytes.
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
            Some(digits) => hex::decode(digits).map_err(|error| format!("invalid hexadecimal bytes: {error}"))?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.is_empty() { Err("a key has at least one byte".to_owned()) } else { Ok(Self(bytes)) }
    }
}

/// Writes the key in a form that can be parsed again.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with("hex:") && !text.contains(char::is_control) => f.write_str(text),
            _ => write!(f, "hex:{}", hex::encode(&self.0)),
        }
    }
}

/// Target of a lookup of closest peers.
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

/// Parses a maximum number of results.
///
/// # Errors
///
/// If it is zero or not a number.
pub(crate) fn parse_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a limit is at least 1".to_owned()),
        Ok(limit) => Ok(limit),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_printed_key_can_be_parsed_again() {
        for bytes in [b"plain".as_slice(), b"hex:00", b"\x00\xff", b"line\nline", "日本".as_bytes()] {
            let key = Key(bytes.to_vec());
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn a_target_that_is_a_peer_id_is_a_peer() {
        let peer = PeerId::random();
        assert_eq!(peer.to_string().parse(), Ok(ClosestTo::Peer(peer)));
        assert_eq!("12D3Koo".parse(), Ok(ClosestTo::Key(Key(b"12D3Koo".to_vec()))));
    }

    #[test]
    fn timeouts_and_limits_of_zero_are_rejected() {
        assert_eq!(parse_timeout("1m30s"), Ok(Duration::from_secs(90)));
        assert!(parse_timeout("0s").is_err());
        assert!(parse_timeout("soon").is_err());
        assert!(parse_timeout("9999years").is_err());
        assert_eq!(parse_limit("3"), Ok(3));
        assert!(parse_limit("0").is_err());
    }
}
