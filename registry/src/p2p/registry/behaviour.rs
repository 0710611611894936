#![expect(missing_docs, reason = "the derived event type has a variant for each field and takes no documentation")]

use kadence::node::NodeConfig;
use libp2p::swarm::NetworkBehaviour;
use libp2p_gossipsub::{self as gossipsub, IdentTopic, MessageAuthenticity};
use libp2p_identity::Keypair;
use std::sync::Arc;

use super::{RegistryConfig, RegistryStartError};
use crate::p2p::{
    announce::{gossip_config, peer_score_params, peer_score_thresholds},
    head::{HeadValidator, NAMESPACE},
};

/// Behaviours that a registry needs in addition to kad. Pass them to the node as the application's behaviour, for
/// example with `kadence_tokio::node_with`.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub struct RegistryBehaviour {
    /// Gossip of announcements.
    pub gossipsub: gossipsub::Behaviour,
    /// Streams of the two protocols of a registry: one transfers content, with the other peers ask for each other's
    /// lists of announced packages.
    pub streams: libp2p_stream::Behaviour,
}

impl RegistryBehaviour {
    /// Returns the behaviour of the node with the key pair `keypair`, subscribed to
    /// [`RegistryConfig::topic`](field@RegistryConfig::topic).
    ///
    /// # Errors
    ///
    /// [`RegistryStartError::Gossip`] if gossipsub rejects the configuration or the topic.
    pub fn new(keypair: &Keypair, config: &RegistryConfig) -> Result<Self, RegistryStartError> {
        let rejected = |reason: &dyn std::fmt::Display| RegistryStartError::Gossip(reason.to_string());
        let topic = IdentTopic::new(&config.topic);
        let mut gossipsub = gossipsub::Behaviour::new(
            MessageAuthenticity::Signed(keypair.clone()),
            gossip_config().map_err(|error| rejected(&error))?,
        )
        .map_err(|error| rejected(&error))?;
        gossipsub
            .with_peer_score(peer_score_params(topic.hash()), peer_score_thresholds())
            .map_err(|error| rejected(&error))?;
        gossipsub.subscribe(&topic).map_err(|error| rejected(&error))?;
        Ok(Self { gossipsub, streams: libp2p_stream::Behaviour::new() })
    }
}

/// Capacity of the node's event queue: a burst of announcements from all neighbours, some 10 MB.
const EVENT_CAPACITY: usize = 8192;

/// Sets up the configuration of a node for a registry. The node then validates package heads when it reads, puts and
/// stores records, and has an event queue of at least 8,192 events. Call it before the node is started.
pub fn configure(node: &mut NodeConfig) {
    let validators = std::mem::take(&mut node.driver.tracker.validators);
    node.driver.tracker.validators = validators.with(NAMESPACE, Arc::new(HeadValidator));
    // Announcements are delivered as events, in bursts.
    node.driver.event_capacity = node.driver.event_capacity.max(EVENT_CAPACITY);
}
