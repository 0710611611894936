use std::{panic::resume_unwind, sync::mpsc, thread, time::Duration};

use kadence::Runtime;
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};

use crate::{TestEnv, TransportKind};

/// Time after which a test counts as hanging. Much longer than any test takes.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Stack size of a test's thread. The future of a whole test is large in a debug build.
const STACK: usize = 16 * 1024 * 1024;

/// Requirements of the tests on a runtime, in addition to those of the driver.
pub trait TestRuntime: Runtime {
    /// Returns a loopback TCP transport. [`secured`](crate::secured) adds everything above TCP.
    fn tcp_transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)>;
}

/// Runtime configuration that tests run on.
pub trait Runner: 'static {
    /// Runtime of the driver.
    type Runtime: TestRuntime;

    /// Starts the runtime, runs a test on it, and then stops the runtime with everything that still runs on it.
    fn block_on(transport_kind: TransportKind, test: impl AsyncFnOnce(&TestEnv<Self::Runtime>));
}

/// Runs a test on its own runtime and fails it if it hangs.
///
/// The time limit is measured on another thread. It therefore also detects a driver that spins or blocks, and does not
/// affect a test whose own clock stands still.
///
/// # Panics
///
/// Panics if the test panics, or if it takes longer than [`LIMIT`].
pub fn run<T: Runner>(transport_kind: TransportKind, test: impl AsyncFnOnce(&TestEnv<T::Runtime>) + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let body = move || {
        // Dropped when the test ends, even by a panic.
        let _done = done;
        T::block_on(transport_kind, test);
    };
    let thread = thread::Builder::new().stack_size(STACK).spawn(body).expect("a thread can be started");
    match ended.recv_timeout(LIMIT) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test did not end within {LIMIT:?}"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
    }
}
