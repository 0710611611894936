//! Adversaries: real nodes with a dishonest part.

use std::{cmp::Ordering, sync::Arc};

use anyhow::Context;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::join};
use kadence_registry::p2p::{
    head::NAMESPACE,
    registry::{RegistryBehaviour, RegistryConfig},
    transfer::BLOB_PROTOCOL,
};
use kadence_tokio::{
    Node, NodeConfig,
    kadence::{
        ValidationError, Validator,
        libp2p::{
            Multiaddr, PeerId, Stream, StreamProtocol,
            identity::Keypair,
            kad::{Record, RecordKey, store::RecordStore},
        },
    },
};
use libp2p_gossipsub::{IdentTopic, PublishError};

use super::member::{knows, node_config};
use crate::WAIT;

/// Interval in bytes at which a corrupt provider changes a byte.
const CORRUPT_EVERY: usize = 20_000;

/// Node of an adversary, without a registry.
pub(super) struct Adversary {
    pub(super) node: Node<RegistryBehaviour>,
    pub(super) keypair: Keypair,
    pub(super) topic: IdentTopic,
}

/// Validator that accepts any value and prefers one fixed value to all others.
struct StaleReplica(Vec<u8>);

impl Validator for StaleReplica {
    fn validate(&self, _: &RecordKey, _: &[u8]) -> Result<(), ValidationError> {
        Ok(())
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        (left == self.0).cmp(&(right == self.0)).then_with(|| left.cmp(right))
    }
}

impl Adversary {
    /// Starts a node that behaves as an honest one does, and waits until it knows `others` nodes.
    ///
    /// # Errors
    ///
    /// If it does not start, or does not find the others.
    pub(super) async fn start(protocol: &StreamProtocol, peers: Vec<Multiaddr>, others: usize) -> anyhow::Result<Self> {
        let keypair = Keypair::generate_ed25519();
        let config = node_config(&keypair, protocol.clone(), peers)?;
        Self::with(keypair, config, others).await
    }

    /// Starts a node that serves this value of a record and no other.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub(super) async fn holding(
        record: &Record,
        protocol: &StreamProtocol,
        peers: Vec<Multiaddr>,
        others: usize,
    ) -> anyhow::Result<Self> {
        let keypair = Keypair::generate_ed25519();
        let mut config = node_config(&keypair, protocol.clone(), peers)?;
        let validators = std::mem::take(&mut config.driver.tracker.validators);
        config.driver.tracker.validators = validators.with(NAMESPACE, Arc::new(StaleReplica(record.value.clone())));
        let adversary = Self::with(keypair, config, others).await?;
        let record = record.clone();
        let stored = adversary
            .node
            .swarm()
            .with(move |swarm| swarm.behaviour_mut().kad.kad_mut().store_mut().put(record))
            .await?;
        stored.context("an adversary cannot store the record that it is to serve")?;
        Ok(adversary)
    }

    async fn with(keypair: Keypair, config: NodeConfig, others: usize) -> anyhow::Result<Self> {
        let alone = config.bootstrap_peers.is_empty();
        let registry = RegistryConfig::in_folder("");
        let topic = IdentTopic::new(&registry.topic);
        let behaviour = RegistryBehaviour::new(&keypair, &registry)?;
        let node = kadence_tokio::node_with(config, |_| behaviour).await?;
        if !alone {
            node.ready(WAIT).await.context("an adversary did not find any peer")?;
            node.client().bootstrap().timeout(WAIT).await.context("an adversary cannot bootstrap")?;
            knows(&node, others).await?;
        }
        Ok(Self { node, keypair, topic })
    }

    /// Serves blobs with some bytes changed: forwards requests to `source` and changes bytes of its responses.
    ///
    /// # Errors
    ///
    /// If the node has ended.
    pub(super) async fn corrupt(&self, source: PeerId) -> anyhow::Result<()> {
        let mut control = self.node.swarm().with(|swarm| swarm.behaviour().app.streams.new_control()).await?;
        let mut incoming = control.accept(BLOB_PROTOCOL).context("the blob protocol is already served")?;
        tokio::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                let mut control = control.clone();
                tokio::spawn(async move {
                    if let Ok(honest) = control.open_stream(source, BLOB_PROTOCOL).await {
                        relay(stream, honest).await;
                    }
                });
            }
        });
        Ok(())
    }

    /// Publishes a message by gossip.
    ///
    /// # Errors
    ///
    /// If the node has ended.
    pub(super) async fn gossip(&self, bytes: Vec<u8>) -> anyhow::Result<Result<(), PublishError>> {
        let topic = self.topic.clone();
        let sent = self.node.swarm().with(move |swarm| swarm.behaviour_mut().app.gossipsub.publish(topic, bytes));
        Ok(sent.await?.map(drop))
    }
}

/// Forwards requests as they are, and responses with changed bytes.
async fn relay(victim: Stream, honest: Stream) {
    let (mut from_victim, mut to_victim) = victim.split();
    let (mut from_honest, mut to_honest) = honest.split();
    let requests = async {
        let _ended = futures::io::copy(&mut from_victim, &mut to_honest).await;
        let _closed = to_honest.close().await;
    };
    let responses = async {
        let mut buffer = [0; 8192];
        let mut passed = 0;
        while let Ok(read @ 1..) = from_honest.read(&mut buffer).await {
            let part = buffer.get_mut(..read).unwrap_or_default();
            for byte in part.iter_mut() {
                passed += 1;
                if passed % CORRUPT_EVERY == 0 {
                    *byte ^= 1;
                }
            }
            if to_victim.write_all(part).await.is_err() || to_victim.flush().await.is_err() {
                return;
            }
        }
    };
    join(requests, responses).await;
}
