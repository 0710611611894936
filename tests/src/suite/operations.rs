//! Every operation works as documented, over every transport.

use std::{collections::BTreeSet, num::NonZeroUsize};

use kadence::{
    BootstrapError, Certainty, ContainsKad, GetClosestPeersError, GetProvidersError, GetRecordError,
    InvalidRequestError, PutRecordError, RemoveRecordError, RequestError, StartProvidingError,
};
use libp2p::{
    PeerId, Swarm,
    kad::{KBucketKey, Quorum},
};

use super::support::{key, peers, record, sorted};
use crate::{Behaviour, NodeConfig, TestEnv, TestRuntime};

pub async fn a_record_that_was_put_is_found_by_every_node<R: TestRuntime>(env: &TestEnv<R>) {
    let nodes = env.mesh(5).await;
    let publisher = &nodes[1];
    let answer = publisher.client.put_record(record("greeting", "hello")).await.unwrap();
    let others = peers(nodes.iter().filter(|node| node.peer() != publisher.peer()));
    assert_eq!(answer.asked(), 4);
    assert_eq!(sorted(answer.acknowledged), others);
    assert!(
        publisher.local_record(&key("greeting")).await.is_some(),
        "a successful put is stored locally for republishing"
    );
    for node in &nodes {
        let answer = node.client.get_record(key("greeting")).await.unwrap();
        assert_eq!(answer.value(), b"hello");
        assert_eq!(answer.record.record.key, key("greeting"));
        assert_eq!(answer.record.record.publisher, Some(publisher.peer()));
        assert!(answer.others.is_empty(), "only the first record was requested");
    }
}

pub async fn a_missing_record_is_not_found_and_the_error_counts_the_peers_asked<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, others) = env.client_with_peers(Default::default(), 4).await;
    let result = client.client.get_record(key("nothing")).await;
    let Err(GetRecordError::NotFound { closest_peers, certainty, rejected: 0, progress }) = result else {
        panic!("{result:?}")
    };
    assert_eq!(sorted(closest_peers.iter().copied()), peers(&others));
    assert_eq!((progress.requests, progress.successes, progress.failures), (4, 4, 0));
    assert_eq!(certainty, Certainty::Conclusive);
}

pub async fn a_query_that_the_application_finishes_is_inconclusive<R: TestRuntime>(env: &TestEnv<R>) {
    let mut config = NodeConfig::default();
    // Nobody else finishes it.
    config.driver.tracker.stall = None;
    let (node, _others) = env.client_with_peers(config, 4).await;
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let get = node.client.get_record(key("nothing")).into_future();
    let finish = async {
        // Four of five have answered: enough, had the query ended by itself.
        env.wait_until(async || {
            let answered = |swarm: &mut Swarm<Behaviour>| {
                swarm.behaviour_mut().kad().iter_queries().any(|query| query.stats().num_successes() == 4)
            };
            node.swarm.with(answered).await.unwrap()
        })
        .await;
        let finish = |swarm: &mut Swarm<Behaviour>| {
            swarm.behaviour_mut().kad().iter_queries_mut().for_each(|mut query| query.finish());
        };
        node.swarm.with(finish).await.unwrap();
    };
    let (result, ()) = futures::join!(get, finish);
    let Err(GetRecordError::NotFound { certainty, progress, .. }) = result else { panic!("{result:?}") };
    assert_eq!((progress.requests, progress.successes, certainty), (5, 4, Certainty::Inconclusive));
}

pub async fn a_local_record_needs_no_peer<R: TestRuntime>(env: &TestEnv<R>) {
    let node = env.node().await;
    node.store_locally(record("mine", "local")).await;
    let answer = node.client.get_record(key("mine")).await.unwrap();
    assert_eq!(answer.value(), b"local");
    assert_eq!(answer.record.peer, None);
    let answer = node.client.get_record(key("mine")).all().await.unwrap();
    assert_eq!(answer.iter().count(), 1);
}

pub async fn without_known_peers_every_operation_fails<R: TestRuntime>(env: &TestEnv<R>) {
    let node = env.node().await;
    let client = &node.client;
    let result = client.get_record(key("a")).await;
    assert!(matches!(result, Err(GetRecordError::NoKnownPeers)), "{result:?}");
    let result = client.put_record(record("b", "value")).await;
    assert!(matches!(result, Err(PutRecordError::NoKnownPeers)), "{result:?}");
    let result = client.get_providers(key("c")).await;
    assert!(matches!(result, Err(GetProvidersError::NoKnownPeers)), "{result:?}");
    let result = client.start_providing(key("d")).await;
    assert!(matches!(result, Err(StartProvidingError::NoKnownPeers)), "{result:?}");
    let result = client.get_closest_peers(key("e")).await;
    assert!(matches!(result, Err(GetClosestPeersError::NoKnownPeers)), "{result:?}");
    let result = client.bootstrap().await;
    assert!(matches!(result, Err(BootstrapError::NoKnownPeers)), "{result:?}");

    assert_eq!(node.local_record(&key("b")).await, None);
    // What a node announces alone is there for those that come later.
    assert_eq!(node.local_providers(&key("d")).await, [client.local_peer_id()]);
    env.wait_until_idle(client).await;
}

pub async fn providers_are_found_and_each_is_named_once<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, others) = env.client_with_peers(Default::default(), 5).await;
    let (providers, ordinary) = others.split_at(3);
    for node in providers {
        node.client.start_providing(key("file")).await.unwrap();
        assert!(node.local_providers(&key("file")).await.contains(&node.peer()));
    }
    // Announcements are not acknowledged, so wait until all nodes have received them.
    let expected = peers(providers);
    for node in ordinary {
        env.wait_until(async || sorted(node.local_providers(&key("file")).await) == expected).await;
    }
    let answer = client.client.get_providers(key("file")).await.unwrap();
    assert_eq!(sorted(answer.providers.iter().copied()), expected);

    for limit in [1, 2, 3] {
        let answer = client.client.get_providers(key("file")).limit(limit).await.unwrap();
        assert_eq!(answer.providers.iter().collect::<BTreeSet<_>>().len(), limit);
        assert_eq!(answer.providers.len(), limit);
    }
    let answer = client.client.get_providers(key("file")).first().await.unwrap();
    assert_eq!(answer.providers.len(), 1);
    assert!(expected.contains(&answer.providers[0]));
}

pub async fn a_key_without_providers_is_not_found<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, others) = env.client_with_peers(Default::default(), 3).await;
    let result = client.client.get_providers(key("nothing")).await;
    let Err(GetProvidersError::NotFound { closest_peers, certainty, progress }) = result else { panic!("{result:?}") };
    assert_eq!(sorted(closest_peers.iter().copied()), peers(&others));
    assert_eq!((progress.successes, certainty), (3, Certainty::Conclusive));
}

pub async fn stop_providing_removes_the_local_provider<R: TestRuntime>(env: &TestEnv<R>) {
    let (node, _others) = env.client_with_peers(Default::default(), 2).await;
    node.client.start_providing(key("file")).await.unwrap();
    assert_eq!(node.local_providers(&key("file")).await, [node.peer()]);
    node.client.stop_providing(key("file")).await.unwrap();
    assert_eq!(node.local_providers(&key("file")).await, []);
}

pub async fn closest_peers_are_sorted_by_distance<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, others) = env.client_with_peers(Default::default(), 6).await;
    let answer = client.client.get_closest_peers(key("target")).await.unwrap();
    let found: Vec<PeerId> = answer.peers.iter().map(|info| info.peer_id).collect();
    let target = KBucketKey::from(key("target").to_vec());
    let mut expected = peers(&others);
    expected.sort_by_key(|peer| target.distance(&KBucketKey::from(*peer)));
    assert_eq!(found, expected);
    for info in &*answer.peers {
        let node = others.iter().find(|node| node.peer() == info.peer_id).unwrap();
        // kad returns addresses with or without the peer id at their end.
        let full = node.contact.address.clone().with_p2p(node.peer()).unwrap();
        assert!(info.addrs.iter().any(|address| *address == full || *address == node.contact.address), "{info:?}");
    }

    let wanted = others[3].peer();
    let answer = client.client.get_closest_peers(wanted).await.unwrap();
    assert_eq!(answer.peers[0].peer_id, wanted, "a peer is closest to its own id");
}

pub async fn a_bootstrap_fills_the_routing_table<R: TestRuntime>(env: &TestEnv<R>) {
    let nodes = env.bootstrapped_network(6).await;
    let answer = nodes[5].client.bootstrap().await.unwrap();
    assert!(answer.phases >= 1);
    assert_eq!(answer.failed, 0);
    assert!(answer.progress.successes >= 5, "{answer:?}");
    for node in &nodes {
        assert_eq!(node.known_peers().await, 5);
    }
}

pub async fn a_value_too_large_for_a_packet_is_rejected_before_sending<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, others) = env.client_with_peers(Default::default(), 2).await;
    let result = client.client.put_record(record("large", vec![0; 20 * 1024])).await;
    let Err(PutRecordError::Request(RequestError::Invalid(InvalidRequestError::ValueTooLong { len, max }))) = result
    else {
        panic!("{result:?}")
    };
    assert_eq!(len, 20 * 1024);
    assert_eq!(client.local_record(&key("large")).await, None);
    assert_eq!(client.client.stats().await.unwrap().accepted, 0);

    // A value of exactly the maximum length arrives everywhere, and is found by a node that has to ask for it.
    client.client.put_record(record("large", vec![7; max])).await.unwrap();
    for other in &others {
        assert_eq!(other.local_record(&key("large")).await.unwrap().value.len(), max);
    }
    let reader = env.node().await;
    reader.add_contact(&others[0].contact).await;
    assert_eq!(reader.client.get_record(key("large")).await.unwrap().value().len(), max);
}

pub async fn a_put_that_cannot_reach_its_quorum_sends_and_stores_nothing<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, others) = env.client_with_peers(Default::default(), 3).await;
    let four = NonZeroUsize::new(4).unwrap();
    let result = client.client.put_record(record("greeting", "hello")).quorum(Quorum::N(four)).await;
    let Err(PutRecordError::InsufficientPeers { found, needed }) = result else { panic!("{result:?}") };
    assert_eq!((found, needed), (3, four));
    for node in others.iter().chain([&client]) {
        assert_eq!(node.local_record(&key("greeting")).await, None);
    }
    let three = NonZeroUsize::new(3).unwrap();
    client.client.put_record(record("greeting", "hello")).quorum(Quorum::N(three)).await.unwrap();
}

pub async fn a_put_to_named_peers_reaches_them_and_nobody_else<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, others) = env.client_with_peers(Default::default(), 4).await;
    let (named, unnamed) = others.split_at(2);
    // Repeated peers and the local id do not count.
    let targets = peers(named).into_iter().chain([named[0].peer(), client.peer()]);
    let answer = client.client.put_record_to(record("greeting", "hello"), targets).await.unwrap();
    assert_eq!(answer.asked(), 2);
    assert_eq!(sorted(answer.acknowledged), peers(named));
    for node in named {
        assert_eq!(node.local_record(&key("greeting")).await.unwrap().value, b"hello");
    }
    for node in unnamed.iter().chain([&client]) {
        assert_eq!(node.local_record(&key("greeting")).await, None);
    }

    let result = client.client.put_record_to(record("greeting", "hello"), [client.peer()]).await;
    assert!(
        matches!(result, Err(PutRecordError::Request(RequestError::Invalid(InvalidRequestError::NoPeers)))),
        "{result:?}"
    );
}

pub async fn a_put_to_named_peers_counts_those_that_acknowledge<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, others) = env.client_with_peers(Default::default(), 2).await;
    // No node knows an address of this peer.
    let nobody = PeerId::random();
    let targets = [others[0].peer(), nobody, others[1].peer()];
    let result = client.client.put_record_to(record("greeting", "hello"), targets).await;
    let Err(PutRecordError::QuorumFailed { acknowledged, needed, asked }) = result else { panic!("{result:?}") };
    assert_eq!(sorted(acknowledged), peers(&others));
    assert_eq!((needed.get(), asked), (3, 3));

    let majority = client.client.put_record_to(record("greeting", "hello"), targets).quorum(Quorum::Majority);
    let answer = majority.await.unwrap();
    assert_eq!(sorted(answer.acknowledged), peers(&others));

    let result = client.client.put_record_to(record("greeting", "hello"), [nobody]).quorum(Quorum::One).await;
    let Err(PutRecordError::QuorumFailed { acknowledged, needed, asked }) = result else { panic!("{result:?}") };
    assert_eq!((acknowledged.len(), needed.get(), asked), (0, 1, 1));
}

pub async fn only_records_of_the_local_node_are_removed<R: TestRuntime>(env: &TestEnv<R>) {
    let nodes = env.mesh(3).await;
    nodes[0].client.put_record(record("greeting", "hello")).await.unwrap();

    let result = nodes[1].client.remove_record(key("greeting")).await;
    assert_eq!(result, Err(RemoveRecordError::NotPublisher { publisher: Some(nodes[0].peer()) }));
    assert!(nodes[1].local_record(&key("greeting")).await.is_some());

    nodes[1].store_locally(record("anonymous", "hello")).await;
    let result = nodes[1].client.remove_record(key("anonymous")).await;
    assert_eq!(result, Err(RemoveRecordError::NotPublisher { publisher: None }));

    assert_eq!(nodes[1].client.remove_record(key("nothing")).await, Err(RemoveRecordError::NotFound));

    assert_eq!(nodes[0].client.remove_record(key("greeting")).await, Ok(()));
    assert_eq!(nodes[0].local_record(&key("greeting")).await, None);
    assert_eq!(nodes[0].client.remove_record(key("greeting")).await, Err(RemoveRecordError::NotFound));
}
