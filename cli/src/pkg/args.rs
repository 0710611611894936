//! What the command line may say about packages.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Subcommand;
use kadence_registry::{PackageId, PackageName};
use kadence_tokio::kadence::libp2p::Multiaddr;
use semver::{Version, VersionReq};

use kadence_demo::span;

use crate::args::{Listen, limit};

/// How long to find something may take, if nothing else is said.
const FIND: Duration = Duration::from_secs(60);

/// The same for what moves archives.
const MOVE: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Subcommand)]
pub(crate) enum Pkg {
    /// Begin a package: write a ggen.toml
    Init(InitArgs),
    /// Publish a folder that has a ggen.toml
    ///
    /// Packs the folder, tells the network who has it, and puts the package's signed head. Others can fetch the package
    /// only while somebody serves it: stay with --serve, or run `kadence pkg serve` with the same home.
    Publish(PublishArgs),
    /// Find packages by what they say about themselves
    Search(SearchArgs),
    /// Show what the newest version of a package, or a given one, says about itself
    Info(InfoArgs),
    /// List a package's versions, newest first
    Versions(VersionsArgs),
    /// Install packages and everything they need
    ///
    /// Pins the versions in ggen.lock in the folder, and installs each into <DIR>/<publisher>/<name>/<version>. Pins of
    /// an earlier call are kept where they meet what is asked for. Without names, installs what is pinned.
    Install(InstallArgs),
    /// Withdraw a version of a package of ours
    ///
    /// Nobody finds or resolves it any more; who has it in a lock file can still install it.
    Yank(YankArgs),
    /// Run a node that shares what is in the home, until Ctrl-C or SIGTERM
    ///
    /// Prints each address that others can give to --peer, one a line. Serves what was published or installed with this
    /// home, and keeps our packages' heads alive.
    Serve(ServeArgs),
}

impl Pkg {
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Init(args) => args.json,
            Self::Publish(args) => args.place.json,
            Self::Search(args) => args.place.json,
            Self::Info(args) => args.place.json,
            Self::Versions(args) => args.place.json,
            Self::Install(args) => args.place.json,
            Self::Yank(args) => args.place.json,
            Self::Serve(args) => args.place.json,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The package's folder, made if there is none
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// What to call the package. Without it, the folder's name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<PackageName>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// The package's folder
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) peers: Peers,
    #[command(flatten)]
    pub(crate) stay: Stay,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SearchArgs {
    /// Words to look for, all of which have to be there; the last may be the beginning of one. Without any, everything
    #[arg(value_name = "TEXT", num_args = 0..)]
    pub(crate) text: Vec<String>,
    /// Only packages of this category; repeatable
    #[arg(long = "category", value_name = "WORD")]
    pub(crate) categories: Vec<String>,
    /// Only packages with this tag; repeatable
    #[arg(long = "tag", value_name = "WORD")]
    pub(crate) tags: Vec<String>,
    /// Only packages of this author
    #[arg(long, value_name = "NAME")]
    pub(crate) author: Option<String>,
    /// Show this many at most, up to 100
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = limit)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) peers: Peers,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InfoArgs {
    /// The package, and perhaps a version: <publisher>/<name>, or <name> if it is clear which; NAME@1.2.3
    #[arg(value_name = "NAME")]
    pub(crate) package: Exactly,
    /// Print its readme, too
    #[arg(long)]
    pub(crate) readme: bool,
    #[command(flatten)]
    pub(crate) peers: Peers,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VersionsArgs {
    /// The package: <publisher>/<name>, or <name> if it is clear which
    #[arg(value_name = "NAME")]
    pub(crate) package: Name,
    #[command(flatten)]
    pub(crate) peers: Peers,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// Packages, each perhaps with a requirement as Cargo writes it: NAME, NAME@^1.2, 'NAME@>=1, <3'
    #[arg(value_name = "NAME[@REQ]")]
    pub(crate) packages: Vec<Wanted>,
    /// Where to install, made if there is none
    #[arg(long, value_name = "DIR", default_value = "ggen_packages")]
    pub(crate) dir: PathBuf,
    /// Install exactly what ggen.lock pins; fail if that does not meet what is asked for
    #[arg(long)]
    pub(crate) locked: bool,
    /// Use only what was fetched before. It installs what ggen.lock pins
    #[arg(long)]
    pub(crate) offline: bool,
    /// A node to ask through, as it prints itself; repeatable
    #[arg(long = "peer", value_name = "MULTIADDR", required_unless_present = "offline")]
    pub(crate) peers: Vec<Multiaddr>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct YankArgs {
    /// The version to withdraw: NAME@1.2.3, or <publisher>/NAME@1.2.3
    #[arg(value_name = "NAME@VERSION", value_parser = one_version)]
    pub(crate) package: Exactly,
    #[command(flatten)]
    pub(crate) peers: Peers,
    #[command(flatten)]
    pub(crate) stay: Stay,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) listen: Listen,
    /// A node to join through, as it prints itself; repeatable. Without one, this node waits for others
    #[arg(long = "peer", value_name = "MULTIADDR")]
    pub(crate) peers: Vec<Multiaddr>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Peers {
    /// A node to ask through, as it prints itself; repeatable
    #[arg(long = "peer", value_name = "MULTIADDR", required = true)]
    pub(crate) peers: Vec<Multiaddr>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stay {
    /// Go on serving afterwards, as `kadence pkg serve` does
    #[arg(long)]
    pub(crate) serve: bool,
    #[command(flatten)]
    pub(crate) listen: Listen,
}

/// What every command has that works with a registry.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Where the key pair, the registry and the store are; for one process at a time. Default: $KADENCE_HOME, else the
    /// folder `kadence` where the system keeps programs' data
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// How long to wait in all; by default a minute, and an hour where archives are moved
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl Place {
    pub(crate) fn time_to_find(&self) -> Duration {
        self.timeout.unwrap_or(FIND)
    }

    pub(crate) fn time_to_move(&self) -> Duration {
        self.timeout.unwrap_or(MOVE)
    }
}

/// A package as a person calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Id(PackageId),
    /// Without its publisher.
    Short(PackageName),
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = if text.contains('/') { text.parse().map(Self::Id) } else { text.parse().map(Self::Short) };
        name.map_err(|error| error.to_string())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Short(name) => name.fmt(f),
        }
    }
}

/// A package and which of its versions will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: Name,
    pub(crate) requirement: VersionReq,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, requirement) = match text.split_once('@') {
            Some((name, requirement)) => {
                (name, requirement.parse().map_err(|error| format!("{requirement:?}: {error}"))?)
            }
            None => (text, VersionReq::STAR),
        };
        Ok(Self { name: name.parse()?, requirement })
    }
}

/// A package and perhaps one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exactly {
    pub(crate) name: Name,
    pub(crate) version: Option<Version>,
}

impl FromStr for Exactly {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version.parse().map_err(|error| format!("{version:?}: {error}"))?)),
            None => (text, None),
        };
        Ok(Self { name: name.parse()?, version })
    }
}

fn one_version(text: &str) -> Result<Exactly, String> {
    let exactly: Exactly = text.parse()?;
    if exactly.version.is_some() { Ok(exactly) } else { Err("say which version: NAME@1.2.3".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHER: &str = "12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR";

    #[test]
    fn a_name_is_an_id_if_it_says_a_publisher() {
        let id: PackageId = format!("{PUBLISHER}/units").parse().unwrap();
        assert_eq!(id.to_string().parse(), Ok(Name::Id(id.clone())));
        assert_eq!("units".parse(), Ok(Name::Short("units".parse().unwrap())));
        assert_eq!(Name::Id(id.clone()).to_string(), id.to_string());
        for wrong in ["", "Units", "nobody/units", "a b", "../units", &format!("{PUBLISHER}/")] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wanted_has_a_requirement_behind_an_at_sign() {
        let wanted: Wanted = "units@>=1, <3".parse().unwrap();
        assert_eq!(wanted.requirement, VersionReq::parse(">=1, <3").unwrap());
        assert_eq!("units".parse::<Wanted>().unwrap().requirement, VersionReq::STAR);
        assert!("units@".parse::<Wanted>().is_err() && "units@new".parse::<Wanted>().is_err());
        assert!("@1".parse::<Wanted>().is_err());
    }

    #[test]
    fn one_version_is_not_a_requirement() {
        assert_eq!("units@1.2.3".parse::<Exactly>().unwrap().version, Some(Version::new(1, 2, 3)));
        assert_eq!("units".parse::<Exactly>().unwrap().version, None);
        assert!("units@^1".parse::<Exactly>().is_err());
        assert!(one_version("units").is_err() && one_version("units@1.0.0").is_ok());
    }
}
