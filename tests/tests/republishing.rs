//! kad's republishing continues under load. kad pauses it silently while 100 queries are running.

#![cfg(test)]

use std::time::{Duration, Instant};

use futures::future::join_all;
use kadence_tests::{
    Node, NodeConfig, TokioMultiThread, TransportKind, run,
    suite::support::{key, record},
    with_kad,
};
use libp2p::kad::store::RecordStore;

/// Records of the publisher.
const OWN: usize = 20;

/// Gets of other records that run while the publisher's records are due, and the number of concurrent ones: more than
/// kad could handle.
const GETS: usize = 5_000;
const AT_ONCE: usize = 500;

/// Every tenth of the requested records exists.
const STEP: usize = 10;

/// Interval of republishing: records are due after the load has started.
const INTERVAL: Duration = Duration::from_secs(4);

/// Maximum duration of the load.
const MAX_DURATION: Duration = Duration::from_secs(40);

/// Returns the number of the publisher's records that some server holds.
async fn count_republished(servers: &[Node]) -> usize {
    let mut there = 0;
    for n in 0..OWN {
        let key = key(&format!("own {n}"));
        let copies = join_all(servers.iter().map(|server| server.local_record(&key))).await;
        there += usize::from(copies.iter().any(Option::is_some));
    }
    there
}

#[test]
fn own_records_are_republished_while_thousands_are_read() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let mut config = NodeConfig::default();
        config.kad.set_replication_interval(Some(INTERVAL)).set_publication_interval(Some(INTERVAL));
        config.driver.tracker.max_queued = GETS;
        let (publisher, servers) = env.client_with_peers(config, 3).await;
        for server in &servers {
            let records = (0..GETS).step_by(STEP).map(|n| record(&format!("{n}"), "value"));
            server.store_all_locally(records).await;
        }
        for n in 0..OWN {
            publisher.client.put_record(record(&format!("own {n}"), "value")).await.unwrap();
        }
        // Only the publisher still has its records. A copy on a server has therefore been republished.
        for server in &servers {
            with_kad(&server.swarm, |kad| {
                for n in 0..OWN {
                    kad.store_mut().remove(&key(&format!("own {n}")));
                }
            })
            .await;
        }

        let begun = Instant::now();
        let (mut asked, mut republished) = (0, 0);
        while asked < GETS || republished < OWN {
            assert!(begun.elapsed() < MAX_DURATION, "{republished} of {OWN} republished during {asked} gets");
            let gets = (asked..asked + AT_ONCE).map(|n| {
                let get = publisher.client.get_record(key(&format!("{}", n % GETS)));
                async move { (n, get.await.is_ok()) }
            });
            for (n, found) in join_all(gets).await {
                assert_eq!(found, n % STEP == 0, "record {n}");
            }
            asked += AT_ONCE;
            republished = count_republished(&servers).await;
        }
    });
}
