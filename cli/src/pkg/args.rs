//! Command line of `kadence pkg`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Subcommand;
use kadence_registry::{PackageId, PackageName};
use kadence_tokio::kadence::libp2p::Multiaddr;
use semver::{Version, VersionReq};

use kadence_demo::parse_timeout;

use crate::options::{Listen, parse_limit};

/// Default timeout of commands that look something up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Default timeout of commands that transfer archives.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Subcommand)]
pub(crate) enum Pkg {
    /// Start a package: write its ggen.toml
    Init(InitArgs),
    /// Publish a folder that has a ggen.toml
    ///
    /// Packs the folder, announces this node as a provider, and puts the signed head of the package. Others can fetch
    /// the package only while a node serves it: use --serve, or run `kadence pkg serve` with the same home.
    Publish(PublishArgs),
    /// Find packages by their metadata
    Search(SearchArgs),
    /// Show the metadata of a package: of its newest version or of a given one
    Info(InfoArgs),
    /// List the versions of a package, newest first
    Versions(VersionsArgs),
    /// Install packages and their dependencies
    ///
    /// Pins the versions in the file ggen.lock in <DIR>, and installs each package into
    /// <DIR>/<publisher>/<name>/<version>. Keeps the pins of an earlier call that meet the requirements. Without names,
    /// installs the pinned versions.
    Install(InstallArgs),
    /// Yank a version of a package published with this home
    ///
    /// A yanked version is no longer found or resolved. It can still be installed where a lock file pins it.
    Yank(YankArgs),
    /// Take back the yank of a version of a package published with this home
    ///
    /// The version is found and resolved again.
    Unyank(YankArgs),
    /// Run a node that serves the packages of the home, until Ctrl-C or SIGTERM
    ///
    /// Prints each address that others can pass to --peer, one per line. Serves the packages that were published or
    /// installed with this home, and republishes the heads of its own packages.
    Serve(ServeArgs),
}

impl Pkg {
    /// Returns whether the command prints JSON.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Init(args) => args.json,
            Self::Publish(args) => args.place.json,
            Self::Search(args) => args.place.json,
            Self::Info(args) => args.place.json,
            Self::Versions(args) => args.place.json,
            Self::Install(args) => args.place.json,
            Self::Yank(args) | Self::Unyank(args) => args.place.json,
            Self::Serve(args) => args.place.json,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Folder of the package, created if it does not exist
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Name of the package. Default: the name of the folder
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<PackageName>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// Folder of the package
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
    /// Words that all have to occur; the last one may be the beginning of a word. Default: all packages
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
    /// Maximum number of packages to show, up to 100
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_limit)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) peers: Peers,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InfoArgs {
    /// Package, optionally with a version: <publisher>/<name>, or <name> if it is unambiguous; NAME@1.2.3
    #[arg(value_name = "NAME")]
    pub(crate) package: PackageVersion,
    /// Also print its readme
    #[arg(long)]
    pub(crate) readme: bool,
    #[command(flatten)]
    pub(crate) peers: Peers,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VersionsArgs {
    /// Package: <publisher>/<name>, or <name> if it is unambiguous
    #[arg(value_name = "NAME")]
    pub(crate) package: Name,
    #[command(flatten)]
    pub(crate) peers: Peers,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// Packages, each optionally with a version requirement as in Cargo: NAME, NAME@^1.2, 'NAME@>=1, <3'
    #[arg(value_name = "NAME[@REQ]")]
    pub(crate) packages: Vec<PackageReq>,
    /// Folder to install into, created if it does not exist
    #[arg(long, value_name = "DIR", default_value = "ggen_packages")]
    pub(crate) dir: PathBuf,
    /// Install exactly the versions that ggen.lock pins; fail if they do not meet the requirements
    #[arg(long)]
    pub(crate) locked: bool,
    /// Use only archives that were fetched before, and the versions that ggen.lock pins
    #[arg(long)]
    pub(crate) offline: bool,
    /// Address of a node to join through, as `kadence node` prints it; repeatable
    #[arg(long = "peer", value_name = "MULTIADDR", required_unless_present = "offline")]
    pub(crate) peers: Vec<Multiaddr>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct YankArgs {
    /// Version to yank or unyank: NAME@1.2.3, or <publisher>/NAME@1.2.3
    #[arg(value_name = "NAME@VERSION", value_parser = one_version)]
    pub(crate) package: PackageVersion,
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
    /// Address of a node to join through, as `kadence node` prints it; repeatable. Default: none, so that this node
    /// waits for others
    #[arg(long = "peer", value_name = "MULTIADDR")]
    pub(crate) peers: Vec<Multiaddr>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Peers {
    /// Address of a node to join through, as `kadence node` prints it; repeatable
    #[arg(long = "peer", value_name = "MULTIADDR", required = true)]
    pub(crate) peers: Vec<Multiaddr>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stay {
    /// Serve the package afterwards, as `kadence pkg serve` does
    #[arg(long)]
    pub(crate) serve: bool,
    #[command(flatten)]
    pub(crate) listen: Listen,
}

/// Options of every command that works with a registry.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Folder of the key pair, the registry and the store, used by one process at a time. Default: $KADENCE_HOME, else
    /// `kadence` in the folder in which the system keeps the data of programs
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Maximum time of the whole command, such as 10s or 1m30s. Default: 1 minute, or 1 hour for commands that transfer
    /// archives
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl Place {
    pub(crate) fn lookup_timeout(&self) -> Duration {
        self.timeout.unwrap_or(LOOKUP_TIMEOUT)
    }

    pub(crate) fn transfer_timeout(&self) -> Duration {
        self.timeout.unwrap_or(TRANSFER_TIMEOUT)
    }
}

/// Name of a package on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Id(PackageId),
    /// The name without its publisher.
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

/// A package and a requirement on its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackageReq {
    pub(crate) name: Name,
    pub(crate) requirement: VersionReq,
}

impl FromStr for PackageReq {
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

/// A package, optionally with one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackageVersion {
    pub(crate) name: Name,
    pub(crate) version: Option<Version>,
}

impl FromStr for PackageVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version.parse().map_err(|error| format!("{version:?}: {error}"))?)),
            None => (text, None),
        };
        Ok(Self { name: name.parse()?, version })
    }
}

/// Parses a package with a version.
///
/// # Errors
///
/// If the version is missing or invalid.
fn one_version(text: &str) -> Result<PackageVersion, String> {
    let package: PackageVersion = text.parse()?;
    if package.version.is_some() { Ok(package) } else { Err("a version is missing: write NAME@1.2.3".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHER: &str = "12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR";

    #[test]
    fn a_name_with_a_publisher_is_an_id() {
        let id: PackageId = format!("{PUBLISHER}/units").parse().unwrap();
        assert_eq!(id.to_string().parse(), Ok(Name::Id(id.clone())));
        assert_eq!("units".parse(), Ok(Name::Short("units".parse().unwrap())));
        assert_eq!(Name::Id(id.clone()).to_string(), id.to_string());
        for wrong in ["", "Units", "nobody/units", "a b", "../units", &format!("{PUBLISHER}/")] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_requirement_follows_an_at_sign() {
        let package: PackageReq = "units@>=1, <3".parse().unwrap();
        assert_eq!(package.requirement, VersionReq::parse(">=1, <3").unwrap());
        assert_eq!("units".parse::<PackageReq>().unwrap().requirement, VersionReq::STAR);
        assert!("units@".parse::<PackageReq>().is_err() && "units@new".parse::<PackageReq>().is_err());
        assert!("@1".parse::<PackageReq>().is_err());
    }

    #[test]
    fn one_version_is_not_a_requirement() {
        assert_eq!("units@1.2.3".parse::<PackageVersion>().unwrap().version, Some(Version::new(1, 2, 3)));
        assert_eq!("units".parse::<PackageVersion>().unwrap().version, None);
        assert!("units@^1".parse::<PackageVersion>().is_err());
        assert!(one_version("units").is_err() && one_version("units@1.0.0").is_ok());
    }
}
