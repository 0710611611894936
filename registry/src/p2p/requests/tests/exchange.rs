//! Tests with honest peers.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::p2p::announce::MAX_AHEAD;

#[test]
fn late_joiner_pulls_the_whole_catalogue() {
    smol::block_on(async {
        let (client, peer) = honest(KnownPackages::new(&some(900))).await;
        let mut joiner = Discovered::new(6);
        let mut pages = 0;
        let take = |page: CataloguePage| {
            pages += 1;
            assert_eq!(joiner.add_page(&page, peer, now()).invalid, 0);
            ControlFlow::Continue(())
        };
        let end = client.pages(peer, Cursor::default(), take).await.unwrap();
        assert!(pages > 1, "{pages}");
        assert_eq!(joiner.len(), 900);
        assert_eq!(client.page(peer, end).await.unwrap().entries.len(), 0);
        let mut taken = 0;
        let take = |_| {
            taken += 1;
            ControlFlow::Break(())
        };
        client.pages(peer, Cursor::default(), take).await.unwrap();
        assert_eq!(taken, 1);
    });
}

#[test]
fn a_search_returns_matches_up_to_the_limit() {
    smol::block_on(async {
        let (client, peer) = honest(KnownPackages::new(&some(30))).await;
        let matches = client.matches(peer, "age-1", 100, now()).await.unwrap();
        assert_eq!((matches.announcements.len(), matches.invalid), (11, 0));
        let matches = client.matches(peer, "package", 4, now()).await.unwrap();
        assert_eq!((matches.announcements.len(), matches.invalid), (4, 0));
        assert_eq!(client.matches(peer, "nothing", 4, now()).await.unwrap(), Matches::default());
    });
}

/// The peer's clock may be ahead, so it is not to blame. But a peer that got the entry from this node would blame this node.
#[test]
fn matches_from_the_near_future_are_left_out_and_not_held_against_the_peer() {
    smol::block_on(async {
        let ahead = MAX_AHEAD.as_secs();
        let known = [("x-now", NOW + ahead), ("x-near", NOW + ahead + 1), ("x-far", NOW + 2 * ahead + 1)];
        let known = known.map(|(name, published_at)| signed(name, published_at));
        let (client, peer) = honest(KnownPackages::new(&known)).await;
        let matches = client.matches(peer, "x-", 100, now()).await.unwrap();
        assert_eq!(matches.announcements, [known[0].clone()]);
        assert_eq!(matches.invalid, 1);
    });
}

#[test]
fn invalid_requests_are_not_sent() {
    smol::block_on(async {
        let (client, peer) = honest(KnownPackages::new(&[])).await;
        let long = "t".repeat(MAX_TEXT_LEN + 1);
        for (text, limit, error) in [
            (long.as_str(), 1, CatalogueRequestError::TextTooLong { len: MAX_TEXT_LEN + 1 }),
            ("t", 0, CatalogueRequestError::Limit { limit: 0 }),
            ("t", MAX_MATCHES + 1, CatalogueRequestError::Limit { limit: MAX_MATCHES + 1 }),
        ] {
            let result = client.matches(peer, text, limit, now()).await;
            assert!(matches!(result, Err(CatalogueClientError::Request(found)) if found == error), "{result:?}");
        }
    });
}

#[test]
fn a_peer_without_a_catalogue_is_unsupported() {
    smol::block_on(async {
        let (client, peer) = connected(|_| {}, Duration::from_secs(30)).await;
        let result = client.page(peer, Cursor::default()).await;
        assert!(matches!(result, Err(CatalogueClientError::Unsupported)), "{result:?}");
        let result = client.page(PeerId::random(), Cursor::default()).await;
        assert!(matches!(result, Err(CatalogueClientError::Stream(_))), "{result:?}");
        assert!(format!("{client:?}").contains("timeout"));
    });
}

#[test]
fn attack_spam_a_peer_that_asks_too_often_gets_busy() {
    smol::block_on(async {
        let (client, peer) = honest(KnownPackages::new(&some(1))).await;
        let (mut answered, mut refused) = (0, 0);
        // 64 at once, then one more each second.
        for _ in 0..200 {
            match client.page(peer, Cursor::default()).await {
                Ok(_) => answered += 1,
                Err(CatalogueClientError::Busy) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(answered >= 64 && refused >= 100, "{answered} answered, {refused} refused");
    });
}

#[test]
fn attack_silent_streams_of_one_peer_take_no_slots_from_others() {
    smol::block_on(async {
        let (peer, address) = listening(|mut control| {
            let incoming = control.accept(CATALOGUE_PROTOCOL).unwrap();
            smol::spawn(serve_catalogue(TestRuntime, incoming, KnownPackages::new(&some(1)))).detach();
        })
        .await;
        let silent = asker(address.clone(), Duration::from_secs(30)).await;
        let mut streams = Vec::new();
        // Twice as many as are answered at a time.
        for _ in 0..64 {
            streams.push(silent.control().open_stream(peer, CATALOGUE_PROTOCOL).await.unwrap());
        }
        let other = asker(address, Duration::from_secs(10)).await;
        assert_eq!(other.page(peer, Cursor::default()).await.unwrap().entries.len(), 1);
        drop(streams);
    });
}

#[test]
fn a_peer_with_too_many_streams_is_refused_before_it_sends_a_request() {
    smol::block_on(async {
        let (client, peer) = honest(KnownPackages::new(&some(1))).await;
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(client.control().open_stream(peer, CATALOGUE_PROTOCOL).await.unwrap());
        }
        let result = client.page(peer, Cursor::default()).await;
        assert!(matches!(result, Err(CatalogueClientError::Busy)), "{result:?}");
        let mut stream = client.control().open_stream(peer, CATALOGUE_PROTOCOL).await.unwrap();
        assert_eq!(wire::read_answer(&mut stream).await.unwrap(), None);
        drop(silent);
    });
}

#[test]
fn requests_are_decoded_as_they_were_encoded() {
    let requests = [
        CatalogueRequest::Page(Cursor::from_bytes([7; 16])),
        CatalogueRequest::Matches { text: String::new(), limit: 1 },
        CatalogueRequest::Matches { text: "ä".repeat(MAX_TEXT_LEN / 2), limit: MAX_MATCHES },
    ];
    for request in requests {
        assert_eq!(CatalogueRequest::decode(&request.encode().unwrap()), Ok(request));
    }
    for bytes in [[].as_slice(), &[0], &[1, 2, 3], &[1; 18], &[2], &[2, 0], &[2, 0, 1, 0xff], &[3, 0, 1]] {
        assert_eq!(CatalogueRequest::decode(bytes), Err(CatalogueRequestError::Malformed), "{bytes:?}");
    }
    assert_eq!(CatalogueRequest::decode(&[2, 0, 0]), Err(CatalogueRequestError::Limit { limit: 0 }));
}

proptest! {
    #[test]
    fn any_bytes_are_a_question_that_is_written_the_same_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(request) = CatalogueRequest::decode(&bytes) {
            prop_assert_eq!(request.encode().unwrap(), bytes);
        }
    }
}
