//! Phases of the demonstration in a healthy network.

use std::{collections::BTreeSet, fmt, sync::Arc};

use futures::{StreamExt, stream};
use kadence_tokio::kadence::{
    Client, GetRecordError, InvalidRequestError, PutRecordError, REPLICATION_FACTOR, RequestError,
    libp2p::{
        PeerId,
        kad::{KBucketKey, Record, RecordKey},
    },
};
use rand::{
    RngExt,
    seq::{IndexedRandom, SliceRandom},
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    CALL_TIMEOUT, CALLERS, Demo, POLL, WAIT,
    files::{Source, Stored, check_total},
    measure::timed,
    network::RUNTIMES,
    retry,
};

/// Minimum number of gets, so that the 95th percentile is meaningful.
const MIN_GETS: usize = 240;

/// Maximum number of reads of all copies. Each transfers the value once for every node that has it.
const MAX_GET_ALL: usize = 60;

/// Number of keys that are provided.
const PROVIDED: usize = 12;

/// Number of nodes that provide each key.
const PROVIDERS: usize = 3;

impl Demo {
    /// Puts each file from one of the servers.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or all files together are too large.
    pub(super) async fn put(&mut self, source: &Source) -> anyhow::Result<()> {
        self.progress.begin("put", source.len());
        let (servers, _) = self.network.clients();
        let rng = &mut self.rng;
        let mut puts = stream::iter(source.read())
            .map(|file| {
                let publisher = rng.random_range(0..servers.len());
                let client = servers.get(publisher).cloned();
                async move {
                    let (key, value) = file?;
                    let record = Record::new(key.clone(), value.clone());
                    let client = client.ok_or_else(|| anyhow::anyhow!("there are no servers"))?;
                    let put = timed(client.put_record(record).retry(retry()).timeout(CALL_TIMEOUT)).await;
                    anyhow::Ok((Stored { key, value: Arc::from(value), publisher }, put))
                }
            })
            .buffer_unordered(CALLERS);
        let mut bytes = 0;
        while let Some(put) = puts.next().await {
            let (file, put) = put?;
            if let (_, Err(PutRecordError::Request(RequestError::Invalid(InvalidRequestError::ValueTooLong { .. })))) =
                put
            {
                self.rejected += 1;
            } else if self.measures.put.add(put).is_some() {
                bytes += file.value.len();
                check_total(bytes)?;
                self.stored.push(file);
            }
        }
        drop(puts);
        // The puts ended in any order. The phases below must depend on the seed alone.
        self.stored.sort_unstable_by(|a, b| a.key.as_ref().cmp(b.key.as_ref()));
        let (stored, rejected) = (self.stored.len(), self.rejected);
        let all = stored + rejected == source.len() && stored > 0;
        let detail = format!("{stored} stored, {rejected} rejected");
        self.check("every file is stored, or rejected as too large", all, &*detail);
        self.progress.end(format_args!("{detail}"));
        Ok(())
    }

    /// Reads every record from each of the nodes that store nothing, again and again until there are enough gets.
    pub(super) async fn get(&mut self) {
        let (_, askers) = self.network.clients();
        let once: Vec<(Client, Stored)> =
            askers.iter().flat_map(|client| self.stored.iter().map(|file| (client.clone(), file.clone()))).collect();
        let rounds = MIN_GETS.div_ceil(once.len().max(1));
        let mut jobs: Vec<_> = std::iter::repeat_n(once, rounds).flatten().collect();
        jobs.shuffle(&mut self.rng);
        let count = jobs.len();
        self.progress.begin("get", count);
        let mut gets = stream::iter(jobs)
            .map(|(client, file)| async move {
                (timed(client.get_record(file.key.clone()).retry(retry()).timeout(CALL_TIMEOUT)).await, file)
            })
            .buffer_unordered(CALLERS);
        let mut equal = 0;
        while let Some((get, file)) = gets.next().await {
            if let Some(answer) = self.measures.get.add(get) {
                equal += usize::from(*answer.value() == *file.value && answer.record.peer.is_some());
            }
        }
        drop(gets);
        let ok = equal == count && count > 0;
        self.check("every record comes back from another node, byte for byte", ok, format!("{equal} of {count}"));
        self.progress.end(format_args!("{equal} of {count} equal"));
    }

    /// Puts a record from a node on each runtime, and reads it from a node on each runtime.
    pub(super) async fn get_across(&mut self) {
        let (servers, askers) = self.network.clients();
        self.progress.begin("get across runtimes", RUNTIMES * RUNTIMES);
        let mut equal = 0;
        for (index, server) in servers.iter().take(RUNTIMES).enumerate() {
            let (key, value) = (RecordKey::from(format!("/across/{index}").into_bytes()), vec![b'x'; index]);
            let put = server.put_record(Record::new(key.clone(), value.clone())).retry(retry()).timeout(CALL_TIMEOUT);
            self.measures.put.add(timed(put).await);
            for asker in askers.iter().take(RUNTIMES) {
                let get = asker.get_record(key.clone()).retry(retry()).timeout(CALL_TIMEOUT).await;
                equal += usize::from(get.is_ok_and(|answer| *answer.value() == *value && answer.record.peer.is_some()));
            }
        }
        let (all, detail) = (RUNTIMES * RUNTIMES, format!("{equal} of {} pairs", RUNTIMES * RUNTIMES));
        self.check("nodes on each runtime read the records that nodes on each runtime put", equal == all, &*detail);
        self.progress.end(format_args!("{detail}"));
    }

    /// Reads all copies of each record, from a server that is not its publisher.
    pub(super) async fn get_all(&mut self) {
        let (servers, _) = self.network.clients();
        let mut jobs = Vec::new();
        for file in self.stored.iter().take(MAX_GET_ALL) {
            let others: Vec<&Client> = servers
                .iter()
                .enumerate()
                .filter(|(index, _)| *index != file.publisher)
                .map(|(_, other)| other)
                .collect();
            if let Some(reader) = others.choose(&mut self.rng) {
                jobs.push(((*reader).clone(), file.clone()));
            }
        }
        self.progress.begin("get all", jobs.len());
        let mut gets = stream::iter(jobs)
            .map(|(client, file)| async move {
                (timed(client.get_record(file.key.clone()).all().retry(retry()).timeout(CALL_TIMEOUT)).await, file)
            })
            .buffer_unordered(CALLERS);
        let (mut copies, mut equal) = (0, 0);
        while let Some((get, file)) = gets.next().await {
            if let Some(answer) = self.measures.get_all.add(get) {
                copies += answer.iter().count();
                equal += answer.iter().filter(|copy| *copy.record.value == *file.value).count();
            }
        }
        drop(gets);
        let ok = equal == copies && copies > self.stored.len().min(MAX_GET_ALL);
        self.check("all copies of a record are equal", ok, format!("{equal} of {copies} copies"));
        self.progress.end(format_args!("{copies} copies, {equal} equal"));
    }

    /// Asks for keys that do not exist. The answer has to be that they are not found, and not a timeout.
    pub(super) async fn get_missing(&mut self) {
        let not_found = self.get_missing_keys("before").await;
        let all = self.network.len();
        self.check("a key that does not exist is not found", not_found == all, format!("{not_found} of {all} gets"));
    }

    /// Gets a key that does not exist from every node. Returns the number of nodes that did not find it.
    pub(super) async fn get_missing_keys(&mut self, when: &str) -> usize {
        self.progress.begin("get missing", self.network.len());
        let gets = self.network.nodes().enumerate().map(|(index, node)| {
            let key = RecordKey::from(format!("/missing/{when}/{index}").into_bytes());
            is_not_found(node.client().clone(), key)
        });
        let gets = stream::iter(gets.collect::<Vec<_>>()).buffer_unordered(CALLERS);
        let not_found = gets.filter(|not_found| std::future::ready(*not_found)).count().await;
        self.progress.end(format_args!("{not_found} of {} not found", self.network.len()));
        not_found
    }

    /// Announces each key from several servers, and looks up the providers from every node that stores nothing.
    pub(super) async fn provide(&mut self) {
        let (servers, askers) = self.network.clients();
        let mut announced: Vec<(RecordKey, BTreeSet<PeerId>)> = Vec::new();
        let mut jobs = Vec::new();
        for index in 0..PROVIDED {
            let key = RecordKey::from(format!("/provided/{index}").into_bytes());
            let providers: Vec<Client> = servers.sample(&mut self.rng, PROVIDERS).cloned().collect();
            announced.push((key.clone(), providers.iter().map(Client::local_peer_id).collect()));
            jobs.extend(providers.into_iter().map(|client| (client, key.clone())));
        }
        self.progress.begin("provide", jobs.len());
        let mut provides = stream::iter(jobs)
            .map(|(client, key)| async move {
                timed(client.start_providing(key).retry(retry()).timeout(CALL_TIMEOUT)).await
            })
            .buffer_unordered(CALLERS);
        while let Some(provide) = provides.next().await {
            self.measures.provide.add(provide);
        }
        drop(provides);
        self.progress.end(format_args!("{PROVIDED} keys by {PROVIDERS} nodes each"));

        let jobs: Vec<_> =
            askers.iter().flat_map(|client| announced.iter().map(|key| (client.clone(), key.clone()))).collect();
        let count = jobs.len();
        self.progress.begin("providers", count);
        let mut lookups = stream::iter(jobs)
            .map(|(client, (key, providers))| async move {
                // An announcement is not acknowledged, so it may still be under way during the first lookups. Only the
                // last one counts.
                let deadline = Instant::now() + WAIT;
                loop {
                    let call = client.get_providers(key.clone()).retry(retry()).timeout(CALL_TIMEOUT);
                    let (took, found) = timed(call).await;
                    let complete = found
                        .as_ref()
                        .is_ok_and(|answer| providers.iter().all(|provider| answer.providers.contains(provider)));
                    if complete || Instant::now() > deadline {
                        return (complete, (took, found));
                    }
                    sleep(POLL).await;
                }
            })
            .buffer_unordered(CALLERS);
        let mut complete = 0;
        while let Some((found_all, lookup)) = lookups.next().await {
            complete += usize::from(found_all);
            self.measures.providers.add(lookup);
        }
        drop(lookups);
        self.check("every provider is found", complete == count, format!("{complete} of {count} lookups find all"));
        self.progress.end(format_args!("{complete} of {count} complete"));
    }

    /// Looks up the peers closest to some servers, from every node, and compares the answers with the closest servers.
    pub(super) async fn closest(&mut self) {
        let servers: Vec<PeerId> = self.network.servers.iter().map(|node| node.local_peer_id()).collect();
        let mut jobs = Vec::new();
        for node in self.network.nodes() {
            for target in servers.sample(&mut self.rng, 3) {
                jobs.push((node.client().clone(), *target, node.local_peer_id()));
            }
        }
        let count = jobs.len();
        self.progress.begin("closest", count);
        let mut lookups = stream::iter(jobs)
            .map(|(client, target, asker)| async move {
                let call = client.get_closest_peers(target).retry(retry()).timeout(CALL_TIMEOUT);
                (timed(call).await, target, asker)
            })
            .buffer_unordered(CALLERS);
        while let Some((lookup, target, asker)) = lookups.next().await {
            if let Some(answer) = self.measures.closest.add(lookup) {
                let peers: Vec<PeerId> = answer.peers.iter().map(|peer| peer.peer_id).collect();
                let (asked, answered) = (answer.progress.requests, answer.progress.successes);
                self.closest.add(assess(&servers, target, asker, &peers, asked, answered));
            }
        }
        drop(lookups);
        let ClosestLookups { lookups, wrong, .. } = &self.closest;
        let detail = match wrong.first() {
            None => format!("{lookups} of {count}"),
            Some(first) => format!("{} of {count} are wrong; the first one: {first}", wrong.len()),
        };
        let ok = wrong.is_empty() && *lookups == count;
        self.check("lookups of closest peers give right answers", ok, detail);
        self.progress.end(format_args!("{}", self.closest));
    }
}

/// Returns whether a get ends with "not found", conclusively or not: the answer is inconclusive where a dead node might
/// have had the record. Repeats a get that no peer answered.
async fn is_not_found(client: Client, key: RecordKey) -> bool {
    for _attempt in 0..retry().attempts {
        match client.get_record(key.clone()).timeout(CALL_TIMEOUT).await {
            Ok(_) => return false,
            Err(GetRecordError::NotFound { .. }) => return true,
            Err(_) => sleep(retry().base).await,
        }
    }
    false
}

/// Figures of the lookups of closest peers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct ClosestLookups {
    /// Number of lookups that ended with an answer.
    lookups: usize,
    /// Number of lookups that found all of the closest peers.
    complete: usize,
    /// Number of lookups that missed some of the closest peers for a reason that their answers show. That depends on
    /// the load of the computer, so it is a figure and not a fault.
    incomplete: usize,
    /// Number of the closest peers that the lookups found.
    found: usize,
    /// Number of the closest peers that exist, summed over all lookups.
    wanted: usize,
    /// Number of requests that were not answered in time.
    unanswered: u64,
    /// Faults of wrong answers.
    wrong: Vec<String>,
}

impl ClosestLookups {
    fn add(&mut self, result: Result<Found, String>) {
        self.lookups += 1;
        match result {
            Ok(Found { found, wanted, unanswered }) => {
                self.found += found;
                self.wanted += wanted;
                self.unanswered += u64::from(unanswered);
                *(if found == wanted { &mut self.complete } else { &mut self.incomplete }) += 1;
            }
            Err(fault) => self.wrong.push(fault),
        }
    }
}

impl fmt::Display for ClosestLookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lookups, complete, incomplete: _, found, wanted, unanswered, wrong: _ } = self;
        write!(
            f,
            "{complete} of {lookups} lookups complete, {found} of {wanted} peers found, \
             {unanswered} requests unanswered"
        )
    }
}

/// Number of the closest peers that a lookup found, of those that exist, and of requests without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    found: usize,
    wanted: usize,
    unanswered: u32,
}

/// Compares the answer of a lookup with the servers of the network. `asked` is the number of peers that the lookup
/// asked, and `answered` the number of those that answered.
///
/// A lookup promises the closest of the peers that answered. It may miss others if a peer did not answer, which shows
/// in the two numbers.
///
/// # Errors
///
/// A description of the fault if the answer is wrong:
///
/// - It names a peer that is not a server of the network, the asker, or a peer twice, or is not in order of distance.
/// - It leaves out a peer that answered.
/// - All peers answered, and one that a routing table of this network certainly has is missing.
fn assess(
    servers: &[PeerId],
    target: PeerId,
    asker: PeerId,
    peers: &[PeerId],
    asked: u32,
    answered: u32,
) -> Result<Found, String> {
    let distance = |peer: &PeerId| KBucketKey::from(*peer).distance(&KBucketKey::from(target));
    if let Some(peer) = peers.iter().find(|peer| !servers.contains(peer) || **peer == asker) {
        return Err(format!("{peer} is not another server of the network"));
    }
    if !peers.is_sorted_by(|closer, farther| distance(closer) < distance(farther)) {
        return Err("the peers are not in order of distance".to_owned());
    }
    let named = usize::try_from(answered).unwrap_or(usize::MAX).min(REPLICATION_FACTOR);
    if peers.len() < named {
        return Err(format!("{answered} peers answered, and {} are named", peers.len()));
    }
    let nearest = nearest(servers, target, asker);
    let found = nearest.iter().filter(|peer| peers.contains(peer)).count();
    // A routing table has room for all servers only in a small network. In a larger one, the closest is certain.
    let certain = if servers.len() <= REPLICATION_FACTOR { nearest.len() } else { 1 };
    if asked == answered && nearest.iter().take(certain).any(|peer| !peers.contains(peer)) {
        return Err(format!("all of {asked} peers answered, and {found} of the {} closest are named", nearest.len()));
    }
    Ok(Found { found, wanted: nearest.len(), unanswered: asked.saturating_sub(answered) })
}

/// Returns the servers closest to a target, closest first, at most as many as a lookup names. The asker is left out,
/// because a lookup does not name it.
fn nearest(servers: &[PeerId], target: PeerId, asker: PeerId) -> Vec<PeerId> {
    let target = KBucketKey::from(target);
    let mut nearest: Vec<PeerId> = servers.iter().copied().filter(|peer| *peer != asker).collect();
    nearest.sort_unstable_by_key(|peer| KBucketKey::from(*peer).distance(&target));
    nearest.truncate(REPLICATION_FACTOR);
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(count: usize) -> Vec<PeerId> {
        (0..count).map(|_| PeerId::random()).collect()
    }

    #[test]
    fn the_nearest_peer_to_a_peer_is_that_peer_but_never_the_asker() {
        let servers = servers(30);
        let near = nearest(&servers, servers[3], servers[4]);
        assert_eq!(near.len(), REPLICATION_FACTOR);
        assert_eq!(near[0], servers[3]);
        assert!(!nearest(&servers, servers[3], servers[3]).contains(&servers[3]));
    }

    #[test]
    fn a_missed_peer_is_a_figure_if_a_peer_did_not_answer_and_else_a_fault() {
        let servers = servers(16);
        let (target, asker) = (servers[3], PeerId::random());
        let all = nearest(&servers, target, asker);
        let assess = |peers: &[PeerId], asked, answered| assess(&servers, target, asker, peers, asked, answered);
        assert_eq!(assess(&all, 16, 16), Ok(Found { found: 16, wanted: 16, unanswered: 0 }));
        assert_eq!(assess(&all[1..], 16, 15), Ok(Found { found: 15, wanted: 16, unanswered: 1 }));
        assert!(assess(&all[1..], 15, 15).is_err(), "the closest is missing");
        assert!(assess(&all[..15], 15, 15).is_err(), "the farthest is missing, which every table has");
    }

    #[test]
    fn a_lookup_in_a_large_network_may_miss_any_but_the_closest() {
        let servers = servers(40);
        let (target, asker) = (servers[3], PeerId::random());
        let all = nearest(&servers, target, asker);
        let found = Found { found: 19, wanted: 20, unanswered: 0 };
        assert_eq!(assess(&servers, target, asker, &all[..19], 19, 19), Ok(found));
        assert!(assess(&servers, target, asker, &all[1..], 19, 19).is_err());
    }

    #[test]
    fn answers_with_a_wrong_peer_or_without_one_that_answered_are_faults() {
        let servers = servers(16);
        let (target, asker) = (servers[3], servers[4]);
        let all = nearest(&servers, target, asker);
        let is_fault =
            |peers: &[PeerId], asked, answered| assess(&servers, target, asker, peers, asked, answered).is_err();
        assert!(!is_fault(&all, 16, 15));
        let stranger = nearest(&[all.clone(), vec![PeerId::random()]].concat(), target, asker);
        assert!(is_fault(&stranger, 16, 16), "a peer that does not exist");
        let with_asker = nearest(&servers, target, PeerId::random());
        assert!(is_fault(&with_asker, 16, 16), "the asker");
        assert!(is_fault(&[all[0], all[0]], 16, 2), "a peer twice");
        assert!(is_fault(&[all[1], all[0]], 16, 2), "not in order");
        assert!(is_fault(&all[1..], 16, 15), "a peer that answered is left out");
    }

    #[test]
    fn incomplete_lookups_are_counted_and_reported() {
        let mut lookups = ClosestLookups::default();
        lookups.add(Ok(Found { found: 16, wanted: 16, unanswered: 0 }));
        lookups.add(Ok(Found { found: 15, wanted: 16, unanswered: 1 }));
        let text = "1 of 2 lookups complete, 31 of 32 peers found, 1 requests unanswered";
        assert_eq!(lookups.to_string(), text);
        lookups.add(Err("a fault".to_owned()));
        assert_eq!((lookups.lookups, lookups.incomplete, lookups.wrong.len()), (3, 1, 1));
    }
}
