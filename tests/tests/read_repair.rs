//! Read repair: the newest record wins, and the peers that hold older ones receive it.

#![cfg(test)]

use std::{cmp::Ordering, sync::Arc};

use kadence::{ValidationError, Validator, Validators};
use kadence_tests::{NodeConfig, TestEnv, TestRuntime, TokioMultiThread, TransportKind, run, suite::support::key};
use libp2p::kad::{Record, RecordKey};

/// Validator: the record with the greater bytes is better.
#[derive(Debug)]
struct Newest;

impl Validator for Newest {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        if value.is_empty() { Err(ValidationError("empty".to_owned())) } else { Ok(()) }
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        left.cmp(right)
    }
}

const HOLDERS: usize = 20;

#[test]
fn the_newest_of_20_records_wins_and_repairs_the_19_older_ones() {
    run::<TokioMultiThread>(TransportKind::Memory, the_newest_wins);
}

async fn the_newest_wins<R: TestRuntime>(env: &TestEnv<R>) {
    let mut config = NodeConfig::default();
    config.driver.tracker.validators = Validators::default().with("v", Arc::new(Newest));
    let (asker, holders) = env.client_with_peers(config, HOLDERS).await;
    let name = key("/v/head");
    for (at, holder) in holders.iter().enumerate() {
        let value = if at == 7 { "2, the newest" } else { "1, an older one" };
        holder.store_locally(Record::new(name.clone(), value.as_bytes().to_vec())).await;
    }
    let answer = asker.client.get_record(name.clone()).best().await.unwrap();
    assert_eq!(answer.value(), b"2, the newest");
    assert_eq!((answer.dissenting, answer.repairing), (HOLDERS - 1, HOLDERS - 1));
    // Read repair runs in the background, after the answer.
    env.wait_until(async || {
        for holder in &holders {
            if holder.local_record(&name).await.is_none_or(|record| record.value != b"2, the newest") {
                return false;
            }
        }
        true
    })
    .await;
    assert_eq!(asker.client.stats().await.unwrap().read_repairs, 1);
}
