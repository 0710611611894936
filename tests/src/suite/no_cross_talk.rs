//! Every caller gets the result of its own query.

use futures::{FutureExt, future::join_all};
use kadence::{GetProvidersError, GetRecordError};
use libp2p::kad::KBucketKey;

use super::support::{collect, key, peers, record, sorted};
use crate::{TestEnv, TestRuntime};

pub async fn concurrent_calls_of_all_kinds_each_get_their_own_answer<R: TestRuntime>(env: &TestEnv<R>) {
    const ROUNDS: usize = 24;
    let (client, others) = env.client_with_peers(Default::default(), 5).await;
    for round in 0..ROUNDS {
        others[round % 5].store_locally(record(&format!("key {round}"), format!("value {round}"))).await;
    }
    others[0].client.start_providing(key("provided")).await.unwrap();
    for other in &others[1..] {
        env.wait_until(async || !other.local_providers(&key("provided")).await.is_empty()).await;
    }

    let (client, everybody, provider) = (&client.client, &peers(&others), others[0].peer());
    let mut calls = Vec::new();
    for round in 0..ROUNDS {
        let found = async move {
            let answer = client.get_record(key(&format!("key {round}"))).await.unwrap();
            assert_eq!(answer.value(), format!("value {round}").as_bytes());
        };
        let missing = async move {
            let result = client.get_record(key(&format!("missing {round}"))).await;
            assert!(matches!(result, Err(GetRecordError::NotFound { .. })), "{result:?}");
        };
        let provided = async move {
            let answer = client.get_providers(key("provided")).await.unwrap();
            assert_eq!(*answer.providers, [provider]);
        };
        let unprovided = async move {
            let result = client.get_providers(key(&format!("unprovided {round}"))).await;
            assert!(matches!(result, Err(GetProvidersError::NotFound { .. })), "{result:?}");
        };
        let closest = async move {
            let name = format!("target {round}");
            let answer = client.get_closest_peers(key(&name)).await.unwrap();
            let target = KBucketKey::from(key(&name).to_vec());
            let mut expected = everybody.clone();
            expected.sort_by_key(|peer| target.distance(&KBucketKey::from(*peer)));
            assert_eq!(answer.peers.iter().map(|info| info.peer_id).collect::<Vec<_>>(), expected);
        };
        let stored = async move {
            let answer = client.put_record(record(&format!("put {round}"), format!("{round}"))).await.unwrap();
            assert_eq!(&sorted(answer.acknowledged), everybody);
        };
        calls.extend([
            found.boxed(),
            missing.boxed(),
            provided.boxed(),
            unprovided.boxed(),
            closest.boxed(),
            stored.boxed(),
        ]);
    }
    join_all(calls).await;
    for other in &others {
        for round in 0..ROUNDS {
            let stored = other.local_record(&key(&format!("put {round}"))).await.unwrap();
            assert_eq!(stored.value, format!("{round}").as_bytes());
        }
    }
    env.wait_until_idle(client).await;
}

pub async fn callers_of_one_key_with_different_policies_each_get_what_they_asked_for<R: TestRuntime>(env: &TestEnv<R>) {
    let (client, others) = env.client_with_peers(Default::default(), 5).await;
    for other in &others {
        other.store_locally(record("shared", other.peer().to_bytes())).await;
    }
    let client = &client.client;
    let callers = (0..8).map(|_| async {
        let first = client.get_record(key("shared")).into_future();
        let limited = client.get_record(key("shared")).limit(3).into_future();
        let all = client.get_record(key("shared")).all().into_future();
        let streamed = collect(client.get_record(key("shared")).all().stream());
        let (first, limited, all, (items, lagged, end)) = futures::join!(first, limited, all, streamed);
        assert_eq!(first.unwrap().iter().count(), 1);
        let limited = limited.unwrap();
        assert_eq!(limited.iter().count(), 3);
        let all = all.unwrap();
        let sources = all.iter().map(|found| found.peer.unwrap());
        assert_eq!(sorted(sources), peers(&others));
        for found in limited.iter().chain(all.iter()) {
            assert_eq!(found.record.value, found.peer.unwrap().to_bytes(), "each record names the peer that sent it");
        }
        assert_eq!((items.len(), lagged, end.unwrap().iter().count()), (5, 0, 5));
    });
    join_all(callers).await;
    env.wait_until_idle(client).await;
}
