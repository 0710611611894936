//! The smol executor belongs to the application and may be dropped before the node.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, thread, time::Duration};

use kadence::{
    GetRecordError, RequestError,
    libp2p::swarm::dummy,
    node::{Node, NodeConfig, NodeError, ReadyError},
};
use kadence_smol::SmolRuntime;
use smol::Executor;

async fn start(executor: &Arc<Executor<'static>>) -> Result<Node, NodeError> {
    let config = NodeConfig::default().listen(["/ip4/127.0.0.1/tcp/0".parse().unwrap()]);
    Node::start(SmolRuntime::on(executor), config, kadence_smol::transport, |_| dummy::Behaviour).await
}

#[test]
fn dropping_the_executor_ends_its_node() {
    let executor = Arc::new(Executor::new());
    let node = smol::block_on(executor.run(start(&executor))).unwrap();
    assert_eq!(Arc::strong_count(&executor), 1, "neither the node nor its tasks keep the executor alive");
    let get = node.client().get_record("key").into_future();
    let pending = thread::spawn(move || smol::block_on(get));
    drop(executor);

    let shut_down = |result| matches!(result, Err(GetRecordError::Request(RequestError::Shutdown)));
    assert!(shut_down(pending.join().unwrap()));
    smol::block_on(async {
        assert!(shut_down(node.client().get_record("key").await));
        assert!(matches!(node.ready(Duration::from_secs(60)).await, Err(ReadyError::Closed(_))));
        node.shutdown().await;
    });
}

#[test]
fn a_node_does_not_start_on_a_dropped_executor() {
    let executor = Arc::new(Executor::new());
    let runtime = SmolRuntime::on(&executor);
    drop(executor);
    let started = smol::block_on(async {
        let transport = kadence_smol::transport;
        Node::start(runtime, NodeConfig::default(), transport, |_| dummy::Behaviour).await
    });
    assert!(matches!(started, Err(NodeError::Closed(_))), "{started:?}");
}
