//! What the ready-made node makes of peers of which every one behaves by a script, on real swarms: its answer is the one
//! that the scripts imply, and there is one, whatever they do.

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
    Asks, Bed, Conduct, Script, ScriptedNode, TestRuntime, TokioMultiThread, Wire, run,
    suite::support::{key, record, sorted},
    with_kad,
};
use libp2p::{
    PeerId,
    kad::{KBucketKey, Quorum, Record, RecordKey, store::RecordStore},
};

/// Slow beside peers in the same process, and not so slow that it could be taken for silent.
const SLOW: Conduct = Conduct::Slow(Duration::from_millis(50));

/// More than any test needs, and less than a test may take.
const LONG: Duration = Duration::from_secs(40);

/// A network of these peers, and who asks them.
struct Network {
    peers: Vec<ScriptedNode>,
    node: Node,
}

impl Network {
    async fn of<R: TestRuntime>(bed: &Bed<R>, scripts: impl IntoIterator<Item = Script>) -> Self {
        Self::with(bed, NodeConfig::default(), scripts).await
    }

    async fn with<R: TestRuntime>(bed: &Bed<R>, config: NodeConfig, scripts: impl IntoIterator<Item = Script>) -> Self {
        let peers = bed.scripted(scripts).await;
        let node = bed.asker(config, peers.iter().map(|peer| &peer.contact)).await;
        Self { peers, node }
    }

    fn get(&self, name: &str) -> kadence::Call<GetRecord> {
        self.node.client().get_record(key(name)).timeout(LONG)
    }

    /// The ids of these peers, sorted.
    fn ids(&self, places: impl IntoIterator<Item = usize>) -> Vec<PeerId> {
        sorted(places.into_iter().map(|place| self.peers[place].peer()))
    }

    async fn holds_locally(&self, record: Record) {
        with_kad(self.node.swarm(), |kad| kad.store_mut().put(record)).await.unwrap();
    }

    async fn local_record(&self, name: &str) -> Option<Record> {
        let key = key(name);
        with_kad(self.node.swarm(), move |kad| kad.store_mut().get(&key).map(|record| record.into_owned())).await
    }
}

fn has(name: &str, value: &str, conduct: Conduct) -> Script {
    Script::always(conduct).holds(record(name, value))
}

/// Has nothing, and says so.
fn ordinary() -> Script {
    Script::always(Conduct::Prompt)
}

/// Who sent which value, each source once.
fn sources(answer: &RecordAnswer) -> BTreeMap<Option<PeerId>, String> {
    let sources: BTreeMap<_, _> =
        answer.iter().map(|found| (found.peer, String::from_utf8(found.record.value.clone()).unwrap())).collect();
    assert_eq!(sources.len(), answer.iter().count(), "a source is named twice: {answer:?}");
    sources
}

/// The candidates of a conflict: how many hold which value.
fn votes(candidates: &[Candidate]) -> Vec<(&[u8], usize)> {
    let mut votes: Vec<_> = candidates.iter().map(|one| (one.record.record.value.as_slice(), one.votes)).collect();
    votes.sort_unstable();
    votes
}

#[test]
fn the_only_value_is_found_among_peers_that_do_not_help() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let network = Network::of(
            bed,
            [
                Script::always(Conduct::Refuses),
                Script::always(Conduct::Silent),
                has("a", "value", Conduct::Prompt),
                Script::always(Conduct::HangsUp),
                Script::always(Conduct::Empty),
                has("a", "value", Conduct::WrongKey),
            ],
        )
        .await;
        let answer = network.get("a").await.unwrap();
        assert_eq!(sources(&answer), BTreeMap::from([(Some(network.peers[2].peer()), "value".to_owned())]));
        assert_eq!((answer.agreeing, answer.dissenting), (1, 0));
    });
}

#[test]
fn a_limit_is_so_many_sources_or_all_there_are() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let network = Network::of(
            bed,
            [
                has("a", "value", Conduct::Prompt),
                has("a", "value", SLOW),
                has("a", "value", Conduct::Prompt),
                Script::always(Conduct::Empty),
                Script::always(Conduct::Refuses),
            ],
        )
        .await;
        assert_eq!(sources(&network.get("a").limit(2).await.unwrap()).len(), 2);
        let answer = network.get("a").limit(10).await.unwrap();
        assert_eq!(sorted(sources(&answer).into_keys().flatten()), network.ids([0, 1, 2]));
    });
}

#[test]
fn all_is_what_everybody_sends_who_answers() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let network = Network::of(
            bed,
            [
                has("a", "value", Conduct::Prompt),
                has("a", "value", SLOW),
                has("a", "value", Conduct::Lies(b"lie".to_vec())),
                has("a", "value", Conduct::WrongKey),
                has("a", "value", Conduct::Empty),
                has("a", "value", Conduct::Refuses),
                has("a", "value", Conduct::HangsUp),
                has("a", "value", Conduct::Silent),
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
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let network = Network::of(
            bed,
            [
                has("a", "value", SLOW),
                has("a", "value", SLOW),
                has("a", "value", Conduct::Prompt),
                has("a", "value", Conduct::Lies(b"lie".to_vec())),
            ],
        )
        .await;
        let answer = network.get("a").quorum(3).await.unwrap();
        assert_eq!((answer.value(), answer.agreeing), (b"value".as_slice(), 3));
        // Whether the liar was heard before the quorum was there is not scripted.
        let lies = sources(&answer).into_values().filter(|value| value == "lie").count();
        assert_eq!(answer.dissenting, lies);

        let result = network.get("a").quorum(4).await;
        let Err(GetRecordError::Conflict { candidates, needed, .. }) = result else { panic!("{result:?}") };
        assert_eq!(votes(&candidates), [(b"lie".as_slice(), 1), (b"value", 3)]);
        assert_eq!(needed, 4);
    });
}

#[test]
fn values_without_a_quorum_are_a_conflict_with_all_of_them() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let scripts = [has("a", "one", Conduct::Prompt), has("a", "two", SLOW), ordinary()];
        let network = Network::of(bed, scripts).await;
        let result = network.get("a").quorum(2).await;
        let Err(GetRecordError::Conflict { candidates, needed, .. }) = result else { panic!("{result:?}") };
        assert_eq!(votes(&candidates), [(b"one".as_slice(), 1), (b"two", 1)]);
        assert_eq!(needed, 2);
    });
}

#[test]
fn who_has_no_record_has_no_vote() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let scripts = [has("a", "value", Conduct::Prompt), ordinary(), ordinary(), Script::always(Conduct::Empty)];
        let network = Network::of(bed, scripts).await;
        let result = network.get("a").quorum(2).await;
        let Err(GetRecordError::QuorumNotReached { candidate, needed, .. }) = result else { panic!("{result:?}") };
        assert_eq!((candidate.votes, needed), (1, 2));
        assert_eq!(candidate.record.peer, Some(network.peers[0].peer()));
    });
}

#[test]
fn the_local_copy_is_one_source_and_asks_the_network_for_the_others() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let scripts = [
            has("shared", "value", Conduct::Prompt),
            ordinary().holds(record("other", "theirs")),
            Script::always(Conduct::Empty),
        ];
        let network = Network::of(bed, scripts).await;
        for (name, value) in [("shared", "value"), ("other", "ours"), ("alone", "value")] {
            network.holds_locally(record(name, value)).await;
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
fn records_under_another_key_are_none() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let network = Network::of(bed, [(); 3].map(|()| has("a", "value", Conduct::WrongKey))).await;
        for get in [network.get("a"), network.get("a").quorum(2), network.get("a").all()] {
            let result = get.await;
            assert!(matches!(result, Err(GetRecordError::NotFound { .. })), "{result:?}");
        }
    });
}

#[test]
fn an_answer_that_nobody_gives_is_no_statement_about_the_key() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        for conduct in [Conduct::HangsUp, Conduct::Refuses] {
            let network = Network::of(bed, [(); 4].map(|()| has("a", "value", conduct.clone()))).await;
            let result = network.get("a").await;
            assert!(matches!(result, Err(GetRecordError::NoResponse { .. })), "{conduct:?}: {result:?}");
            let providers = network.node.client().get_providers(key("a")).timeout(LONG).await;
            assert!(matches!(providers, Err(GetProvidersError::NoResponse { .. })), "{conduct:?}: {providers:?}");
            let put = network.node.client().put_record(record("b", "value")).timeout(LONG).await;
            assert!(matches!(put, Err(PutRecordError::NoResponse { .. })), "{conduct:?}: {put:?}");
        }
    });
}

/// Requests that are under way on a connection end with it.
#[test]
fn many_calls_that_are_hung_up_on_all_end() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let hangs_up = |_| Script::only(Asks::Record, Conduct::HangsUp).holds(record("a", "value"));
        let network = Network::of(bed, (0..3).map(hangs_up).chain([has("a", "value", SLOW)])).await;
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
fn slow_is_not_silent_where_everybody_is_slow() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let slow = Conduct::Slow(Duration::from_millis(500));
        let scripts = [
            has("a", "value", slow.clone()),
            has("a", "value", slow.clone()),
            Script::always(slow.clone()),
            Script::always(slow),
        ];
        let network = Network::of(bed, scripts).await;
        assert_eq!(network.get("a").await.unwrap().value(), b"value");
        assert_eq!(network.get("a").quorum(2).await.unwrap().agreeing, 2);
        let found = network.node.client().get_closest_peers(key("b")).timeout(LONG).await.unwrap();
        assert_eq!(sorted(found.peers.into_iter().map(|peer| peer.peer_id)), network.ids(0..4));
        let put = network.node.client().put_record(record("b", "value")).quorum(Quorum::All).timeout(LONG);
        assert_eq!(sorted(put.await.unwrap().acknowledged), network.ids(0..4));
    });
}

/// Both share their first lookup, so that they can be compared peer by peer.
#[test]
fn a_thorough_lookup_finds_those_of_an_ordinary_one_or_closer_ones() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let script = |n: usize| if n.is_multiple_of(5) { Script::always(Conduct::Silent) } else { ordinary() };
        let peers = bed.scripted((0..30).map(script)).await;
        // Who answers, and names all others as far as they are close.
        let known = peers.iter().map(|peer| &peer.contact).skip(1).take(3);
        let node = bed.asker(NodeConfig::default(), known).await;
        let lookup = || node.client().get_closest_peers(key("a")).timeout(LONG);
        let (ordinary, thorough) = join!(lookup().into_future(), lookup().thorough().into_future());
        let (ordinary, thorough) = (ordinary.unwrap(), thorough.unwrap());

        let target = KBucketKey::new(key("a"));
        let distances = |answer: &ClosestPeersAnswer| -> Vec<_> {
            answer.peers.iter().map(|info| KBucketKey::from(info.peer_id).distance(&target)).collect()
        };
        let (near, far) = (distances(&thorough), distances(&ordinary));
        assert!(near.is_sorted_by(|a, b| a < b), "the closest first, each once");
        assert!(far.len() <= near.len() && near.len() <= 20, "{} of {}", near.len(), far.len());
        assert!(near.iter().zip(&far).all(|(near, far)| near <= far), "{thorough:?}, {ordinary:?}");
        let silent: Vec<_> = peers.iter().step_by(5).map(ScriptedNode::peer).collect();
        assert!(thorough.peers.iter().all(|info| !silent.contains(&info.peer_id)), "who is silent was not found");
        assert!(thorough.progress.requests > ordinary.progress.requests, "there was a second lookup");
    });
}

#[test]
fn the_closest_peers_are_those_that_answer() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let conducts = [
            Conduct::Prompt,
            SLOW,
            Conduct::Empty,
            Conduct::Lies(b"lie".to_vec()),
            Conduct::Refuses,
            Conduct::HangsUp,
            Conduct::Silent,
        ];
        let network = Network::of(bed, conducts.map(Script::always)).await;
        let found = network.node.client().get_closest_peers(key("a")).timeout(LONG).await.unwrap();
        assert_eq!(sorted(found.peers.into_iter().map(|peer| peer.peer_id)), network.ids(0..4));
    });
}

#[test]
fn a_put_counts_those_that_acknowledge_and_nobody_else() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let scripts = [
            ordinary(),
            ordinary(),
            Script::always(SLOW),
            Script::only(Asks::Put, Conduct::Refuses),
            Script::only(Asks::Put, Conduct::HangsUp),
            Script::only(Asks::Put, Conduct::Silent),
        ];
        let network = Network::of(bed, scripts).await;
        let put = |name, quorum: usize| {
            let quorum = Quorum::N(quorum.try_into().unwrap());
            network.node.client().put_record(record(name, "value")).quorum(quorum).timeout(LONG).into_future()
        };
        let (enough, too_few) = join!(put("enough", 3), put("too few", 4));
        assert_eq!(sorted(enough.unwrap().acknowledged), network.ids(0..3));
        assert!(network.local_record("enough").await.is_some(), "a put that succeeded is kept for republishing");
        let Err(PutRecordError::QuorumFailed { acknowledged, needed, .. }) = too_few else { panic!("{too_few:?}") };
        assert_eq!(sorted(acknowledged), network.ids(0..3));
        assert_eq!(needed.get(), 4);
        assert_eq!(network.local_record("too few").await, None);
        for (place, peer) in network.peers.iter().enumerate() {
            // Whoever is silent has it all the same.
            let expected = [0, 1, 2, 5].contains(&place);
            assert_eq!(peer.local_record(&key("enough")).await.is_some(), expected, "peer {place}");
        }
    });
}

#[test]
fn providers_are_those_that_are_named() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let [one, two, three] = [(); 3].map(|()| PeerId::random());
        let scripts = [
            ordinary().names(key("a"), one),
            Script::always(SLOW).names(key("a"), one).names(key("a"), two),
            Script::always(Conduct::Empty).names(key("a"), three),
            Script::always(Conduct::Refuses).names(key("a"), three),
            Script::always(Conduct::HangsUp).names(key("a"), three),
        ];
        let network = Network::of(bed, scripts).await;
        let get = |name| network.node.client().get_providers(key(name)).timeout(LONG);
        let found = get("a").await.unwrap();
        assert_eq!(sorted(found.providers.iter().copied()), sorted([one, two]));
        assert_eq!(found.providers.len(), 2, "each is named once");
        let first = get("a").first().await.unwrap();
        assert!(first.providers == [one] || first.providers == [two], "{first:?}");
        let result = get("b").await;
        assert!(matches!(result, Err(GetProvidersError::NotFound { .. })), "{result:?}");
    });
}

/// Values are numbers, and the larger is the better.
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
fn the_best_is_the_best_of_the_valid_ones() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let name = "/number/a";
        let scripts = [
            has(name, "7", Conduct::Prompt),
            has(name, "12", SLOW),
            has(name, "12", Conduct::Prompt),
            has(name, "3", Conduct::Lies(b"not a number".to_vec())),
            has(name, "99", Conduct::WrongKey),
            has(name, "99", Conduct::Refuses),
            Script::always(Conduct::Empty),
        ];
        let network = Network::with(bed, with_numbers(), scripts).await;
        for get in [network.get(name).best(), network.get(name).best_with_quorum(2)] {
            let answer = get.await.unwrap();
            assert_eq!((answer.value(), answer.agreeing), (b"12".as_slice(), 2), "{answer:?}");
            assert!(sources(&answer).into_values().all(|value| value == "7" || value == "12"), "{answer:?}");
        }
    });
}

#[test]
fn what_is_not_valid_is_never_returned_nor_kept_nor_put_back() {
    run::<TokioMultiThread>(Wire::Memory, async |bed| {
        let name = "/number/a";
        let lie = || has(name, "1", Conduct::Lies(b"not a number".to_vec()));
        let network = Network::with(bed, with_numbers(), [lie(), lie(), lie(), ordinary(), ordinary()]).await;
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
