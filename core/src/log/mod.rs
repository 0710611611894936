//! Log of a tracker: every input and every action as a line of text, which [`replay`] reproduces.
//!
//! A line is a list of tokens separated by spaces. Times are nanoseconds since the start of the recording, query ids
//! are numbered in order of appearance, and bytes are hexadecimal. The first line is the configuration; lines that
//! begin with `>` are inputs, those with `<` are actions. Only what the tracker uses is written.

mod fields;
mod tokens;

use std::{collections::VecDeque, fmt, hash::Hash, time::Duration};

use libp2p::{PeerId, kad::store};
use rustc_hash::FxHashMap;
use thiserror::Error;
use web_time::Instant;

use self::tokens::{Field, Tokens, Writer};
use crate::{
    Action, Command, Network, Progress, QueryEvent, QueryStartError, QueryTracker, RequestId, Started, StepId,
    TrackerConfig, Validators,
};

/// Representation of record values in a log. Keys, peer ids and addresses are always written in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogValues {
    /// The bytes of the value.
    Whole,
    /// The length of the value and the first eight bytes of its SHA-256 hash (fewer for a shorter value), for logs that
    /// are given to others. Equal values stay equal.
    ///
    /// A replay uses stand-ins of the same length. So it does not reproduce the verdicts of validators, and different
    /// values of fewer than eight bytes may become equal. A replay rejects a log with a value of more than 1 MiB.
    Hashed,
}

/// Error of a recording: the tracker has already had requests or is shutting down, and a replay starts with a new
/// tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("tracker has already had requests: record a new one")]
pub struct RecordingError;

/// Error of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A line does not have the form of a line of a log, or line 1 names another version of the format.
    #[error("line {line} is not a line of a log")]
    Malformed {
        /// Number of the line, counted from 1.
        line: usize,
    },
    /// The replay wrote another line than the log has, or none: for example, because the code of the tracker has
    /// changed since, or the validators differ.
    #[error("line {line} says `{recorded}`, the replay `{replayed}`")]
    Diverged {
        /// Number of the line, counted from 1.
        line: usize,
        /// Line in the log.
        recorded: String,
        /// Line that the replay wrote. Empty if it wrote none.
        replayed: String,
    },
}

/// Replays a log in a new tracker, and compares every line of the log with the line that the replay writes, byte for
/// byte. Returns the number of lines, zero for an empty log. A log may end after any line: what the tracker would do
/// after it is not compared.
///
/// The log is trusted: large values, or very many requests and results, use as much memory as in the original. Limit
/// the memory of a process that replays logs of strangers.
///
/// `epoch` stands for the start of the recording; its value makes no difference. `validators` must be those of the
/// recorded tracker, because a log does not contain them.
///
/// # Errors
///
/// Returns an error for the first line that is malformed, or that differs from the line that the replay writes.
pub fn replay<'a>(
    lines: impl IntoIterator<Item = &'a str>,
    epoch: Instant,
    validators: Validators,
) -> Result<usize, ReplayError> {
    let mut lines = lines.into_iter().enumerate().map(|(index, line)| (index + 1, line));
    let Some((line, header)) = lines.next() else { return Ok(0) };
    let malformed = |line| move || ReplayError::Malformed { line };
    let (values, local_peer, config) = read_header(header, epoch, validators).ok_or_else(malformed(line))?;
    let mut tracker = QueryTracker::<u64>::new(local_peer, config);
    tracker.replay_log(epoch, values);
    expect(line, header, tracker.poll_log())?;
    let mut agreed = 1;
    for (line, recorded) in lines {
        match recorded.as_bytes().first() {
            Some(b'>') => {
                let mut tokens = Tokens::new(recorded, epoch, values);
                let (at, input) = read_input(&mut tokens).ok_or_else(malformed(line))?;
                input.apply(&mut tracker, epoch.checked_add(at).ok_or_else(malformed(line))?);
            }
            Some(b'<') => drop(tracker.poll_action()),
            Some(_) | None => return Err(ReplayError::Malformed { line }),
        }
        expect(line, recorded, tracker.poll_log())?;
        agreed += 1;
    }
    Ok(agreed)
}

fn expect(line: usize, recorded: &str, replayed: Option<String>) -> Result<(), ReplayError> {
    let replayed = replayed.unwrap_or_default();
    if replayed == recorded {
        return Ok(());
    }
    Err(ReplayError::Diverged { line, recorded: recorded.to_owned(), replayed })
}

/// Input read from a log.
#[derive(Debug)]
enum Input {
    Command(Command),
    Started { step: StepId, result: Result<Started<u64>, QueryStartError> },
    Stored { request: RequestId, result: Result<(), store::Error> },
    Event(QueryEvent<u64>),
    Probe(u64, Option<Progress>),
    LocalPeers { request: RequestId, peers: Vec<PeerId> },
    QueryCount(usize),
    CutShort(u64),
    Network(Network),
    Timeout,
}

impl Input {
    fn apply(self, tracker: &mut QueryTracker<u64>, now: Instant) {
        match self {
            // A request that was not accepted in the recording is not accepted here either.
            Self::Command(command) => drop(tracker.handle_command(command, now)),
            Self::Started { step, result } => tracker.handle_started(step, result, now),
            Self::Stored { request, result } => tracker.handle_stored(request, result, now),
            Self::Event(event) => tracker.handle_event(event, now),
            Self::Probe(id, progress) => tracker.handle_probe(id, progress, now),
            Self::LocalPeers { request, peers } => tracker.handle_local_peers(request, peers, now),
            Self::QueryCount(live) => tracker.handle_query_count(live, now),
            Self::CutShort(id) => tracker.handle_cut_short(id, now),
            Self::Network(network) => tracker.handle_network(network, now),
            Self::Timeout => tracker.handle_timeout(now),
        }
    }
}

fn read_input(tokens: &mut Tokens<'_>) -> Option<(Duration, Input)> {
    tokens.expect(">")?;
    let at = Duration::take(tokens)?;
    let input = match tokens.next()? {
        "command" => Input::Command(Command::take(tokens)?),
        "started" => Input::Started { step: StepId::take(tokens)?, result: Field::take(tokens)? },
        "stored" => Input::Stored { request: RequestId::take(tokens)?, result: Field::take(tokens)? },
        "event" => Input::Event(QueryEvent::take(tokens)?),
        "probe" => Input::Probe(u64::take(tokens)?, Field::take(tokens)?),
        "local_peers" => Input::LocalPeers { request: RequestId::take(tokens)?, peers: Field::take(tokens)? },
        "query_count" => Input::QueryCount(usize::take(tokens)?),
        "cut_short" => Input::CutShort(u64::take(tokens)?),
        "network" => Input::Network(Network::take(tokens)?),
        "timeout" => Input::Timeout,
        _ => return None,
    };
    tokens.is_empty().then_some((at, input))
}

const VERSION: &str = "kadence-log-2";

fn write_header(writer: &mut Writer, values: LogValues, local_peer: PeerId, config: &TrackerConfig) {
    writer.word(VERSION);
    writer.word(match values {
        LogValues::Whole => "whole",
        LogValues::Hashed => "hashed",
    });
    local_peer.put(writer);
    config.put(writer);
}

fn read_header(line: &str, epoch: Instant, validators: Validators) -> Option<(LogValues, PeerId, TrackerConfig)> {
    let mut tokens = Tokens::new(line, epoch, LogValues::Whole);
    tokens.expect(VERSION)?;
    let values = match tokens.next()? {
        "whole" => LogValues::Whole,
        "hashed" => LogValues::Hashed,
        _ => return None,
    };
    let local_peer = PeerId::take(&mut tokens)?;
    let config = TrackerConfig { validators, ..TrackerConfig::take(&mut tokens)? };
    tokens.is_empty().then_some((values, local_peer, config))
}

/// Writes the lines of one tracker.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Recorder<Id> {
    epoch: Instant,
    values: Values,
    /// Numbers of the ids that the tracker knows. An unknown id gets a new number each time.
    numbers: FxHashMap<Id, u64>,
    last_number: u64,
    lines: VecDeque<String>,
}

/// Representation of values. In a replay of hashed values, the stand-ins are their own hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Whole,
    Hashed,
    StandIns,
}

impl<Id: Copy + Eq + Hash> Recorder<Id> {
    pub(crate) fn new(
        epoch: Instant,
        values: LogValues,
        replaying: bool,
        local_peer: PeerId,
        config: &TrackerConfig,
    ) -> Self {
        let how = match values {
            LogValues::Whole => Values::Whole,
            LogValues::Hashed if replaying => Values::StandIns,
            LogValues::Hashed => Values::Hashed,
        };
        let mut recorder =
            Self { epoch, values: how, numbers: FxHashMap::default(), last_number: 0, lines: VecDeque::new() };
        let mut writer = recorder.writer();
        write_header(&mut writer, values, local_peer, config);
        recorder.lines.push_back(writer.finish());
        recorder
    }

    pub(crate) fn command(&mut self, command: &Command, now: Instant) {
        self.input("command", now, |writer, _| command.put(writer));
    }

    pub(crate) fn started(&mut self, step: StepId, result: &Result<Started<Id>, QueryStartError>, now: Instant) {
        self.input("started", now, |writer, recorder| {
            step.put(writer);
            // Only the id of a query that was started is remembered.
            let result = match result {
                Ok(Started { id, had_provider }) => {
                    let number = recorder.number(id);
                    recorder.numbers.insert(*id, number);
                    Ok(Started { id: number, had_provider: *had_provider })
                }
                Err(error) => Err(error.clone()),
            };
            result.put(writer);
        });
    }

    pub(crate) fn stored(&mut self, request: RequestId, result: &Result<(), store::Error>, now: Instant) {
        self.input("stored", now, |writer, _| {
            request.put(writer);
            result.put(writer);
        });
    }

    pub(crate) fn event(&mut self, event: &QueryEvent<Id>, now: Instant) {
        self.input("event", now, |writer, recorder| {
            let QueryEvent { id, result, progress, last } = event;
            recorder.number(id).put(writer);
            result.put(writer);
            progress.put(writer);
            last.put(writer);
        });
    }

    pub(crate) fn probe(&mut self, id: &Id, progress: Option<Progress>, now: Instant) {
        self.input("probe", now, |writer, recorder| {
            recorder.number(id).put(writer);
            progress.put(writer);
        });
    }

    pub(crate) fn local_peers(&mut self, request: RequestId, peers: &[PeerId], now: Instant) {
        self.input("local_peers", now, |writer, _| {
            request.put(writer);
            peers.to_vec().put(writer);
        });
    }

    pub(crate) fn query_count(&mut self, live: usize, now: Instant) {
        self.input("query_count", now, |writer, _| live.put(writer));
    }

    pub(crate) fn cut_short(&mut self, id: &Id, now: Instant) {
        let id = self.number(id);
        self.input("cut_short", now, |writer, _| id.put(writer));
    }

    pub(crate) fn network(&mut self, network: Network, now: Instant) {
        self.input("network", now, |writer, _| network.put(writer));
    }

    pub(crate) fn timeout(&mut self, now: Instant) {
        self.input("timeout", now, |_, _| {});
    }

    pub(crate) fn action(&mut self, action: &Action<Id>) {
        let mut writer = self.writer();
        writer.word("<");
        fields::put_action(action, &mut writer, &mut |id| self.number(id));
        self.lines.push_back(writer.finish());
    }

    /// Notes that the tracker does not know this id any more.
    pub(crate) fn forget(&mut self, id: &Id) {
        self.numbers.remove(id);
    }

    pub(crate) fn pop(&mut self) -> Option<String> {
        self.lines.pop_front()
    }

    fn input(&mut self, name: &str, now: Instant, rest: impl FnOnce(&mut Writer, &mut Self)) {
        let mut writer = self.writer();
        writer.word(">");
        now.saturating_duration_since(self.epoch).put(&mut writer);
        writer.word(name);
        rest(&mut writer, self);
        self.lines.push_back(writer.finish());
    }

    fn number(&mut self, id: &Id) -> u64 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        self.last_number += 1;
        self.last_number
    }

    fn writer(&self) -> Writer {
        Writer::new(self.epoch, self.values)
    }
}

impl<Id> fmt::Debug for Recorder<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("unread", &self.lines.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use libp2p::{
        Multiaddr,
        kad::{self, GetRecordOk, PeerRecord, QueryResult, Record, RecordKey},
    };

    use super::*;
    use crate::{Operation, Policy, PutOptions, Request, RequestOptions};

    /// Drains the actions, and returns the lines that have come.
    fn drained(tracker: &mut QueryTracker<&'static str>) -> Vec<String> {
        while tracker.poll_action().is_some() {}
        std::iter::from_fn(|| tracker.poll_log()).collect()
    }

    /// Records a get that finds a record, and a put that waits behind it until its deadline.
    fn recorded(values: LogValues) -> Vec<String> {
        #[expect(clippy::disallowed_methods, reason = "any epoch will do")]
        let epoch = Instant::now();
        let at = |millis| epoch + Duration::from_millis(millis);
        let config = TrackerConfig { max_running: 1, ..TrackerConfig::default() };
        let mut tracker = QueryTracker::<&str>::new(PeerId::random(), config);
        tracker.record(values, epoch).unwrap();
        let mut lines = Vec::new();
        let mut drain = |tracker: &mut QueryTracker<&'static str>| lines.extend(drained(tracker));
        let key = RecordKey::new(b"key");
        let record = Record::new(key.clone(), b"some value that is a secret".to_vec());
        let request = |id, operation| {
            Command::Request(Request { id: RequestId(id), operation, options: RequestOptions::default() })
        };
        let get = Operation::GetRecord { key, policy: Policy::First };
        tracker.handle_command(request(1, get), at(1)).unwrap();
        drain(&mut tracker);
        tracker.handle_started(StepId(1), Ok(Started { id: "a", had_provider: false }), at(2));
        let put = Operation::PutRecord {
            record: Arc::new(record.clone()),
            quorum: crate::Quorum::All,
            options: PutOptions::default(),
        };
        tracker.handle_command(request(2, put), at(3)).unwrap();
        let result =
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(PeerRecord { peer: Some(PeerId::random()), record })));
        tracker.handle_event(QueryEvent { id: "a", result, progress: Progress::default(), last: false }, at(4));
        drain(&mut tracker);
        tracker.handle_timeout(at(40_000));
        drain(&mut tracker);
        lines
    }

    fn replayed(lines: &[String]) -> Result<usize, ReplayError> {
        #[expect(clippy::disallowed_methods, reason = "another epoch than that of the recording")]
        let epoch = Instant::now() + Duration::from_secs(1000);
        replay(lines.iter().map(String::as_str), epoch, Validators::default())
    }

    #[test]
    fn a_replay_gives_the_same_actions_byte_for_byte() {
        for values in [LogValues::Whole, LogValues::Hashed] {
            let lines = recorded(values);
            assert_eq!(replayed(&lines), Ok(lines.len()));
            assert!(lines.iter().any(|line| line.starts_with("< outcome 1 get_record ok")), "{lines:#?}");
            assert!(lines.iter().any(|line| line.starts_with("< outcome 2 put_record err request expired_in_queue")));
        }
    }

    #[test]
    fn hashed_values_are_not_in_the_log() {
        let secret: String = b"secret".iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(recorded(LogValues::Whole).iter().any(|line| line.contains(&secret)));
        assert!(!recorded(LogValues::Hashed).iter().any(|line| line.contains(&secret)));
    }

    #[test]
    fn an_action_that_was_changed_is_noticed() {
        let lines = recorded(LogValues::Whole);
        for index in (0..lines.len()).filter(|index| lines[*index].starts_with('<')) {
            let mut changed = lines.clone();
            changed[index].push('0');
            let ReplayError::Diverged { line, recorded, .. } = replayed(&changed).unwrap_err() else { panic!() };
            assert_eq!((line, recorded), (index + 1, changed[index].clone()));
        }
    }

    #[test]
    fn a_malformed_line_is_an_error() {
        for nonsense in [
            "",
            ">",
            "> 1",
            "> 1 command request",
            "< outcome",
            "event",
            "> x query_count 1",
            "> 1 query_count 1 1",
            "> 1 cut_short",
            "> 1 network 1 unknown",
        ] {
            let mut lines = recorded(LogValues::Whole);
            lines.push(nonsense.to_owned());
            assert!(replayed(&lines).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_time_before_the_recording_is_replayed_as_its_start() {
        #[expect(clippy::disallowed_methods, reason = "any epoch will do")]
        let epoch = Instant::now();
        let at = |millis| epoch + Duration::from_millis(millis);
        let mut tracker = QueryTracker::<u32>::new(PeerId::random(), TrackerConfig::default());
        tracker.handle_timeout(at(100));
        tracker.record(LogValues::Whole, at(50)).unwrap();
        let options = RequestOptions { timeout: Some(Duration::from_millis(10)), ..RequestOptions::default() };
        let request = Request { id: RequestId(1), operation: Operation::Bootstrap, options };
        tracker.handle_command(Command::Request(request), at(60)).unwrap();
        tracker.handle_timeout(at(105));
        tracker.handle_timeout(at(110));
        while tracker.poll_action().is_some() {}
        let lines: Vec<_> = std::iter::from_fn(|| tracker.poll_log()).collect();
        assert!(lines.iter().any(|line| line.starts_with("< outcome 1")), "{lines:#?}");
        assert_eq!(replayed(&lines), Ok(lines.len()));
    }

    #[test]
    fn what_was_known_of_the_network_before_the_recording_is_replayed() {
        #[expect(clippy::disallowed_methods, reason = "any epoch will do")]
        let epoch = Instant::now();
        let mut tracker = QueryTracker::<&str>::new(PeerId::random(), TrackerConfig::default());
        tracker.handle_network(Network::default().reachability(crate::Reachability::Isolated), epoch);
        tracker.record(LogValues::Whole, epoch).unwrap();
        let key = RecordKey::new(b"key");
        let operation = Operation::GetRecord { key: key.clone(), policy: Policy::First };
        let request = Request { id: RequestId(1), operation, options: RequestOptions::default() };
        tracker.handle_command(Command::Request(request), epoch).unwrap();
        let mut lines = drained(&mut tracker);
        tracker.handle_started(StepId(1), Ok(Started { id: "a", had_provider: false }), epoch);
        let result = QueryResult::GetRecord(Err(kad::GetRecordError::NotFound { key, closest_peers: Vec::new() }));
        let progress = Progress { requests: 20, successes: 20, failures: 0 };
        tracker.handle_event(QueryEvent { id: "a", result, progress, last: true }, epoch);
        lines.extend(drained(&mut tracker));
        assert!(lines.iter().any(|line| line.contains("inconclusive")), "{lines:#?}");
        assert_eq!(replayed(&lines), Ok(lines.len()));
    }

    /// Both change the certainty of a result, which is part of its outcome.
    #[test]
    fn news_of_the_network_and_cut_short_queries_are_replayed() {
        #[expect(clippy::disallowed_methods, reason = "any epoch will do")]
        let epoch = Instant::now();
        let config = TrackerConfig::default().expected_network_size(4).max_item_bytes(9);
        let mut tracker = QueryTracker::<&str>::new(PeerId::random(), config);
        tracker.record(LogValues::Whole, epoch).unwrap();
        let mut lines = Vec::new();
        let mut drain = |tracker: &mut QueryTracker<&'static str>| lines.extend(drained(tracker));
        let key = RecordKey::new(b"key");
        for (id, query) in (1..).zip(["a", "b", "c"]) {
            let operation = Operation::GetRecord { key: key.clone(), policy: Policy::First };
            let request = Request { id: RequestId(id), operation, options: RequestOptions::default() };
            tracker.handle_command(Command::Request(request), epoch).unwrap();
            drain(&mut tracker);
            tracker.handle_started(StepId(id), Ok(Started { id: query, had_provider: false }), epoch);
            match query {
                "b" => tracker.handle_cut_short(query, epoch),
                "c" => {
                    let isolated = Network::default().size(7).reachability(crate::Reachability::Isolated);
                    tracker.handle_network(isolated, epoch);
                    tracker.handle_command(Command::Written { key: key.clone() }, epoch).unwrap();
                }
                _ => tracker.handle_query_count(3, epoch),
            }
            let not_found = kad::GetRecordError::NotFound { key: key.clone(), closest_peers: Vec::new() };
            let (result, progress) =
                (QueryResult::GetRecord(Err(not_found)), Progress { requests: 2, successes: 2, failures: 0 });
            tracker.handle_event(QueryEvent { id: query, result, progress, last: true }, epoch);
            drain(&mut tracker);
        }
        assert_eq!(replayed(&lines), Ok(lines.len()));
        for (request, certainty) in [(1, "conclusive"), (2, "inconclusive"), (3, "inconclusive")] {
            let start = format!("< outcome {request} get_record err not_found");
            let outcome = lines.iter().find(|line| line.starts_with(&start)).unwrap();
            assert!(outcome.split(' ').any(|word| word == certainty), "{outcome}");
        }
        // Without these inputs, a replay gives other outcomes.
        for input in ["cut_short", "network"] {
            let without: Vec<_> = lines.iter().filter(|line| line.split(' ').nth(2) != Some(input)).cloned().collect();
            assert_eq!(without.len(), lines.len() - 1, "{input}");
            assert!(matches!(replayed(&without), Err(ReplayError::Diverged { .. })), "{input}");
        }
    }

    /// Its lines could mean something else.
    #[test]
    fn a_log_of_another_version_is_malformed() {
        let mut lines = recorded(LogValues::Whole);
        assert!(lines[0].starts_with("kadence-log-2 "), "{}", lines[0]);
        for version in ["kadence-log-1", "kadence-log-3"] {
            lines[0] = lines[0].replace("kadence-log-2", version);
            assert_eq!(replayed(&lines), Err(ReplayError::Malformed { line: 1 }));
            lines[0] = lines[0].replace(version, "kadence-log-2");
        }
    }

    fn round_trip<T: Field>(value: &T, epoch: Instant) -> Option<T> {
        let mut writer = Writer::new(epoch, Values::Whole);
        value.put(&mut writer);
        let line = writer.finish();
        let mut tokens = Tokens::new(&line, epoch, LogValues::Whole);
        T::take(&mut tokens).filter(|_| tokens.is_empty())
    }

    #[test]
    fn rare_values_are_read_as_they_were_written() {
        #[expect(clippy::disallowed_methods, reason = "any epoch will do")]
        let epoch = Instant::now();
        let before = epoch - Duration::from_secs(3);
        assert_eq!(round_trip(&Some(before), epoch), Some(Some(before)));
        let address: Multiaddr = "/ip6/::1/tcp/4001".parse().unwrap();
        assert_eq!(round_trip(&address, epoch), Some(address.clone()));
        assert_eq!(round_trip(&"naïve".to_owned(), epoch), Some("naïve".to_owned()));
        for error in [store::Error::MaxRecords, store::Error::MaxProvidedKeys, store::Error::ValueTooLarge] {
            let read = round_trip(&error, epoch);
            assert_eq!(format!("{read:?}"), format!("{:?}", Some(error)));
        }
    }

    #[test]
    fn malformed_tokens_are_rejected() {
        #[expect(clippy::disallowed_methods, reason = "any epoch will do")]
        let epoch = Instant::now();
        fn is_read<T: Field>(line: &str, values: LogValues, epoch: Instant) -> bool {
            T::take(&mut Tokens::new(line, epoch, values)).is_some()
        }
        let whole = |line| {
            [
                is_read::<store::Error>(line, LogValues::Whole, epoch),
                is_read::<Option<u64>>(line, LogValues::Whole, epoch),
                is_read::<Result<(), store::Error>>(line, LogValues::Whole, epoch),
                is_read::<Multiaddr>(line, LogValues::Whole, epoch),
                is_read::<String>(line, LogValues::Whole, epoch),
                is_read::<Instant>(line, LogValues::Whole, epoch),
                is_read::<QueryEvent<u64>>(line, LogValues::Whole, epoch),
                is_read::<TrackerConfig>(line, LogValues::Whole, epoch),
            ]
        };
        for line in ["", "max", "some", "ok?", "x0", "xzz", "xff", "+", "1", "-x", "1 get_record ok"] {
            assert_eq!(whole(line), [false; 8], "{line}");
        }
        // A stand-in longer than any value, or whose hash is not one.
        for line in ["h99999999999:0011223344556677", "h2:00112233", "h2", "x00"] {
            let mut tokens = Tokens::new(line, epoch, LogValues::Hashed);
            assert_eq!(tokens.value(), None, "{line}");
        }
    }
}
