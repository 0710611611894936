//! Nodes on three runtimes in one process form one DHT.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use futures::future::{join_all, try_join_all};
use kadence::{
    Client,
    libp2p::{
        Multiaddr,
        kad::{Mode, Record},
        multiaddr::Protocol,
    },
    node::{Node, NodeConfig},
};

/// Limit for every wait. Much longer than anything here takes.
const WAIT: Duration = Duration::from_secs(20);

/// Interval between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Starts two nodes on each runtime, in turn. All but the first one join through the first one.
async fn network(listen: &str) -> Vec<Node> {
    let config = |seeds: Vec<Multiaddr>| {
        NodeConfig::default().listen([listen.parse().unwrap()]).bootstrap_peers(seeds).mode(Mode::Server)
    };
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..6 {
        let seeds = nodes.first().map_or_else(Vec::new, Node::listen_addrs);
        let node = match number % 3 {
            0 => kadence_tokio::node(config(seeds)).await,
            1 => kadence_async_std::node(config(seeds)).await,
            _ => kadence_smol::node(config(seeds)).await,
        };
        nodes.push(node.unwrap());
    }
    try_join_all(nodes.iter().map(|node| node.ready(WAIT))).await.unwrap();
    for bootstrap in join_all(nodes.iter().map(|node| node.client().bootstrap().timeout(WAIT).into_future())).await {
        bootstrap.unwrap();
    }
    nodes
}

/// Checks that all nodes find the records and providers of all others.
async fn check_records_and_providers(nodes: &[Node]) {
    let clients: Vec<Client> = nodes.iter().map(|node| node.client().clone()).collect();
    for (number, client) in clients.iter().enumerate() {
        let key = format!("record of {number}").into_bytes();
        client.put_record(Record::new(key, vec![u8::try_from(number).unwrap()])).await.unwrap();
        client.start_providing("everything").await.unwrap();
    }
    for client in &clients {
        for number in 0..clients.len() {
            let answer = client.get_record(format!("record of {number}")).timeout(WAIT).await.unwrap();
            assert_eq!(answer.value(), [u8::try_from(number).unwrap()]);
        }
        // Announcements are not acknowledged and may still be on their way.
        let all: BTreeSet<_> = clients.iter().map(Client::local_peer_id).collect();
        let found_all = async {
            loop {
                let found = client.get_providers("everything").timeout(WAIT).await.unwrap().providers;
                if found.iter().copied().collect::<BTreeSet<_>>() == all {
                    break;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::time::timeout(WAIT, found_all).await.unwrap();
    }
}

async fn end(nodes: Vec<Node>) {
    join_all(nodes.into_iter().map(Node::shutdown)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_on_all_runtimes_find_each_others_records_and_providers() {
    let nodes = network("/ip4/127.0.0.1/tcp/0").await;
    check_records_and_providers(&nodes).await;
    end(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_on_all_runtimes_find_each_others_records_and_providers_over_ip6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 on this machine");
        return;
    }
    let nodes = network("/ip6/::1/tcp/0").await;
    check_records_and_providers(&nodes).await;
    end(nodes).await;
}

/// Each runtime dials each other one by a DNS name.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_any_runtime_is_reached_by_name() {
    let config = |bootstrap_peers| {
        NodeConfig::default()
            .listen(["/ip4/127.0.0.1/tcp/0".parse().unwrap()])
            .bootstrap_peers(bootstrap_peers)
            .mode(Mode::Server)
    };
    let servers = [
        kadence_tokio::node(config(Vec::new())).await.unwrap(),
        kadence_async_std::node(config(Vec::new())).await.unwrap(),
        kadence_smol::node(config(Vec::new())).await.unwrap(),
    ];
    for server in &servers {
        let address = server.listen_addrs().remove(0);
        let by_name: Multiaddr = address
            .iter()
            .map(|part| match part {
                Protocol::Ip4(_) => Protocol::Dns4("localhost".into()),
                part => part,
            })
            .collect();
        let clients = [
            kadence_tokio::node(config(vec![by_name.clone()])).await.unwrap(),
            kadence_async_std::node(config(vec![by_name.clone()])).await.unwrap(),
            kadence_smol::node(config(vec![by_name])).await.unwrap(),
        ];
        for client in clients {
            client.ready(WAIT).await.unwrap();
            client.shutdown().await;
        }
    }
    end(servers.into()).await;
}
