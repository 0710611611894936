//! Servers of other stacks, with other habits.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use kadence_sim::{
    Habit, Link, Member, World,
    kadence::{
        node::NodeConfig,
        tracker::{ValidationError, Validator, Validators},
    },
    libp2p::kad::{Record, RecordKey},
    run,
};

use crate::finding::{MINUTE, all, config, ensure, fails_until, foreign, holds, nearby};

/// Values are digits, and a larger number is better.
struct Digits;

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl Validator for Digits {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        number(value).map(drop).ok_or_else(|| ValidationError("not a number".to_owned()))
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        number(left).cmp(&number(right))
    }
}

const KEY: &[u8] = b"/digits/key";

/// Starts nodes that validate what is under [`KEY`].
async fn validating(world: &World, nodes: usize) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..nodes {
        let mut config = NodeConfig::default().bootstrap_peers(all(&members));
        config.driver.tracker.validators = Validators::default().with("digits", Arc::new(Digits));
        members.push(Member::start(world.host(Link::default()), config).await.expect("a node starts"));
    }
    world.sleep(MINUTE).await;
    members
}

#[test]
fn a_refused_put_is_heard_within_a_second() {
    let finding = run(config(), |world| async move {
        let members = validating(&world, 3).await;
        let foreign = foreign(&world, Habit::Honest, &members);
        world.sleep(Duration::from_secs(10)).await;
        let began = world.now();
        let was_taken =
            foreign.put_at(members[1].node.local_peer_id(), KEY.to_vec(), b"no number".to_vec(), None).await;
        let took = world.now() - began;
        ensure(!was_taken && took < Duration::from_secs(1), || {
            format!("a put of an invalid record was {} after {took:?}", if was_taken { "taken" } else { "refused" })
        })
    });
    fails_until("16.12", "was refused after 10", finding.result);
}

#[test]
fn wrong_values_and_records_of_other_keys_are_not_returned() {
    let finding = run(config(), |world| async move {
        let members = validating(&world, 10).await;
        for habit in [Habit::WrongValue, Habit::WrongKey, Habit::WrongValue] {
            foreign(&world, habit, &members);
        }
        world.sleep(2 * MINUTE).await;
        members[1].node.client().put_record(Record::new(KEY.to_vec(), b"7".to_vec())).await.expect("a put");
        for member in &members {
            let found = member.node.client().get_record(KEY).best().await;
            let value = found.map(|found| found.value().to_vec());
            ensure(value.as_ref().is_ok_and(|value| value == b"7"), || format!("a get returned {value:?}"))?;
        }
        Ok(())
    });
    holds(finding.result);
}

/// litep2p keeps the record that expires later.
#[test]
fn a_holder_that_keeps_what_expires_later_is_brought_up_to_date() {
    let finding = run(nearby(), |world| async move {
        let members = validating(&world, 6).await;
        let foreign = foreign(&world, Habit::LaterExpiry, &members);
        world.sleep(2 * MINUTE).await;
        foreign.store(KEY.to_vec(), b"1".to_vec(), 1_000 * MINUTE);
        let mut newer = Record::new(KEY.to_vec(), b"2".to_vec());
        newer.expires = Some(std::time::Instant::now() + 500 * MINUTE);
        members[1].node.client().put_record(newer).await.expect("a put");
        let best = members[4].node.client().get_record(KEY).best().await.map(|found| found.value().to_vec());
        world.sleep(MINUTE).await;
        let held = foreign.value(KEY);
        ensure(held.as_deref() == Some(b"2"), || {
            format!("a get returned {best:?}, and a minute later a holder has {held:?}")
        })
    });
    fails_until("16.12", "a holder has Some([49])", finding.result);
}
