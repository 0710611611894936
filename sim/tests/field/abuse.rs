//! Attacks that one stranger can make on others.

use std::time::Duration;

use kadence_sim::{
    ForeignPeer, Habit, Link, Member, PORT,
    kadence::{ContainsKad, node::NodeConfig},
    keypairs_near,
    libp2p::{
        PeerId,
        kad::{RecordKey, store::RecordStore},
    },
    run,
};

use crate::finding::{MINUTE, all, config, ensure, fails_until, foreign, holds, members, record};

#[test]
fn newcomers_are_served_beside_four_hundred_half_open_connections_of_one_address() {
    let finding = run(config(), |world| async move {
        let server = Member::start(world.host(Link::default()), NodeConfig::default()).await.expect("a node starts");
        let attacker = world.host(Link::default());
        for _ in 0..400 {
            attacker.half_open(&server.host.multiaddr(PORT));
        }
        world.sleep(Duration::from_secs(1)).await;
        for number in 1..=6 {
            let known = NodeConfig::default().bootstrap_peers(server.addresses());
            let newcomer = world.host(Link::default()).node(known).await.expect("a node starts");
            let began = world.now();
            let joined = newcomer.ready(MINUTE).await;
            let took = world.now() - began;
            ensure(joined.is_ok() && took < Duration::from_secs(1), || {
                format!("newcomer {number}: {joined:?} after {took:?}")
            })?;
        }
        Ok(())
    });
    holds(finding.result);
}

#[test]
fn lookups_end_although_three_of_fifteen_peers_name_a_thousand_invented_ones() {
    let finding = run(config(), |world| async move {
        let members = members(&world, 12, Link::default()).await;
        for _ in 0..3 {
            let habit = Habit::InventedPeers(1_000);
            foreign(&world, habit, &members);
        }
        world.sleep(2 * MINUTE).await;
        for number in 0..5 {
            let key = format!("lookup {number}").into_bytes();
            let began = world.now();
            let found = members[3].node.client().get_closest_peers(key).timeout(MINUTE).await;
            let took = world.now() - began;
            ensure(found.is_ok() && took < Duration::from_secs(10), || {
                let error = found.err().map(|error| error.to_string());
                format!("a lookup ended after {took:?}: {}", error.unwrap_or_else(|| "with success".to_owned()))
            })?;
        }
        Ok(())
    });
    fails_until("19.2", "a lookup ended after", finding.result);
}

#[test]
fn a_flood_of_small_puts_does_not_evict_the_record_of_another() {
    let finding = run(config(), |world| async move {
        let server = NodeConfig::default().max_records(100);
        let server = Member::start(world.host(Link::default()), server).await.expect("a node starts");
        let known = NodeConfig::default().bootstrap_peers(server.addresses());
        let writer = world.host(Link::default()).node(known).await.expect("a node starts");
        let addresses = server.addresses();
        let flooder = ForeignPeer::start(world.host(Link::default()), Habit::Honest, &addresses).expect("a peer");
        world.sleep(Duration::from_secs(10)).await;
        for number in 0..20 {
            let put = writer.client().put_record(record(&format!("honest {number}"), 100)).quorum(1).await;
            ensure(put.is_ok(), || format!("a put failed before the flood: {put:?}"))?;
        }
        for number in 0..2_000 {
            let (server, key) = (server.node.local_peer_id(), format!("flood {number}").into_bytes());
            flooder.put_at(server, key, vec![1; 10], Some(PeerId::random())).await;
        }
        let left = server.node.swarm().with(|swarm| {
            let store = swarm.behaviour_mut().kad().store_mut();
            let is_left = |number: &i32| store.get(&RecordKey::from(format!("honest {number}").into_bytes())).is_some();
            (0..20).filter(is_left).count()
        });
        let left = left.await.expect("the node runs");
        ensure(left == 20, || format!("{left} of 20 records are left after the flood"))
    });
    fails_until("19.3", "records are left after the flood", finding.result);
}

#[test]
fn a_record_that_sybils_alone_have_taken_is_found_or_its_put_fails() {
    let finding = run(config(), |world| async move {
        let members = members(&world, 30, Link::default()).await;
        for keypair in keypairs_near(b"target", 10, 20) {
            let host = world.host(Link::default());
            ForeignPeer::start_as(host, &keypair, Habit::Dropping, &all(&members)).expect("a peer");
        }
        world.sleep(6 * MINUTE).await;
        let put = members[2].node.client().put_record(record("target", 100)).await;
        members[2].host.set_online(false);
        let found = members[9].node.client().get_record("target").await;
        ensure(put.is_err() || found.is_ok(), || {
            format!(
                "the put was acknowledged, its node is gone, and a get ended with {:?}",
                found.err().map(|error| error.to_string())
            )
        })
    });
    fails_until("19.4", "the put was acknowledged, its node is gone, and a get ended with", finding.result);
}
