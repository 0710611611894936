use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libp2p_core::transport::ListenerId;

/// The addresses that are listened on, as candidates for the local end of a dial.
#[derive(Debug, Clone, Default)]
pub(super) struct ListenPorts {
    // A handful, so that a list is as good as a map; by listener, because two may listen on the same address.
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

    /// What to bind to before connecting to `remote`, if a listener's port fits: the IP version has to be the same, and
    /// a loopback address reaches only loopback addresses and the other way round.
    ///
    /// An address of our own gets no port: the socket would connect to itself.
    pub(super) fn local_end(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let entries = self.entries();
        if entries.iter().any(|(_, local)| local.ip() == remote.ip() && local.port() == remote.port()) {
            return None;
        }
        let fits =
            |local: IpAddr| local.is_ipv4() == remote.is_ipv4() && local.is_loopback() == remote.ip().is_loopback();
        let (_, local) = entries.iter().find(|(_, local)| fits(local.ip()))?;
        // The port is what counts; which address a remote is reached from, the system knows better.
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
    fn a_port_fits_the_ip_version_and_the_reach() {
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
    fn an_address_of_our_own_is_dialled_from_a_new_port() {
        let ports = ListenPorts::default();
        ports.add(ListenerId::next(), addr("127.0.0.1:1"));
        assert_eq!(ports.local_end(addr("127.0.0.1:1")), None);
    }

    #[test]
    fn a_closed_listener_takes_only_its_own_entries_along() {
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
