//! Tests with many calls at once. On a slow machine some fail with an error that allows a retry; none may have a wrong
//! result.

use futures::future::join_all;

use super::{network::Peer, *};
use crate::{GetError, PackageId, PublishError, Query, Registry};

/// Returns whether the error is temporary: an overload or a timeout.
fn is_for_now(error: &GetError) -> bool {
    matches!(
        error,
        GetError::Inconclusive { .. } | GetError::Timeout { .. } | GetError::Overloaded | GetError::Unavailable { .. }
    )
}

/// Repeats a call as long as it fails with a temporary error.
async fn insist<T>(mut ask: impl AsyncFnMut() -> Result<T, GetError>) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(is_for_now(&error), "{error:?}"),
        }
    }
}

async fn publish(publisher: &Peer, name: &str) -> PackageId {
    let source = format!("name = \"{name}\"\nversion = \"1.0.0\"\ntitle = \"Loaded {name}\"\n");
    let (release, _dir) = release(publisher.id(), &source, &[("name", name.as_bytes())]).await;
    loop {
        match publisher.registry.publish(release.clone()).await {
            Ok(receipt) => return receipt.package,
            Err(PublishError::Failed { .. }) => {}
            Err(PublishError::Versions(error)) => assert!(is_for_now(&error), "{error:?}"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn is_there(reader: &Peer, id: &PackageId) {
    let package = insist(async || reader.registry.get_package(id).await).await.unwrap();
    assert_eq!((package.id(), package.version().to_string().as_str()), (id, "1.0.0"));
    assert_eq!(package.metadata().title, format!("Loaded {}", id.name()));
}

#[test]
fn many_callers_read_existing_and_missing_packages() {
    within(async {
        let network = Network::start(8).await;
        let packages = join_all(network.peers.iter().map(|peer| publish(peer, "here"))).await;
        let callers = (0..64).map(async |caller: usize| {
            let reader = &network.peers[caller % 8];
            for (number, id) in packages.iter().enumerate() {
                is_there(reader, id).await;
                let missing = format!("missing{}", number % 3).parse().unwrap();
                let missing = PackageId::new(id.publisher(), missing).unwrap();
                assert_eq!(insist(async || reader.registry.get_package(&missing).await).await, None);
            }
        });
        join_all(callers).await;
    });
}

#[test]
fn a_thousand_calls_of_all_kinds_end_and_nothing_is_lost() {
    within(async {
        let network = Network::start(8).await;
        let packages = join_all(network.peers.iter().map(|peer| publish(peer, "here"))).await;
        let query = Query::text("loaded").unwrap();
        let calls = (0..1000).map(async |number: usize| {
            let (peer, id) = (&network.peers[number % 8], &packages[(number / 8) % 8]);
            match number % 20 {
                0 => return Some(publish(peer, &format!("new{number}")).await),
                1..=5 => assert!(peer.registry.search(&query).await.unwrap().total > 0),
                6..=7 => assert!(peer.registry.search_network(&query).await.unwrap().total > 0),
                8..=11 => {
                    let versions = insist(async || peer.registry.list_versions(id).await).await;
                    assert_eq!(versions.unwrap().len(), 1);
                }
                12..=13 => assert!(!insist(async || peer.registry.exists(&peer.package("missing")).await).await),
                _ => is_there(peer, id).await,
            }
            None
        });
        let published: Vec<_> = join_all(calls).await.into_iter().flatten().collect();
        assert_eq!(published.len(), 50);
        for (number, id) in published.iter().enumerate() {
            is_there(&network.peers[(number * 3 + 1) % 8], id).await;
            let head = network.peers[(number * 20) % 8].registry.head_store().checkpoint(id).unwrap().unwrap();
            // Even after several attempts.
            assert_eq!(head.seq, 1);
        }
    });
}
