//! The network's effects on bytes, dials and clocks, in exact virtual time.

#![cfg(test)]

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, channel::mpsc, stream::StreamExt};
use kadence_sim::{
    Host, Latency, Link, Reach, World, WorldConfig,
    kadence::Runtime,
    libp2p::{
        Multiaddr, PeerId,
        core::{
            Endpoint, Transport,
            muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
            transport::{DialOpts, ListenerId, PortUse, TransportEvent},
        },
    },
    run,
};

const PORT: u16 = 4001;

/// One-way latency.
const LATENCY: Duration = Duration::from_millis(25);

/// A dial takes one round trip for TCP and one for the handshake; the listener has the connection half a trip later.
const DIAL: Duration = LATENCY.saturating_mul(4);
const ACCEPT: Duration = LATENCY.saturating_mul(5);

type Connected = std::io::Result<(PeerId, StreamMuxerBox)>;

async fn dial(from: &Host, address: Multiaddr) -> Connected {
    let mut transport = from.transport(PeerId::random());
    let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
    match transport.dial(address, opts) {
        Ok(dial) => dial.await,
        Err(error) => Err(std::io::Error::other(error.to_string())),
    }
}

/// Listens on a host, in a task of the host. Returns its connections.
fn listen(on: &Host) -> mpsc::UnboundedReceiver<Connected> {
    listen_at(on, PORT)
}

fn listen_at(on: &Host, port: u16) -> mpsc::UnboundedReceiver<Connected> {
    let (accepted, connections) = mpsc::unbounded();
    let mut transport = on.transport(PeerId::random());
    transport.listen_on(ListenerId::next(), on.multiaddr(port)).unwrap();
    on.runtime().spawn(
        async move {
            loop {
                if let TransportEvent::Incoming { upgrade, .. } = poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await
                {
                    let _dropped = accepted.unbounded_send(upgrade.await);
                }
            }
        }
        .boxed(),
    );
    connections
}

async fn connect(from: &Host, to: &Host) -> (StreamMuxerBox, StreamMuxerBox) {
    let mut connections = listen(to);
    let (_, dialled) = dial(from, to.multiaddr(PORT)).await.unwrap();
    let (_, accepted) = connections.next().await.unwrap().unwrap();
    (dialled, accepted)
}

async fn substream(from: &mut StreamMuxerBox, to: &mut StreamMuxerBox) -> (SubstreamBox, SubstreamBox) {
    let opened = poll_fn(|cx| from.poll_outbound_unpin(cx)).await.unwrap();
    let accepted = poll_fn(|cx| to.poll_inbound_unpin(cx)).await.unwrap();
    (opened, accepted)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7) as u8).collect()
}

/// Sends bytes, and returns the time until all have arrived.
async fn transfer(world: &World, from: &mut StreamMuxerBox, to: &mut StreamMuxerBox, len: usize) -> Duration {
    let (mut writer, mut reader) = substream(from, to).await;
    let began = world.now();
    let sent = bytes(len);
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.close().await.unwrap();
    };
    let mut received = Vec::new();
    let read = reader.read_to_end(&mut received);
    futures::join!(write, read).1.unwrap();
    assert!(received == sent, "{} of {len} bytes, or others", received.len());
    world.now() - began
}

fn hosts<const N: usize>(world: &World, links: [Link; N]) -> [Host; N] {
    links.map(|link| world.host(link))
}

fn config() -> WorldConfig {
    WorldConfig::default().latency(Latency::Constant(LATENCY))
}

#[test]
fn a_dial_and_a_byte_take_their_round_trips() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let mut connections = listen(&b);
        let began = world.now();
        let (_, mut dialled) = dial(&a, b.multiaddr(PORT)).await.unwrap();
        assert_eq!(world.now() - began, DIAL);
        let (_, mut accepted) = connections.next().await.unwrap().unwrap();
        assert_eq!(world.now() - began, ACCEPT);
        assert_eq!(transfer(&world, &mut dialled, &mut accepted, 1).await, LATENCY);
    });
}

#[test]
fn a_transfer_takes_as_long_as_the_slower_link_needs() {
    for (up, down) in [(Some(8_000_000), None), (None, Some(8_000_000)), (Some(8_000_000), Some(80_000_000))] {
        run(config(), move |world| async move {
            let [a, b] = hosts(&world, [Link::default().up(up), Link::default().down(down)]);
            let (mut dialled, mut accepted) = connect(&a, &b).await;
            let took = transfer(&world, &mut dialled, &mut accepted, 1_000_000).await.as_millis();
            assert!((1000..1150).contains(&took), "{took} ms for a million bytes at 8 Mbit/s");
        });
    }
}

#[test]
fn connections_share_the_link_of_their_host() {
    run(config(), |world| async move {
        let [a, b, c] = hosts(&world, [Link::default().up(8_000_000), Link::default(), Link::default()]);
        let (mut first, mut at_b) = connect(&a, &b).await;
        let (mut second, mut at_c) = connect(&a, &c).await;
        let both = futures::join!(
            transfer(&world, &mut first, &mut at_b, 500_000),
            transfer(&world, &mut second, &mut at_c, 500_000)
        );
        let [earlier, later] = [both.0.min(both.1), both.0.max(both.1)].map(|took| took.as_millis());
        assert!((1000..1150).contains(&later), "{later} ms for a million bytes at 8 Mbit/s");
        assert!(earlier > 700, "{earlier} ms for half of them, beside the other half");
    });
}

#[test]
fn lost_packets_arrive_later_and_in_order() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default().loss(0.2), Link::default()]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        let took = transfer(&world, &mut dialled, &mut accepted, 1_000_000).await;
        assert!(took > Duration::from_millis(250), "{took:?}");
    });
}

#[test]
fn a_reader_that_does_not_read_stops_its_writer() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        let (mut writer, mut reader) = substream(&mut dialled, &mut accepted).await;
        let mut written = 0;
        while let Some(len) = writer.write(&bytes(10_000)).now_or_never() {
            written += len.unwrap();
        }
        assert_eq!(written, 256 * 1024, "the window of a substream");
        world.sleep(Duration::from_secs(1)).await;
        reader.read_exact(&mut vec![0; 100_000]).await.unwrap();
        world.sleep(Duration::from_secs(1)).await;
        assert!(writer.write(&bytes(10_000)).now_or_never().is_none(), "credit comes for half a window");
        let began = world.now();
        reader.read_exact(&mut vec![0; 50_000]).await.unwrap();
        writer.write_all(&bytes(10_000)).await.unwrap();
        assert_eq!(world.now() - began, LATENCY);
    });
}

#[test]
fn nobody_answers_for_a_host_that_is_off_or_behind_a_nat_and_a_closed_port_refuses() {
    run(config(), |world| async move {
        let [a, open, nat, off] =
            hosts(&world, [Link::default(), Link::default(), Link::default().reach(Reach::Nat), Link::default()]);
        let _listeners = [listen(&nat), listen(&off)];
        off.set_online(false);
        let timeout = Duration::from_secs(10);
        for (address, takes) in [
            (open.multiaddr(PORT), 2 * LATENCY),
            (nat.multiaddr(PORT), timeout),
            (off.multiaddr(PORT), timeout),
            ("/ip4/20.255.255.255/tcp/1".parse().unwrap(), timeout),
        ] {
            let began = world.now();
            assert!(dial(&a, address.clone()).await.is_err(), "{address}");
            assert_eq!(world.now() - began, takes, "{address}");
        }
        // A host behind a NAT can dial.
        let mut at_open = listen(&open);
        dial(&nat, open.multiaddr(PORT)).await.unwrap();
        at_open.next().await.unwrap().unwrap();
    });
}

#[test]
fn a_killed_host_is_noticed_and_one_without_power_is_not() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        let (writer, mut reader) = substream(&mut dialled, &mut accepted).await;
        let (mut powerless, _other) = substream(&mut accepted, &mut dialled).await;
        // What runs on a host owns its connections.
        a.runtime().spawn(async move { std::future::pending::<()>().map(|()| drop((dialled, writer))).await }.boxed());
        world.sleep(LATENCY).await;
        b.set_online(false);
        let before = b.traffic();
        powerless.write_all(&[1; 100]).await.unwrap();
        powerless.flush().await.unwrap();
        a.kill();
        world.sleep(Duration::from_secs(3600)).await;
        assert!(reader.read(&mut [0; 8]).now_or_never().is_none(), "nothing reaches a host without power");
        assert_eq!(b.traffic(), before, "and nothing leaves it");

        let [c, d] = hosts(&world, [Link::default(); 2]);
        let (mut dialled, mut accepted) = connect(&c, &d).await;
        let (writer, mut reader) = substream(&mut dialled, &mut accepted).await;
        c.runtime().spawn(async move { std::future::pending::<()>().map(|()| drop((dialled, writer))).await }.boxed());
        world.sleep(LATENCY).await;
        let began = world.now();
        c.kill();
        assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0, "the end, as with yamux");
        assert_eq!(world.now() - began, LATENCY);
    });
}

#[test]
fn a_reset_ends_a_connection_on_both_sides_at_once() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        let (mut writer, mut reader) = substream(&mut dialled, &mut accepted).await;
        a.reset_connections();
        assert!(writer.write(b"late").now_or_never().unwrap().is_err());
        assert_eq!(reader.read(&mut [0; 8]).now_or_never().unwrap().unwrap(), 0);
        assert!(poll_fn(|cx| accepted.poll_inbound_unpin(cx)).await.is_err());
    });
}

#[test]
fn traffic_is_counted_with_its_headers() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        transfer(&world, &mut dialled, &mut accepted, 10_000).await;
        // A substream is opened, written to in five packets of up to 2 KiB, and ended.
        assert_eq!((a.traffic().packets, a.traffic().bytes), (7, 10_000 + 7 * 52));
        assert_eq!(world.traffic().packets, a.traffic().packets + b.traffic().packets);
    });
}

#[test]
fn what_was_sent_over_a_cut_arrives_when_it_ends() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        let (mut writer, mut reader) = substream(&mut dialled, &mut accepted).await;
        world.set_cut(&a, &b, true);
        writer.write_all(b"later").await.unwrap();
        world.sleep(Duration::from_secs(60)).await;
        assert!(reader.read(&mut [0; 8]).now_or_never().is_none());
        assert!(dial(&a, b.multiaddr(PORT)).await.is_err());
        world.set_cut(&a, &b, false);
        let mut read = [0; 5];
        reader.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"later");
    });
}

#[test]
fn a_host_without_power_can_neither_dial_nor_finish_a_dial() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let _at_b = listen(&b);
        let dialling = dial(&a, b.multiaddr(PORT));
        let loses_power = async {
            world.sleep(LATENCY * 2).await;
            a.set_online(false);
        };
        assert!(futures::join!(dialling, loses_power).0.is_err());
        assert!(dial(&a, b.multiaddr(PORT)).await.is_err());
        a.set_online(true);
        dial(&a, b.multiaddr(PORT)).await.unwrap();
    });
}

#[test]
fn a_substream_whose_connection_is_closed_here_ends_here() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        let (_writer, mut reader) = substream(&mut dialled, &mut accepted).await;
        b.set_online(false);
        drop(accepted);
        assert_eq!(reader.read(&mut [0; 8]).now_or_never().unwrap().unwrap(), 0);
    });
}

#[test]
fn what_was_sent_before_a_substream_was_ended_and_dropped_arrives() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        let (mut writer, mut reader) = substream(&mut dialled, &mut accepted).await;
        writer.write_all(b"last words").await.unwrap();
        writer.close().await.unwrap();
        drop(writer);
        world.sleep(Duration::from_secs(1)).await;
        let mut read = String::new();
        reader.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "last words");
    });
}

#[test]
fn a_killed_host_has_no_listener_and_no_two_hosts_have_one_address() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let _first = listen(&b);
        b.kill();
        let mut again = listen(&b);
        b.change_address();
        let newcomer = world.host(Link::default());
        assert_ne!(newcomer.address(), b.address());
        dial(&a, b.multiaddr(PORT)).await.unwrap();
        again.next().await.unwrap().unwrap();
    });
}

#[test]
fn a_host_that_moves_is_reached_at_its_new_address_alone() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let mut at_b = listen(&b);
        let old = b.multiaddr(PORT);
        b.change_address();
        assert!(dial(&a, old).await.is_err());
        dial(&a, b.multiaddr(PORT)).await.unwrap();
        at_b.next().await.unwrap().unwrap();
    });
}

#[test]
fn a_link_that_stalls_delivers_everything_when_it_goes_on() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        let (mut writer, mut reader) = substream(&mut dialled, &mut accepted).await;
        b.set_stalled(true);
        assert!(!world.reach_each_other(&a, &b));
        writer.write_all(b"later").await.unwrap();
        world.sleep(Duration::from_secs(60)).await;
        assert!(reader.read(&mut [0; 8]).now_or_never().is_none());
        b.set_stalled(false);
        let mut read = [0; 5];
        reader.read_exact(&mut read).now_or_never().unwrap().unwrap();
        assert_eq!(&read, b"later");
    });
}

#[test]
fn a_frozen_process_goes_on_where_it_was() {
    run(config(), |world| async move {
        let [host] = hosts(&world, [Link::default()]);
        let ticks = Arc::new(Mutex::new(0));
        let (counts, ticker) = (Arc::clone(&ticks), world.clone());
        host.runtime().spawn(
            async move {
                loop {
                    ticker.sleep(Duration::from_secs(1)).await;
                    *counts.lock().unwrap() += 1;
                }
            }
            .boxed(),
        );
        let after = async |span: f64| {
            world.sleep(Duration::from_secs_f64(span)).await;
            *ticks.lock().unwrap()
        };
        assert_eq!(after(10.5).await, 10);
        host.set_frozen(true);
        assert_eq!(after(100.0).await, 10);
        host.set_frozen(false);
        assert_eq!(after(10.0).await, 20);
    });
}

#[test]
fn a_frozen_process_completes_no_handshake() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let _at_b = listen(&b);
        b.set_frozen(true);
        let began = world.now();
        assert!(dial(&a, b.multiaddr(PORT)).await.is_err());
        assert_eq!(world.now() - began, Duration::from_secs(10), "the transport's timeout");
        b.set_frozen(false);
        dial(&a, b.multiaddr(PORT)).await.unwrap();
    });
}

#[test]
fn a_connection_that_is_lost_takes_no_bandwidth_from_others() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(), Link::default().down(256_000)]);
        let (mut dialled, mut accepted) = connect(&a, &b).await;
        let (mut writer, _reader) = substream(&mut dialled, &mut accepted).await;
        b.change_address();
        writer.write_all(&bytes(200_000)).await.unwrap();
        world.sleep(Duration::from_secs(1)).await;
        let began = world.now();
        let mut connections = listen_at(&b, PORT + 1);
        dial(&a, b.multiaddr(PORT + 1)).await.unwrap();
        connections.next().await.unwrap().unwrap();
        assert!(world.now() - began < Duration::from_secs(1));
    });
}

#[test]
fn a_nat_lets_dials_of_mapped_ports_pass_and_a_firewall_answers_no_others() {
    run(config(), |world| async move {
        let hidden = Link::default().reach(Reach::Nat);
        let [a, b, c] = hosts(&world, [Link::default(), hidden, Link::default().reach(Reach::Filtered)]);
        let (_at_b, _at_c) = (listen(&b), listen(&c));
        let refusal = dial(&a, b.multiaddr(PORT)).await.unwrap_err();
        assert_ne!(refusal.kind(), std::io::ErrorKind::ConnectionRefused);
        b.map_port(PORT, true);
        dial(&a, b.multiaddr(PORT)).await.unwrap();
        b.map_port(PORT, false);
        assert!(dial(&a, b.multiaddr(PORT)).await.is_err());
        dial(&a, c.multiaddr(PORT)).await.unwrap();
        let silence = dial(&a, c.multiaddr(PORT + 1)).await.unwrap_err();
        assert_ne!(silence.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn the_delay_of_a_link_is_added_in_both_directions() {
    const DELAY: Duration = Duration::from_millis(300);
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(), Link::default().delay(DELAY)]);
        let _at_b = listen(&b);
        let began = world.now();
        dial(&a, b.multiaddr(PORT)).await.unwrap();
        assert_eq!(world.now() - began, DIAL + 4 * DELAY);
        assert_eq!((a.traffic().dials, b.traffic().dials), (1, 0));
    });
}

#[test]
fn a_half_open_connection_is_seen_and_never_completes() {
    run(config(), |world| async move {
        let [a, b] = hosts(&world, [Link::default(); 2]);
        let mut transport = b.transport(PeerId::random());
        transport.listen_on(ListenerId::next(), b.multiaddr(PORT)).unwrap();
        a.half_open(&b.multiaddr(PORT));
        let upgrade = loop {
            if let TransportEvent::Incoming { upgrade, .. } = poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await {
                break upgrade;
            }
        };
        assert_eq!(world.now(), LATENCY);
        assert!(upgrade.await.is_err(), "the transport's timeout ends it");
        assert_eq!(world.now(), LATENCY + Duration::from_secs(10));
    });
}

#[test]
fn a_host_has_a_wall_clock_of_its_own() {
    run(config(), |world| async move {
        let [slow, right] = hosts(&world, [Link::default(); 2]);
        slow.set_wall_clock(-900);
        let read = Arc::new(Mutex::new(Vec::new()));
        for host in [&slow, &right] {
            let read = Arc::clone(&read);
            host.runtime().spawn(async move { read.lock().unwrap().push(SystemTime::now()) }.boxed());
        }
        world.sleep(Duration::from_secs(1)).await;
        let [by_slow, by_right] = [0, 1].map(|at| read.lock().unwrap()[at]);
        assert_eq!(by_right.duration_since(by_slow).unwrap(), Duration::from_secs(900));
        let by_scenario = SystemTime::now();
        let by_host = slow.by_clock(async { SystemTime::now() }).await;
        assert_eq!(by_scenario.duration_since(by_host).unwrap(), Duration::from_secs(900));
    });
}

#[test]
#[should_panic(expected = "the world has started 1 threads")]
fn a_thread_that_a_world_starts_is_a_failure() {
    run(config(), |_| async { std::thread::spawn(|| ()).join().unwrap() });
}

#[test]
#[should_panic(expected = "nothing can happen any more")]
fn a_world_that_waits_for_nothing_is_a_failure() {
    run(config(), |_| std::future::pending::<()>());
}

#[test]
#[should_panic(expected = "has not ended after 60s")]
fn a_world_that_does_not_end_is_a_failure() {
    run(config().limit(Duration::from_secs(60)), |world| async move {
        loop {
            world.sleep(Duration::from_secs(7)).await;
        }
    });
}
