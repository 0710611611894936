use std::{fs, time::Instant};

use futures::future::{Either, select};

use super::{
    super::{FetchError, FetchEvent, ServerConfig},
    network::*,
};
use crate::ContentId;

/// Starts a provider that proves the size, sends this number of pieces, and nothing more.
async fn stopping_after(pieces: usize, blob: &[u8]) -> Node {
    Node::scripted(&[blob], move |mut stream, store| async move {
        for _ in 0..=pieces {
            let request = next_request(&mut stream).await?;
            send(&mut stream, &answer(&store, &request)).await?;
        }
        while next_request(&mut stream).await.is_some() {}
        Some(())
    })
    .await
}

/// Returns a client that has fetched 3 of 16 pieces, and the provider.
async fn interrupted(blob: &[u8]) -> (Node, Node) {
    let stopping = stopping_after(3, blob).await;
    let client = Node::client_of(&[&stopping]).await;
    let (enough, three) = async_channel::bounded(1);
    let observe = move |event| {
        if let FetchEvent::Progress { verified, .. } = event
            && verified == 3 * 65_536
        {
            let _once = enough.try_send(());
        }
    };
    let fetcher = client.fetcher(quick());
    let started = Instant::now();
    let fetching = Box::pin(fetcher.fetch(wanted(blob), named(&[&stopping]), observe));
    match select(fetching, Box::pin(three.recv())).await {
        Either::Left((result, _)) => panic!("{result:?}"),
        Either::Right((_, dropped)) => drop(dropped),
    }
    assert!(started.elapsed() < quick().step_timeout, "a piece was told of only once another one was given up");
    (client, stopping)
}

#[test]
fn a_fetch_resumes_after_a_restart_from_verified_pieces() {
    smol::block_on(async {
        let blob = bytes(1_000_000);
        let (client, _stopping) = interrupted(&blob).await;
        assert!(!client.store.contains(&ContentId::of(&blob)));
        let (server, stats) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let mut restarted = Node::client_of(&[&server]).await;
        restarted.restart_in(client.folder.path());
        let log = Log::default();
        fetch(&restarted, quick(), &blob, &[&server], &log).await.unwrap();
        assert_eq!(log.progress()[0], (3 * 65_536, 1_000_000));
        assert_eq!(stats.read().served, 1 + 13, "the proof of the size and what was missing");
        assert_eq!(client.leftovers(), 0);
    });
}

#[test]
fn a_fetch_that_is_dropped_leaves_the_store_as_it_was() {
    smol::block_on(async {
        let blob = bytes(1_000_000);
        let (client, _stopping) = interrupted(&blob).await;
        assert_eq!((client.store.iter().count(), client.leftovers()), (0, 2));
        let other = client.store.put(b"other").unwrap();
        assert_eq!(client.store.iter().map(|blob| blob.unwrap().0).collect::<Vec<_>>(), [other]);
    });
}

#[test]
fn attack_a_damaged_partial_file_is_not_stored() {
    smol::block_on(async {
        let blob = bytes(1_000_000);
        let (client, _stopping) = interrupted(&blob).await;
        let partial = client.folder.path().join("partial").join(ContentId::of(&blob).hash().to_hex().as_str());
        let mut bytes = fs::read(&partial).unwrap();
        bytes[100] ^= 1;
        fs::write(&partial, bytes).unwrap();
        let (server, stats) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let mut restarted = Node::client_of(&[&server]).await;
        restarted.restart_in(client.folder.path());
        fetch(&restarted, quick(), &blob, &[&server], &Log::default()).await.unwrap();
        assert_eq!(stats.read().served, 1 + 13 + 16, "it is fetched anew");
    });
}

type Change = fn(&mut Vec<u8>);

#[test]
fn a_torn_or_foreign_journal_is_harmless() {
    smol::block_on(async {
        let blob = bytes(1_000_000);
        // A change of the journal, and the number of pieces that are missing after it.
        let changes: [(Change, u64); 5] = [
            (|journal| journal.truncate(24 + 4 + 3), 15),
            (|journal| journal.extend([255; 4]), 13),
            (|journal| journal.clear(), 16),
            (|journal| journal[8] ^= 1, 16),
            (|journal| journal[0] ^= 1, 16),
        ];
        for (change, missing) in changes {
            let (client, _stopping) = interrupted(&blob).await;
            let path = client.folder.path().join("partial").join(ContentId::of(&blob).hash().to_hex().as_str());
            let path = path.with_extension("journal");
            let mut journal = fs::read(&path).unwrap();
            change(&mut journal);
            fs::write(&path, journal).unwrap();
            let (server, stats) = Node::serving(ServerConfig::default(), &[&blob]).await;
            let mut restarted = Node::client_of(&[&server]).await;
            restarted.restart_in(client.folder.path());
            fetch(&restarted, quick(), &blob, &[&server], &Log::default()).await.unwrap();
            assert_eq!(stats.read().served, 1 + missing);
        }
    });
}

#[test]
fn only_the_latest_unfinished_downloads_are_kept() {
    smol::block_on(async {
        let client = Node::new().await;
        let mut ids = Vec::new();
        for number in 0..40_u64 {
            let id = ContentId::of(&number.to_le_bytes());
            let (partial, done) = crate::blob::Partial::open(&client.store, &id, 100_000, 65_536).unwrap();
            assert!(done.is_empty());
            partial.write(0, 0, &[0; 65_536], &[]).unwrap();
            ids.push(id);
        }
        assert_eq!(client.leftovers(), 2 * 32);
    });
}

#[test]
fn a_store_that_cannot_be_written_ends_the_fetch() {
    smol::block_on(async {
        let blob = bytes(1_000_000);
        let (server, _) = Node::serving(ServerConfig::default(), &[&blob]).await;
        let client = Node::client_of(&[&server]).await;
        fs::remove_dir_all(client.folder.path().join("partial")).unwrap();
        let error = fetch(&client, quick(), &blob, &[&server], &Log::default()).await.unwrap_err();
        assert!(matches!(error, FetchError::Store(_)), "{error}");
        fs::create_dir(client.folder.path().join("partial")).unwrap();
        fs::remove_dir_all(client.folder.path().join("tmp")).unwrap();
        let error = fetch(&client, quick(), &blob, &[&server], &Log::default()).await.unwrap_err();
        assert!(matches!(error, FetchError::Store(_)), "{error}");
        fs::create_dir(client.folder.path().join("tmp")).unwrap();
        fetch(&client, quick(), &blob, &[], &Log::default()).await.unwrap_err();
        fetch(&client, quick(), &blob, &[&server], &Log::default()).await.unwrap();
    });
}
