//! The suite: data on a connection, in both directions of the dial.

use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt,
    future::{join, join_all},
};
use libp2p::{
    core::{muxing::SubstreamBox, transport::PortUse},
    identity::Keypair,
};

use crate::subject::{
    LOOPBACK, LOOPBACK_6, Subject, close, connect, inbound, ipv6, listen, outbound, pair, stream, within,
};

async fn each_end_knows_the_other<D: Subject, L: Subject>(addr: &str) {
    let (here, there) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (mut dialler, mut listener) = (D::node(&here, 8), L::node(&there, 8));
    let (_, addr) = listen(&mut listener, addr).await;
    let (here, there) = (here.public().to_peer_id(), there.public().to_peer_id());
    for addr in [addr.clone(), addr.with_p2p(there).unwrap()] {
        let connected = connect(&mut dialler, &mut listener, addr, PortUse::Reuse).await;
        assert_eq!((connected.dialled.0, connected.accepted.0), (there, here));
        let (mut dialled, mut accepted) = (connected.dialled.1, connected.accepted.1);
        let (one, other) = stream(&mut dialled, &mut accepted).await;
        echo(one, other).await;
        let (other, one) = stream(&mut accepted, &mut dialled).await;
        echo(one, other).await;
    }
}

pub async fn each_end_knows_the_other_over_ipv4<D: Subject, L: Subject>() {
    each_end_knows_the_other::<D, L>(LOOPBACK).await;
}

pub async fn each_end_knows_the_other_over_ipv6<D: Subject, L: Subject>() {
    if ipv6() {
        each_end_knows_the_other::<D, L>(LOOPBACK_6).await;
    }
}

async fn echo(mut one: SubstreamBox, mut other: SubstreamBox) {
    let there = async {
        one.write_all(b"over there").await.unwrap();
        one.flush().await.unwrap();
        let mut back = [0; 4];
        one.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
    };
    let back = async {
        let mut there = [0; 10];
        other.read_exact(&mut there).await.unwrap();
        assert_eq!(&there, b"over there");
        other.write_all(b"back").await.unwrap();
    };
    within(join(there, back)).await;
}

fn pattern(length: u32, seed: u8) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n + u32::from(seed)) % 251).unwrap()).collect()
}

/// Writes `data` and reads it from the other end until the stream ends.
async fn transfer(mut from: SubstreamBox, mut to: SubstreamBox, data: Vec<u8>) {
    let write = async {
        from.write_all(&data).await.unwrap();
        from.close().await.unwrap();
        // Once is enough, twice does no harm.
        from.close().await.unwrap();
    };
    let mut read = Vec::new();
    let (_, length) = join(write, to.read_to_end(&mut read)).await;
    assert_eq!(length.unwrap(), data.len());
    assert!(read == data, "the data came out different");
}

pub async fn streams_go_both_ways_at_once<D: Subject, L: Subject>() {
    let (mut dialled, mut accepted) = pair::<D, L>(64).await;
    let mut transfers = Vec::new();
    for seed in 0..8 {
        let (from, to) = stream(&mut dialled, &mut accepted).await;
        transfers.push(transfer(from, to, pattern(100_000, seed)));
        let (from, to) = stream(&mut accepted, &mut dialled).await;
        transfers.push(transfer(from, to, pattern(100_000, seed + 8)));
    }
    within(join_all(transfers)).await;
}

/// Sends more than the windows of a stream and a connection, so that both ends have to wait for each other.
pub async fn much_data_arrives_whole_and_in_order<D: Subject, L: Subject>() {
    let (mut dialled, mut accepted) = pair::<D, L>(8).await;
    let (from, to) = stream(&mut dialled, &mut accepted).await;
    within(transfer(from, to, pattern(24 * 1024 * 1024, 0))).await;
}

pub async fn a_closed_direction_ends_while_the_other_goes_on<D: Subject, L: Subject>() {
    let (mut dialled, mut accepted) = pair::<D, L>(8).await;
    let (mut one, mut other) = stream(&mut dialled, &mut accepted).await;
    one.close().await.unwrap();
    assert_eq!(within(other.read(&mut [0; 8])).await.unwrap(), 0);
    other.write_all(b"still here").await.unwrap();
    other.close().await.unwrap();
    let mut rest = String::new();
    within(one.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "still here");
}

pub async fn a_stream_that_nobody_reads_can_no_longer_be_written<D: Subject, L: Subject>() {
    let (mut dialled, mut accepted) = pair::<D, L>(8).await;
    let (mut one, other) = stream(&mut dialled, &mut accepted).await;
    drop(other);
    // It reads the end, and writes until it has heard that nobody reads.
    let write = async { while one.write_all(&[0; 1024]).await.is_ok() {} };
    within(write).await;
    assert_eq!(within(one.read(&mut [0; 8])).await.unwrap(), 0);
    let (one, other) = stream(&mut dialled, &mut accepted).await;
    echo(one, other).await;
}

pub async fn a_closed_connection_ends_at_both_ends<D: Subject, L: Subject>() {
    let (mut dialled, mut accepted) = pair::<D, L>(8).await;
    let (mut one, mut other) = stream(&mut dialled, &mut accepted).await;
    close(&mut dialled).await.unwrap();
    assert!(inbound(&mut dialled).await.is_err());
    assert!(outbound(&mut dialled).await.is_err());
    assert!(inbound(&mut accepted).await.is_err());
    assert!(outbound(&mut accepted).await.is_err());
    assert!(within(one.read(&mut [0; 8])).await.is_err());
    assert!(within(other.read(&mut [0; 8])).await.is_err());
}

pub async fn a_dropped_connection_ends_at_the_other_end<D: Subject, L: Subject>() {
    for _ in 0..2 {
        let (dialled, mut accepted) = pair::<D, L>(8).await;
        drop(dialled);
        assert!(inbound(&mut accepted).await.is_err());
        let (mut dialled, accepted) = pair::<D, L>(8).await;
        drop(accepted);
        assert!(inbound(&mut dialled).await.is_err());
    }
}

pub async fn streams_over_the_limit_wait<D: Subject, L: Subject>() {
    let (mut dialled, mut accepted) = pair::<D, L>(1).await;
    let (mut one, mut other) = stream(&mut dialled, &mut accepted).await;
    assert!(outbound(&mut dialled).now_or_never().is_none(), "more streams than allowed");
    // The other direction has a limit of its own.
    let (back, forth) = stream(&mut accepted, &mut dialled).await;
    echo(back, forth).await;
    // A stream is over when both of its directions are.
    let end = async {
        one.close().await.unwrap();
        other.close().await.unwrap();
        assert_eq!(one.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
    };
    within(end).await;
    let (one, other) = stream(&mut dialled, &mut accepted).await;
    echo(one, other).await;
}
