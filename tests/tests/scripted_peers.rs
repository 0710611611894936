//! `kadence::node::Node` among peers that behave by scripts, on real swarms. Each call ends, with the answer that
//! follows from the scripts.

#![cfg(test)]

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc, time::Duration};

use futures::join;
use kadence::{
    Candidate, ClosestPeersAnswer, GetProvidersError, GetRecordError, PutRecordError, RecordAnswer, ValidationError,
    Validator, Validators,
    kind::GetRecord,
    node::{Node, NodeConfig},
};
use kadence_tests::{
    AnswerMode, RequestKind, Script, ScriptedNode, TestEnv, TestRuntime, TokioMultiThread, TransportKind, run,
    suite::support::{key, record, sorted},
    with_kad,
};
use libp2p::{
    PeerId,
    kad::{KBucketKey, Quorum, Record, RecordKey, store::RecordStore},
};

/// Slow for peers in the same process, but not slow enough to be taken for silent.
const SLOW: AnswerMode = AnswerMode::Slow(Duration::from_millis(50));

/// More than any call needs, and less than a test may take.
const LONG: Duration = Duration::from_secs(40);

/// A network of scripted peers, and a node that asks them.
struct Network {
    peers: Vec<ScriptedNode>,
    node: Node,
}

impl Network {
    async fn of<R: TestRuntime>(env: &TestEnv<R>, scripts: impl IntoIterator<Item = Script>) -> Self {
        Self::with(env, NodeConfig::default(), scripts).await
    }

    async fn with<R: TestRuntime>(
        env: &TestEnv<R>,
        config: NodeConfig,
        scripts: impl IntoIterator<Item = Script>,
    ) -> Self {
        let peers = env.scripted_nodes(scripts).await;
        let node = env.asking_node(config, peers.iter().map(|peer| &peer.contact)).await;
        Self { peers, node }
    }

    fn get(&self, name: &str) -> kadence::Call<GetRecord> {
        self.node.client().get_record(key(name)).timeout(LONG)
    }

    /// Returns the ids of the peers with these indices, sorted.
    fn ids(&self, places: impl IntoIterator<Item = usize>) -> Vec<PeerId> {
        sorted(places.into_iter().map(|place| self.peers[place].peer()))
    }

    async fn store_locally(&self, record: Record) {
        with_kad(self.node.swarm(), |kad| kad.store_mut().put(record)).await.unwrap();
    }

    async fn local_record(&self, name: &str) -> Option<Record> {
        let key = key(name);
        with_kad(self.node.swarm(), move |kad| kad.store_mut().get(&key).map(|record| record.into_owned())).await
    }
}

fn has(name: &str, value: &str, mode: AnswerMode) -> Script {
    Script::always(mode).with_record(record(name, value))
}

/// Has no record and says so.
fn ordinary() -> Script {
    Script::always(AnswerMode::Prompt)
}

/// Returns the source and value of each record. Asserts that no source occurs twice.
fn sources(answer: &RecordAnswer) -> BTreeMap<Option<PeerId>, String> {
    let sources: BTreeMap<_, _> =
        answer.iter().map(|found| (found.peer, String::from_utf8(found.record.value.clone()).unwrap())).collect();
    assert_eq!(sources.len(), answer.iter().count(), "a source is named twice: {answer:?}");
    sources
}

/// Returns the values of a conflict and their votes.
fn votes(candidates: &[Candidate]) -> Vec<(&[u8], usize)> {
    let mut votes: Vec<_> = candidates.iter().map(|one| (one.record.record.value.as_slice(), one.votes)).collect();
    votes.sort_unstable();
    votes
}

#[test]
fn the_only_value_is_found_among_peers_that_do_not_help() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let network = Network::of(
            env,
            [
                Script::always(AnswerMode::BrokenStream),
                Script::always(AnswerMode::Silent),
                has("a", "value", AnswerMode::Prompt),
                Script::always(AnswerMode::ClosedConnection),
                Script::always(AnswerMode::Empty),
                has("a", "value", AnswerMode::WrongKey),
            ],
        )
        .await;
        let answer = network.get("a").await.unwrap();
        assert_eq!(sources(&answer), BTreeMap::from([(Some(network.peers[2].peer()), "value".to_owned())]));
        assert_eq!((answer.agreeing, answer.dissenting), (1, 0));
    });
}

#[test]
fn a_limit_returns_that_many_sources_or_all_available() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let network = Network::of(
            env,
            [
                has("a", "value", AnswerMode::Prompt),
                has("a", "value", SLOW),
                has("a", "value", AnswerMode::Prompt),
                Script::always(AnswerMode::Empty),
                Script::always(AnswerMode::BrokenStream),
            ],
        )
        .await;
        assert_eq!(sources(&network.get("a").limit(2).await.unwrap()).len(), 2);
        let answer = network.get("a").limit(10).await.unwrap();
        assert_eq!(sorted(sources(&answer).into_keys().flatten()), network.ids([0, 1, 2]));
    });
}

#[test]
fn all_returns_the_record_of_every_peer_that_answers() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let network = Network::of(
            env,
            [
                has("a", "value", AnswerMode::Prompt),
                has("a", "value", SLOW),
                has("a", "value", AnswerMode::WrongValue(b"lie".to_vec())),
                has("a", "value", AnswerMode::WrongKey),
                has("a", "value", AnswerMode::Empty),
                has("a", "value", AnswerMode::BrokenStream),
                has("a", "value", AnswerMode::ClosedConnection),
                has("a", "value", AnswerMode::Silent),
            ],
        )
        .await;
        let answer = network.get("a").all().await.unwrap();
        let said = [(0, "value"), (1, "value"), (2, "lie")];
        let expected = said.map(|(place, value)| (Some(network.peers[place].peer()), value.to_owned()));
        assert_eq!(sources(&answer), BTreeMap::from(expected));
    });
}

#[test]
fn a_liar_is_outvoted_and_counted() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let network = Network::of(
            env,
            [
                has("a", "value", SLOW),
                has("a", "value", SLOW),
                has("a", "value", AnswerMode::Prompt),
                has("a", "value", AnswerMode::WrongValue(b"lie".to_vec())),
            ],
        )
        .await;
        let answer = network.get("a").quorum(3).await.unwrap();
        assert_eq!((answer.value(), answer.agreeing), (b"value".as_slice(), 3));
        // The script does not determine whether the liar answers before the quorum is reached.
        let lies = sources(&answer).into_values().filter(|value| value == "lie").count();
        assert_eq!(answer.dissenting, lies);

        let result = network.get("a").quorum(4).await;
        let Err(GetRecordError::Conflict { candidates, needed, .. }) = result else { panic!("{result:?}") };
        assert_eq!(votes(&candidates), [(b"lie".as_slice(), 1), (b"value", 3)]);
        assert_eq!(needed, 4);
    });
}

#[test]
fn values_without_a_quorum_are_a_conflict_that_lists_them() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let scripts = [has("a", "one", AnswerMode::Prompt), has("a", "two", SLOW), ordinary()];
        let network = Network::of(env, scripts).await;
        let result = network.get("a").quorum(2).await;
        let Err(GetRecordError::Conflict { candidates, needed, .. }) = result else { panic!("{result:?}") };
        assert_eq!(votes(&candidates), [(b"one".as_slice(), 1), (b"two", 1)]);
        assert_eq!(needed, 2);
    });
}

#[test]
fn peers_without_a_record_do_not_vote() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let scripts =
            [has("a", "value", AnswerMode::Prompt), ordinary(), ordinary(), Script::always(AnswerMode::Empty)];
        let network = Network::of(env, scripts).await;
        let result = network.get("a").quorum(2).await;
        let Err(GetRecordError::QuorumNotReached { candidate, needed, .. }) = result else { panic!("{result:?}") };
        assert_eq!((candidate.votes, needed), (1, 2));
        assert_eq!(candidate.record.peer, Some(network.peers[0].peer()));
    });
}

#[test]
fn the_local_copy_counts_as_one_source() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let scripts = [
            has("shared", "value", AnswerMode::Prompt),
            ordinary().with_record(record("other", "theirs")),
            Script::always(AnswerMode::Empty),
        ];
        let network = Network::of(env, scripts).await;
        for (name, value) in [("shared", "value"), ("other", "ours"), ("alone", "value")] {
            network.store_locally(record(name, value)).await;
        }

        let answer = network.get("shared").quorum(2).await.unwrap();
        let expected = [None, Some(network.peers[0].peer())].map(|source| (source, "value".to_owned()));
        assert_eq!(sources(&answer), BTreeMap::from(expected));

        let result = network.get("other").quorum(2).await;
        let Err(GetRecordError::Conflict { candidates, .. }) = result else { panic!("{result:?}") };
        assert_eq!(votes(&candidates), [(b"ours".as_slice(), 1), (b"theirs", 1)]);

        let result = network.get("alone").quorum(2).await;
        let Err(GetRecordError::QuorumNotReached { candidate, .. }) = result else { panic!("{result:?}") };
        assert_eq!((candidate.record.peer, candidate.votes), (None, 1));
    });
}

#[test]
fn records_under_another_key_are_ignored() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let network = Network::of(env, [(); 3].map(|()| has("a", "value", AnswerMode::WrongKey))).await;
        for get in [network.get("a"), network.get("a").quorum(2), network.get("a").all()] {
            let result = get.await;
            assert!(matches!(result, Err(GetRecordError::NotFound { .. })), "{result:?}");
        }
    });
}

#[test]
fn no_response_is_distinct_from_not_found() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        for mode in [AnswerMode::ClosedConnection, AnswerMode::BrokenStream] {
            let network = Network::of(env, [(); 4].map(|()| has("a", "value", mode.clone()))).await;
            let result = network.get("a").await;
            assert!(matches!(result, Err(GetRecordError::NoResponse { .. })), "{mode:?}: {result:?}");
            let providers = network.node.client().get_providers(key("a")).timeout(LONG).await;
            assert!(matches!(providers, Err(GetProvidersError::NoResponse { .. })), "{mode:?}: {providers:?}");
            let put = network.node.client().put_record(record("b", "value")).timeout(LONG).await;
            assert!(matches!(put, Err(PutRecordError::NoResponse { .. })), "{mode:?}: {put:?}");
        }
    });
}

/// Requests that are pending on a connection end when it closes.
#[test]
fn all_calls_end_when_their_connections_close() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let hangs_up =
            |_| Script::only(RequestKind::Record, AnswerMode::ClosedConnection).with_record(record("a", "value"));
        let network = Network::of(env, (0..3).map(hangs_up).chain([has("a", "value", SLOW)])).await;
        let gets = (0..50).map(|n| {
            let name = if n % 2 == 0 { "a".to_owned() } else { format!("missing {n}") };
            let get = network.get(&name);
            async move { (n, get.await) }
        });
        for (n, result) in futures::future::join_all(gets).await {
            match result {
                Ok(answer) => assert_eq!((n % 2, answer.value()), (0, b"value".as_slice())),
                Err(GetRecordError::NotFound { .. }) => assert_eq!(n % 2, 1, "the record exists"),
                Err(error) => panic!("{error:?}"),
            }
        }
    });
}

#[test]
fn slow_peers_are_not_taken_for_silent_ones() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let slow = AnswerMode::Slow(Duration::from_millis(500));
        let scripts = [
            has("a", "value", slow.clone()),
            has("a", "value", slow.clone()),
            Script::always(slow.clone()),
            Script::always(slow),
        ];
        let network = Network::of(env, scripts).await;
        assert_eq!(network.get("a").await.unwrap().value(), b"value");
        assert_eq!(network.get("a").quorum(2).await.unwrap().agreeing, 2);
        let found = network.node.client().get_closest_peers(key("b")).timeout(LONG).await.unwrap();
        assert_eq!(sorted(found.peers.iter().map(|peer| peer.peer_id)), network.ids(0..4));
        let put = network.node.client().put_record(record("b", "value")).quorum(Quorum::All).timeout(LONG);
        assert_eq!(sorted(put.await.unwrap().acknowledged), network.ids(0..4));
    });
}

/// Both lookups share their first query, so that their results can be compared peer by peer.
#[test]
fn a_thorough_lookup_finds_the_same_peers_or_closer_ones() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let script = |n: usize| if n.is_multiple_of(5) { Script::always(AnswerMode::Silent) } else { ordinary() };
        let peers = env.scripted_nodes((0..30).map(script)).await;
        // These peers answer, and name all others that are close.
        let known = peers.iter().map(|peer| &peer.contact).skip(1).take(3);
        let node = env.asking_node(NodeConfig::default(), known).await;
        let lookup = || node.client().get_closest_peers(key("a")).timeout(LONG);
        let (ordinary, thorough) = join!(lookup().into_future(), lookup().thorough().into_future());
        let (ordinary, thorough) = (ordinary.unwrap(), thorough.unwrap());

        let target = KBucketKey::new(key("a"));
        let distances = |answer: &ClosestPeersAnswer| -> Vec<_> {
            answer.peers.iter().map(|info| KBucketKey::from(info.peer_id).distance(&target)).collect()
        };
        let (near, far) = (distances(&thorough), distances(&ordinary));
        assert!(near.is_sorted_by(|a, b| a < b), "peers are sorted by distance, without duplicates");
        assert!(far.len() <= near.len() && near.len() <= 20, "{} of {}", near.len(), far.len());
        assert!(near.iter().zip(&far).all(|(near, far)| near <= far), "{thorough:?}, {ordinary:?}");
        let silent: Vec<_> = peers.iter().step_by(5).map(ScriptedNode::peer).collect();
        assert!(thorough.peers.iter().all(|info| !silent.contains(&info.peer_id)), "silent peers are not found");
        assert!(thorough.progress.requests > ordinary.progress.requests, "there was a second lookup");
    });
}

#[test]
fn the_closest_peers_are_those_that_answer() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let modes = [
            AnswerMode::Prompt,
            SLOW,
            AnswerMode::Empty,
            AnswerMode::WrongValue(b"lie".to_vec()),
            AnswerMode::BrokenStream,
            AnswerMode::ClosedConnection,
            AnswerMode::Silent,
        ];
        let network = Network::of(env, modes.map(Script::always)).await;
        let found = network.node.client().get_closest_peers(key("a")).timeout(LONG).await.unwrap();
        assert_eq!(sorted(found.peers.iter().map(|peer| peer.peer_id)), network.ids(0..4));
    });
}

#[test]
fn a_put_counts_only_acknowledgements() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let scripts = [
            ordinary(),
            ordinary(),
            Script::always(SLOW),
            Script::only(RequestKind::Put, AnswerMode::BrokenStream),
            Script::only(RequestKind::Put, AnswerMode::ClosedConnection),
            Script::only(RequestKind::Put, AnswerMode::Silent),
        ];
        let network = Network::of(env, scripts).await;
        let put = |name, quorum: usize| {
            let quorum = Quorum::N(quorum.try_into().unwrap());
            network.node.client().put_record(record(name, "value")).quorum(quorum).timeout(LONG).into_future()
        };
        let (enough, too_few) = join!(put("enough", 3), put("too few", 4));
        assert_eq!(sorted(enough.unwrap().acknowledged), network.ids(0..3));
        assert!(network.local_record("enough").await.is_some(), "a successful put is stored locally for republishing");
        let Err(PutRecordError::QuorumFailed { acknowledged, needed, .. }) = too_few else { panic!("{too_few:?}") };
        assert_eq!(sorted(acknowledged), network.ids(0..3));
        assert_eq!(needed.get(), 4);
        assert_eq!(network.local_record("too few").await, None);
        for (place, peer) in network.peers.iter().enumerate() {
            // The silent peer stores the record although it does not acknowledge it.
            let expected = [0, 1, 2, 5].contains(&place);
            assert_eq!(peer.local_record(&key("enough")).await.is_some(), expected, "peer {place}");
        }
    });
}

#[test]
fn providers_are_merged_from_all_answers() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let [one, two, three] = [(); 3].map(|()| PeerId::random());
        let scripts = [
            ordinary().with_provider(key("a"), one),
            Script::always(SLOW).with_provider(key("a"), one).with_provider(key("a"), two),
            Script::always(AnswerMode::Empty).with_provider(key("a"), three),
            Script::always(AnswerMode::BrokenStream).with_provider(key("a"), three),
            Script::always(AnswerMode::ClosedConnection).with_provider(key("a"), three),
        ];
        let network = Network::of(env, scripts).await;
        let get = |name| network.node.client().get_providers(key(name)).timeout(LONG);
        let found = get("a").await.unwrap();
        assert_eq!(sorted(found.providers.iter().copied()), sorted([one, two]));
        assert_eq!(found.providers.len(), 2, "each is named once");
        let first = get("a").first().await.unwrap();
        assert!(*first.providers == [one] || *first.providers == [two], "{first:?}");
        let result = get("b").await;
        assert!(matches!(result, Err(GetProvidersError::NotFound { .. })), "{result:?}");
    });
}

/// Validator: values are numbers; the larger one is better.
struct Numbers;

impl Validator for Numbers {
    fn validate(&self, _: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        if is_number { Ok(()) } else { Err(ValidationError("not a number".to_owned())) }
    }

    fn compare(&self, _: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        (left.len(), left).cmp(&(right.len(), right))
    }
}

fn with_numbers() -> NodeConfig {
    let mut config = NodeConfig::default();
    config.driver.tracker.validators = Validators::default().with("number", Arc::new(Numbers));
    config
}

#[test]
fn best_ignores_invalid_records() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let name = "/number/a";
        let scripts = [
            has(name, "7", AnswerMode::Prompt),
            has(name, "12", SLOW),
            has(name, "12", AnswerMode::Prompt),
            has(name, "3", AnswerMode::WrongValue(b"not a number".to_vec())),
            has(name, "99", AnswerMode::WrongKey),
            has(name, "99", AnswerMode::BrokenStream),
            Script::always(AnswerMode::Empty),
        ];
        let network = Network::with(env, with_numbers(), scripts).await;
        for get in [network.get(name).best(), network.get(name).best_with_quorum(2)] {
            let answer = get.await.unwrap();
            assert_eq!((answer.value(), answer.agreeing), (b"12".as_slice(), 2), "{answer:?}");
            assert!(sources(&answer).into_values().all(|value| value == "7" || value == "12"), "{answer:?}");
        }
    });
}

#[test]
fn invalid_records_are_never_returned_stored_or_repaired() {
    run::<TokioMultiThread>(TransportKind::Memory, async |env| {
        let name = "/number/a";
        let lie = || has(name, "1", AnswerMode::WrongValue(b"not a number".to_vec()));
        let network = Network::with(env, with_numbers(), [lie(), lie(), lie(), ordinary(), ordinary()]).await;
        let get = || network.get(name);
        for get in [get(), get().all(), get().quorum(2), get().best()] {
            let result = get.await;
            assert!(matches!(result, Err(GetRecordError::NotFound { .. })), "{result:?}");
        }
        assert_eq!(network.local_record(name).await, None);
        for (place, peer) in network.peers.iter().enumerate() {
            let kept = peer.local_record(&key(name)).await.map(|record| record.value);
            assert_eq!(kept.as_deref(), (place < 3).then_some(b"1".as_slice()), "peer {place}");
        }
    });
}
