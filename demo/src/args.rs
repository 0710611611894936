use std::{path::PathBuf, time::Duration};

use kadence_tokio::kadence::libp2p::StreamProtocol;

/// Options of the demonstrations.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Demonstrate a package registry instead of a plain network: 5 of 12 nodes publish packages that others find and
    /// install. A build with the feature `attackers` also runs forgers, liars and spammers against them
    #[arg(long, conflicts_with_all = ["nodes", "mixed"])]
    pub(crate) registry: bool,
    /// Number of nodes, in addition to the four clients, which store nothing
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u8).range(4..=64))]
    pub(crate) nodes: u8,
    /// Run the nodes on tokio, async-std and smol in turn. Default: all on tokio
    #[arg(long)]
    pub(crate) mixed: bool,
    /// Store every file under this folder (symbolic links are skipped); with --registry, publish each folder in it.
    /// Default: samples in the program
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Option<PathBuf>,
    /// Print the report as one JSON object, the only line on stdout; everything else goes to stderr
    #[arg(long)]
    pub json: bool,
    /// Seed of the random choices: which node does what
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Stop the demonstration after this time as hung, and name the phase that hangs
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_timeout)]
    pub(crate) timeout: Duration,
    /// Adds a check that fails.
    #[cfg(test)]
    #[arg(skip)]
    pub(crate) fail_a_check: bool,
}

/// Parses the name of a kad protocol.
///
/// # Errors
///
/// If it does not begin with a slash.
pub fn parse_protocol(name: &str) -> Result<StreamProtocol, String> {
    StreamProtocol::try_from_owned(name.to_owned()).map_err(|_| "a protocol name begins with a slash".to_owned())
}

/// Longest timeout that is accepted. Longer ones are typing errors, and some would overflow the clock.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses a timeout such as `10s` or `1m30s`, of at most a day.
///
/// # Errors
///
/// If it is zero, too long, or not a duration.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("a timeout is longer than zero".to_owned()),
        Ok(timeout) if timeout > MAX_TIMEOUT => Err("a timeout is at most a day".to_owned()),
        Ok(timeout) => Ok(timeout),
        Err(error) => Err(format!("{error}: write a duration such as 10s or 1m30s")),
    }
}
