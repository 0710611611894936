//! tokio's own clock, paused: deadlines come when it says, and not a moment of real time passes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use kadence::{GetRecordError, RequestError};
use kadence_tests::{
    Bed, NodeConfig, Runner, Wire, run,
    suite::support::{begun, item, key, record, rest},
};
use kadence_tokio::TokioRuntime;
use tokio::{runtime::Builder, time::Instant};

/// tokio on one thread, with a clock that moves only when every task waits, and then to the next deadline.
enum Paused {}

impl Runner for Paused {
    type Runtime = TokioRuntime;

    fn block_on(wire: Wire, test: impl AsyncFnOnce(&Bed<TokioRuntime>)) {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let bed = Bed::new(TokioRuntime::from(runtime.handle().clone()), wire);
        runtime.block_on(test(&bed));
    }
}

/// tokio's timers have a resolution of a millisecond, and are never early.
const RESOLUTION: Duration = Duration::from_millis(1);

async fn a_deadline_is_exact(bed: &Bed<TokioRuntime>) {
    let (node, holders) = bed.client_of(NodeConfig::default(), 2).await;
    for holder in &holders {
        holder.holds(record("file", holder.peer().to_bytes())).await;
    }
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
    let deadline = Duration::from_secs(5 * 60);
    let begin = Instant::now();
    let mut stream = begun(node.client.get_record(key("file")).limit(3).timeout(deadline)).await;
    item(&mut stream).await;
    item(&mut stream).await;
    silent.is_asked().await;
    let (items, _, end) = rest(stream).await;
    let took = begin.elapsed();
    let Err(GetRecordError::Timeout { found, .. }) = end else { panic!("{end:?}") };
    assert_eq!((items.len(), found.len()), (0, 2));
    assert!(took >= deadline && took <= deadline + RESOLUTION, "{took:?}");
}

async fn a_queued_call_expires_exactly(bed: &Bed<TokioRuntime>) {
    let node = bed.node_with(NodeConfig::default().max_running(1)).await;
    let silent = bed.silent().await;
    node.meets(&silent.contact).await;
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
fn t8_a_deadline_on_a_paused_clock_is_exact() {
    run::<Paused>(Wire::Memory, a_deadline_is_exact);
}

#[test]
fn t8_a_queued_call_expires_exactly_on_a_paused_clock() {
    run::<Paused>(Wire::Memory, a_queued_call_expires_exactly);
}
