use std::time::Duration;

use super::{
    super::{
        FetchConfig, FetchError, FetchRequest, MAX_BLOB_LEN, ProviderOutcome, ServerConfig,
        proof::{Slice, SliceError, receive},
        wire::{HEAD_LEN, Head, Request},
    },
    network::*,
};
use crate::{ContentId, blob::BlobStore};
use futures::io::Cursor;
use kadence_smol::SmolRuntime;

/// Starts a provider whose answers are changed by this function, which also gets the number of the answer.
async fn changing(blob: &[u8], change: fn(usize, &mut Vec<u8>)) -> Node {
    Node::scripted(&[blob], move |mut stream, store| async move {
        let mut number = 0;
        loop {
            let request = next_request(&mut stream).await?;
            let mut answer = answer(&store, &request);
            change(number, &mut answer);
            send(&mut stream, &answer).await?;
            number += 1;
        }
    })
    .await
}

#[test]
fn attack_corrupt_provider_the_download_succeeds_and_it_is_reported() {
    smol::block_on(async {
        let blob = bytes(1_000_000);
        let changes: [fn(usize, &mut Vec<u8>); 8] = [
            // A bit of a group, of a hash, of the size, of the proof of the size; another status; another size later.
            |number, answer| {
                if number == 2 {
                    *answer.last_mut().unwrap() ^= 1;
                }
            },
            |number, answer| {
                if number == 1 {
                    answer[HEAD_LEN + 7] ^= 1;
                }
            },
            |_, answer| answer[1] ^= 64,
            |_, answer| *answer.last_mut().unwrap() ^= 1,
            |_, answer| answer[0] = 9,
            |number, answer| {
                if number == 1 {
                    answer[1] ^= 1;
                }
            },
            // A size above the maximum, and a size above the actual one.
            |_, answer| answer[1..HEAD_LEN].fill(255),
            |number, answer| {
                if number > 0 {
                    answer.insert(HEAD_LEN, 0);
                }
            },
        ];
        let (server, _) = Node::serving(ServerConfig::default(), &[&blob]).await;
        for (number, change) in changes.into_iter().enumerate() {
            let corrupt = changing(&blob, change).await;
            let client = Node::client_of(&[&corrupt, &server]).await;
            let log = Log::default();
            let error = fetch(&client, quick(), &blob, &[&corrupt], &log).await.unwrap_err();
            assert!(matches!(error, FetchError::AllFailed { .. }), "{number} {error}");
            assert_eq!(log.reports_of(&corrupt), [ProviderOutcome::BadData], "{number}");
            let log = Log::default();
            fetch(&client, quick(), &blob, &[&corrupt, &server], &log).await.unwrap();
            let successes = log.reports_of(&corrupt);
            assert!(
                !successes.iter().any(|event| matches!(event, ProviderOutcome::Success { .. }))
                    || !successes.contains(&ProviderOutcome::BadData),
                "{successes:?}"
            );
            assert!(matches!(log.reports_of(&server)[..], [ProviderOutcome::Success { .. }]));
        }
    });
}

/// Returns an encoded slice of 8 groups of a blob.
fn slice(blob: &[u8]) -> (ContentId, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let id = store.put(blob).unwrap();
    let answer = answer(&store, &Request { id, first: 8, count: 8 });
    (id, answer[HEAD_LEN..].to_vec())
}

fn received(id: ContentId, bytes: Vec<u8>, size: u64) -> (Result<Slice, SliceError>, u64) {
    let mut alarm = kadence::Clock::new(&SmolRuntime::default()).alarm();
    let mut stream = Cursor::new(bytes);
    let result = smol::block_on(receive(&mut stream, &mut alarm, PATIENCE, &id, size, &(8..16)));
    (result, stream.position())
}

#[test]
fn attack_corrupt_provider_a_bad_group_is_noticed_before_the_next_one_is_read() {
    let blob = bytes(1_000_000);
    let (id, right) = slice(&blob);
    let (result, read) = received(id, right.clone(), 1_000_000);
    assert_eq!((result.unwrap().data, read), (blob[8 << 14..16 << 14].to_vec(), right.len() as u64));
    for at in (0..right.len()).step_by(1009) {
        let mut wrong = right.clone();
        wrong[at] ^= 0x80;
        let (result, read) = received(id, wrong, 1_000_000);
        assert!(matches!(result, Err(SliceError::Wrong)), "{at}");
        assert!(read <= at as u64 + (16 << 10), "{} bytes were read after the wrong one", read - at as u64);
    }
    let (result, _) = received(id, right[..right.len() - 1].to_vec(), 1_000_000);
    assert!(matches!(result, Err(SliceError::Broken)));
    let (result, _) = received(ContentId::of(b"other"), right, 1_000_000);
    assert!(matches!(result, Err(SliceError::Wrong)));
}

#[test]
fn attack_an_oversize_blob_is_rejected_by_its_proven_size_and_nothing_is_stored() {
    smol::block_on(async {
        let blob = bytes(1_000_000);
        let (server, stats) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        let too_small = FetchRequest { max: 999_999, ..wanted(&blob) };
        let fetcher = client.fetcher(quick());
        let fetch = fetcher.fetch(too_small, named(&[&server]), |_| {});
        let error = within(fetch).await.unwrap_err();
        assert!(matches!(error, FetchError::TooLarge { size: 1_000_000, max: 999_999 }), "{error}");
        let stats = stats.read();
        assert!(stats.served == 1 && stats.bytes < 18_000, "{stats:?}");
        assert_eq!((client.store.iter().count(), client.leftovers()), (0, 0));
    });
}

#[test]
fn attack_an_endless_blob_is_ended_within_one_group() {
    smol::block_on(async {
        // With hashes above the group, and without.
        for blob in [bytes(1_000_000), bytes(100)] {
            let (sent, count) = async_channel::unbounded();
            let size = blob.len() as u64;
            let endless = Node::scripted(&[], move |mut stream, _| {
                let sent = sent.clone();
                async move {
                    next_request(&mut stream).await?;
                    send(&mut stream, &Head::Have(size).encode()).await?;
                    while send(&mut stream, &[7; 1024]).await.is_some() {
                        sent.try_send(()).ok()?;
                    }
                    Some(())
                }
            })
            .await;
            let client = Node::client_of(&[&endless]).await;
            let log = Log::default();
            fetch(&client, quick(), &blob, &[&endless], &log).await.unwrap_err();
            assert_eq!(log.reports_of(&endless), [ProviderOutcome::BadData]);
            // The stream's buffers were filled, and nobody has read them.
            assert!(count.len() <= 600, "{} KiB", count.len());
            assert_eq!(client.leftovers(), 0);
        }
    });
}

#[test]
fn attack_an_impossible_size_is_rejected_at_once() {
    smol::block_on(async {
        for size in [MAX_BLOB_LEN + 1, u64::MAX] {
            let boasting = Node::scripted(&[], move |mut stream, _| async move {
                next_request(&mut stream).await?;
                send(&mut stream, &Head::Have(size).encode()).await?;
                next_request(&mut stream).await.map(drop)
            })
            .await;
            let client = Node::client_of(&[&boasting]).await;
            let log = Log::default();
            let config = FetchConfig { step_timeout: Duration::from_millis(200), ..quick() };
            fetch(&client, config, b"x", &[&boasting], &log).await.unwrap_err();
            assert_eq!(log.reports_of(&boasting), [ProviderOutcome::BadData]);
        }
    });
}

#[test]
fn attack_silent_and_trickling_providers_delay_nothing() {
    smol::block_on(async {
        let blob = bytes(300_000);
        let silent = Node::scripted(&[&blob], |mut stream, _| async move {
            while next_request(&mut stream).await.is_some() {}
            Some(())
        })
        .await;
        // One byte or one group at a time: each step is in time, but the piece is much too late.
        let trickling = |part: usize, pause: u64| {
            Node::scripted(&[], move |mut stream, _| async move {
                let folder = tempfile::tempdir().unwrap();
                let store = BlobStore::open(folder.path()).unwrap();
                store.put(&bytes(300_000)).unwrap();
                loop {
                    let request = next_request(&mut stream).await?;
                    for part in answer(&store, &request).chunks(part) {
                        smol::Timer::after(Duration::from_millis(pause)).await;
                        send(&mut stream, part).await?;
                    }
                }
            })
        };
        let (bytewise, groupwise) = (trickling(1, 20).await, trickling(16 << 10, 60).await);
        let (server, _) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&silent, &bytewise, &groupwise, &server]).await;
        let config = FetchConfig {
            piece_groups: 16,
            step_timeout: Duration::from_millis(200),
            piece_timeout: Duration::from_millis(400),
            ..quick()
        };
        for provider in [&silent, &bytewise, &groupwise] {
            let log = Log::default();
            let error = fetch(&client, config, &blob, &[provider], &log).await.unwrap_err();
            assert!(matches!(error, FetchError::AllFailed { .. }), "{error}");
            assert_eq!(log.reports_of(provider), [ProviderOutcome::Failed; 3]);
        }
        fetch(&client, config, &blob, &[&silent, &bytewise, &groupwise, &server], &Log::default()).await.unwrap();
    });
}

#[test]
fn attack_a_provider_that_is_always_busy_is_given_up() {
    smol::block_on(async {
        let busy = Node::scripted(&[], |mut stream, _| async move {
            next_request(&mut stream).await?;
            send(&mut stream, &Head::Busy(Duration::ZERO).encode()).await?;
            next_request(&mut stream).await.map(drop)
        })
        .await;
        let unwilling = Node::scripted(&[], |mut stream, _| async move {
            next_request(&mut stream).await?;
            send(&mut stream, &Head::Invalid.encode()).await?;
            next_request(&mut stream).await.map(drop)
        })
        .await;
        let client = Node::client_of(&[&busy, &unwilling]).await;
        let log = Log::default();
        fetch(&client, quick(), b"x", &[&busy, &unwilling], &log).await.unwrap_err();
        assert_eq!(log.reports_of(&busy), [ProviderOutcome::Busy; 10]);
        assert_eq!(log.reports_of(&unwilling), [ProviderOutcome::Failed]);
    });
}

#[test]
fn attack_a_flood_of_false_providers_is_bounded() {
    smol::block_on(async {
        let client = Node::new().await;
        let peers = (0..400).map(|_| super::super::BlobProvider { peer: libp2p::PeerId::random(), preference: 0 });
        let fetcher = client.fetcher(FetchConfig { retry_after: Duration::ZERO, ..quick() });
        let flood = futures::stream::iter(peers.collect::<Vec<_>>());
        let error = within(fetcher.fetch(wanted(b"x"), flood, |_| {})).await.unwrap_err();
        assert!(matches!(&error, FetchError::AllFailed { reports } if reports.len() == 256), "{error}");
    });
}
