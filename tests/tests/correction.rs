//! Old records among the holders: the newest wins, and the others get it.

#![cfg(test)]

use std::{cmp::Ordering, sync::Arc};

use kadence::{ValidationError, Validator, Validators};
use kadence_tests::{Bed, NodeConfig, TestRuntime, TokioMultiThread, Wire, run, suite::support::key};
use libp2p::kad::{Record, RecordKey};

/// A record is the better, the greater its bytes.
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
fn where_19_of_20_serve_an_older_record_the_newest_wins_and_all_of_them_get_it() {
    run::<TokioMultiThread>(Wire::Memory, the_newest_wins);
}

async fn the_newest_wins<R: TestRuntime>(bed: &Bed<R>) {
    let mut config = NodeConfig::default();
    config.driver.tracker.validators = Validators::default().with("v", Arc::new(Newest));
    let (asker, holders) = bed.client_of(config, HOLDERS).await;
    let name = key("/v/head");
    for (at, holder) in holders.iter().enumerate() {
        let value = if at == 7 { "2, the newest" } else { "1, an older one" };
        holder.holds(Record::new(name.clone(), value.as_bytes().to_vec())).await;
    }
    let answer = asker.client.get_record(name.clone()).best().await.unwrap();
    assert_eq!(answer.value(), b"2, the newest");
    assert_eq!((answer.dissenting, answer.repairing), (HOLDERS - 1, HOLDERS - 1));
    // In the background: the answer was there before.
    bed.until(async || {
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
