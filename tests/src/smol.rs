use std::{sync::Arc, thread};

use kadence_smol::SmolRuntime;
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};
use libp2p_async_io::tcp;
use smol::Executor;

use crate::{Bed, Runner, TestRuntime, Wire, secured};

/// The test has a thread of its own besides.
const WORKERS: usize = 2;

impl TestRuntime for SmolRuntime {
    fn tcp_transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
        secured(tcp::Transport::new(tcp::Config::default()), keypair)
    }
}

/// smol with an executor of the test's own, which ends with it.
#[derive(Debug, Clone, Copy)]
pub enum Smol {}

impl Runner for Smol {
    type Runtime = SmolRuntime;

    fn block_on(wire: Wire, test: impl AsyncFnOnce(&Bed<SmolRuntime>)) {
        let executor = Arc::new(Executor::new());
        let bed = Bed::new(SmolRuntime::on(&executor), wire);
        let (running, stopped) = async_channel::bounded::<()>(1);
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| smol::block_on(executor.run(stopped.recv())).ok());
            }
            // Dropped when the test has ended in any way.
            let _running = running;
            smol::block_on(test(&bed));
        });
    }
}
