//! A bootstrap ends once, after its last phase.

use futures::{StreamExt, poll};
use libp2p::{
    kad::{self, QueryId, QueryResult},
    swarm::SwarmEvent,
};

use super::support::{collect, start_call};
use crate::{Contact, NodeConfig, TestEnv, TestRuntime, keypair_in_bucket};

/// Starts nodes in the three farthest buckets of a node, so that its bootstraps have three phases.
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
    assert!(answer.progress.successes >= 9, "each lookup asks all peers: {answer:?}");

    let answer = node.client.bootstrap().await.unwrap();
    assert_eq!((answer.phases, answer.failed), (3, 0), "an awaited call returns the same");
    env.wait_until_idle(&node.client).await;
}

pub async fn other_bootstraps_do_not_interfere_and_are_forwarded<R: TestRuntime>(env: &TestEnv<R>) {
    let mut node = env.own_loop(NodeConfig::default()).await;
    let others = three_buckets(env, &node.contact).await;
    for other in &others {
        node.add_contact(&other.contact);
    }
    // Bootstraps of kad and of the application look alike: both have an id that Kadence did not request.
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
    assert_eq!((answer.phases, phases.len()), (3, 3), "phases of other bootstraps are not counted");

    let ended = |events: &[_], id| steps(events, id).last().is_some_and(|(_, last)| *last);
    while !(ended(&events, before) && ended(&events, between)) {
        events.push(node.driver.select_next_some().await);
    }
    let three_steps = [(1, false), (2, false), (3, true)];
    assert_eq!(steps(&events, before), three_steps);
    assert_eq!(steps(&events, between), three_steps);
    assert_eq!(steps(&events, our_id), [], "events of Kadence's own bootstrap are not forwarded");
}

/// Returns the steps of a bootstrap among events: their numbers, and whether they were the last.
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
