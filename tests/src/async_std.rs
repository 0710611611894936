use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use futures::{
    FutureExt,
    future::{AbortHandle, Abortable, BoxFuture},
};
use kadence::Runtime;
use kadence_async_std::{AsyncStdRuntime, AsyncStdTimer};
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};
use libp2p_async_io::tcp;

use crate::{Bed, Runner, TestRuntime, Wire, secured};

/// async-std's one executor, with a list of what a test has begun there.
#[derive(Debug, Clone, Default)]
pub struct AsyncStdOfTest {
    inner: AsyncStdRuntime,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Runtime for AsyncStdOfTest {
    type Timer = AsyncStdTimer;

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn timer(&self, deadline: Instant) -> AsyncStdTimer {
        self.inner.timer(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let (handle, registration) = AbortHandle::new_pair();
        self.tasks.lock().unwrap().push(handle);
        self.inner.spawn(Abortable::new(task, registration).map(drop).boxed());
    }
}

impl TestRuntime for AsyncStdOfTest {
    fn tcp_transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
        secured(tcp::Transport::new(tcp::Config::default()), keypair)
    }
}

/// Ends, when the test has ended in any way, what it began.
struct End(AsyncStdOfTest);

impl Drop for End {
    fn drop(&mut self) {
        self.0.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

/// async-std.
#[derive(Debug, Clone, Copy)]
pub enum AsyncStd {}

impl Runner for AsyncStd {
    type Runtime = AsyncStdOfTest;

    fn block_on(wire: Wire, test: impl AsyncFnOnce(&Bed<AsyncStdOfTest>)) {
        let runtime = AsyncStdOfTest::default();
        let _end = End(runtime.clone());
        let bed = Bed::new(runtime, wire);
        async_std::task::block_on(test(&bed));
    }
}
