//! T5: a bootstrap ends at its last phase, once.

use futures::{StreamExt, poll};
use libp2p::{
    kad::{self, QueryId, QueryResult},
    swarm::SwarmEvent,
};

use super::support::{collect, start_call};
use crate::{Contact, NodeConfig, TestEnv, TestRuntime, keypair_in_bucket};

/// Nodes in the three farthest buckets of a node: its bootstraps have three phases.
async fn three_buckets<R: TestRuntime>(env: &TestEnv<R>, of: &Contact) -> Vec<crate::Node> {
    let mut nodes = Vec::new();
    for bucket in [253, 254, 255] {
        nodes.push(env.node_with(NodeConfig::default().keypair(keypair_in_bucket(of.peer, bucket))).await);
    }
    nodes
}

pub async fn a_bootstrap_ends_once_after_all_its_phases<R: TestRuntime>(env: &TestEnv<R>) {
    let node = env.node().await;
    let others = three_buckets(env, &node.contact).await;
    for other in &others {
        node.add_contact(&other.contact).await;
    }
    let (phases, lagged, end) = collect(node.client.bootstrap().stream()).await;
    let answer = end.unwrap();
    assert_eq!((answer.phases, answer.failed, lagged), (3, 0, 0));
    let seen: Vec<_> = phases.iter().map(|phase| (phase.ok, phase.remaining)).collect();
    assert_eq!(seen, [(true, Some(2)), (true, Some(1)), (true, Some(0))]);
    assert!(answer.progress.successes >= 9, "each lookup asks everybody: {answer:?}");

    let answer = node.client.bootstrap().await.unwrap();
    assert_eq!((answer.phases, answer.failed), (3, 0), "awaited, it is the same");
    env.wait_until_idle(&node.client).await;
}

pub async fn other_bootstraps_disturb_nothing_and_are_handed_on<R: TestRuntime>(env: &TestEnv<R>) {
    let mut node = env.own_loop(NodeConfig::default()).await;
    let others = three_buckets(env, &node.contact).await;
    for other in &others {
        node.add_contact(&other.contact);
    }
    // What kad begins by itself, and what an application begins, looks the same: an id that nobody asked Kadence for.
    let before = node.driver.swarm_mut().behaviour_mut().bootstrap().unwrap();
    let ours = start_call(node.client.bootstrap()).await;
    let mut events = Vec::new();
    let our_id = loop {
        if let std::task::Poll::Ready(Some(event)) = poll!(node.driver.next()) {
            events.push(event);
        }
        let snapshot = node.driver.tracker().snapshot(env.now());
        if let Some(id) = snapshot.queries.first().and_then(|query| query.id) {
            break id;
        }
    };
    let between = node.driver.swarm_mut().behaviour_mut().bootstrap().unwrap();
    assert!(our_id != before && our_id != between && before != between);

    let ((phases, _, end), further) = node.run_until(collect(ours)).await;
    events.extend(further);
    let answer = end.unwrap();
    assert_eq!((answer.phases, phases.len()), (3, 3), "the phases of the others are not ours");

    let ended = |events: &[_], id| steps(events, id).last().is_some_and(|(_, last)| *last);
    while !(ended(&events, before) && ended(&events, between)) {
        events.push(node.driver.select_next_some().await);
    }
    let three_steps = [(1, false), (2, false), (3, true)];
    assert_eq!(steps(&events, before), three_steps);
    assert_eq!(steps(&events, between), three_steps);
    assert_eq!(steps(&events, our_id), [], "ours are not handed on");
}

/// The steps of a bootstrap among events: their numbers, and whether they were the last.
fn steps(events: &[SwarmEvent<kad::Event>], wanted: QueryId) -> Vec<(usize, bool)> {
    let step = |event: &SwarmEvent<kad::Event>| match event {
        SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed {
            id,
            result: QueryResult::Bootstrap(Ok(_)),
            step,
            ..
        }) if *id == wanted => Some((step.count.get(), step.last)),
        _ => None,
    };
    events.iter().filter_map(step).collect()
}
