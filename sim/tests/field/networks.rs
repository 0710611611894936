//! Slow links, restarts, moved addresses, islands.

use std::time::{Duration, Instant};

use kadence_sim::{
    ForeignPeer, Habit, Latency, Link, Member, WorldConfig,
    kadence::node::NodeConfig,
    libp2p::kad::{Mode, RecordKey},
    run,
};

use crate::finding::{
    Finding, MINUTE, all, config, ensure, foreign, holds, identified, is_conclusive, members, nearby, record,
};

/// Stores a record of 60 kB at one of eight nodes, and gets it three times over links of this bandwidth.
fn large_value(reader: Link, holder: Link) -> Finding {
    run(nearby(), move |world| async move {
        let members = members(&world, 8, Link::default()).await;
        let to = [members[0].node.local_peer_id()];
        members[1].node.client().put_record_to(record("large", 60_000), to).await.expect("a put");
        members[0].host.set_link(holder);
        let config = NodeConfig::default().bootstrap_peers(all(&members));
        let reader = world.host(reader).node(config).await.expect("a node starts");
        for attempt in 1..=3 {
            world.sleep(Duration::from_secs(4)).await;
            let found = reader.client().get_record("large").timeout(MINUTE).await;
            ensure(found.is_ok(), || {
                format!("get {attempt}: {:?} of a record that one of eight nodes has", found.err())
            })?;
        }
        Ok(())
    })
    .result
}

#[test]
fn a_large_value_is_found_by_a_reader_on_a_slow_link() {
    holds(large_value(Link::default().up(128_000).down(128_000), Link::default()));
}

#[test]
fn a_large_value_is_found_at_a_holder_on_a_slow_link() {
    holds(large_value(Link::default(), Link::default().up(512_000).down(512_000)));
}

#[test]
fn a_large_value_is_put_over_the_uplink_of_a_home() {
    let finding = run(nearby(), |world| async move {
        let members = members(&world, 24, Link::default()).await;
        let config = NodeConfig::default().bootstrap_peers(all(&members));
        let link = Link::default().up(4_000_000).down(50_000_000);
        let home = world.host(link).node(config).await.expect("a node starts");
        for attempt in 1..=3 {
            world.sleep(Duration::from_secs(4)).await;
            let put = home.client().put_record(record(&format!("large {attempt}"), 60_000)).timeout(MINUTE).await;
            ensure(put.is_ok(), || {
                format!("put {attempt}: {}", put.err().map(|error| error.to_string()).unwrap_or_default())
            })?;
        }
        Ok(())
    });
    holds(finding.result);
}

#[test]
fn a_newcomer_with_one_neighbour_is_never_conclusive() {
    let finding = run(config(), |world| async move {
        let members = members(&world, 2, Link::default()).await;
        let missing = members[1].node.client().get_record("missing").await.expect_err("nobody has it");
        ensure(!is_conclusive(&missing), || format!("{missing:?} after one answer"))
    });
    holds(finding.result);
}

#[test]
fn a_node_that_is_cut_from_the_holders_is_never_conclusive() {
    let finding = run(config(), |world| async move {
        let members = members(&world, 30, Link::default()).await;
        let (island, mainland) = members.split_at(5);
        // kad stores a put of its own at once, so the record is put to others alone.
        let holders = mainland.iter().take(5).map(|member| member.node.local_peer_id());
        island[0].node.client().put_record_to(record("there", 100), holders).await.expect("a put");
        for member in island {
            for other in mainland {
                world.set_cut(&member.host, &other.host, true);
            }
        }
        world.sleep(10 * MINUTE).await;
        match island[1].node.client().get_record("there").timeout(MINUTE).await {
            Ok(_) => Err("a record was found beyond a cut".to_owned()),
            Err(error) => ensure(!is_conclusive(&error), || format!("{error:?} on an island")),
        }
    });
    holds(finding.result);
}

/// The client is in nobody's routing table, so the peer does not come to it by itself.
#[test]
fn a_peer_that_has_moved_is_found_where_others_say_that_it_is() {
    let finding = run(nearby(), |world| async move {
        let seed = Member::start(world.host(Link::default()), NodeConfig::default()).await.expect("a node starts");
        let known = || NodeConfig::default().bootstrap_peers(seed.addresses());
        let peer = Member::start(world.host(Link::default()), identified(1).bootstrap_peers(seed.addresses())).await;
        let peer = peer.expect("a node starts");
        let client = world.host(Link::default()).node(known()).await.expect("a node starts");
        world.sleep(MINUTE / 2).await;
        let id = peer.node.local_peer_id();
        client.client().find_peer(id).await.expect("the peer is known");
        let Member { host, node } = peer;
        node.shutdown().await;
        host.change_address();
        let peer = Member::start(host, identified(1).bootstrap_peers(seed.addresses())).await.expect("a node starts");
        peer.node.ready(MINUTE).await.expect("the seed is there");
        peer.node.client().start_providing("file").await.expect("the seed takes it");
        let mut found = Vec::new();
        for _ in 0..3 {
            world.sleep(Duration::from_secs(1)).await;
            client.client().get_providers("file").await.expect("the seed has it");
            found = client.client().find_peer(id).await.map(|found| found.addresses).unwrap_or_default();
            if found
                .iter()
                .any(|address| peer.addresses().iter().any(|new| new.to_string().starts_with(&address.to_string())))
            {
                return Ok(());
            }
        }
        Err(format!("the peer is at {:?}, and looked for at {found:?}", peer.addresses()))
    });
    holds(finding.result);
}

#[test]
fn a_seed_that_was_started_again_is_dialled_by_those_whose_bootstrap_peer_it_is() {
    let finding = run(nearby(), |world| async move {
        let seed = Member::start(world.host(Link::default()), identified(0)).await.expect("a node starts");
        // What keeps the two connected in life is other traffic.
        let known = |number| identified(number).bootstrap_peers(seed.addresses()).idle_connection_timeout(60 * MINUTE);
        let one = Member::start(world.host(Link::default()), known(1)).await.expect("a node starts");
        let other = Member::start(world.host(Link::default()), known(2)).await.expect("a node starts");
        world.sleep(MINUTE / 2).await;
        one.node.add_peer(&other.addresses()[0]).await.expect("an address of a node");
        world.sleep(Duration::from_secs(1)).await;
        one.node.client().put_record(record("there", 100)).await.expect("a put");
        let seed = seed.restart(identified(0)).await.expect("a node starts");
        world.sleep(MINUTE / 2).await;
        let config = NodeConfig::default().bootstrap_peers(seed.addresses());
        let newcomer = world.host(Link::default()).node(config).await.expect("a node starts");
        newcomer.ready(MINUTE).await.expect("the seed is there");
        let found = newcomer.client().get_record("there").timeout(MINUTE).await;
        ensure(found.is_ok(), || format!("30 s after the seed is back: {:?}", found.err()))
    });
    holds(finding.result);
}

#[test]
fn a_seed_whose_sixty_peers_are_gone_can_put_at_the_one_that_is_there() {
    let finding = run(config(), |world| async move {
        let seed = Member::start(world.host(Link::default()), NodeConfig::default()).await.expect("a node starts");
        for _ in 0..60 {
            let config = NodeConfig::default().bootstrap_peers(seed.addresses());
            let visitor = Member::start(world.host(Link::default()), config).await.expect("a node starts");
            world.sleep(Duration::from_secs(5)).await;
            visitor.host.set_online(false);
        }
        let config = NodeConfig::default().bootstrap_peers(seed.addresses());
        let _living = Member::start(world.host(Link::default()), config).await.expect("a node starts");
        world.sleep(5 * MINUTE).await;
        let mut failed = 0;
        for number in 0..20 {
            let put = seed.node.client().put_record(record(&format!("record {number}"), 100)).quorum(1).await;
            failed += usize::from(put.is_err());
        }
        ensure(failed == 0, || format!("{failed} of 20 puts failed while a peer is connected"))
    });
    holds(finding.result);
}

#[test]
fn what_a_node_announces_alone_is_found_by_those_who_join_later() {
    let finding = run(config(), |world| async move {
        let alone = Member::start(world.host(Link::default()), NodeConfig::default()).await.expect("a node starts");
        let key = RecordKey::new(b"file");
        let announced = alone.node.client().start_providing(key.clone()).await;
        let config = NodeConfig::default().bootstrap_peers(alone.addresses());
        let other = Member::start(world.host(Link::default()), config).await.expect("a node starts");
        world.sleep(5 * MINUTE).await;
        let found = other.node.client().get_providers(key).timeout(MINUTE).await;
        let peer = alone.node.local_peer_id();
        ensure(found.as_ref().is_ok_and(|found| found.providers.contains(&peer)), || {
            format!("{found:?}, and the announcement ended with {announced:?}")
        })
    });
    holds(finding.result);
}

/// It listens and is a client of the DHT, so that no table has it.
#[test]
fn a_provider_whose_announcement_succeeded_is_found() {
    let finding = run(nearby(), |world| async move {
        let server = Member::start(world.host(Link::default()), NodeConfig::default()).await.expect("a node starts");
        let known = || NodeConfig::default().bootstrap_peers(server.addresses());
        let provider = Member::start(world.host(Link::default()), known().mode(Mode::Client)).await;
        let provider = provider.expect("a node starts");
        provider.node.ready(MINUTE).await.expect("the server is there");
        let announced = provider.node.client().start_providing("file").await;
        world.sleep(Duration::from_secs(1)).await;
        let asker = world.host(Link::default()).node(known()).await.expect("a node starts");
        asker.ready(MINUTE).await.expect("the server is there");
        let found = asker.client().get_providers("file").await;
        ensure(
            announced.is_ok()
                && found.as_ref().is_ok_and(|found| found.providers.contains(&provider.node.local_peer_id())),
            || format!("announced: {announced:?}; found: {found:?}"),
        )
    });
    holds(finding.result);
}

#[test]
fn an_announcement_names_an_address() {
    let finding = run(nearby(), |world| async move {
        let members = members(&world, 4, Link::default()).await;
        let foreign = foreign(&world, Habit::Honest, &members);
        world.sleep(MINUTE).await;
        members[1].node.client().start_providing("file").await.expect("others are there");
        world.sleep(Duration::from_secs(1)).await;
        let announced = foreign.provider_addresses(b"file", members[1].node.local_peer_id());
        ensure(announced.as_ref().is_some_and(|addresses| !addresses.is_empty()), || {
            format!("a peer was told of a provider with the addresses {announced:?}")
        })
    });
    holds(finding.result);
}

#[test]
fn a_seed_that_is_full_is_dialled_less_and_less() {
    let finding = run(config(), |world| async move {
        let seed = NodeConfig::default().max_connections(1);
        let seed = Member::start(world.host(Link::default()), seed).await.expect("a node starts");
        let known = || NodeConfig::default().bootstrap_peers(seed.addresses()).idle_connection_timeout(60 * MINUTE);
        let _guest = Member::start(world.host(Link::default()), known()).await.expect("a node starts");
        world.sleep(Duration::from_secs(5)).await;
        let late = Member::start(world.host(Link::default()), known()).await.expect("a node starts");
        world.sleep(30 * MINUTE).await;
        let dials = late.host.traffic().dials;
        ensure(dials <= 60, || format!("{dials} dials of a full seed within half an hour"))
    });
    holds(finding.result);
}

#[test]
fn a_record_with_half_a_second_to_live_is_gone_after_a_minute() {
    let finding = run(nearby(), |world| async move {
        let members = members(&world, 8, Link::default()).await;
        let mut short = record("short", 100);
        short.expires = Some(Instant::now() + Duration::from_millis(500));
        let put = members[1].node.client().put_record(short).await;
        world.sleep(MINUTE).await;
        let found = members[5].node.client().get_record("short").await;
        ensure(found.is_err(), || {
            format!("a minute after half a second has passed it is there; its put ended with {put:?}")
        })
    });
    holds(finding.result);
}

#[test]
fn a_missing_key_beside_silent_peers_is_not_conclusive() {
    let finding = run(config(), |world| async move {
        let members = members(&world, 8, Link::default()).await;
        let silent: Vec<_> = (0..3).map(|_| foreign(&world, Habit::Honest, &members)).collect();
        world.sleep(2 * MINUTE).await;
        silent.iter().for_each(|peer| peer.set_habit(Habit::Silent));
        let missing = members[2].node.client().get_record("missing").await.expect_err("nobody has it");
        let asked: u64 = silent.iter().map(ForeignPeer::requests).sum();
        ensure(asked > 0 && !is_conclusive(&missing), || format!("{missing:?}, and {asked} requests were not answered"))
    });
    holds(finding.result);
}

/// Strangers who know three nodes and ask nobody are hardly known to others.
#[test]
fn a_missing_key_is_conclusive_where_everybody_answers() {
    let finding = run(WorldConfig::default().latency(Latency::CLOUD_REGIONS), |world| async move {
        let members = members(&world, 42, Link::default()).await;
        let known = all(&members);
        let start = || ForeignPeer::start(world.host(Link::default()), Habit::Honest, &world.some_of(&known));
        let strangers: Vec<_> = (0..18).map(|_| start().expect("a peer starts")).collect();
        world.sleep(2 * MINUTE).await;
        let mut inconclusive = Vec::new();
        for (number, member) in members.iter().enumerate().take(40) {
            let missing = member.node.client().get_record(format!("missing {number}")).await;
            let missing = missing.expect_err("nobody has it");
            if !is_conclusive(&missing) {
                inconclusive.push(missing.to_string());
            }
        }
        let asked: u64 = strangers.iter().map(ForeignPeer::requests).sum();
        ensure(inconclusive.is_empty(), || {
            let example = &inconclusive[0];
            format!(
                "{} of 40 were inconclusive, although all peers answer ({asked} requests): {example}",
                inconclusive.len()
            )
        })
    });
    holds(finding.result);
}
