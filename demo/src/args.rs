use std::{path::PathBuf, time::Duration};

use kadence_tokio::kadence::libp2p::StreamProtocol;

/// Options of the demonstrations.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Show a package registry instead: 12 nodes on three runtimes, of which five publish packages that others find and
    /// install, while forgers, liars and spammers attack
    #[arg(long, conflicts_with_all = ["nodes", "mixed"])]
    pub(crate) registry: bool,
    /// How many nodes the network has, beside the four that only ask
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(4..=64))]
    pub(crate) nodes: u8,
    /// Run the nodes on tokio, async-std and smol in turn, instead of all on tokio
    #[arg(long)]
    pub(crate) mixed: bool,
    /// Store every file under this folder (links are not followed), instead of the samples in the program; with
    /// --registry, publish each folder in it
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Option<PathBuf>,
    /// Print the figures as one JSON object, the last line on stdout; everything else goes to stderr
    #[arg(long)]
    pub json: bool,
    /// What decides which node does what
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Give up after this time, naming the phase that hangs
    #[arg(long, default_value = "2m", value_parser = span)]
    pub(crate) timeout: Duration,
}

/// Parses the name of a kad protocol.
///
/// # Errors
///
/// If it does not begin with a slash.
pub fn protocol(name: &str) -> Result<StreamProtocol, String> {
    StreamProtocol::try_from_owned(name.to_owned()).map_err(|_| "a protocol name begins with a slash".to_owned())
}

/// Nobody waits longer for an answer, and the clock can tell it.
const MAX_SPAN: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses a timeout such as `10s` or `1m30s`, of at most a day.
///
/// # Errors
///
/// If it is zero, too long, or not a duration.
pub fn span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("no time at all".to_owned()),
        Ok(span) if span > MAX_SPAN => Err("more than a day".to_owned()),
        Ok(span) => Ok(span),
        Err(error) => Err(format!("{error}; write it like 10s or 1m30s")),
    }
}
