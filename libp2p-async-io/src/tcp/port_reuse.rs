use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libp2p_core::transport::ListenerId;

/// Addresses of the listeners, as candidates for the local end of a dial.
#[derive(Debug, Clone, Default)]
pub(super) struct ListenPorts {
    // Few, so that a list is fast enough. By listener, because two may have the same address.
    entries: Arc<Mutex<Vec<(ListenerId, SocketAddr)>>>,
}

impl ListenPorts {
    pub(super) fn add(&self, listener: ListenerId, addr: SocketAddr) {
        let mut entries = self.entries();
        if !entries.contains(&(listener, addr)) {
            entries.push((listener, addr));
        }
    }

    pub(super) fn remove(&self, listener: ListenerId, addr: SocketAddr) {
        self.entries().retain(|entry| *entry != (listener, addr));
    }

    pub(super) fn remove_all(&self, listener: ListenerId) {
        self.entries().retain(|(owner, _)| *owner != listener);
    }

    /// Returns the local address for a connection to `remote`, with the port of a fitting listener. The IP version has
    /// to be the same, and either both addresses are loopback addresses or neither is.
    ///
    /// `None` if there is none, or if `remote` is a listener's address: the socket would connect to itself.
    pub(super) fn local_end(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let entries = self.entries();
        if entries.iter().any(|(_, local)| local.ip() == remote.ip() && local.port() == remote.port()) {
            return None;
        }
        let fits =
            |local: IpAddr| local.is_ipv4() == remote.is_ipv4() && local.is_loopback() == remote.ip().is_loopback();
        let (_, local) = entries.iter().find(|(_, local)| fits(local.ip()))?;
        // Only the port matters. The system chooses the address by its routes.
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Some(SocketAddr::new(any, local.port()))
    }

    fn entries(&self) -> MutexGuard<'_, Vec<(ListenerId, SocketAddr)>> {
        // Nothing panics with the lock held, and no entry depends on another.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_fits_the_ip_version_and_loopback() {
        let ports = ListenPorts::default();
        let id = ListenerId::next();
        assert_eq!(ports.local_end(addr("127.0.0.1:80")), None);
        ports.add(id, addr("127.0.0.1:1"));
        ports.add(id, addr("192.0.2.1:2"));
        ports.add(id, addr("[::1]:3"));
        assert_eq!(ports.local_end(addr("127.0.0.2:80")), Some(addr("0.0.0.0:1")));
        assert_eq!(ports.local_end(addr("198.51.100.1:80")), Some(addr("0.0.0.0:2")));
        assert_eq!(ports.local_end(addr("[::1]:80")), Some(addr("[::]:3")));
        assert_eq!(ports.local_end(addr("[2001:db8::1]:80")), None);
    }

    #[test]
    fn a_listeners_address_is_dialled_from_a_new_port() {
        let ports = ListenPorts::default();
        ports.add(ListenerId::next(), addr("127.0.0.1:1"));
        assert_eq!(ports.local_end(addr("127.0.0.1:1")), None);
    }

    #[test]
    fn a_closed_listener_removes_only_its_own_entries() {
        let ports = ListenPorts::default();
        let (one, other) = (ListenerId::next(), ListenerId::next());
        ports.add(one, addr("127.0.0.1:1"));
        ports.add(one, addr("127.0.0.1:1"));
        ports.add(other, addr("127.0.0.1:1"));
        ports.remove_all(one);
        assert_eq!(ports.local_end(addr("127.0.0.1:80")), Some(addr("0.0.0.0:1")));
        ports.remove(other, addr("127.0.0.1:1"));
        assert_eq!(ports.local_end(addr("127.0.0.1:80")), None);
    }
}
