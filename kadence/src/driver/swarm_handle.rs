use std::fmt;

use async_channel::Sender;
use futures::channel::oneshot;
use libp2p::Swarm;

use crate::{ContainsKad, DriverClosedError};

pub(super) type Closure<B> = Box<dyn FnOnce(&mut Swarm<B>) + Send>;

/// Runs closures on a driver's swarm, from any task or thread. Cheap to clone.
pub struct SwarmHandle<B: ContainsKad> {
    closures: Sender<Closure<B>>,
}

impl<B: ContainsKad> SwarmHandle<B> {
    pub(super) fn new(closures: Sender<Closure<B>>) -> Self {
        Self { closures }
    }

    /// Runs a closure inside the driver's loop and returns what it returns. The closure should be short: nothing else
    /// runs meanwhile.
    ///
    /// It runs even if the future is dropped once it was sent. A panic in it is a panic of the driver.
    ///
    /// # Errors
    ///
    /// If the driver is gone, before or while the closure waited.
    pub async fn with<T, F>(&self, f: F) -> Result<T, DriverClosedError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Swarm<B>) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let closure: Closure<B> = Box::new(move |swarm| {
            let _gone = reply.send(f(swarm));
        });
        self.closures.send(closure).await.map_err(|_| DriverClosedError)?;
        answer.await.map_err(|_| DriverClosedError)
    }
}

impl<B: ContainsKad> Clone for SwarmHandle<B> {
    fn clone(&self) -> Self {
        Self { closures: self.closures.clone() }
    }
}

impl<B: ContainsKad> fmt::Debug for SwarmHandle<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmHandle").finish_non_exhaustive()
    }
}
