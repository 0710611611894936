//! `kadence pkg publish`, `yank`, `unyank` and `serve`.

use std::fmt::Write;

use anyhow::Context;
use futures::future::BoxFuture;
use kadence_registry::{PublishError, Receipt, Registry, Release, StepOutcome, Steps, archive::Excluded};
use kadence_tokio::kadence::libp2p::Multiaddr;
use serde_json::json;

use super::{
    args::{Name, PublishArgs, ServeArgs, Stay, YankArgs},
    home::Home,
    member::{Member, Part},
    progress::Waiting,
};
use crate::{args::NetworkArgs, exit::Failure, node::signal, output};

/// Publishes a folder.
///
/// # Errors
///
/// If the folder is not a package, the network cannot be reached, or a step fails.
pub(super) async fn publish(args: PublishArgs, network: NetworkArgs) -> Result<(), Failure> {
    let PublishArgs { dir, peers, stay, place } = args;
    let timeout = place.transfer_timeout();
    let home = Home::find(place.home)?;
    // Errors of the folder come before those of the network.
    let publisher = home.keypair()?.public().to_peer_id();
    let release = Release::read(publisher, dir).await.map_err(anyhow::Error::from)?;
    let part = Part { home, peers: peers.peers, listen: listen_addrs(&stay), network, timeout };
    in_network(part, &stay, place.json, async |member| {
        let waiting = Waiting::start("publishing");
        let published = member.in_time(async { with_steps(member.registry.publish(release).await) }).await;
        waiting.end();
        let receipt = published?;
        if place.json {
            output::json(&json!({ "ok": true, "receipt": receipt }))?;
        } else {
            let Receipt { package, version, .. } = &receipt;
            output::line(format_args!("published {package} {version}\n{}", steps(&receipt.steps)))?;
            for Excluded { path, reason, .. } in &receipt.excluded {
                output::line(format_args!("left out {path}: {reason}"))?;
            }
            output::line(format_args!("install it with: kadence pkg install {package}@{version}"))?;
        }
        Ok(())
    })
    .await
}

/// Yanks a version, or takes its yank back if `yanked` is false.
///
/// # Errors
///
/// If it does not exist, it was not published with this home, the network cannot be reached, or a step fails.
pub(super) async fn yank(args: YankArgs, yanked: bool, network: NetworkArgs) -> Result<(), Failure> {
    let YankArgs { package, peers, stay, place } = args;
    let timeout = place.transfer_timeout();
    let version = package.version.context("a version is missing: write NAME@1.2.3")?;
    let part =
        Part { home: Home::find(place.home)?, peers: peers.peers, listen: listen_addrs(&stay), network, timeout };
    in_network(part, &stay, place.json, async |member| {
        // Only packages published with this home can be yanked, so a name without a publisher is one of those.
        let id = match &package.name {
            Name::Id(id) => id.clone(),
            Name::Short(name) => member.own_package(name)?,
        };
        let waiting = Waiting::start(if yanked { "yanking" } else { "unyanking" });
        let changed = member.in_time(async {
            with_steps(match yanked {
                true => member.registry.yank(&id, &version).await,
                false => member.registry.unyank(&id, &version).await,
            })
        });
        let changed = changed.await;
        waiting.end();
        let receipt = changed?;
        if place.json {
            output::json(&json!({ "ok": true, "receipt": receipt }))?;
        } else {
            let action = if yanked { "yanked" } else { "unyanked" };
            output::line(format_args!("{action} {id} {version}\n{}", steps(&receipt.steps)))?;
        }
        Ok(())
    })
    .await
}

/// Serves the packages of the home until a signal comes.
///
/// # Errors
///
/// If the home cannot be used, or the node does not start or ends by itself.
pub(super) async fn serve(args: ServeArgs, network: NetworkArgs) -> Result<(), Failure> {
    let ServeArgs { listen, peers, place } = args;
    let signal = signal()?;
    let timeout = place.transfer_timeout();
    let home = Home::find(place.home)?;
    let member = Member::start(Part { home, peers, listen: listen.addresses, network, timeout }).await?;
    let served = member.serve(signal, place.json).await;
    member.leave().await;
    served
}

/// Joins the network, runs `work`, and serves until a signal comes if `stay` says so.
async fn in_network(
    part: Part,
    stay: &Stay,
    json: bool,
    work: impl AsyncFnOnce(&Member) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let signal: Option<BoxFuture<'static, ()>> = stay.serve.then(signal).transpose()?;
    let member = Member::join(part).await?;
    let mut done = work(&member).await;
    if done.is_ok() {
        match signal {
            Some(signal) => done = member.serve(signal, json).await,
            None if !json => output::note(
                "it can be fetched only while a node serves it: run `kadence pkg serve` with the same home",
            ),
            None => {}
        }
    }
    member.leave().await;
    done
}

/// Returns the addresses to listen on. A node that does not stay does not listen.
fn listen_addrs(stay: &Stay) -> Vec<Multiaddr> {
    if stay.serve { stay.listen.addresses.clone() } else { Vec::new() }
}

/// Prints the steps of a publish that failed.
fn with_steps(published: Result<Receipt, PublishError>) -> Result<Receipt, PublishError> {
    if let Err(PublishError::Failed { steps: begun, .. }) = &published {
        output::note(steps(begun));
    }
    published
}

/// Returns a line for each step.
fn steps(steps: &Steps) -> String {
    let mut text = String::new();
    for (step, outcome) in steps.iter() {
        let outcome = match outcome {
            StepOutcome::Done => "done".to_owned(),
            StepOutcome::AlreadyThere => "already there".to_owned(),
            StepOutcome::Confirmed { by, of } => format!("confirmed by {by} of {of} peers"),
            StepOutcome::Failed { reason } => format!("FAILED: {reason}"),
        };
        let _never_fails =
            write!(text, "{}  {:<10} {outcome}", if text.is_empty() { "" } else { "\n" }, step.to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use kadence_registry::Step;

    use super::*;

    #[test]
    fn each_step_is_a_line_in_the_order_of_publishing() {
        let mut made = Steps::default();
        made.set(Step::Head, StepOutcome::Failed { reason: "no peer answered".to_owned() });
        made.set(Step::Provide, StepOutcome::Confirmed { by: 3, of: 4 });
        made.set(Step::Archive, StepOutcome::AlreadyThere);
        assert_eq!(
            steps(&made),
            "  archive    already there\n  provide    confirmed by 3 of 4 peers\n  head       FAILED: no peer answered"
        );
    }
}
