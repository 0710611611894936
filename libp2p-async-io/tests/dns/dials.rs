use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures::future::{self, Ready};
use libp2p::{
    Multiaddr,
    core::{
        Transport,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
};

/// A transport that records dialled addresses and reaches those that a test configures. It does not support UDP.
#[derive(Clone)]
pub(crate) struct Dials {
    log: Arc<Mutex<Vec<String>>>,
    reachable: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} refused")]
pub(crate) struct Refused(pub(crate) Multiaddr);

impl Dials {
    pub(crate) fn accept(reachable: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { log: Arc::default(), reachable: Arc::new(reachable) }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Returns the number of clones, itself included.
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.log)
    }
}

impl Transport for Dials {
    type Output = Multiaddr;
    type Error = Refused;
    type ListenerUpgrade = Ready<Result<Multiaddr, Refused>>;
    type Dial = Ready<Result<Multiaddr, Refused>>;

    fn listen_on(&mut self, _: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Refused>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, addr: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<Refused>> {
        let text = addr.to_string();
        if text.contains("/udp/") {
            return Err(TransportError::MultiaddrNotSupported(addr));
        }
        let reached = (self.reachable)(&text);
        self.log.lock().unwrap().push(text);
        Ok(future::ready(if reached { Ok(addr) } else { Err(Refused(addr)) }))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Refused>> {
        Poll::Pending
    }
}
