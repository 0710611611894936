use kadence_async_std::AsyncStdRuntime;
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};
use libp2p_async_io::tcp;

use crate::{Bed, Runner, TestRuntime, Wire, secured};

impl TestRuntime for AsyncStdRuntime {
    fn tcp_transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
        secured(tcp::Transport::new(tcp::Config::default()), keypair)
    }
}

/// async-std, which a process has once: it outlives the test.
#[derive(Debug, Clone, Copy)]
pub enum AsyncStd {}

impl Runner for AsyncStd {
    type Runtime = AsyncStdRuntime;

    fn block_on(wire: Wire, test: impl AsyncFnOnce(&Bed<AsyncStdRuntime>)) {
        let bed = Bed::new(AsyncStdRuntime, wire);
        async_std::task::block_on(test(&bed));
    }
}
