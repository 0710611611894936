use std::{
    fs,
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt};
use kadence_smol::SmolRuntime;

use super::{
    super::{
        ProtocolTakenError, Server, ServerConfig,
        wire::{HEAD_LEN, Head, LAST, REQUEST_LEN, Request},
    },
    network::*,
};
use crate::ContentId;

fn request(blob: &[u8], first: u64, count: u32) -> Request {
    Request { id: ContentId::of(blob), first, count }
}

#[test]
fn several_requests_are_answered_in_order_on_one_stream() {
    smol::block_on(async {
        let blob = bytes(100_000);
        let (server, stats) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        let mut stream = client.stream_to(&server).await;
        let requests = [request(&blob, 0, 2), request(b"none", 0, 1), request(&blob, LAST, 1), request(&blob, 2, 64)];
        for request in requests {
            ask(&mut stream, request).await;
        }
        stream.close().await.unwrap();
        let mut responses = Vec::new();
        within(stream.read_to_end(&mut responses)).await.unwrap();
        let of = |request| answer(&server.store, &request);
        let missing = Head::NotFound.encode().to_vec();
        assert!(responses == [of(requests[0]), missing, of(requests[2]), of(requests[3])].concat());
        let stats = stats.read();
        assert_eq!((stats.streams, stats.served, stats.not_found), (1, 3, 1));
        assert_eq!(stats.bytes, responses.len() as u64);
    });
}

#[test]
fn attack_many_streams_of_one_peer_leave_room_for_others() {
    smol::block_on(async {
        let blob = bytes(100);
        let config = ServerConfig { streams: 3, streams_per_peer: 2, ..ServerConfig::default() };
        let (server, stats) = Node::serving(config, &[&blob]).await;
        let (one, other) = (Node::client_of(&[&server]).await, Node::client_of(&[&server]).await);
        let mut streams = Vec::new();
        for (client, expected) in [(&one, true), (&one, true), (&one, false), (&other, true), (&other, false)] {
            let mut stream = client.stream_to(&server).await;
            ask(&mut stream, request(&blob, 0, 1)).await;
            let head = head(&mut stream).await.unwrap();
            let right = if expected { Head::Have(100) } else { Head::Busy(config.retry_after) };
            assert_eq!(head, right, "{}", streams.len());
            streams.push(stream);
        }
        assert_eq!((stats.read().streams, stats.read().refused_streams), (3, 2));
        // Once they are closed, there is room again.
        drop(streams);
        let served = async {
            loop {
                let mut stream = one.stream_to(&server).await;
                ask(&mut stream, request(&blob, 0, 1)).await;
                if head(&mut stream).await == Some(Head::Have(100)) {
                    return;
                }
            }
        };
        within(served).await;
    });
}

#[test]
fn a_peer_that_would_wait_long_for_bandwidth_gets_busy() {
    smol::block_on(async {
        let blob = bytes(1 << 20);
        for config in [
            ServerConfig { bytes_per_second_per_peer: 100_000, ..ServerConfig::default() },
            ServerConfig { bytes_per_second: 100_000, ..ServerConfig::default() },
        ] {
            let (server, stats) = Node::serving(config, &[&blob]).await;
            let client = Node::client_of(&[&server]).await;
            let mut stream = client.stream_to(&server).await;
            ask(&mut stream, request(&blob, 0, 64)).await;
            let Some(Head::Busy(after)) = head(&mut stream).await else { panic!("it is served") };
            assert!((9..11).contains(&after.as_secs()), "{after:?}");
            // Another stream gets the available bandwidth.
            let mut stream = client.stream_to(&server).await;
            ask(&mut stream, request(&blob, 0, 1)).await;
            assert_eq!(head(&mut stream).await, Some(Head::Have(1 << 20)));
            assert_eq!((stats.read().busy, stats.read().served), (1, 1));
        }
    });
}

#[test]
fn attack_no_work_is_done_without_bandwidth() {
    smol::block_on(async {
        let config = ServerConfig { bytes_per_second_per_peer: 100_000, ..ServerConfig::default() };
        let (server, stats) = Node::serving(config, &[]).await;
        let client = Node::client_of(&[&server]).await;
        let mut stream = client.stream_to(&server).await;
        // A server that had looked would answer that it does not have the blob.
        ask(&mut stream, request(b"none", 0, 64)).await;
        assert!(matches!(head(&mut stream).await, Some(Head::Busy(_))));
        assert_eq!((stats.read().busy, stats.read().not_found), (1, 0));
    });
}

#[test]
fn attack_requests_after_busy_wait_for_the_time_that_was_sent() {
    smol::block_on(async {
        let blob = bytes(1 << 20);
        let config = ServerConfig {
            bytes_per_second_per_peer: 100_000,
            idle_timeout: Duration::from_millis(300),
            ..ServerConfig::default()
        };
        let (server, stats) = Node::serving(config, &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        let mut stream = client.stream_to(&server).await;
        for _ in 0..10 {
            ask(&mut stream, request(&blob, 0, 64)).await;
        }
        assert!(matches!(head(&mut stream).await, Some(Head::Busy(_))));
        // After ten seconds the stream has been idle for too long.
        assert_eq!(head(&mut stream).await, None);
        assert_eq!(stats.read().busy, 1);
    });
}

#[test]
fn attack_requests_for_missing_blobs_use_bandwidth() {
    smol::block_on(async {
        let config = ServerConfig { bytes_per_second_per_peer: 64 << 10, ..ServerConfig::default() };
        let (server, stats) = Node::serving(config, &[]).await;
        let client = Node::client_of(&[&server]).await;
        let mut stream = client.stream_to(&server).await;
        let started = Instant::now();
        // Four at once, then four a second.
        for _ in 0..6 {
            ask(&mut stream, request(b"none", 0, 1)).await;
            assert_eq!(head(&mut stream).await, Some(Head::NotFound));
        }
        assert!(started.elapsed() >= Duration::from_millis(450), "{:?}", started.elapsed());
        assert_eq!(stats.read().not_found, 6);
    });
}

#[test]
fn requests_against_the_rules_end_the_stream() {
    smol::block_on(async {
        let blob = bytes(100);
        let (server, stats) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        for count in [0, 65, u32::MAX] {
            let mut stream = client.stream_to(&server).await;
            ask(&mut stream, request(&blob, 0, count)).await;
            assert_eq!(head(&mut stream).await, Some(Head::Invalid));
            assert_eq!(within(stream.read(&mut [0; HEAD_LEN])).await.unwrap_or(0), 0);
        }
        // Half a request is no request.
        let mut stream = client.stream_to(&server).await;
        stream.write_all(&[0; REQUEST_LEN - 1]).await.unwrap();
        stream.close().await.unwrap();
        assert_eq!(within(stream.read(&mut [0; HEAD_LEN])).await.unwrap_or(0), 0);
        assert_eq!(stats.read().invalid, 3);
    });
}

#[test]
fn attack_a_damaged_blob_is_not_served() {
    smol::block_on(async {
        let blob = bytes(100_000);
        let (server, stats) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        let hex = ContentId::of(&blob).hash().to_hex();
        let path = server.folder.path().join("blobs").join(&hex[..2]).join(hex.as_str());
        let mut damaged = blob.clone();
        damaged[40_000] ^= 1;
        fs::write(path, damaged).unwrap();
        let mut stream = client.stream_to(&server).await;
        ask(&mut stream, request(&blob, 0, 7)).await;
        ask(&mut stream, request(&blob, 0, 1)).await;
        assert_eq!([head(&mut stream).await, head(&mut stream).await], [Some(Head::NotFound); 2]);
        let stats = stats.read();
        assert_eq!((stats.unreadable, stats.not_found, stats.served), (1, 1, 0));
    });
}

#[test]
fn attack_streams_without_requests_or_reads_are_closed() {
    smol::block_on(async {
        let blob = bytes(1 << 20);
        let config = ServerConfig {
            streams_per_peer: 1,
            idle_timeout: Duration::from_millis(100),
            step_timeout: Duration::from_millis(100),
            ..ServerConfig::default()
        };
        let (server, _) = Node::serving(config, &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        let mut silent = client.stream_to(&server).await;
        silent.flush().await.unwrap();
        assert_eq!(within(silent.read(&mut [0; HEAD_LEN])).await.unwrap_or(0), 0);
        // Many times more than the stream can buffer.
        let mut full = client.stream_to(&server).await;
        for _ in 0..4 {
            ask(&mut full, request(&blob, 0, 64)).await;
        }
        assert_eq!(head(&mut full).await, Some(Head::Have(1 << 20)));
        let served = async {
            loop {
                let mut stream = client.stream_to(&server).await;
                ask(&mut stream, request(&blob, 0, 1)).await;
                if head(&mut stream).await == Some(Head::Have(1 << 20)) {
                    return;
                }
            }
        };
        within(served).await;
        drop(full);
    });
}

#[test]
fn attack_a_stream_that_reads_slowly_is_closed() {
    smol::block_on(async {
        let blob = bytes(1 << 20);
        let config = ServerConfig { response_timeout: Duration::from_millis(200), ..ServerConfig::default() };
        let (server, _) = Node::serving(config, &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        let mut slow = client.stream_to(&server).await;
        for _ in 0..4 {
            ask(&mut slow, request(&blob, 0, 64)).await;
        }
        let read = async {
            let (mut all, mut buffer) = (0, vec![0; 16 << 10]);
            loop {
                smol::Timer::after(Duration::from_millis(10)).await;
                match slow.read(&mut buffer).await {
                    Ok(0) | Err(_) => return all,
                    Ok(read) => all += read,
                }
            }
        };
        assert!(within(read).await < 4 << 20, "it was served to the end");
    });
}

#[test]
fn there_is_one_server() {
    smol::block_on(async {
        let mut node = Node::new().await;
        let make = |node: &mut Node| {
            Server::new(&mut node.control, node.store.clone(), &SmolRuntime::default(), ServerConfig::default())
        };
        let first = make(&mut node).unwrap();
        assert_eq!(make(&mut node).map(drop), Err(ProtocolTakenError));
        drop(first);
        // The task that accepts streams ends by itself.
        let again = async {
            while make(&mut node).is_err() {
                smol::future::yield_now().await;
            }
        };
        within(again).await;
    });
}
