use std::{fmt, sync::Arc};

use futures::channel::oneshot;
use libp2p::Swarm;

use crate::{ContainsKad, DriverClosedError, client::connection::Connection, sync::channel::Sender};

pub(super) type Closure<B> = Box<dyn FnOnce(&mut Swarm<B>) + Send>;

/// Handle that runs closures on a driver's swarm, from any task or thread. Cheap to clone.
///
/// ```
/// use kadence::{
///     ContainsKad, DriverClosedError, SwarmHandle,
///     libp2p::{Multiaddr, PeerId},
/// };
///
/// async fn add_peer<B: ContainsKad>(
///     swarm: &SwarmHandle<B>,
///     peer: PeerId,
///     address: Multiaddr,
/// ) -> Result<usize, DriverClosedError> {
///     swarm
///         .with(move |swarm| {
///             swarm.behaviour_mut().kad().add_address(&peer, address);
///             swarm.connected_peers().count()
///         })
///         .await
/// }
/// ```
pub struct SwarmHandle<B: ContainsKad> {
    closures: Sender<Closure<B>>,
    connection: Arc<Connection>,
}

impl<B: ContainsKad> SwarmHandle<B> {
    pub(super) fn new(closures: Sender<Closure<B>>, connection: Arc<Connection>) -> Self {
        Self { closures, connection }
    }

    /// Runs a closure on the swarm, in the driver's loop, and returns the closure's result. Keep the closure short: the
    /// driver waits for it.
    ///
    /// Once the closure is in the driver's queue, dropping this future no longer prevents the closure from running;
    /// only the end of the driver does. If the closure panics, the poll of the driver panics.
    ///
    /// # Errors
    ///
    /// Fails if the driver is dropped before the closure has run, if nobody polls the driver for the default timeout of calls,
    /// or if the closure panics.
    pub async fn with<T, F>(&self, f: F) -> Result<T, DriverClosedError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Swarm<B>) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let closure: Closure<B> = Box::new(move |swarm| {
            let _cancelled = reply.send(f(swarm));
        });
        let ran = async {
            self.closures.send(closure).await.map_err(|_| DriverClosedError)?;
            answer.await.map_err(|_| DriverClosedError)
        };
        self.connection.while_polled(ran).await
    }
}

impl<B: ContainsKad> Clone for SwarmHandle<B> {
    fn clone(&self) -> Self {
        Self { closures: self.closures.clone(), connection: Arc::clone(&self.connection) }
    }
}

impl<B: ContainsKad> fmt::Debug for SwarmHandle<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmHandle").finish_non_exhaustive()
    }
}
