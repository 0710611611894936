//! Promises to callers, checked against what the tracker was told.
//!
//! Nothing here follows a rule of the tracker, and the model is not asked: each check is a sentence of the public
//! documentation. A promise holds whichever query answered, so what kad reported about a key counts as a whole.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
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
    /// Size of the network by the configuration.
    expected_size: Option<usize>,
    network: Network,
    /// Number of writes that have ended, by key.
    writes: BTreeMap<Vec<u8>, u64>,
    /// In order of acceptance: within one input, an id may be used again after its outcome.
    requests: Vec<(RequestId, Asked)>,
    /// By number.
    steps: BTreeMap<u64, Reported>,
    /// Steps by query id.
    queries: BTreeMap<u32, u64>,
    /// Step whose event is being handled.
    event_of: Option<u64>,
    /// Keys of queries that share an id with another one, so that nobody knows which of them an event is about.
    confused: BTreeSet<Vec<u8>>,
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
struct Reported {
    query: Query,
    /// Number of writes of its key that had ended when its start was asked for.
    after: u64,
    /// kad has answered the start.
    answered: bool,
    records: Vec<PeerRecord>,
    /// Providers, or the closest peers.
    peers: HashSet<PeerId>,
    progress: Progress,
    /// Set by a last event: whether what is known of the network lets an empty result be conclusive.
    ended: Option<bool>,
    /// Somebody finished it, or gave up a peer that it waited for.
    cut_short: bool,
    began: Instant,
}

impl Reported {
    fn reads(&self, key: &RecordKey) -> bool {
        matches!(&self.query, Query::GetRecord { key: of } | Query::GetProviders { key: of } if of == key)
    }

    fn looks_up(&self, target: &RecordKey) -> bool {
        matches!(&self.query, Query::GetClosestPeers { target: of } if of == target)
    }
}

impl Promises {
    pub(crate) fn new(validators: Validators, expected_size: Option<usize>) -> Self {
        Self {
            validators,
            expected_size,
            network: Network::default(),
            writes: BTreeMap::new(),
            requests: Vec::new(),
            steps: BTreeMap::new(),
            queries: BTreeMap::new(),
            event_of: None,
            confused: BTreeSet::new(),
        }
    }

    // ---- what the tracker was told

    pub(crate) fn accepted(&mut self, id: RequestId, operation: Operation, retries: bool) {
        let key = RecordKey::new(&operation.key());
        let after = if matches!(operation, Operation::GetRecord { .. } | Operation::GetProviders { .. }) {
            self.ended_writes(&key)
        } else {
            0
        };
        self.requests.push((id, Asked { operation, key, after, retries }));
    }

    pub(crate) fn starts(&mut self, step: u64, query: &Query, now: Instant) {
        let after = match query {
            Query::GetRecord { key } | Query::GetProviders { key } => self.ended_writes(key),
            _ => 0,
        };
        let reported = Reported {
            query: query.clone(),
            after,
            answered: false,
            records: Vec::new(),
            peers: HashSet::new(),
            progress: Progress::default(),
            ended: None,
            cut_short: false,
            began: now,
        };
        self.steps.insert(step, reported);
    }

    /// kad has answered a start. `id` is the query's, unless kad did not start one. Further answers say nothing.
    pub(crate) fn started(&mut self, step: u64, id: Option<u32>) {
        let Some(reported) = self.steps.get_mut(&step) else { return };
        let is_first = !std::mem::replace(&mut reported.answered, true);
        if let Some(id) = id.filter(|_| is_first)
            && let Some(other) = self.queries.insert(id, step)
        {
            let both = [other, step].into_iter().filter_map(|step| self.steps.get(&step));
            self.confused.extend(both.map(|reported| key_of(&reported.query).to_vec()));
        }
    }

    /// kad's event of a query, which is being handled until [`handled`](Self::handled).
    pub(crate) fn event(&mut self, event: &QueryEvent<u32>, now: Instant) {
        self.event_of = self.queries.get(&event.id).copied();
        let began = self.event_of.and_then(|step| self.steps.get(&step)).map(|reported| reported.began);
        let ran = began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        let is_enough = self.is_enough(event.progress, ran);
        let Some(reported) = self.event_of.and_then(|step| self.steps.get_mut(&step)) else { return };
        match (&reported.query, &event.result) {
            (Query::GetRecord { .. }, QueryResult::GetRecord(result)) => {
                if let Ok(GetRecordOk::FoundRecord(found)) = result {
                    reported.records.push(found.clone());
                }
            }
            (Query::GetProviders { .. }, QueryResult::GetProviders(result)) => {
                if let Ok(GetProvidersOk::FoundProviders { key: _, providers }) = result {
                    reported.peers.extend(providers);
                }
            }
            (Query::GetClosestPeers { .. }, QueryResult::GetClosestPeers(result)) => {
                let (Ok(GetClosestPeersOk { key: _, peers }) | Err(GetClosestPeersError::Timeout { key: _, peers })) =
                    result;
                reported.peers.extend(peers.iter().map(|peer| peer.peer_id));
            }
            (Query::PutRecordTo { .. }, QueryResult::PutRecord(_))
            | (Query::StartProviding { .. }, QueryResult::StartProviding(_))
            | (Query::Bootstrap, QueryResult::Bootstrap(_)) => {}
            // An event of another kind says nothing.
            _ => return,
        }
        reported.progress = event.progress;
        // An end that contradicts what was found is none, so that there may be another one.
        reported.ended = event.last.then_some(is_enough).or(reported.ended);
    }

    /// Returns whether enough peers have answered for a conclusive result, in a network that the node is part of: four of five
    /// that have answered or failed, or that were asked if the query ran for ten seconds, and half of the network's nodes, of which at least three unless the configuration names the size, and
    /// ten if nobody knows it or there are more than twenty.
    fn is_enough(&self, progress: Progress, ran: Duration) -> bool {
        let Progress { requests, successes, failures } = progress;
        let half = match (self.expected_size, self.network.size) {
            (Some(size), _) => size.div_ceil(2).clamp(1, 10),
            (None, Some(size)) => size.div_ceil(2).clamp(3, 10),
            (None, None) => 10,
        };
        let is_long = ran >= Duration::from_secs(10);
        let asked = u64::from(successes) + u64::from(failures);
        let asked = if is_long { asked.max(requests.into()) } else { asked };
        let most = 5 * u64::from(successes) >= 4 * asked;
        most && successes as usize >= half && self.network.reachability != Reachability::Isolated
    }

    pub(crate) fn handled(&mut self) {
        self.event_of = None;
    }

    pub(crate) fn cut_short(&mut self, id: u32) {
        if let Some(reported) = self.queries.get(&id).and_then(|step| self.steps.get_mut(step)) {
            reported.cut_short = true;
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
            Item::Record(record) => self.assert_sent(&asked.key, record),
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
            Outcome::GetRecord(Err(error)) => self.assert_no_record(&asked, error),
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
                self.assert_certain(&asked, *certainty, |reported| {
                    reported.reads(&asked.key) && reported.peers.is_empty()
                });
            }
            Outcome::GetClosestPeers(Ok(ClosestPeersAnswer { certainty, .. })) => {
                self.assert_certain(&asked, *certainty, |reported| reported.looks_up(&asked.key));
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

    /// Returns whether the outcome of a request rests on a query for which `is_ground` holds and that did not begin before a
    /// write of the key that had ended before the request.
    fn rests_on(&self, asked: &Asked, is_ground: impl Fn(&Reported) -> bool) -> bool {
        let is_ground = |reported: &Reported| reported.after >= asked.after && is_ground(reported);
        let of_event = self.event_of.and_then(|step| self.steps.get(&step));
        // Without an event, the request was answered at once by a query that it joined. So was one whose next attempt was due
        // when the event of another query came. The second query of a thorough lookup has another target.
        let is_thorough = matches!(asked.operation, Operation::GetClosestPeers { thorough: true, .. });
        let is_of_another = of_event.is_none() || asked.retries || is_thorough;
        of_event.is_some_and(is_ground) || (is_of_another && self.steps.values().any(is_ground))
    }

    fn is_confused(&self, key: &RecordKey) -> bool {
        self.confused.contains(key.as_ref())
    }

    /// A read that begins after a write of its key has ended is not answered by a query from before that end.
    fn assert_after_writes(&self, id: RequestId, asked: &Asked, outcome: &Outcome) {
        let answered = self.rests_on(asked, |reported| reported.reads(&asked.key));
        assert!(
            answered || self.is_confused(&asked.key),
            "{id} was answered by a query from before a write: {outcome:?}"
        );
    }

    fn assert_record_answer(&self, operation: &Operation, answer: &RecordAnswer) {
        let Operation::GetRecord { key, policy } = operation else { unreachable!("a record for {operation:?}") };
        answer.iter().for_each(|record| self.assert_sent(key, record));
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

    fn assert_no_record(&self, asked: &Asked, error: &GetRecordError) {
        let key = &asked.key;
        match error {
            GetRecordError::NotFound { certainty, rejected, .. } => {
                let is_record = |found: &PeerRecord| found.record.key == *key;
                self.assert_certain(asked, *certainty, |reported| {
                    reported.reads(key) && !reported.records.iter().any(is_record)
                });
                assert!(*certainty == Certainty::Inconclusive || *rejected == 0, "conclusive in spite of {rejected}");
            }
            GetRecordError::Conflict { candidates, needed } => {
                candidates.iter().for_each(|candidate| self.assert_sent(key, &candidate.record));
                assert!(candidates.len() > 1, "a conflict of one value: {error:?}");
                assert!(candidates.iter().all(|candidate| candidate.votes < *needed), "the quorum: {error:?}");
            }
            GetRecordError::QuorumNotReached { candidate, needed } => {
                self.assert_sent(key, &candidate.record);
                assert!(candidate.votes < *needed, "the quorum was reached: {error:?}");
            }
            GetRecordError::Timeout { found, progress: _ } => {
                found.iter().for_each(|record| self.assert_sent(key, record));
            }
            _ => {}
        }
    }

    /// A record that a caller gets has the key that was asked for, is valid, and was sent by the peer that it names.
    fn assert_sent(&self, key: &RecordKey, record: &Arc<PeerRecord>) {
        assert_eq!(record.record.key, *key, "a record of another key");
        if let Some(validator) = self.validators.of(key.as_ref()) {
            let valid = validator.validate(key, &record.record.value);
            assert!(valid.is_ok(), "an invalid record: {record:?}");
        }
        let sent = |reported: &Reported| reported.reads(key) && reported.records.contains(record);
        assert!(self.is_confused(key) || self.steps.values().any(sent), "nobody sent {record:?}");
    }

    fn assert_named(&self, key: &RecordKey, provider: PeerId) {
        let named = |reported: &Reported| reported.reads(key) && reported.peers.contains(&provider);
        assert!(self.is_confused(key) || self.steps.values().any(named), "nobody named {provider}");
    }

    /// A conclusive result rests on a query that went to its end, and that enough peers answered.
    fn assert_certain(&self, asked: &Asked, certainty: Certainty, is_ground: impl Fn(&Reported) -> bool) {
        // Whose end an event is, is not known either once an id has been given twice.
        if certainty == Certainty::Inconclusive || !self.confused.is_empty() {
            return;
        }
        let went_to_its_end = |reported: &Reported| reported.ended == Some(true) && !reported.cut_short;
        let rests = self.rests_on(asked, |reported| went_to_its_end(reported) && is_ground(reported));
        assert!(rests, "conclusive without a ground: {self:#?}");
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
            .filter_map(|reported| match &reported.query {
                Query::PutRecordTo { record: sent, peers }
                    if (&sent.key, &sent.value) == (&record.key, &record.value) =>
                {
                    Some(peers)
                }
                _ => None,
            })
            .flat_map(|peers| peers.iter())
            .collect();
        assert!(acknowledged.iter().all(|peer| sent_to.contains(peer)), "not sent to all who have it: {answer:?}");
    }
}

/// Returns the key of a query. A bootstrap has none.
fn key_of(query: &Query) -> &[u8] {
    match query {
        Query::GetRecord { key } | Query::GetProviders { key } | Query::StartProviding { key } => key.as_ref(),
        Query::GetClosestPeers { target } => target.as_ref(),
        Query::PutRecordTo { record, peers: _ } => record.key.as_ref(),
        Query::Bootstrap => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use kadence_core::ProvidersAnswer;
    use libp2p::kad::Record;

    use super::*;
    use crate::fixtures::{key, peer, validators, value};

    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

    /// A read of the key 2, which has a validator, that kad has answered with a record of `found` and `successes` of five
    /// requests.
    fn read(found: Option<u8>, successes: u32) -> Promises {
        let (mut promises, key) = (Promises::new(validators(), None), key(2));
        promises.network(Network::default().size(Some(8)));
        promises.accepted(RequestId(1), Operation::GetRecord { key: key.clone(), policy: Policy::First }, false);
        promises.starts(1, &Query::GetRecord { key }, *EPOCH);
        promises.started(1, Some(7));
        let result = match found {
            Some(found) => Ok(GetRecordOk::FoundRecord(sent(found))),
            None => Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: BTreeMap::new() }),
        };
        let progress = Progress { requests: 5, successes, failures: 5 - successes };
        promises.event(
            &QueryEvent { id: 7, result: QueryResult::GetRecord(result), progress, last: found.is_none() },
            *EPOCH,
        );
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
    fn an_answer_has_the_key_the_sources_and_the_counts_that_it_says() {
        let answer = |change: &dyn Fn(&mut PeerRecord), agreeing: usize| {
            let mut record = sent(2);
            change(&mut record);
            let mut answer = RecordAnswer::new(Arc::new(record), Progress::default());
            answer.agreeing = agreeing;
            Outcome::GetRecord(Ok(answer))
        };
        assert!(!breaks(read(Some(2), 3), &answer(&|_| {}, 1)));
        assert!(
            breaks(read(Some(2), 3), &answer(&|record| record.peer = Some(peer(4)), 1)),
            "another peer has sent it"
        );
        assert!(breaks(read(Some(2), 3), &answer(&|record| record.record.key = key(3), 1)), "another key");
        assert!(breaks(read(Some(2), 3), &answer(&|_| {}, 2)), "a wrong count");
    }

    #[test]
    fn a_provider_was_named_and_is_named_once() {
        let providers = |named: &[u8], answered: &[u8]| {
            let (mut promises, key) = (Promises::new(validators(), None), key(0));
            promises.accepted(
                RequestId(1),
                Operation::GetProviders { key: key.clone(), policy: Policy::Limit(2) },
                false,
            );
            promises.starts(1, &Query::GetProviders { key: key.clone() }, *EPOCH);
            promises.started(1, Some(7));
            let providers = named.iter().map(|n| peer(*n)).collect();
            let result = QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { key, providers }));
            promises.event(&QueryEvent { id: 7, result, progress: Progress::default(), last: false }, *EPOCH);
            let answer = ProvidersAnswer::new(answered.iter().map(|n| peer(*n)).collect(), Progress::default());
            breaks(promises, &Outcome::GetProviders(Ok(answer)))
        };
        assert!(!providers(&[1, 2, 3], &[1, 2]));
        assert!(providers(&[1, 2, 3], &[1, 4]), "nobody named the peer 4");
        assert!(providers(&[1, 2, 3], &[1, 1]), "named twice");
        assert!(providers(&[1, 2, 3], &[1, 2, 3]), "more than the limit");
    }

    #[test]
    fn conclusive_has_its_grounds() {
        assert!(!breaks(read(None, 4), &nothing()));
        assert!(breaks(read(None, 3), &nothing()), "two of five did not answer");
        assert!(breaks(read(Some(2), 5), &nothing()), "a record was found");
        let mut cut = read(None, 5);
        cut.cut_short(7);
        assert!(breaks(cut, &nothing()), "cut short");
        let in_network = |network: Network| {
            let mut promises = read(None, 0);
            promises.network(network);
            let progress = Progress { requests: 5, successes: 5, failures: 0 };
            let finished = GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates: BTreeMap::new() };
            promises.starts(2, &Query::GetRecord { key: key(2) }, *EPOCH);
            promises.started(2, Some(8));
            let result = QueryResult::GetRecord(Ok(finished));
            promises.event(&QueryEvent { id: 8, result, progress, last: true }, *EPOCH);
            breaks(promises, &nothing())
        };
        assert!(!in_network(Network::default().size(Some(8))));
        assert!(in_network(Network::default()), "five of an unknown number");
        assert!(in_network(Network::default().size(Some(100))), "five of a hundred");
        let isolated = Network::default().size(Some(8)).reachability(Reachability::Isolated);
        assert!(in_network(isolated), "cut off from the network");
    }

    #[test]
    fn a_conclusive_read_after_a_write_does_not_rest_on_an_older_query() {
        let mut promises = read(None, 5);
        promises.written(&key(2));
        promises.ended(RequestId(1), &nothing());
        promises.accepted(RequestId(1), Operation::GetRecord { key: key(2), policy: Policy::First }, false);
        assert!(breaks(promises, &nothing()));
    }

    #[test]
    fn a_put_is_acknowledged_by_enough_of_those_it_was_sent_to() {
        let record = Arc::new(Record::new(key(0), value(2)));
        let peers: Vec<_> = (1..=3).map(peer).collect();
        let put = |acknowledged: &[u8], unacknowledged: &[u8]| {
            let mut promises = Promises::new(validators(), None);
            let (record, peers) = (Arc::clone(&record), peers.clone());
            let operation =
                Operation::PutRecordTo { record: Arc::clone(&record), peers: peers.clone(), quorum: Quorum::Majority };
            promises.accepted(RequestId(1), operation, false);
            promises.starts(1, &Query::PutRecordTo { record, peers: peers.into() }, *EPOCH);
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
