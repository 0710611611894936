use kadence_tokio::TokioRuntime;
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
    tcp,
};
use tokio::runtime::Builder;

use crate::{Runner, TestEnv, TestRuntime, TransportKind, secured};

impl TestRuntime for TokioRuntime {
    fn tcp_transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
        secured(tcp::tokio::Transport::new(tcp::Config::default()), keypair)
    }
}

/// tokio with two worker threads, so that tasks really run concurrently.
#[derive(Debug, Clone, Copy)]
pub enum TokioMultiThread {}

impl Runner for TokioMultiThread {
    type Runtime = TokioRuntime;

    fn block_on(transport_kind: TransportKind, test: impl AsyncFnOnce(&TestEnv<TokioRuntime>)) {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("the runtime starts");
        let env = TestEnv::new(TokioRuntime::from(runtime.handle().clone()), transport_kind);
        runtime.block_on(test(&env));
    }
}

/// tokio on the test's own thread: a task that blocks or spins stops everything.
#[derive(Debug, Clone, Copy)]
pub enum TokioCurrentThread {}

impl Runner for TokioCurrentThread {
    type Runtime = TokioRuntime;

    fn block_on(transport_kind: TransportKind, test: impl AsyncFnOnce(&TestEnv<TokioRuntime>)) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("the runtime starts");
        let env = TestEnv::new(TokioRuntime::from(runtime.handle().clone()), transport_kind);
        runtime.block_on(test(&env));
    }
}

/// tokio on one thread, with a clock that advances only when every task waits, and then to the next deadline.
#[derive(Debug, Clone, Copy)]
pub enum TokioPaused {}

impl Runner for TokioPaused {
    type Runtime = TokioRuntime;

    fn block_on(transport_kind: TransportKind, test: impl AsyncFnOnce(&TestEnv<TokioRuntime>)) {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("the runtime starts");
        let env = TestEnv::new(TokioRuntime::from(runtime.handle().clone()), transport_kind);
        runtime.block_on(test(&env));
    }
}
