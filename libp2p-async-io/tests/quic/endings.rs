//! Ends of dials, listeners, connections and tasks.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_io::Async;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, channel::mpsc, future::poll_fn};
use libp2p::{
    Multiaddr,
    core::{
        Transport,
        transport::{ListenerId, PortUse, TransportEvent},
    },
};
use libp2p_async_io::quic::{self, Error};

use crate::subject::{
    Connected, LOOPBACK, SHORT, close, config, connect, inbound, listen, next, opts, ours, outbound, port, silent,
    within,
};

fn impatient() -> quic::Transport {
    quic::Transport::new(config().handshake_timeout(SHORT))
}

#[test]
fn a_dial_that_nobody_answers_runs_out_of_time() {
    smol::block_on(async {
        let (remote, addr) = silent();
        for port_use in [PortUse::New, PortUse::Reuse] {
            let failed = within(impatient().dial(addr.clone(), opts(port_use)).unwrap()).await;
            assert!(matches!(failed, Err(Error::HandshakeTimedOut)), "{failed:?}");
        }
        drop(remote);
        let failed = within(impatient().dial(addr, opts(PortUse::New)).unwrap()).await;
        assert!(matches!(failed, Err(Error::HandshakeTimedOut)), "{failed:?}");
    });
}

#[test]
fn an_idle_timeout_ends_a_handshake_too() {
    smol::block_on(async {
        let (_remote, addr) = silent();
        let mut transport = quic::Transport::new(config().max_idle_timeout(SHORT));
        let failed = within(transport.dial(addr, opts(PortUse::New)).unwrap()).await;
        assert!(matches!(failed, Err(Error::HandshakeTimedOut)), "{failed:?}");
    });
}

/// A proxy that forwards a packet when the test asks for it.
fn proxy() -> (Async<UdpSocket>, Multiaddr) {
    let (socket, addr) = silent();
    (Async::new(socket).unwrap(), addr)
}

/// Forwards the first packet that comes from another address than its target, and returns that address.
async fn pass_on(proxy: &Async<UdpSocket>, to: SocketAddr) -> SocketAddr {
    let mut packet = [0; 2048];
    loop {
        let (length, from) = within(proxy.recv_from(&mut packet)).await.unwrap();
        if from != to {
            proxy.send_to(packet.get(..length).unwrap(), to).await.unwrap();
            return from;
        }
    }
}

fn socket_addr(addr: &Multiaddr) -> SocketAddr {
    ([127, 0, 0, 1], port(addr)).into()
}

#[test]
fn a_handshake_that_the_remote_does_not_finish_runs_out_of_time() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), impatient());
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        // It gets the first packet and nothing else.
        let (proxy, proxied) = proxy();
        let mut dial = dialler.dial(proxied, opts(PortUse::New)).unwrap();
        assert!(futures::poll!(&mut dial).is_pending());
        pass_on(&proxy, socket_addr(&addr)).await;
        let incoming = async {
            loop {
                if let TransportEvent::Incoming { upgrade, .. } = next(&mut listener).await {
                    return upgrade.await;
                }
            }
        };
        let failed = within(incoming).await;
        assert!(matches!(failed, Err(Error::HandshakeTimedOut)), "{failed:?}");
    });
}

#[test]
fn a_dial_sends_nothing_before_it_is_polled() {
    smol::block_on(async {
        let (remote, addr) = silent();
        for port_use in [PortUse::New, PortUse::Reuse] {
            let dial = ours().dial(addr.clone(), opts(port_use)).unwrap();
            // On loopback, a packet arrives at once.
            assert_eq!(remote.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(dial);
            assert_eq!(remote.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn a_dropped_dial_leaves_no_connection() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        let mut dial = dialler.dial(addr, opts(PortUse::Reuse)).unwrap();
        assert!(futures::poll!(&mut dial).is_pending());
        let (upgrade, _) = next(&mut listener).await.into_incoming().unwrap();
        drop(dial);
        // Whether the handshake is over for this end depends on how far it had come.
        match within(upgrade).await {
            Ok((_, mut connection)) => assert!(inbound(&mut connection).await.is_err()),
            Err(error) => assert!(!matches!(error, Error::HandshakeTimedOut), "nobody was told"),
        }
    });
}

#[test]
fn a_connection_that_is_not_wanted_is_refused() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        let dial = dialler.dial(addr, opts(PortUse::New)).unwrap();
        let refuse = async { drop(next(&mut listener).await.into_incoming().unwrap()) };
        let (refused, ()) = within(futures::future::join(dial, refuse)).await;
        assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
    });
}

#[test]
fn a_removed_listener_takes_nobody_and_keeps_its_connections() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (id, addr) = listen(&mut listener, LOOPBACK).await;
        let Connected { dialled, accepted, .. } =
            connect(&mut dialler, &mut listener, addr.clone(), PortUse::Reuse).await;
        assert!(listener.remove_listener(id));
        match next(&mut listener).await {
            TransportEvent::ListenerClosed { listener_id, reason } => {
                assert_eq!(listener_id, id);
                reason.unwrap();
            }
            event => panic!("instead of the end: {event:?}"),
        }
        let polled = futures::poll!(poll_fn(|cx| Pin::new(&mut listener).poll(cx)));
        assert!(polled.is_pending(), "{polled:?} after the end");
        assert!(!listener.remove_listener(id));
        let refused = within(impatient().dial(addr, opts(PortUse::New)).unwrap()).await;
        assert!(matches!(refused, Err(Error::HandshakeTimedOut)), "{refused:?}");

        let (mut one, mut other) = (dialled.1, accepted.1);
        let mut stream = outbound(&mut one).await.unwrap();
        stream.write_all(b"still here").await.unwrap();
        stream.close().await.unwrap();
        let mut read = String::new();
        within(inbound(&mut other).await.unwrap().read_to_string(&mut read)).await.unwrap();
        assert_eq!(read, "still here");
    });
}

#[test]
fn who_was_let_in_before_the_removal_may_still_finish() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (id, addr) = listen(&mut listener, LOOPBACK).await;
        let mut dial = dialler.dial(addr, opts(PortUse::New)).unwrap();
        assert!(futures::poll!(&mut dial).is_pending());
        let (upgrade, _) = next(&mut listener).await.into_incoming().unwrap();
        assert!(listener.remove_listener(id));
        let (dialled, accepted) = within(futures::future::join(dial, upgrade)).await;
        assert!(dialled.is_ok() && accepted.is_ok());
    });
}

#[test]
fn who_waits_to_be_let_in_is_refused_by_the_removal() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (id, addr) = listen(&mut listener, LOOPBACK).await;
        let connected = connect(&mut dialler, &mut listener, addr.clone(), PortUse::Reuse).await;

        let (proxy, proxied) = proxy();
        let mut dial = dialler.dial(proxied, opts(PortUse::New)).unwrap();
        assert!(futures::poll!(&mut dial).is_pending());
        let from = pass_on(&proxy, socket_addr(&addr)).await;
        // On loopback, packets arrive in the order in which they were sent: when this one is there, the first is, too.
        let (mut one, mut other) = (connected.dialled.1, connected.accepted.1);
        let mut stream = outbound(&mut one).await.unwrap();
        stream.write_all(b"!").await.unwrap();
        inbound(&mut other).await.unwrap();

        assert!(listener.remove_listener(id));
        pass_on(&proxy, from).await;
        let refused = within(dial).await;
        assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
    });
}

#[test]
fn a_remote_that_is_not_heard_of_is_lost() {
    smol::block_on(async {
        let quiet = || config().keep_alive_interval(Duration::ZERO);
        // Long enough for the handshake.
        let mut dialler = quic::Transport::new(quiet().max_idle_timeout(Duration::from_secs(2)));
        let mut listener = quic::Transport::new(quiet());
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        let connected = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
        // The shorter limit holds for both ends.
        for mut connection in [connected.dialled.1, connected.accepted.1] {
            let lost = inbound(&mut connection).await;
            assert!(matches!(lost, Err(Error::TimedOut)), "{lost:?}");
        }
    });
}

#[test]
fn the_reason_of_an_end_is_told() {
    smol::block_on(async {
        let (mut dialler, mut listener) = (ours(), ours());
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        let connected = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
        let (mut one, mut other) = (connected.dialled.1, connected.accepted.1);
        close(&mut one).await.unwrap();
        assert!(matches!(inbound(&mut one).await, Err(Error::Closed)));
        assert!(matches!(inbound(&mut other).await, Err(Error::ClosedByRemote { code: 0 })));
        // At every attempt.
        assert!(matches!(inbound(&mut one).await, Err(Error::Closed)));
        assert!(matches!(outbound(&mut one).await, Err(Error::Closed)));
        assert!(matches!(outbound(&mut one).await, Err(Error::Closed)));
        close(&mut one).await.unwrap();
        close(&mut other).await.unwrap();
    });
}

/// Returns a transport, and a stream that ends when none of its tasks is left.
fn watched() -> (quic::Transport, mpsc::UnboundedReceiver<()>) {
    let (alive, ended) = mpsc::unbounded();
    let transport = quic::Transport::with_executor(config(), move |task| {
        let alive = alive.clone();
        smol::spawn(async move {
            task.await;
            drop(alive);
        })
        .detach();
    });
    (transport, ended)
}

#[test]
fn no_task_and_no_socket_outlives_everything_else() {
    smol::block_on(async {
        let (mut dialler, mut no_dialler_task) = watched();
        let (mut listener, mut no_listener_task) = watched();
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        let (_, silent) = silent();
        let mut open = dialler.dial(silent, opts(PortUse::Reuse)).unwrap();
        assert!(futures::poll!(&mut open).is_pending());
        let mut connections = Vec::new();
        for port_use in [PortUse::Reuse, PortUse::New] {
            connections.push(connect(&mut dialler, &mut listener, addr.clone(), port_use).await);
        }
        drop((dialler, listener));
        for tasks in [&mut no_dialler_task, &mut no_listener_task] {
            assert!(tasks.next().now_or_never().is_none(), "a connection needs its tasks");
        }
        drop((open, connections));
        assert!(within(no_dialler_task.next()).await.is_none());
        assert!(within(no_listener_task.next()).await.is_none());
        UdpSocket::bind(("127.0.0.1", port(&addr))).unwrap();
    });
}

#[test]
fn a_removed_listener_without_connections_frees_its_port() {
    smol::block_on(async {
        let (mut listener, mut no_task) = watched();
        let (id, addr) = listen(&mut listener, LOOPBACK).await;
        assert!(listener.remove_listener(id));
        drop(listener);
        assert!(within(no_task.next()).await.is_none());
        UdpSocket::bind(("127.0.0.1", port(&addr))).unwrap();
    });
}

#[test]
fn an_executor_that_loses_tasks_is_noticed() {
    smol::block_on(async {
        let mut lost = quic::Transport::with_executor(config(), drop);
        let id = ListenerId::next();
        lost.listen_on(id, LOOPBACK.parse().unwrap()).unwrap();
        assert!(next(&mut lost).await.into_new_address().is_some());
        match next(&mut lost).await {
            TransportEvent::ListenerClosed { listener_id, reason: Err(Error::Io(_)) } => assert_eq!(listener_id, id),
            event => panic!("instead of the end: {event:?}"),
        }
        let (_remote, addr) = silent();
        let failed = within(lost.dial(addr, opts(PortUse::Reuse)).unwrap()).await;
        assert!(matches!(failed, Err(Error::Dial(_))), "{failed:?}");
    });
}

#[test]
fn a_shared_socket_that_has_ended_is_not_dialled_from() {
    smol::block_on(async {
        let tasks = AtomicUsize::new(0);
        let mut dialler = quic::Transport::with_executor(config(), move |task| {
            // The first is that of the socket which dials share.
            if tasks.fetch_add(1, Ordering::SeqCst) > 0 {
                smol::spawn(task).detach();
            }
        });
        let mut listener = ours();
        let (_, addr) = listen(&mut listener, LOOPBACK).await;
        connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
    });
}
