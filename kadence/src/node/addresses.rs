//! Addresses: which of a peer's go into the routing table, and which of the node's own are announced.

use std::net::{Ipv4Addr, Ipv6Addr};

use libp2p::{Multiaddr, core::ConnectedPoint, multiaddr::Protocol};

/// Maximum number of addresses of one peer in the routing table, and of the node's own that it announces. A peer can claim
/// any number, message after message; each is kept, copied into events, and dialled in vain if it is false.
pub(super) const MAX_ADDRESSES: usize = 16;

/// Part of the world from which an address can be dialled, the smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// No machine: `0.0.0.0`, `::`.
    Nowhere,
    /// The same machine.
    Machine,
    /// The same network: private and link-local addresses.
    Network,
    /// Everywhere, as far as the address shows: public addresses, names, relays, and transports of other kinds.
    World,
}

impl Scope {
    fn of(address: &Multiaddr) -> Self {
        match address.iter().next() {
            Some(Protocol::Ip4(ip)) => Self::of_ip4(ip),
            Some(Protocol::Ip6(ip)) => ip.to_ipv4_mapped().map_or_else(|| Self::of_ip6(ip), Self::of_ip4),
            _ => Self::World,
        }
    }

    fn of_ip4(ip: Ipv4Addr) -> Self {
        match () {
            () if ip.is_unspecified() => Self::Nowhere,
            () if ip.is_loopback() => Self::Machine,
            () if ip.is_private() || ip.is_link_local() || is_shared(ip) => Self::Network,
            () => Self::World,
        }
    }

    fn of_ip6(ip: Ipv6Addr) -> Self {
        match () {
            () if ip.is_unspecified() => Self::Nowhere,
            () if ip.is_loopback() => Self::Machine,
            () if ip.is_unique_local() || ip.is_unicast_link_local() => Self::Network,
            () => Self::World,
        }
    }
}

/// Returns whether an address is behind the NAT of a provider (RFC 6598, `100.64.0.0/10`).
fn is_shared(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && second & 0b1100_0000 == 64
}

/// Returns the addresses of an identified peer that are worth keeping, the best first: those that the node has dialled and
/// is connected to, those of the machine at the other end of `connection`, then those that can be dialled from farther away.
/// Loopback addresses are left out unless the connection is one of the same machine.
pub(super) fn of_peer(listed: &[Multiaddr], connection: &ConnectedPoint, dialled: &[Multiaddr]) -> Vec<Multiaddr> {
    let remote = connection.get_remote_address();
    let (is_local, host) = (Scope::of(remote) <= Scope::Machine, host(remote));
    let is_usable = |address: &Multiaddr| match Scope::of(address) {
        Scope::Nowhere => false,
        Scope::Machine => is_local,
        Scope::Network | Scope::World => true,
    };
    let mut others: Vec<_> = listed.iter().map(without_peer).filter(is_usable).collect();
    // Peers list their addresses in any order, another one each time.
    others.sort_by_key(|address| {
        let is_same_host = self::host(address) == host;
        (!is_same_host, std::cmp::Reverse(Scope::of(address)), address.to_vec())
    });
    let mut addresses = Vec::new();
    for address in dialled.iter().map(without_peer).chain(others) {
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Returns the addresses to announce, given those that the node listens on: those that can be dialled from farthest away
/// first. Loopback addresses are left out, unless there are no others: then the network is this machine.
pub(super) fn to_announce<'a>(listening: impl Iterator<Item = &'a Multiaddr>) -> Vec<Multiaddr> {
    let mut addresses: Vec<_> = listening.filter(|address| Scope::of(address) > Scope::Nowhere).cloned().collect();
    if addresses.iter().any(|address| Scope::of(address) > Scope::Machine) {
        addresses.retain(|address| Scope::of(address) > Scope::Machine);
    }
    addresses.sort_by_key(|address| std::cmp::Reverse(Scope::of(address)));
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// Returns the first part of an address: the machine.
fn host(address: &Multiaddr) -> Option<Protocol<'static>> {
    address.iter().next().map(Protocol::acquire)
}

/// Returns an address without the peer id at the end.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use libp2p::core::{Endpoint, transport::PortUse};

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn dialled(address: &str) -> ConnectedPoint {
        let address = address.parse().unwrap();
        ConnectedPoint::Dialer { address, role_override: Endpoint::Dialer, port_use: PortUse::Reuse }
    }

    fn accepted_from(address: &str) -> ConnectedPoint {
        let local_addr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        ConnectedPoint::Listener { local_addr, send_back_addr: address.parse().unwrap() }
    }

    #[test]
    fn the_public_address_of_many_is_kept() {
        let mut listed: Vec<Multiaddr> = (0..40).map(|at| format!("/ip4/10.0.0.{at}/tcp/1").parse().unwrap()).collect();
        listed.push("/ip4/1.2.3.4/tcp/1".parse().unwrap());
        let kept = of_peer(&listed, &accepted_from("/ip4/5.6.7.8/tcp/9"), &[]);
        assert_eq!(kept.len(), MAX_ADDRESSES);
        assert_eq!(kept[0], listed[40]);
    }

    #[test]
    fn the_dialled_address_comes_first_and_then_those_of_the_same_machine() {
        let peer = libp2p::PeerId::random();
        let listed = addresses(&["/ip4/1.2.3.4/tcp/1", "/ip4/10.0.0.7/udp/2/quic-v1", "/ip4/10.0.0.7/tcp/2"]);
        let point = dialled(&format!("/ip4/10.0.0.7/tcp/2/p2p/{peer}"));
        let kept = of_peer(&listed, &point, &[point.get_remote_address().clone()]);
        assert_eq!(kept, addresses(&["/ip4/10.0.0.7/tcp/2", "/ip4/10.0.0.7/udp/2/quic-v1", "/ip4/1.2.3.4/tcp/1"]));
        // The port of an incoming connection is no listener's.
        let kept = of_peer(&listed, &accepted_from("/ip4/10.0.0.7/tcp/40000"), &[]);
        assert_eq!(kept, addresses(&["/ip4/10.0.0.7/tcp/2", "/ip4/10.0.0.7/udp/2/quic-v1", "/ip4/1.2.3.4/tcp/1"]));
    }

    #[test]
    fn loopback_addresses_are_kept_on_the_same_machine_alone() {
        let listed =
            addresses(&["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip4/10.0.0.7/tcp/1"]);
        let elsewhere = of_peer(&listed, &accepted_from("/ip4/10.0.0.7/tcp/40000"), &[]);
        assert_eq!(elsewhere, addresses(&["/ip4/10.0.0.7/tcp/1"]));
        let here = of_peer(&listed, &accepted_from("/ip4/127.0.0.1/tcp/40000"), &[]);
        assert_eq!(here, addresses(&["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.7/tcp/1", "/ip6/::1/tcp/1"]));
    }

    #[test]
    fn loopback_addresses_are_announced_only_without_others() {
        let listening = addresses(&["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.2/tcp/1", "/ip4/1.2.3.4/tcp/1"]);
        assert_eq!(to_announce(listening.iter()), addresses(&["/ip4/1.2.3.4/tcp/1", "/ip4/192.168.1.2/tcp/1"]));
        assert_eq!(to_announce(listening[..1].iter()), listening[..1]);
        let memory = addresses(&["/memory/1"]);
        assert_eq!(to_announce(memory.iter()), memory);
        assert!(to_announce([].into_iter()).is_empty());
    }

    #[test]
    fn scopes_are_those_of_the_address_registries() {
        for (address, scope) in [
            ("/ip4/0.0.0.0/tcp/1", Scope::Nowhere),
            ("/ip6/::/tcp/1", Scope::Nowhere),
            ("/ip4/127.3.0.1/tcp/1", Scope::Machine),
            ("/ip6/::ffff:127.0.0.1/tcp/1", Scope::Machine),
            ("/ip4/172.16.0.1/tcp/1", Scope::Network),
            ("/ip4/169.254.0.1/tcp/1", Scope::Network),
            ("/ip4/100.64.0.1/tcp/1", Scope::Network),
            ("/ip4/100.128.0.1/tcp/1", Scope::World),
            ("/ip6/fe80::1/tcp/1", Scope::Network),
            ("/ip6/fd00::1/tcp/1", Scope::Network),
            ("/ip6/2001:db8::1/tcp/1", Scope::World),
            ("/dns4/seed.example/tcp/1", Scope::World),
            ("/memory/7", Scope::World),
        ] {
            assert_eq!(Scope::of(&address.parse().unwrap()), scope, "{address}");
        }
    }
}
