use std::time::{Duration, Instant};

use futures::{AsyncWriteExt, future::join_all, stream};

use super::{
    super::{
        BlobProvider, FetchConfig, FetchError, FetchRequest, ProviderOutcome, ProviderReport, ServerConfig, wire::LAST,
    },
    network::*,
};
use crate::ContentId;

#[test]
fn blobs_of_all_sizes_arrive() {
    smol::block_on(async {
        let sizes = [0, 1, 1023, 1024, 1025, 16_383, 16_384, 16_385, 65_536, 65_537, (1 << 20) + 1, 3 << 20];
        let blobs = sizes.map(bytes);
        let refs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
        let (server, _) = Node::serving(ServerConfig::default(), &refs).await;
        for config in [FetchConfig::default(), FetchConfig { piece_groups: 1, pipeline: 1, ..quick() }] {
            let client = Node::client_of(&[&server]).await;
            for blob in &blobs {
                let log = Log::default();
                let size = blob.len() as u64;
                assert_eq!(fetch(&client, config, blob, &[&server], &log).await.unwrap(), size);
                assert_eq!(log.progress().last(), Some(&(size, size)));
                assert!(log.progress().is_sorted());
                let reports = log.reports_of(&server);
                assert!(matches!(reports.as_slice(), [ProviderOutcome::Success { .. }]), "{size} {reports:?}");
            }
            assert_eq!(client.leftovers(), 0);
        }
    });
}

#[test]
fn a_small_document_is_fetched_and_read() {
    smol::block_on(async {
        let (server, stats) = Node::serving(ServerConfig::default(), &[b"{}"]).await;
        let client = Node::client_of(&[&server]).await;
        let fetcher = client.fetcher(quick());
        let id = ContentId::of(b"{}");
        for _ in 0..2 {
            let read = within(fetcher.fetch_bytes(id, 100, named(&[&server]), |_| {})).await.unwrap();
            assert_eq!(read, b"{}");
        }
        assert_eq!(stats.read().served, 1, "the second time, nobody is asked");
        let error = fetcher.fetch_bytes(id, 1, named(&[]), |_| {}).await.unwrap_err();
        assert!(matches!(error, FetchError::TooLarge { size: 2, max: 1 }), "{error}");
    });
}

#[test]
fn three_providers_share_the_work() {
    smol::block_on(async {
        let blob = bytes(2_600_000);
        // None of them can send half of it at once.
        let config = ServerConfig { bytes_per_second_per_peer: 1 << 20, ..ServerConfig::default() };
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(Node::serving(config, &[&blob]).await);
        }
        let nodes: Vec<&Node> = servers.iter().map(|(node, _)| node).collect();
        let client = Node::client_of(&nodes).await;
        let log = Log::default();
        fetch(&client, quick(), &blob, &nodes, &log).await.unwrap();
        for (server, stats) in &servers {
            assert!(stats.read().served > 1, "{:?}", stats.read());
            let reports = log.reports_of(server);
            assert!(matches!(reports.as_slice(), [ProviderOutcome::Success { bytes: 1.., .. }]), "{reports:?}");
        }
        let sent: u64 = servers.iter().map(|(_, stats)| stats.read().bytes).sum();
        assert!(sent < 3_200_000, "{sent} bytes were sent");
    });
}

#[test]
fn the_preferred_provider_is_asked_first() {
    smol::block_on(async {
        let blob = bytes(200_000);
        let (first, of_first) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let (second, of_second) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&first, &second]).await;
        let fetcher = client.fetcher(FetchConfig { providers: 1, ..quick() });
        // All providers of a list are considered before the first one is asked.
        let providers =
            [(&first, -5), (&second, 5)].map(|(node, preference)| BlobProvider { peer: node.peer, preference });
        within(fetcher.fetch(wanted(&blob), stream::iter(providers), |_| {})).await.unwrap();
        assert_eq!((of_first.read().served, of_second.read().served > 3), (0, true));
    });
}

#[test]
fn another_provider_takes_over_from_one_that_dies() {
    smol::block_on(async {
        let blob = bytes(1_000_000);
        let dying = Node::scripted(&[&blob], |mut stream, store| async move {
            for _ in 0..4 {
                let request = next_request(&mut stream).await?;
                send(&mut stream, &answer(&store, &request)).await?;
            }
            let request = next_request(&mut stream).await?;
            send(&mut stream, &answer(&store, &request)[..20_000]).await?;
            stream.close().await.ok()?;
            while next_request(&mut stream).await.is_some() {}
            Some(())
        })
        .await;
        let (server, stats) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&dying, &server]).await;
        // The other provider is named only after the first has failed.
        let (more, providers) = async_channel::unbounded();
        more.try_send(BlobProvider { peer: dying.peer, preference: 0 }).unwrap();
        let log = Log::default();
        let note = log.note();
        let peer = server.peer;
        let observe = move |event| {
            if matches!(
                event,
                super::super::FetchEvent::Report(ProviderReport { outcome: ProviderOutcome::Failed, .. })
            ) {
                more.try_send(BlobProvider { peer, preference: 0 }).unwrap();
            }
            note(event);
        };
        let fetcher = client.fetcher(FetchConfig { retry_after: Duration::from_secs(100), ..quick() });
        within(fetcher.fetch(wanted(&blob), providers, observe)).await.unwrap();
        assert_eq!(client.store.read(&ContentId::of(&blob), 1 << 30).unwrap(), blob);
        assert_eq!(log.reports_of(&dying)[0], ProviderOutcome::Failed);
        // 16 pieces, of which the first provider has sent 3 after the proof of the size.
        assert_eq!(stats.read().served, 13);
    });
}

#[test]
fn a_provider_that_fails_is_tried_again_and_then_given_up() {
    smol::block_on(async {
        let blob = bytes(100);
        let (count, streams) = async_channel::unbounded();
        let failing = Node::scripted(&[], move |stream, _| {
            let count = count.clone();
            async move {
                // First: the client may see the end of the stream at once.
                count.send(()).await.ok()?;
                drop(stream);
                Some(())
            }
        })
        .await;
        let client = Node::client_of(&[&failing]).await;
        let error = fetch(&client, quick(), &blob, &[&failing], &Log::default()).await.unwrap_err();
        let FetchError::AllFailed { reports } = error else { panic!("{error}") };
        assert_eq!(reports, [ProviderReport { peer: failing.peer, outcome: ProviderOutcome::Failed }]);
        // An overloaded server closes streams in the same way.
        assert_eq!(streams.len(), 10);
    });
}

#[test]
fn spans_as_long_as_can_be_do_not_overflow_the_clock() {
    smol::block_on(async {
        let blob = bytes(300_000);
        let longest = Duration::MAX;
        let serving = ServerConfig { idle_timeout: longest, step_timeout: longest, ..ServerConfig::default() };
        let (server, _) = Node::serving(ServerConfig { response_timeout: longest, ..serving }, &[&blob]).await;
        let failing = Node::scripted(&[], |_, _| async { Some(()) }).await;
        let client = Node::client_of(&[&server, &failing]).await;
        let config = FetchConfig { open_timeout: longest, step_timeout: longest, piece_timeout: longest, ..quick() };
        let config = FetchConfig { stall_timeout: longest, timeout: longest, retry_after: longest, ..config };
        let config = FetchConfig { hedge_after: longest, ..config };
        fetch(&client, config, &blob, &[&failing, &server], &Log::default()).await.unwrap();
    });
}

#[test]
fn without_a_provider_that_has_the_blob_the_error_says_so() {
    smol::block_on(async {
        let (empty, _) = Node::serving(ServerConfig::default(), &[]).await;
        let other = Node::new().await;
        let client = Node::client_of(&[&empty, &other]).await;
        let error = fetch(&client, quick(), b"x", &[], &Log::default()).await.unwrap_err();
        assert!(matches!(error, FetchError::NoProvider), "{error}");
        let log = Log::default();
        let error = fetch(&client, quick(), b"x", &[&empty, &other], &log).await.unwrap_err();
        assert!(matches!(&error, FetchError::AllFailed { reports } if reports.len() == 2), "{error}");
        assert_eq!(log.reports_of(&empty), [ProviderOutcome::NotFound]);
        assert_eq!(log.reports_of(&other), [ProviderOutcome::Failed], "it does not speak the protocol");
        assert_eq!(client.leftovers(), 0);
    });
}

#[test]
fn the_expected_size_is_compared_with_the_proven_one() {
    smol::block_on(async {
        let blob = bytes(100_000);
        let (server, _) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        let fetcher = client.fetcher(quick());
        let of_size = |size| FetchRequest { size: Some(size), ..wanted(&blob) };
        let log = Log::default();
        let error = within(fetcher.fetch(of_size(99_999), named(&[&server]), log.note())).await.unwrap_err();
        assert!(matches!(error, FetchError::OtherSize { size: 100_000, expected: 99_999 }), "{error}");
        assert_eq!(log.reports_of(&server), [], "it is not the provider's fault");
        within(fetcher.fetch(of_size(100_000), named(&[&server]), log.note())).await.unwrap();
    });
}

#[test]
fn providers_that_never_come_end_in_a_timeout() {
    smol::block_on(async {
        let client = Node::new().await;
        let spans = [(50, 10_000), (10_000, 50)].map(|(a, b)| (Duration::from_millis(a), Duration::from_millis(b)));
        for (stall_timeout, timeout) in spans {
            let fetcher = client.fetcher(FetchConfig { stall_timeout, timeout, ..quick() });
            let error = within(fetcher.fetch(wanted(b"x"), stream::pending(), |_| {})).await.unwrap_err();
            assert!(matches!(error, FetchError::Timeout), "{error}");
        }
    });
}

#[test]
fn a_late_piece_is_requested_from_another_provider() {
    smol::block_on(async {
        let blob = bytes(600_000);
        // Proves the size, then sends nothing more.
        let late = Node::scripted(&[&blob], |mut stream, store| async move {
            let request = next_request(&mut stream).await?;
            send(&mut stream, &answer(&store, &request)).await?;
            while next_request(&mut stream).await.is_some() {}
            Some(())
        })
        .await;
        let (server, _) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&late, &server]).await;
        let config = FetchConfig { hedge_after: Duration::from_millis(50), ..quick() };
        let started = Instant::now();
        fetch(&client, config, &blob, &[&late, &server], &Log::default()).await.unwrap();
        assert!(started.elapsed() < config.step_timeout, "it was waited for");
    });
}

/// Starts a provider that proves the size and then sends nothing more. It sends a message when it is asked for a piece.
async fn keeping_back(blob: &[u8]) -> (Node, async_channel::Receiver<()>) {
    let (tell, asked) = async_channel::unbounded();
    let node = Node::scripted(&[blob], move |mut stream, store| {
        let tell = tell.clone();
        async move {
            let request = next_request(&mut stream).await?;
            if request.first == LAST {
                send(&mut stream, &answer(&store, &request)).await?;
                next_request(&mut stream).await?;
            }
            tell.send(()).await.ok()?;
            while next_request(&mut stream).await.is_some() {}
            Some(())
        }
    })
    .await;
    (node, asked)
}

#[test]
fn attack_several_providers_that_withhold_pieces_do_not_stop_a_download() {
    smol::block_on(async {
        let blob = bytes(600_000);
        let evil = [keeping_back(&blob).await, keeping_back(&blob).await, keeping_back(&blob).await];
        let (server, _) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&evil[0].0, &evil[1].0, &evil[2].0, &server]).await;
        let config = FetchConfig { hedge_after: Duration::from_millis(50), pipeline: 16, ..quick() };
        let (more, providers) = async_channel::unbounded();
        let honest = server.peer;
        let peers = evil.each_ref().map(|(node, _)| node.peer);
        let asked = evil.each_ref().map(|(_, asked)| asked.clone());
        // The first provider takes all pieces, and the others join it at some. Then the honest one is named.
        let naming = async move {
            for (peer, asked) in peers.into_iter().zip(asked) {
                more.send(BlobProvider { peer, preference: 0 }).await.unwrap();
                asked.recv().await.unwrap();
            }
            more.send(BlobProvider { peer: honest, preference: 0 }).await.unwrap();
        };
        let started = Instant::now();
        let fetcher = client.fetcher(config);
        let (fetched, ()) =
            within(futures::future::join(fetcher.fetch(wanted(&blob), providers, |_| {}), naming)).await;
        fetched.unwrap();
        assert!(started.elapsed() < config.step_timeout, "they were waited for");
    });
}

#[test]
fn attack_a_provider_that_stalls_a_download_is_reported() {
    smol::block_on(async {
        let blob = bytes(600_000);
        let (evil, _asked) = keeping_back(&blob).await;
        let client = Node::client_of(&[&evil]).await;
        let stall_timeout = Duration::from_millis(300);
        let config = FetchConfig { hedge_after: Duration::from_millis(50), stall_timeout, ..quick() };
        let log = Log::default();
        let error = fetch(&client, config, &blob, &[&evil], &log).await.unwrap_err();
        assert!(matches!(error, FetchError::Timeout), "{error}");
        assert_eq!(log.reports_of(&evil), [ProviderOutcome::Failed]);
    });
}

#[test]
fn fetches_of_one_blob_at_a_time_share_the_work() {
    smol::block_on(async {
        let blob = bytes(1_000_000);
        let (server, stats) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        let fetches = (0..4).map(|_| async {
            fetch(&client, quick(), &blob, &[&server], &Log::default()).await.unwrap();
        });
        join_all(fetches).await;
        // The proof of the size, and 16 pieces.
        assert_eq!(stats.read().served, 17);
    });
}

#[test]
fn a_busy_provider_is_asked_again_after_the_time_that_it_sent() {
    smol::block_on(async {
        let blob = bytes(300_000);
        let config = ServerConfig { bytes_per_second_per_peer: 200_000, ..ServerConfig::default() };
        let (server, _) = Node::serving(config, &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        let started = Instant::now();
        fetch(&client, quick(), &blob, &[&server], &Log::default()).await.unwrap();
        // The bandwidth of one second is available at once.
        assert!(started.elapsed() >= Duration::from_millis(480), "{:?}", started.elapsed());
    });
}
