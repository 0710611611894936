//! Scenarios that hold, and those that fail until an issue ends them.

use std::time::Duration;

use kadence_sim::{
    ForeignPeer, Habit, Latency, Link, Member, World, WorldConfig,
    kadence::{
        Certainty, GetRecordError,
        node::{Identity, NodeConfig},
    },
    libp2p::{Multiaddr, identity::Keypair, kad::Record},
};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Nothing, or a description of the fault.
pub(crate) type Finding = Result<(), String>;

pub(crate) fn config() -> WorldConfig {
    WorldConfig::default().latency(Latency::Constant(Duration::from_millis(25)))
}

/// Latencies of one building: timeouts that are learned there are short.
pub(crate) fn nearby() -> WorldConfig {
    WorldConfig::default().latency(Latency::Constant(Duration::from_millis(1)))
}

pub(crate) fn all(members: &[Member]) -> Vec<Multiaddr> {
    members.iter().flat_map(Member::addresses).collect()
}

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Finding {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Runs a scenario that shows this fault, and no other, as long as the issue is open.
pub(crate) fn fails_until(issue: &str, fault: &str, finding: Finding) {
    match finding {
        Err(found) => {
            assert!(found.contains(fault), "another fault than \"{fault}\": {found}");
            println!("{issue}: {found}");
        }
        Ok(()) => panic!("the fault is gone: this scenario has to succeed from now on"),
    }
}

pub(crate) fn holds(finding: Finding) {
    if let Err(fault) = finding {
        panic!("{fault}");
    }
}

pub(crate) async fn members(world: &World, number: usize, link: Link) -> Vec<Member> {
    world.members(number, link).await.expect("nodes start")
}

pub(crate) fn record(name: &str, len: usize) -> Record {
    Record::new(name.as_bytes().to_vec(), vec![7; len])
}

pub(crate) fn is_conclusive(error: &GetRecordError) -> bool {
    matches!(error, GetRecordError::NotFound { certainty: Certainty::Conclusive, .. })
}

/// Returns the configuration of a node with a key of its own that a restart keeps.
pub(crate) fn identified(number: u8) -> NodeConfig {
    let keypair = Keypair::ed25519_from_bytes([number + 1; 32]).expect("32 bytes");
    NodeConfig::default().identity(Identity::Keypair(keypair))
}

/// Starts a foreign peer on a host of its own, which knows all members.
pub(crate) fn foreign(world: &World, habit: Habit, members: &[Member]) -> ForeignPeer {
    ForeignPeer::start(world.host(Link::default()), habit, &all(members)).expect("a peer starts")
}
