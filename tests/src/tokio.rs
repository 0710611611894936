use kadence_tokio::TokioRuntime;
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
    tcp,
};
use tokio::runtime::Builder;

use crate::{Bed, Runner, TestRuntime, Wire, secured};

impl TestRuntime for TokioRuntime {
    fn tcp_transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
        secured(tcp::tokio::Transport::new(tcp::Config::default()), keypair)
    }
}

/// tokio with two workers, so that a test's tasks really run at the same time.
#[derive(Debug, Clone, Copy)]
pub enum TokioMultiThread {}

impl Runner for TokioMultiThread {
    type Runtime = TokioRuntime;

    fn block_on(wire: Wire, test: impl AsyncFnOnce(&Bed<TokioRuntime>)) {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let bed = Bed::new(TokioRuntime::from(runtime.handle().clone()), wire);
        runtime.block_on(test(&bed));
    }
}

/// tokio on the test's own thread: whoever blocks or spins stops everything.
#[derive(Debug, Clone, Copy)]
pub enum TokioCurrentThread {}

impl Runner for TokioCurrentThread {
    type Runtime = TokioRuntime;

    fn block_on(wire: Wire, test: impl AsyncFnOnce(&Bed<TokioRuntime>)) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let bed = Bed::new(TokioRuntime::from(runtime.handle().clone()), wire);
        runtime.block_on(test(&bed));
    }
}
