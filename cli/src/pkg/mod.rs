//! `kadence pkg`: publishes, finds and installs packages of a decentralised registry.

mod args;
mod failure;
mod find;
mod home;
mod init;
mod install;
mod member;
mod name;
mod progress;
mod publish;
mod table;

use kadence_tokio::kadence::libp2p::StreamProtocol;

pub(crate) use self::args::Pkg;
use crate::exit::Failure;

/// Runs a command of `kadence pkg`.
///
/// # Errors
///
/// Those of each command.
pub(crate) async fn run(command: Pkg, protocol: StreamProtocol) -> Result<(), Failure> {
    match command {
        Pkg::Init(args) => init::init(args),
        Pkg::Publish(args) => publish::publish(args, protocol).await,
        Pkg::Search(args) => find::search(args, protocol).await,
        Pkg::Info(args) => find::info(args, protocol).await,
        Pkg::Versions(args) => find::versions(args, protocol).await,
        Pkg::Install(args) => install::install(args, protocol).await,
        Pkg::Yank(args) => publish::yank(args, true, protocol).await,
        Pkg::Unyank(args) => publish::yank(args, false, protocol).await,
        Pkg::Serve(args) => publish::serve(args, protocol).await,
    }
}
