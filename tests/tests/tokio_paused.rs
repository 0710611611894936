//! Deadlines on tokio's paused clock are exact and take no real time.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use kadence::{GetRecordError, RequestError};
use kadence_tests::{
    NodeConfig, TestEnv, TokioPaused, TransportKind, run,
    suite::support::{collect, key, next_item, record, start_call},
};
use kadence_tokio::TokioRuntime;
use tokio::time::Instant;

/// tokio's timers have a resolution of one millisecond and are never early.
const RESOLUTION: Duration = Duration::from_millis(1);

async fn a_deadline_is_exact(env: &TestEnv<TokioRuntime>) {
    let (node, holders) = env.client_with_peers(NodeConfig::default(), 2).await;
    for holder in &holders {
        holder.store_locally(record("file", holder.peer().to_bytes())).await;
    }
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let deadline = Duration::from_secs(5 * 60);
    let begin = Instant::now();
    let mut stream = start_call(node.client.get_record(key("file")).limit(3).timeout(deadline)).await;
    next_item(&mut stream).await;
    next_item(&mut stream).await;
    silent.next_request().await;
    let (items, _, end) = collect(stream).await;
    let took = begin.elapsed();
    let Err(GetRecordError::Timeout { found, .. }) = end else { panic!("{end:?}") };
    assert_eq!((items.len(), found.len()), (0, 2));
    assert!(took >= deadline && took <= deadline + RESOLUTION, "{took:?}");
}

async fn a_queued_call_expires_exactly(env: &TestEnv<TokioRuntime>) {
    let node = env.node_with(NodeConfig::default().max_running(1)).await;
    let silent = env.silent_node().await;
    node.add_contact(&silent.contact).await;
    let begin = Instant::now();
    let running = node.client.get_record(key("first")).timeout(Duration::from_secs(200)).into_future();
    let queued = node.client.get_record(key("second")).timeout(Duration::from_secs(100)).into_future();
    let times = futures::join!(
        async {
            let result = running.await;
            assert!(matches!(result, Err(GetRecordError::Timeout { .. })), "{result:?}");
            begin.elapsed()
        },
        async {
            let result = queued.await;
            assert!(matches!(result, Err(GetRecordError::Request(RequestError::ExpiredInQueue))), "{result:?}");
            begin.elapsed()
        },
    );
    let (running, queued) = times;
    assert!(running >= Duration::from_secs(200) && running <= Duration::from_secs(200) + RESOLUTION, "{running:?}");
    assert!(queued >= Duration::from_secs(100) && queued <= Duration::from_secs(100) + RESOLUTION, "{queued:?}");
}

#[test]
fn a_deadline_on_a_paused_clock_is_exact() {
    run::<TokioPaused>(TransportKind::Memory, a_deadline_is_exact);
}

#[test]
fn a_queued_call_expires_exactly_on_a_paused_clock() {
    run::<TokioPaused>(TransportKind::Memory, a_queued_call_expires_exactly);
}
