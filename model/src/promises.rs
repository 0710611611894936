//! Promises to callers, checked against what the tracker was told.
//!
//! Nothing here follows a rule of the tracker, and the model is not asked: each check is a sentence of the public
//! documentation. A promise holds whichever query answered, so what kad reported about a key counts as a whole.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use kadence_core::{
    Certainty, ClosestPeersAnswer, GetProvidersError, GetRecordError, Item, Network, Operation, Outcome, Policy,
    Progress, PutAnswer, Query, QueryEvent, Quorum, REPLICATION_FACTOR, Reachability, RecordAnswer, RequestId,
    Validators,
};
use libp2p::{
    PeerId,
    kad::{GetClosestPeersError, GetClosestPeersOk, GetProvidersOk, GetRecordOk, PeerRecord, QueryResult, RecordKey},
};

/// What callers may rely on, for all requests of a schedule.
#[derive(Debug)]
pub(crate) struct Promises {
    validators: Validators,
    /// Whether the configuration names the size of the network.
    sized: bool,
    network: Network,
    /// Number of writes that have ended, by key.
    writes: BTreeMap<Vec<u8>, u64>,
    /// In order of acceptance: within one input, an id may be used again after its outcome.
    requests: Vec<(RequestId, Asked)>,
    /// By number.
    steps: BTreeMap<u64, Heard>,
    /// Steps by query id.
    queries: BTreeMap<u32, u64>,
    /// Step whose event is being handled.
    event_of: Option<u64>,
    /// kad has given an id twice, so that nobody knows what an event is about.
    confused: bool,
}

/// A request that was accepted and has not ended.
#[derive(Debug)]
struct Asked {
    operation: Operation,
    key: RecordKey,
    /// Number of writes of its key that had ended when it was accepted.
    after: u64,
    retries: bool,
}

/// A query, and what kad reported about it.
#[derive(Debug)]
struct Heard {
    query: Query,
    /// Number of writes of its key that had ended when its start was asked for.
    after: u64,
    /// kad has answered the start.
    answered: bool,
    records: Vec<PeerRecord>,
    /// Providers, or the closest peers.
    peers: HashSet<PeerId>,
    progress: Progress,
    ended: bool,
    /// Somebody finished it, or gave up a peer that it waited for.
    cut_short: bool,
}

impl Heard {
    fn reads(&self, key: &RecordKey) -> bool {
        matches!(&self.query, Query::GetRecord { key: of } | Query::GetProviders { key: of } if of == key)
    }

    fn looks_up(&self, target: &RecordKey) -> bool {
        matches!(&self.query, Query::GetClosestPeers { target: of } if of == target)
    }
}

impl Promises {
    pub(crate) fn new(validators: Validators, sized: bool) -> Self {
        Self {
            validators,
            sized,
            network: Network::default(),
            writes: BTreeMap::new(),
            requests: Vec::new(),
            steps: BTreeMap::new(),
            queries: BTreeMap::new(),
            event_of: None,
            confused: false,
        }
    }

    // ---- what the tracker was told

    pub(crate) fn accepted(&mut self, id: RequestId, operation: Operation, retries: bool) {
        let key = RecordKey::new(&operation.key());
        let after = self.ended_writes(&key);
        self.requests.push((id, Asked { operation, key, after, retries }));
    }

    pub(crate) fn starts(&mut self, step: u64, query: &Query) {
        let after = match query {
            Query::GetRecord { key } | Query::GetProviders { key } => self.ended_writes(key),
            _ => 0,
        };
        let heard = Heard {
            query: query.clone(),
            after,
            answered: false,
            records: Vec::new(),
            peers: HashSet::new(),
            progress: Progress::default(),
            ended: false,
            cut_short: false,
        };
        self.steps.insert(step, heard);
    }

    /// kad has answered a start. `id` is the query's, unless kad did not start one. Further answers say nothing.
    pub(crate) fn started(&mut self, step: u64, id: Option<u32>) {
        let Some(heard) = self.steps.get_mut(&step) else { return };
        if !std::mem::replace(&mut heard.answered, true)
            && let Some(id) = id
        {
            self.confused |= self.queries.insert(id, step).is_some();
        }
    }

    /// kad's event of a query, which is being handled until [`handled`](Self::handled).
    pub(crate) fn event(&mut self, event: &QueryEvent<u32>) {
        self.event_of = self.queries.get(&event.id).copied();
        let Some(heard) = self.event_of.and_then(|step| self.steps.get_mut(&step)) else { return };
        if heard.ended {
            return;
        }
        match (&heard.query, &event.result) {
            (Query::GetRecord { .. }, QueryResult::GetRecord(result)) => {
                if let Ok(GetRecordOk::FoundRecord(found)) = result {
                    heard.records.push(found.clone());
                }
            }
            (Query::GetProviders { .. }, QueryResult::GetProviders(result)) => {
                if let Ok(GetProvidersOk::FoundProviders { key: _, providers }) = result {
                    heard.peers.extend(providers);
                }
            }
            (Query::GetClosestPeers { .. }, QueryResult::GetClosestPeers(result)) => {
                let (Ok(GetClosestPeersOk { key: _, peers }) | Err(GetClosestPeersError::Timeout { key: _, peers })) =
                    result;
                heard.peers.extend(peers.iter().map(|peer| peer.peer_id));
            }
            (Query::PutRecordTo { .. }, QueryResult::PutRecord(_))
            | (Query::StartProviding { .. }, QueryResult::StartProviding(_))
            | (Query::Bootstrap, QueryResult::Bootstrap(_)) => {}
            // An event of another kind says nothing.
            _ => return,
        }
        (heard.progress, heard.ended) = (event.progress, event.last);
    }

    pub(crate) fn handled(&mut self) {
        self.event_of = None;
    }

    pub(crate) fn cut_short(&mut self, id: u32) {
        if let Some(heard) = self.queries.get(&id).and_then(|step| self.steps.get_mut(step)) {
            heard.cut_short = true;
        }
    }

    pub(crate) fn network(&mut self, network: Network) {
        self.network = network;
    }

    pub(crate) fn written(&mut self, key: &RecordKey) {
        *self.writes.entry(key.to_vec()).or_default() += 1;
    }

    fn ended_writes(&self, key: &RecordKey) -> u64 {
        self.writes.get(key.as_ref()).copied().unwrap_or(0)
    }

    // ---- what it said

    /// Checks an item of a request.
    pub(crate) fn item(&self, id: RequestId, item: &Item) {
        let Some((_, asked)) = self.requests.iter().find(|(of, _)| *of == id) else { return };
        match item {
            Item::Record(record) => self.assert_heard(&asked.key, record),
            Item::Provider(peer) => self.assert_named(&asked.key, *peer),
            _ => {}
        }
    }

    /// Checks the outcome of a request, which has no other.
    pub(crate) fn ended(&mut self, id: RequestId, outcome: &Outcome) {
        let Some(at) = self.requests.iter().position(|(of, _)| *of == id) else { return };
        let (_, asked) = self.requests.remove(at);
        match outcome {
            Outcome::GetRecord(Ok(answer)) => {
                self.assert_record_answer(&asked.operation, answer);
                self.assert_after_writes(id, &asked, outcome);
            }
            Outcome::GetRecord(Err(error)) => self.assert_no_record(&asked.key, error),
            Outcome::GetProviders(Ok(answer)) => {
                let providers: HashSet<_> = answer.providers.iter().collect();
                assert_eq!(providers.len(), answer.providers.len(), "a provider is named twice: {answer:?}");
                answer.providers.iter().for_each(|peer| self.assert_named(&asked.key, *peer));
                if let Operation::GetProviders { key: _, policy: Policy::Limit(limit) } = &asked.operation {
                    assert!(answer.providers.len() <= *limit, "more providers than asked for: {answer:?}");
                }
                self.assert_after_writes(id, &asked, outcome);
            }
            Outcome::GetProviders(Err(GetProvidersError::NotFound { certainty, .. })) => {
                self.assert_certain(*certainty, |heard| heard.reads(&asked.key) && heard.peers.is_empty());
            }
            Outcome::GetClosestPeers(Ok(ClosestPeersAnswer { certainty, .. })) => {
                self.assert_certain(*certainty, |heard| heard.looks_up(&asked.key));
            }
            Outcome::PutRecord(result) | Outcome::PutRecordTo(result) => {
                if let Ok(answer) = result {
                    self.assert_put_answer(&asked.operation, answer);
                }
                self.written(&asked.key);
            }
            Outcome::StartProviding(_) => self.written(&asked.key),
            Outcome::GetProviders(Err(_)) | Outcome::GetClosestPeers(Err(_)) | Outcome::Bootstrap(_) => {}
        }
    }

    /// A read that begins after a write of its key has ended is not answered by a query from before that end.
    fn assert_after_writes(&self, id: RequestId, asked: &Asked, outcome: &Outcome) {
        let of_event = self.event_of.and_then(|step| self.steps.get(&step));
        let fresh = |heard: &Heard| heard.reads(&asked.key) && heard.after >= asked.after;
        // Without an event, the request was answered at once by a query that it joined. So was one whose next attempt
        // was due when the event of another query came.
        let joined = of_event.is_none() || asked.retries;
        let answered = of_event.is_some_and(fresh) || (joined && self.steps.values().any(fresh));
        assert!(answered || self.confused, "{id} was answered by a query from before a write: {outcome:?}");
    }

    fn assert_record_answer(&self, operation: &Operation, answer: &RecordAnswer) {
        let Operation::GetRecord { key, policy } = operation else { unreachable!("a record for {operation:?}") };
        answer.iter().for_each(|record| self.assert_heard(key, record));
        let sources: HashSet<_> = answer.iter().map(|record| record.peer).collect();
        let records = answer.iter().count();
        assert_eq!(sources.len(), records, "two records of one source: {answer:?}");
        let same = answer.iter().filter(|record| record.record.value == answer.value()).count();
        assert_eq!((answer.agreeing, answer.dissenting), (same, records - same), "wrong counts: {answer:?}");
        match policy {
            Policy::First => assert_eq!(records, 1, "more than the first record: {answer:?}"),
            Policy::Limit(limit) => assert!(records <= *limit, "more records than asked for: {answer:?}"),
            Policy::Quorum(quorum) => {
                assert!(answer.agreeing >= quorum.of(REPLICATION_FACTOR), "too few sources agree: {answer:?}");
            }
            Policy::All | Policy::Best { .. } => {}
        }
        if let (Policy::Best { .. }, Some(validator)) = (policy, self.validators.of(key.as_ref())) {
            let is_worse = |other: &Arc<PeerRecord>| {
                validator.compare(key, answer.value(), &other.record.value) == std::cmp::Ordering::Less
            };
            assert!(!answer.iter().any(is_worse), "not the best record: {answer:?}");
        }
    }

    fn assert_no_record(&self, key: &RecordKey, error: &GetRecordError) {
        match error {
            GetRecordError::NotFound { certainty, rejected, .. } => {
                let is_record = |found: &PeerRecord| found.record.key == *key;
                self.assert_certain(*certainty, |heard| heard.reads(key) && !heard.records.iter().any(is_record));
                assert!(*certainty == Certainty::Inconclusive || *rejected == 0, "conclusive in spite of {rejected}");
            }
            GetRecordError::Conflict { candidates, needed } => {
                candidates.iter().for_each(|candidate| self.assert_heard(key, &candidate.record));
                assert!(candidates.len() > 1, "a conflict of one value: {error:?}");
                assert!(candidates.iter().all(|candidate| candidate.votes < *needed), "the quorum: {error:?}");
            }
            GetRecordError::QuorumNotReached { candidate, needed } => {
                self.assert_heard(key, &candidate.record);
                assert!(candidate.votes < *needed, "the quorum was reached: {error:?}");
            }
            GetRecordError::Timeout { found, progress: _ } => {
                found.iter().for_each(|record| self.assert_heard(key, record));
            }
            _ => {}
        }
    }

    /// A record that a caller gets has the key that was asked for, is valid, and was sent by the peer that it names.
    fn assert_heard(&self, key: &RecordKey, record: &Arc<PeerRecord>) {
        assert_eq!(record.record.key, *key, "a record of another key");
        if let Some(validator) = self.validators.of(key.as_ref()) {
            let valid = validator.validate(key, &record.record.value);
            assert!(valid.is_ok(), "an invalid record: {record:?}");
        }
        let sent = |heard: &Heard| heard.reads(key) && heard.records.contains(record);
        assert!(self.confused || self.steps.values().any(sent), "nobody sent {record:?}");
    }

    fn assert_named(&self, key: &RecordKey, provider: PeerId) {
        let named = |heard: &Heard| heard.reads(key) && heard.peers.contains(&provider);
        assert!(self.confused || self.steps.values().any(named), "nobody named {provider}");
    }

    /// A conclusive result stands on a query that went to its end, in a network that the node is part of, and that
    /// enough peers answered: three, if nothing is known of its size, and four of five that were asked.
    fn assert_certain(&self, certainty: Certainty, is_ground: impl Fn(&Heard) -> bool) {
        if certainty == Certainty::Inconclusive || self.confused {
            return;
        }
        assert_ne!(self.network.reachability, Reachability::Isolated, "conclusive, although cut off");
        let least = if self.sized { 1 } else { 3 };
        let ground = |heard: &&Heard| {
            let Progress { requests, successes, failures: _ } = heard.progress;
            heard.ended && !heard.cut_short && successes >= least && 5 * u64::from(successes) >= 4 * u64::from(requests)
        };
        assert!(self.steps.values().filter(ground).any(is_ground), "conclusive without a ground: {self:#?}");
    }

    fn assert_put_answer(&self, operation: &Operation, answer: &PutAnswer) {
        let PutAnswer { acknowledged, unacknowledged, verified, .. } = answer;
        let (record, enough) = match operation {
            Operation::PutRecord { record, quorum, options } => {
                assert_eq!(*verified, options.verify, "not read back as often as asked for: {answer:?}");
                // The rest depends on how many peers the lookup found.
                let enough = if let Quorum::N(n) = quorum
                    && !options.clamp_quorum
                {
                    *n as usize
                } else {
                    1
                };
                (record, enough)
            }
            Operation::PutRecordTo { record, quorum, .. } => (record, quorum.of(answer.asked())),
            _ => unreachable!("a put's answer for {operation:?}"),
        };
        let all: HashSet<_> = acknowledged.iter().chain(unacknowledged).collect();
        assert_eq!(all.len(), answer.asked(), "a peer is named twice: {answer:?}");
        assert!(acknowledged.len() >= enough.max(1), "fewer than the quorum {enough}: {answer:?}");
        let sent_to: HashSet<_> = self
            .steps
            .values()
            .filter_map(|heard| match &heard.query {
                Query::PutRecordTo { record: sent, peers } if sent.value == record.value => Some(peers),
                _ => None,
            })
            .flat_map(|peers| peers.iter())
            .collect();
        assert!(acknowledged.iter().all(|peer| sent_to.contains(peer)), "not sent to all who have it: {answer:?}");
    }
}

#[cfg(test)]
mod tests {
    use libp2p::kad::Record;

    use super::*;
    use crate::fixtures::{key, peer, validators, value};

    /// A read of the key 2, which has a validator, that kad has answered with a record of `found` and `successes` of five
    /// requests.
    fn read(found: Option<u8>, successes: u32) -> Promises {
        let (mut promises, key) = (Promises::new(validators(), false), key(2));
        promises.accepted(RequestId(1), Operation::GetRecord { key: key.clone(), policy: Policy::First }, false);
        promises.starts(1, &Query::GetRecord { key });
        promises.started(1, Some(7));
        let result = match found {
            Some(found) => Ok(GetRecordOk::FoundRecord(sent(found))),
            None => Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: BTreeMap::new() }),
        };
        let progress = Progress { requests: 5, successes, failures: 0 };
        promises.event(&QueryEvent { id: 7, result: QueryResult::GetRecord(result), progress, last: found.is_none() });
        promises
    }

    fn sent(by_value: u8) -> PeerRecord {
        PeerRecord { peer: Some(peer(3)), record: Record::new(key(2), value(by_value)) }
    }

    fn record(by_value: u8) -> Outcome {
        Outcome::GetRecord(Ok(RecordAnswer::new(Arc::new(sent(by_value)), Progress::default())))
    }

    fn nothing() -> Outcome {
        Outcome::GetRecord(Err(GetRecordError::NotFound {
            closest_peers: Arc::default(),
            certainty: Certainty::Conclusive,
            rejected: 0,
            progress: Progress::default(),
        }))
    }

    /// Returns whether an outcome breaks a promise.
    fn breaks(mut promises: Promises, outcome: &Outcome) -> bool {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| promises.ended(RequestId(1), outcome))).is_err()
    }

    #[test]
    fn an_answer_is_a_valid_record_that_a_peer_has_sent() {
        assert!(!breaks(read(Some(2), 3), &record(2)));
        assert!(breaks(read(Some(2), 3), &record(0)), "another value");
        assert!(breaks(read(Some(6), 3), &record(6)), "an invalid value");
        assert!(breaks(read(None, 3), &record(2)), "nobody sent one");
    }

    #[test]
    fn a_read_after_a_write_is_not_answered_by_an_older_query() {
        let mut promises = read(Some(2), 3);
        promises.written(&key(2));
        let again = Operation::GetRecord { key: key(2), policy: Policy::First };
        promises.ended(RequestId(1), &record(2));
        promises.accepted(RequestId(1), again, false);
        assert!(breaks(promises, &record(2)));
    }

    #[test]
    fn conclusive_has_its_grounds() {
        assert!(!breaks(read(None, 4), &nothing()));
        assert!(breaks(read(None, 3), &nothing()), "two of five did not answer");
        assert!(breaks(read(Some(2), 5), &nothing()), "a record was found");
        let mut cut = read(None, 5);
        cut.cut_short(7);
        assert!(breaks(cut, &nothing()), "cut short");
        let mut isolated = read(None, 5);
        isolated.network(Network::default().reachability(Reachability::Isolated));
        assert!(breaks(isolated, &nothing()), "cut off from the network");
    }

    #[test]
    fn a_put_is_acknowledged_by_enough_of_those_it_was_sent_to() {
        let record = Arc::new(Record::new(key(0), value(2)));
        let peers: Vec<_> = (1..=3).map(peer).collect();
        let put = |acknowledged: &[u8], unacknowledged: &[u8]| {
            let mut promises = Promises::new(validators(), false);
            let (record, peers) = (Arc::clone(&record), peers.clone());
            let operation =
                Operation::PutRecordTo { record: Arc::clone(&record), peers: peers.clone(), quorum: Quorum::Majority };
            promises.accepted(RequestId(1), operation, false);
            promises.starts(1, &Query::PutRecordTo { record, peers: peers.into() });
            let of = |numbers: &[u8]| numbers.iter().map(|n| peer(*n)).collect();
            let answer = PutAnswer::new(of(acknowledged), of(unacknowledged), Progress::default());
            breaks(promises, &Outcome::PutRecordTo(Ok(answer)))
        };
        assert!(!put(&[1, 2], &[3]));
        assert!(put(&[1], &[2, 3]), "one of three is no majority");
        assert!(put(&[1, 4], &[2]), "not sent to the peer 4");
        assert!(put(&[1, 2, 2], &[3]), "named twice");
    }
}
