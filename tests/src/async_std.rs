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

use crate::{Runner, TestEnv, TestRuntime, TransportKind, secured};

/// async-std's global executor, with a list of the tasks that the test has spawned there.
#[derive(Debug, Clone, Default)]
pub struct AsyncStdTestRuntime {
    inner: AsyncStdRuntime,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Runtime for AsyncStdTestRuntime {
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

impl TestRuntime for AsyncStdTestRuntime {
    fn tcp_transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
        secured(tcp::Transport::new(tcp::Config::default()), keypair)
    }
}

/// Aborts the test's tasks when the test ends, even by a panic.
struct AbortOnDrop(AsyncStdTestRuntime);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

/// async-std with its global executor.
#[derive(Debug, Clone, Copy)]
pub enum AsyncStd {}

impl Runner for AsyncStd {
    type Runtime = AsyncStdTestRuntime;

    fn block_on(transport_kind: TransportKind, test: impl AsyncFnOnce(&TestEnv<AsyncStdTestRuntime>)) {
        let runtime = AsyncStdTestRuntime::default();
        let _guard = AbortOnDrop(runtime.clone());
        let env = TestEnv::new(runtime, transport_kind);
        async_std::task::block_on(test(&env));
    }
}
