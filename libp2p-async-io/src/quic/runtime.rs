use std::{fmt, io, net::UdpSocket, pin::Pin, sync::Arc, time::Instant};

use futures::future::BoxFuture;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, SmolRuntime};

/// quinn's runtime for smol, with the tasks on a configurable executor.
pub(super) struct Tasks(Box<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>);

impl Tasks {
    pub(super) fn new(executor: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static) -> Self {
        Self(Box::new(executor))
    }
}

impl Default for Tasks {
    /// Runs the tasks on smol's global executor.
    fn default() -> Self {
        Self::new(|task| SmolRuntime.spawn(task))
    }
}

impl Runtime for Tasks {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        SmolRuntime.new_timer(at)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        (self.0)(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        SmolRuntime.wrap_udp_socket(socket)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}
