//! Tests of announcements among real nodes, over the memory transport.

use std::time::Instant;

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, Transport,
    core::{transport::MemoryTransport, upgrade},
    noise,
    swarm::{self, SwarmEvent},
    yamux,
};
use libp2p_gossipsub::{self as gossipsub, Behaviour, IdentTopic, MessageAuthenticity};

use super::*;

fn topic() -> IdentTopic {
    IdentTopic::new(DEFAULT_TOPIC)
}

/// Node with everything that announcements need.
struct Node {
    swarm: Swarm<Behaviour>,
    address: Multiaddr,
    validator: AnnouncementValidator,
    discovered: Discovered,
    subscribed: usize,
}

impl Node {
    async fn new() -> Self {
        let key = Keypair::generate_ed25519();
        let transport = MemoryTransport::new()
            .upgrade(upgrade::Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let peer = key.public().to_peer_id();
        let mut behaviour = Behaviour::new(MessageAuthenticity::Signed(key), gossip_config().unwrap()).unwrap();
        behaviour.with_peer_score(peer_score_params(topic().hash()), peer_score_thresholds()).unwrap();
        behaviour.subscribe(&topic()).unwrap();
        let config = swarm::Config::with_executor(|task| smol::spawn(task).detach())
            .with_idle_connection_timeout(Duration::from_secs(60));
        let mut swarm = Swarm::new(transport, behaviour, peer, config);
        swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        Self {
            swarm,
            address,
            validator: AnnouncementValidator::default(),
            discovered: Discovered::new(1),
            subscribed: 0,
        }
    }

    fn publish(&mut self, bytes: &[u8]) {
        self.swarm.behaviour_mut().publish(topic(), bytes).unwrap();
    }

    /// Processes one event of the swarm. Returns the verdict if it was a message.
    async fn step(&mut self) -> Option<ValidationResult> {
        match self.swarm.select_next_some().await {
            SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. }) => self.subscribed += 1,
            SwarmEvent::Behaviour(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let message =
                    GossipMessage { forwarder: propagation_source, source: message.source, bytes: &message.data };
                let verdict = self.validator.validate(&mut self.discovered, message, SystemTime::now());
                let acceptance = verdict.acceptance();
                self.swarm.behaviour_mut().report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    acceptance,
                );
                return Some(verdict);
            }
            _ => {}
        }
        None
    }

    async fn until_accepted(&mut self) -> SignedAnnouncement {
        loop {
            if let Some(ValidationResult::Accept(announcement)) = self.step().await {
                return *announcement;
            }
        }
    }
}

fn fresh(publisher: u32, name: &str) -> SignedAnnouncement {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    signed_at(publisher, name, now)
}

/// Returns nodes in a ring, each with three chords: no node knows all others.
async fn network(size: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..size {
        nodes.push(Node::new().await);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| node.address.clone()).collect();
    let mut degrees = vec![0; size];
    for (place, node) in nodes.iter_mut().enumerate() {
        for step in [1, 5, 11] {
            let other = (place + step) % size;
            node.swarm.dial(addresses[other].clone()).unwrap();
            degrees[place] += 1;
            degrees[other] += 1;
        }
    }
    let ready = nodes.into_iter().zip(degrees).map(|(mut node, degree)| {
        smol::spawn(async move {
            while node.subscribed < degree {
                node.step().await;
            }
            node
        })
    });
    futures::future::join_all(ready).await
}

#[test]
fn an_announcement_reaches_thirty_nodes() {
    smol::block_on(async {
        let mut nodes = network(30).await;
        let announcement = fresh(1, "left-pad");
        let started = Instant::now();
        let mut publisher = nodes.swap_remove(0);
        publisher.publish(announcement.bytes());
        let publisher = smol::spawn(async move {
            loop {
                publisher.step().await;
            }
        });
        let (sender, reached) = async_channel::bounded(nodes.len());
        let tasks: Vec<_> = nodes
            .into_iter()
            .map(|mut node| {
                let sender = sender.clone();
                smol::spawn(async move {
                    sender.send(node.until_accepted().await).await.unwrap();
                    loop {
                        node.step().await;
                    }
                })
            })
            .collect();
        for _ in 0..tasks.len() {
            assert_eq!(reached.recv().await.unwrap(), announcement);
        }
        println!("reached {} nodes in {:?}", tasks.len(), started.elapsed());
        // Far more than is needed, for slow machines.
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        drop((tasks, publisher));
    });
}

#[test]
fn attack_forged_announcements_get_their_sender_ignored() {
    smol::block_on(async {
        let (mut spammer, mut node) = (Node::new().await, Node::new().await);
        let spammer_id = *spammer.swarm.local_peer_id();
        spammer.swarm.dial(node.address.clone()).unwrap();
        while spammer.subscribed < 1 || node.subscribed < 1 {
            futures::select_biased! {
                _ = Box::pin(futures::FutureExt::fuse(spammer.step())) => {}
                _ = Box::pin(futures::FutureExt::fuse(node.step())) => {}
            }
        }
        for number in 0..5 {
            spammer.publish(format!("junk {number}").as_bytes());
        }
        let running = smol::spawn(async move {
            loop {
                spammer.step().await;
            }
        });
        let mut rejected = 0;
        while rejected < 5 {
            match node.step().await {
                Some(ValidationResult::Reject(_)) => rejected += 1,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        // Scores are updated with a heartbeat.
        let score = node.swarm.behaviour().peer_score(&spammer_id).unwrap();
        assert!(score < peer_score_thresholds().graylist_threshold, "{score}");
        drop(running);
    });
}
