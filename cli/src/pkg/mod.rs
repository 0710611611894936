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

pub(crate) use self::args::Pkg;
use crate::{args::NetworkArgs, exit::Failure};

/// Runs a command of `kadence pkg`.
///
/// # Errors
///
/// Those of each command.
pub(crate) async fn run(command: Pkg, network: NetworkArgs) -> Result<(), Failure> {
    match command {
        Pkg::Init(args) => init::init(args),
        Pkg::Publish(args) => publish::publish(args, network).await,
        Pkg::Search(args) => find::search(args, network).await,
        Pkg::Info(args) => find::info(args, network).await,
        Pkg::Versions(args) => find::versions(args, network).await,
        Pkg::Install(args) => install::install(args, network).await,
        Pkg::Yank(args) => publish::yank(args, true, network).await,
        Pkg::Unyank(args) => publish::yank(args, false, network).await,
        Pkg::Serve(args) => publish::serve(args, network).await,
    }
}
