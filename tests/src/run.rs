use std::{panic::resume_unwind, sync::mpsc, thread, time::Duration};

use kadence::Runtime;
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};

use crate::{Bed, Wire};

/// How long a test may take before it counts as hanging. Far more than any test needs: it only exists to fail.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The stack of a test's thread: the futures of a whole test are large in a debug build.
const STACK: usize = 16 * 1024 * 1024;

/// What a runtime brings to the tests besides what the driver needs of it.
pub trait TestRuntime: Runtime {
    /// A loopback TCP transport; [`secured`](crate::secured) does all but the TCP.
    fn tcp_transport(&self, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)>;
}

/// A runtime in one of its flavours, to run a test on.
pub trait Runner: 'static {
    /// The runtime.
    type Runtime: TestRuntime;

    /// Starts the runtime, runs a test on it to its end, and ends the runtime with everything that still runs there.
    fn block_on(wire: Wire, test: impl AsyncFnOnce(&Bed<Self::Runtime>));
}

/// Runs a test on a runtime of its own, and fails it if it hangs.
///
/// The clock that decides is that of another thread, so a driver that spins or blocks its thread is found as well, and
/// a test whose own clock stands still is not disturbed.
///
/// # Panics
///
/// If the test does, or if it takes longer than [`LIMIT`].
pub fn run<T: Runner>(wire: Wire, test: impl AsyncFnOnce(&Bed<T::Runtime>) + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let body = move || {
        // Dropped when the test has ended in any way.
        let _done = done;
        T::block_on(wire, test);
    };
    let thread = thread::Builder::new().stack_size(STACK).spawn(body).expect("a thread");
    match ended.recv_timeout(LIMIT) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs: it still ran after {LIMIT:?}"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
    }
}
