use std::{sync::Arc, thread};

use kadence_smol::SmolRuntime;
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};
use libp2p_async_io::tcp;
use smol::Executor;

use crate::{Runner, TestEnv, TestRuntime, TransportKind, secured};

/// Worker threads, in addition to the test's own thread.
const WORKERS: usize = 2;

impl TestRuntime for SmolRuntime {
    fn tcp_transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
        secured(tcp::Transport::new(tcp::Config::default()), keypair)
    }
}

/// smol with an executor of the test's own, which stops with the test.
#[derive(Debug, Clone, Copy)]
pub enum Smol {}

impl Runner for Smol {
    type Runtime = SmolRuntime;

    fn block_on(transport_kind: TransportKind, test: impl AsyncFnOnce(&TestEnv<SmolRuntime>)) {
        let executor = Arc::new(Executor::new());
        let env = TestEnv::new(SmolRuntime::on(&executor), transport_kind);
        let (running, stopped) = async_channel::bounded::<()>(1);
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| smol::block_on(executor.run(stopped.recv())).ok());
            }
            // Dropped when the test ends, even by a panic.
            let _running = running;
            smol::block_on(test(&env));
        });
    }
}
