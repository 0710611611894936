use std::net::{IpAddr, SocketAddr};

use libp2p_core::{Multiaddr, multiaddr::Protocol};

/// Returns the socket address of `/ip4|ip6/../tcp/..`, with or without `/p2p/..` after it; `None` for any other
/// address.
pub(super) fn from_multiaddr(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut protocols = addr.iter();
    let ip = match protocols.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Protocol::Tcp(port) = protocols.next()? else { return None };
    match (protocols.next(), protocols.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

pub(super) fn to_multiaddr(addr: SocketAddr) -> Multiaddr {
    Multiaddr::empty().with(Protocol::from(addr.ip())).with(Protocol::Tcp(addr.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf";

    #[track_caller]
    fn parse(addr: &str) -> Option<SocketAddr> {
        from_multiaddr(&addr.parse().unwrap())
    }

    #[test]
    fn addresses_convert_in_both_directions() {
        for text in ["/ip4/127.0.0.1/tcp/80", "/ip4/255.255.255.255/tcp/65535", "/ip6/::1/tcp/1", "/ip6/::/tcp/0"] {
            let addr: Multiaddr = text.parse().unwrap();
            assert_eq!(to_multiaddr(from_multiaddr(&addr).unwrap()), addr);
        }
    }

    #[test]
    fn one_peer_id_may_follow() {
        assert_eq!(parse(&format!("/ip4/127.0.0.1/tcp/80/p2p/{PEER}")), Some(([127, 0, 0, 1], 80).into()));
        assert_eq!(parse(&format!("/ip4/127.0.0.1/tcp/80/p2p/{PEER}/p2p/{PEER}")), None);
    }

    #[test]
    fn other_addresses_are_not_supported() {
        let others = [
            "/ip4/127.0.0.1".to_owned(),
            "/tcp/80".to_owned(),
            "/ip4/127.0.0.1/udp/80".to_owned(),
            "/ip4/127.0.0.1/udp/80/quic-v1".to_owned(),
            "/ip4/127.0.0.1/tcp/80/ws".to_owned(),
            "/ip4/127.0.0.1/tcp/80/tcp/81".to_owned(),
            "/dns4/localhost/tcp/80".to_owned(),
            "/memory/7".to_owned(),
            format!("/ip4/127.0.0.1/p2p/{PEER}"),
            format!("/ip4/127.0.0.1/tcp/80/p2p/{PEER}/p2p-circuit"),
        ];
        for addr in others {
            assert_eq!(parse(&addr), None, "{addr}");
        }
        assert_eq!(from_multiaddr(&Multiaddr::empty()), None);
    }
}
