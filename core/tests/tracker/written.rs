//! Reads after writes: a read never joins a query that started before a write of the local node under its key began or
//! ended. So it is not answered with the state before the write.

use kadence_core::{Operation, Outcome, Policy, Priority, QueryStartError, RequestOptions, Retry, TrackerConfig};
use libp2p::kad::QueryResult;

use crate::support::*;

/// A write under the key `k`: the three operations, and a change of the local store by the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Put,
    PutTo,
    Provide,
    Local,
}

const WRITES: [Write; 4] = [Write::Put, Write::PutTo, Write::Provide, Write::Local];

/// Those that take time.
const OPERATIONS_THAT_WRITE: [Write; 3] = [Write::Put, Write::PutTo, Write::Provide];

impl Write {
    /// Begins the write as this request. A change of the local store has ended as well.
    fn begin(self, h: &mut Harness, request: u64) {
        self.begin_of(h, request, RequestOptions::default());
    }

    fn begin_of(self, h: &mut Harness, request: u64, options: RequestOptions) {
        match self {
            Self::Put => h.request_with(request, put("k", n(1)), options),
            Self::PutTo => h.request_with(request, put_to("k", peers([1]), n(1)), options),
            Self::Provide => h.request_with(request, provide("k"), options),
            Self::Local => h.written(key("k")),
        }
    }

    /// Lets the write succeed. Its first query is the oldest one to start, and nobody is ahead of the others.
    fn succeed(self, h: &mut Harness, request: u64) {
        match self {
            Self::Put => {
                let lookup = h.start();
                h.ev(lookup, closest_found([1]), true);
                let store = h.start();
                h.ev(store, put_ok(), true);
                h.stored(request, Ok(()));
            }
            Self::PutTo => {
                let store = h.start();
                h.ev(store, put_ok(), true);
            }
            Self::Provide => {
                let announcement = h.start();
                h.ev(announcement, provide_ok(), true);
            }
            Self::Local => return,
        }
        assert_eq!(h.ending(request), "Ok", "{self:?}");
    }
}

/// A read of the key `k` that is satisfied by the first item, or by the end of its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Record,
    Providers,
}

const READS: [Read; 2] = [Read::Record, Read::Providers];

impl Read {
    fn of(self, name: &str, policy: Policy) -> Operation {
        match self {
            Self::Record => get_record(name, policy),
            Self::Providers => get_providers(name, policy),
        }
    }

    /// A read of everything.
    fn all(self) -> Operation {
        self.of("k", Policy::All)
    }

    /// A read that one item satisfies.
    fn first(self) -> Operation {
        self.of("k", Policy::First)
    }

    /// An item that names `n`: a record with this value, or this provider.
    fn item(self, n: u8) -> QueryResult {
        match self {
            Self::Record => found("k", n, &[n]),
            Self::Providers => providers([n]),
        }
    }

    fn finished(self) -> QueryResult {
        match self {
            Self::Record => records_finished(),
            Self::Providers => providers_finished(),
        }
    }

    /// Items of an answer.
    fn answer(self, h: &Harness, request: u64) -> Vec<u8> {
        match h.outcome(request) {
            Outcome::GetRecord(Ok(answer)) => answer.iter().map(|found| found.record.value[0]).collect(),
            Outcome::GetProviders(Ok(answer)) => (0..=255).filter(|n| answer.providers.contains(&peer(*n))).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Asserts that one more query starts for this request, and lets it find `n` and end.
    #[track_caller]
    fn assert_own_query(self, h: &mut Harness, request: u64, n: u8) {
        assert!(!h.ended(request), "#{request} was answered from before: {:?}", h.outcome(request));
        assert_eq!(h.starts.len(), 1, "a query of its own");
        assert_eq!(h.starts[0].request.0, request);
        let id = h.start();
        h.ev(id, self.item(n), false);
        if !h.ended(request) {
            h.ev(id, self.finished(), true);
        }
        assert_eq!(self.answer(h, request), [n]);
    }
}

/// A read that has started and has found 1.
fn running(read: Read) -> (Harness, u32) {
    let mut h = Harness::default();
    h.request(1, read.all());
    let id = h.start();
    h.ev(id, read.item(1), false);
    (h, id)
}

/// Every combination of a read and a write.
fn pairs(writes: &[Write]) -> impl Iterator<Item = (Read, Write)> {
    READS.into_iter().flat_map(|read| writes.iter().map(move |write| (read, *write)))
}

#[test]
fn a_read_after_a_write_is_not_answered_from_before_it() {
    for (read, write) in pairs(&WRITES) {
        for fresh in [false, true] {
            let (mut h, before) = running(read);
            h.now = secs(5);
            write.begin(&mut h, 2);
            write.succeed(&mut h, 2);
            h.now = secs(10);
            h.request_with(3, read.first(), RequestOptions::default().fresh(fresh));
            read.assert_own_query(&mut h, 3, 2);

            // The read from before the write goes on with what it finds.
            h.ev(before, read.item(3), false);
            h.ev(before, read.finished(), true);
            assert_eq!(read.answer(&h, 1), [1, 3], "{read:?}, {write:?}");
        }
    }
}

/// A write takes effect at some peer as soon as it is sent, and a caller may learn of that in other ways.
#[test]
fn a_read_during_a_write_is_not_answered_from_before_it() {
    for (read, write) in pairs(&OPERATIONS_THAT_WRITE) {
        let (mut h, _) = running(read);
        write.begin(&mut h, 2);
        h.start();
        h.request(3, read.first());
        read.assert_own_query(&mut h, 3, 2);
    }
}

#[test]
fn a_read_that_started_during_a_write_is_not_joined_after_the_write_has_ended() {
    for (read, write) in pairs(&OPERATIONS_THAT_WRITE) {
        let mut h = Harness::default();
        write.begin(&mut h, 1);
        h.request(2, read.all());
        // During the write, reads share.
        h.request(3, read.all());
        assert_eq!(h.starts.len(), 2);
        let reading = h.starts.remove(1).unwrap();
        write.succeed(&mut h, 1);
        h.starts.push_front(reading);
        let during = h.start();
        h.ev(during, read.item(1), false);
        h.request(4, read.first());
        read.assert_own_query(&mut h, 4, 2);
        h.ev(during, read.finished(), true);
        assert_eq!([2, 3].map(|request| read.answer(&h, request)), [[1], [1]], "{read:?}, {write:?}");
    }
}

/// A read that started between two changes of the local store may have seen the first of them only.
#[test]
fn a_read_that_started_between_two_changes_of_the_local_store_is_not_joined_after_the_second() {
    for read in READS {
        let mut h = Harness::default();
        h.written(key("k"));
        h.request(1, read.all());
        let between = h.start();
        h.ev(between, read.item(1), false);
        h.request(2, read.all());
        assert!(h.starts.is_empty());
        h.written(key("k"));
        h.request(3, read.first());
        read.assert_own_query(&mut h, 3, 2);
    }
}

/// It does not matter whether a write has succeeded: some peers may have it, and the caller may look which.
#[test]
fn a_write_that_fails_ends_the_sharing_as_well() {
    type End = fn(&mut Harness);
    let ends: [(End, &str); 3] = [
        (|h| h.cancel(1), "Cancelled"),
        (|h| h.tick(secs(5)), "Timeout"),
        (|h| h.refuse(QueryStartError::NoKnownPeers), "NoKnownPeers"),
    ];
    for (read, write) in pairs(&OPERATIONS_THAT_WRITE) {
        for (end, ending) in ends {
            let mut h = Harness::default();
            write.begin_of(&mut h, 1, RequestOptions::default().timeout(secs(5)));
            h.request(2, read.all());
            let reading = h.starts.pop_back().unwrap();
            if ending != "NoKnownPeers" {
                h.start();
            }
            end(&mut h);
            assert_eq!(h.ending(1), ending, "{read:?}, {write:?}");
            h.starts.push_front(reading);
            let during = h.start();
            h.ev(during, read.item(1), false);
            h.request(3, read.first());
            read.assert_own_query(&mut h, 3, 2);
        }
    }
}

/// kad writes a local entry for an announcement, and a failed announcement takes it back: that is a change, too.
#[test]
fn a_read_that_started_before_a_failed_announcement_was_taken_back_is_not_joined() {
    // Between two attempts,
    let mut h = Harness::default();
    let retry = Retry::default().base(secs(1)).jitter_percent(0);
    h.request_with(1, provide("k"), RequestOptions::default().retry(retry));
    let announcement = h.start();
    h.request(2, Read::Providers.all());
    let during = h.start();
    h.ev(during, providers([255]), false);
    h.ev(announcement, provide_timeout(), true);
    assert_eq!((h.stopped.as_slice(), h.ended(1)), (&[key("k")][..], false));
    h.request(3, Read::Providers.first());
    Read::Providers.assert_own_query(&mut h, 3, 2);

    // and after an announcement that nobody waited for any more when kad started it.
    let mut h = Harness::default();
    h.request(1, provide("k"));
    h.cancel(1);
    h.request(2, Read::Providers.all());
    let starting = h.starts.pop_front().unwrap();
    let during = h.start();
    h.ev(during, providers([255]), false);
    h.request(3, Read::Providers.all());
    assert!(h.starts.is_empty(), "it is shared until then");
    h.starts.push_front(starting);
    h.start();
    assert_eq!(h.stopped, [key("k")]);
    h.request(4, Read::Providers.first());
    Read::Providers.assert_own_query(&mut h, 4, 2);
}

/// After the application has stopped to provide a key, a read does not name the local peer any more.
#[test]
fn a_read_after_stop_providing_does_not_name_the_local_peer() {
    for fresh in [false, true] {
        let mut h = Harness::default();
        h.request(1, get_providers("k", Policy::All));
        let id = h.start();
        h.ev(id, providers([255]), false);
        h.written(key("k"));
        h.request_with(2, get_providers("k", Policy::First), RequestOptions::default().fresh(fresh));
        Read::Providers.assert_own_query(&mut h, 2, 2);
        h.ev(id, providers_finished(), true);
        assert_eq!(Read::Providers.answer(&h, 1), [255]);
    }
}

#[test]
fn two_reads_after_a_write_share_one_query_again() {
    for (read, write) in pairs(&WRITES) {
        let (mut h, before) = running(read);
        write.begin(&mut h, 2);
        write.succeed(&mut h, 2);
        h.request(3, read.all());
        h.request(4, read.all());
        assert_eq!(h.starts.len(), 1, "{read:?}, {write:?}");
        let after = h.start();
        h.request(5, read.all());
        assert!(h.starts.is_empty());
        // The end of the query from before the write does not end the sharing of the one after it.
        h.ev(before, read.finished(), true);
        h.request(6, read.all());
        assert!(h.starts.is_empty());
        h.ev(after, read.item(2), false);
        h.ev(after, read.finished(), true);
        assert_eq!([1, 3, 4, 5, 6].map(|request| read.answer(&h, request)), [[1], [2], [2], [2], [2]]);
        h.assert_empty();
    }
}

/// A query that waits for a slot will see the write, so it is shared across it.
#[test]
fn a_read_that_waits_for_a_slot_is_shared_with_a_read_after_a_write() {
    for (read, write) in pairs(&WRITES) {
        // While interactive requests wait, there is one start of the lowest class for very many of theirs.
        let mut h = Harness::new(TrackerConfig::default().max_running(1).shares([27_720, 1, 1]));
        let interactive = RequestOptions::default().priority(Priority::Interactive);
        h.request_of(100, closest("warm up"), Priority::Background);
        let first = h.start();
        h.ev(first, closest_found([1]), true);
        h.request_with(101, closest("busy"), interactive);
        let busy = h.start();

        h.request_of(1, read.all(), Priority::Background);
        write.begin_of(&mut h, 2, interactive);
        h.request_with(102, closest("busy as well"), interactive);
        // During the write,
        h.request_of(3, read.all(), Priority::Background);
        h.ev(busy, closest_found([1]), true);
        write.succeed(&mut h, 2);
        // and after it.
        h.request_of(4, read.all(), Priority::Background);
        let fresh = RequestOptions::default().priority(Priority::Background).fresh(true);
        h.request_with(5, read.all(), fresh);
        assert_eq!(h.starts[0].request.0, 102, "the read has not started yet: {read:?}, {write:?}");
        let busy = h.start();
        h.ev(busy, closest_found([1]), true);
        assert_eq!(h.starts.len(), 1);
        let id = h.start();
        h.ev(id, read.item(2), false);
        h.ev(id, read.finished(), true);
        assert_eq!([1, 3, 4, 5].map(|request| read.answer(&h, request)), [[2], [2], [2], [2]]);
        h.assert_empty();
    }
}

/// A fresh read asks the network after its acceptance, and a query that waits for a slot does as well.
#[test]
fn a_fresh_read_joins_a_query_that_waits_and_never_one_that_has_started() {
    for read in READS {
        let mut h = Harness::one_slot();
        h.get(100, "busy");
        let busy = h.start();
        h.request(1, read.all());
        h.fresh(2, read.all());
        h.ev(busy, records_finished(), true);
        // It has a slot now, although kad has not started it yet.
        h.fresh(3, read.all());
        assert_eq!((h.starts.len(), h.starts[0].request.0), (1, 1));
        let shared = h.start();
        // Without the option, a read joins the latest query, which waits.
        h.request(4, read.all());
        h.fresh(5, read.all());
        h.ev(shared, read.item(1), false);
        h.ev(shared, read.finished(), true);
        assert_eq!([1, 2].map(|request| read.answer(&h, request)), [[1], [1]]);
        let second = h.start();
        assert!(h.starts.is_empty());
        h.ev(second, read.item(2), false);
        h.ev(second, read.finished(), true);
        assert_eq!([3, 4, 5].map(|request| read.answer(&h, request)), [[2], [2], [2]]);
        h.assert_empty();
    }
}

/// A read of another key, or of the closest peers, has nothing to do with the write.
#[test]
fn a_write_leaves_other_queries_shared() {
    for (read, write) in pairs(&WRITES) {
        let others = [read.of("other", Policy::All), read.of("", Policy::All), closest("other")];
        let mut h = Harness::default();
        for (request, other) in (10..).zip(&others) {
            h.request(request, other.clone());
            h.start();
        }
        write.begin(&mut h, 2);
        write.succeed(&mut h, 2);
        for (request, other) in (20..).zip(others) {
            h.request(request, other);
        }
        assert!(h.starts.is_empty(), "{read:?}, {write:?}");
    }
}

/// A read repair sends what readers have found, so readers of the key need not see it.
#[test]
fn a_read_repair_does_not_end_the_sharing() {
    let best = || get_record("/v/k", Policy::Best { agree: None });
    let mut h = Harness::watching(validating().stall(None));
    h.request(1, best());
    let id = h.start();
    h.ev(id, found("/v/k", 1, &[1]), false);
    h.ev(id, found("/v/k", 2, &[2]), false);
    h.ev(id, records_finished(), true);
    assert_eq!(h.tracker.stats().read_repairs, 1);
    h.request(2, best());
    let repair = h.start();
    let after = h.start();
    h.ev(repair, put_ok(), true);
    h.request(3, best());
    assert!(h.starts.is_empty());
    h.ev(after, not_found(Vec::new()), true);
    h.assert_empty();
}

/// A request that is refused or invalid writes nothing.
#[test]
fn a_write_that_is_not_accepted_does_not_end_the_sharing() {
    for read in READS {
        let mut h = Harness::new(TrackerConfig::default().max_running(1).max_queued(0));
        h.request(1, read.all());
        h.start();
        let refused = [put("k", n(1)), put("k", n(0)), put_to("k", peers([1]), n(2)), provide("k")];
        for operation in refused {
            h.ask(2, operation, RequestOptions::default()).expect_err("no slot is free, and there is no queue");
        }
        h.request(2, read.all());
        assert!(h.starts.is_empty());
    }
}
