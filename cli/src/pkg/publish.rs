//! `kadence pkg publish`, `yank` and `serve`.

use std::fmt::Write;

use anyhow::Context;
use futures::future::BoxFuture;
use kadence_registry::{PublishError, Receipt, Registry, Release, StepOutcome, Steps, archive::Excluded};
use kadence_tokio::kadence::libp2p::StreamProtocol;
use serde_json::json;

use super::{
    args::{PublishArgs, ServeArgs, Stay, YankArgs},
    home::Home,
    member::{Member, Part},
    progress::Waiting,
};
use crate::{exit::Failure, node::signal, output};

/// Publishes a folder.
///
/// # Errors
///
/// If the folder is no package, the network cannot be reached, or a step fails.
pub(super) async fn publish(args: PublishArgs, protocol: StreamProtocol) -> Result<(), Failure> {
    let PublishArgs { dir, peers, stay, place } = args;
    let timeout = place.time_to_move();
    let home = Home::find(place.home)?;
    // Before the network is asked for anything.
    let publisher = home.keypair()?.public().to_peer_id();
    let release = Release::read(publisher, dir).await.map_err(anyhow::Error::from)?;
    let part = Part { home, peers: peers.peers, listen: listens(&stay), protocol, timeout };
    in_network(part, &stay, place.json, async |member| {
        let waiting = Waiting::start("publishing");
        let published = member.in_time(async { told(member.registry.publish(release).await) }).await;
        waiting.end();
        let receipt = published?;
        if place.json {
            output::json(&json!({ "ok": true, "receipt": receipt }))?;
        } else {
            let Receipt { package, version, .. } = &receipt;
            output::line(format_args!("published {package} {version}\n{}", steps(&receipt.steps)))?;
            for Excluded { path, reason } in &receipt.excluded {
                output::line(format_args!("left out {path}: {reason}"))?;
            }
            output::line(format_args!("Others install it with: kadence pkg install {package}@{version}"))?;
        }
        Ok(())
    })
    .await
}

/// Withdraws a version.
///
/// # Errors
///
/// If there is none such, it is not ours, the network cannot be reached, or a step fails.
pub(super) async fn yank(args: YankArgs, protocol: StreamProtocol) -> Result<(), Failure> {
    let YankArgs { package, peers, stay, place } = args;
    let timeout = place.time_to_move();
    let version = package.version.context("say which version: NAME@1.2.3")?;
    let part = Part { home: Home::find(place.home)?, peers: peers.peers, listen: listens(&stay), protocol, timeout };
    in_network(part, &stay, place.json, async |member| {
        // Only ours can be withdrawn, so a name without a publisher is ours.
        let id = match &package.name {
            super::args::Name::Id(id) => id.clone(),
            super::args::Name::Short(name) => member.ours(name)?,
        };
        let waiting = Waiting::start("withdrawing");
        let yanked = member.in_time(async { told(member.registry.delete(&id, &version).await) }).await;
        waiting.end();
        let receipt = yanked?;
        if place.json {
            output::json(&json!({ "ok": true, "receipt": receipt }))?;
        } else {
            output::line(format_args!("withdrew {id} {version}\n{}", steps(&receipt.steps)))?;
        }
        Ok(())
    })
    .await
}

/// Shares what is in the home until a signal comes.
///
/// # Errors
///
/// If the home cannot be used, or the node does not start or ends by itself.
pub(super) async fn serve(args: ServeArgs, protocol: StreamProtocol) -> Result<(), Failure> {
    let ServeArgs { listen, peers, place } = args;
    let signal = signal()?;
    let timeout = place.time_to_move();
    let home = Home::find(place.home)?;
    let member = Member::start(Part { home, peers, listen: listen.addresses, protocol, timeout }).await?;
    let served = member.serve(signal, place.json).await;
    member.leave().await;
    served
}

/// Does something in the network, and goes on serving if that is wanted.
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
                "It can be fetched only while somebody serves it: run `kadence pkg serve` with the same home.",
            ),
            None => {}
        }
    }
    member.leave().await;
    done
}

/// Who does not stay does not say where it could be reached.
fn listens(stay: &Stay) -> Vec<kadence_tokio::kadence::libp2p::Multiaddr> {
    if stay.serve { stay.listen.addresses.clone() } else { Vec::new() }
}

/// Says how far it came before it failed.
fn told(published: Result<Receipt, PublishError>) -> Result<Receipt, PublishError> {
    if let Err(PublishError::Failed { steps: begun, .. }) = &published {
        output::note(steps(begun));
    }
    published
}

/// Each step on a line.
fn steps(steps: &Steps) -> String {
    let mut text = String::new();
    for (step, outcome) in steps.iter() {
        let outcome = match outcome {
            StepOutcome::Done => "done".to_owned(),
            StepOutcome::AlreadyThere => "was there".to_owned(),
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
        made.set(Step::Head, StepOutcome::Failed { reason: "nobody is there".to_owned() });
        made.set(Step::Provide, StepOutcome::Confirmed { by: 3, of: 4 });
        made.set(Step::Archive, StepOutcome::AlreadyThere);
        assert_eq!(
            steps(&made),
            "  archive    was there\n  provide    confirmed by 3 of 4 peers\n  head       FAILED: nobody is there"
        );
    }
}
