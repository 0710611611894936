//! Tests with peers that violate the protocol.

use std::{io, ops::ControlFlow};

use futures::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::p2p::announce::{CatalogueError, MAX_PAGES};

const LONG: Duration = Duration::from_secs(30);

/// Encodes an answer as an honest server does.
fn framed(page: &CataloguePage) -> Vec<u8> {
    let page = page.encode();
    let len = u32::try_from(page.len()).unwrap();
    [[0].as_slice(), &len.to_be_bytes(), &page].concat()
}

#[test]
fn attack_oversize_answer_is_rejected_by_its_length() {
    smol::block_on(async {
        // Nothing follows the length.
        let (client, peer) = liar(Some([0, 0xff, 0xff, 0xff, 0xff].into()), LONG).await;
        let result = client.page(peer, Cursor::default()).await;
        assert!(matches!(result, Err(CatalogueClientError::InvalidPage(CatalogueError::Malformed))), "{result:?}");
    });
}

#[test]
fn an_invalid_answer_is_bad_data_and_a_truncated_one_is_a_broken_stream() {
    smol::block_on(async {
        for bytes in [vec![7], [[0, 0, 0, 0, 3].as_slice(), &[9, 9, 9]].concat()] {
            let (client, peer) = liar(Some(bytes), LONG).await;
            let result = client.page(peer, Cursor::default()).await;
            assert!(matches!(result, Err(CatalogueClientError::InvalidPage(_))), "{result:?}");
        }
        let (client, peer) = liar(Some(vec![0, 0, 0, 0, 3, 1]), LONG).await;
        let result = client.page(peer, Cursor::default()).await;
        assert!(matches!(result, Err(CatalogueClientError::Stream(_))), "{result:?}");
    });
}

#[test]
fn attack_silent_peer_costs_one_timeout() {
    smol::block_on(async {
        let (client, peer) = liar(None, Duration::from_millis(30)).await;
        let started = Instant::now();
        let result = client.page(peer, Cursor::default()).await;
        assert!(matches!(result, Err(CatalogueClientError::Timeout)), "{result:?}");
        assert!(started.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn attack_endless_catalogue_ends() {
    smol::block_on(async {
        let page = CataloguePage { has_more: true, next: Cursor::from_bytes([1; 16]), entries: Vec::new() };
        let (client, peer) = liar(Some(framed(&page)), LONG).await;
        let mut pages = 0;
        let take = |_| {
            pages += 1;
            ControlFlow::Continue(())
        };
        let result = client.pages(peer, Cursor::default(), take).await;
        assert!(matches!(result, Err(CatalogueClientError::Endless)), "{result:?}");
        assert!(pages <= MAX_PAGES);
    });
}

#[test]
fn attack_forged_matches_are_counted_and_not_returned() {
    smol::block_on(async {
        let mut forged = signed("forged", NOW).bytes().to_owned();
        *forged.last_mut().unwrap() ^= 1;
        let good = signed("good", NOW);
        let entries = vec![
            forged,
            good.bytes().to_owned(),
            signed("future", NOW + 86_400).bytes().to_owned(),
            signed("one-too-many", NOW).bytes().to_owned(),
        ];
        let (client, peer) = liar(Some(framed(&CataloguePage { entries, ..CataloguePage::default() })), LONG).await;
        let matches = client.matches(peer, "text", 3, now()).await.unwrap();
        assert_eq!(matches, Matches { announcements: vec![good], invalid: 3 });
    });
}

#[test]
fn a_server_survives_malformed_requests() {
    smol::block_on(async {
        let (client, peer) = honest(KnownPackages::new(&some(3))).await;
        for question in [[0xff, 0xff].as_slice(), &[0, 1, 9], &[0, 0], &[0, 9, 1]] {
            let mut control = client.control();
            let mut stream = control.open_stream(peer, CATALOGUE_PROTOCOL).await.unwrap();
            stream.write_all(question).await.unwrap();
            stream.close().await.unwrap();
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer).await {
                Ok(_) | Err(_) => assert!(answer.is_empty(), "{question:?}"),
            }
        }
        assert_eq!(client.page(peer, Cursor::default()).await.unwrap().entries.len(), 3);
    });
}

#[test]
fn errors_of_streams_are_told_apart() {
    let unsupported = libp2p_stream::OpenStreamError::UnsupportedProtocol(CATALOGUE_PROTOCOL);
    assert!(matches!(CatalogueClientError::from(unsupported), CatalogueClientError::Unsupported));
    let broken = libp2p_stream::OpenStreamError::Io(io::ErrorKind::BrokenPipe.into());
    assert!(matches!(CatalogueClientError::from(broken), CatalogueClientError::Stream(_)));
}
