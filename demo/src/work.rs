//! What the demo does with a network in good health.

use std::{collections::BTreeSet, sync::Arc};

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
use tokio::time::Instant;

use super::{
    CALL_TIMEOUT, CALLERS, Demo, WAIT,
    files::{Source, Stored, check_total},
    measure::timed,
    network::RUNTIMES,
};

/// So many gets at least, for a 95th percentile that says something.
const MIN_GETS: usize = 240;

/// Reads of every copy move each value as often as there are nodes, so only so many are made.
const MAX_GET_ALL: usize = 60;

/// How many keys are provided, and by how many nodes each.
const PROVIDED: usize = 12;
const PROVIDERS: usize = 3;

impl Demo {
    /// Each file is put by one of the servers.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or there is too much in all of them.
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
                    let put = timed(client.put_record(record).timeout(CALL_TIMEOUT)).await;
                    anyhow::Ok((Stored { key, value: Arc::from(value), publisher }, put))
                }
            })
            .buffer_unordered(CALLERS);
        let mut bytes = 0;
        while let Some(put) = puts.next().await {
            let (file, put) = put?;
            self.progress.step();
            if let (_, Err(PutRecordError::Request(RequestError::Invalid(InvalidRequestError::ValueTooLong { .. })))) =
                put
            {
                self.refused += 1;
            } else if self.measures.put.add(put).is_some() {
                bytes += file.value.len();
                check_total(bytes)?;
                self.stored.push(file);
            }
        }
        drop(puts);
        // They came in the order of their answers; what follows is to depend on the seed alone.
        self.stored.sort_unstable_by(|a, b| a.key.as_ref().cmp(b.key.as_ref()));
        let (stored, refused) = (self.stored.len(), self.refused);
        let all = stored + refused == source.len() && stored > 0;
        self.check("every file is stored, or refused as too large", all, format!("{stored} stored, {refused} refused"));
        self.progress.end(format_args!("{stored} stored, {refused} refused"));
        Ok(())
    }

    /// Every record is read by each node that stores nothing itself, over and over until there are enough gets.
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
                (timed(client.get_record(file.key.clone()).timeout(CALL_TIMEOUT)).await, file)
            })
            .buffer_unordered(CALLERS);
        let mut equal = 0;
        while let Some((get, file)) = gets.next().await {
            self.progress.step();
            if let Some(answer) = self.measures.get.add(get) {
                equal += usize::from(*answer.value() == *file.value && answer.record.peer.is_some());
            }
        }
        drop(gets);
        let ok = equal == count && count > 0;
        self.check("every record comes back from another node, byte by byte", ok, format!("{equal} of {count}"));
        self.progress.end(format_args!("{equal} of {count} equal"));
    }

    /// A node on each runtime puts a record, and a node on each runtime reads it.
    pub(super) async fn get_across(&mut self) {
        let (servers, askers) = self.network.clients();
        self.progress.begin("get across runtimes", RUNTIMES * RUNTIMES);
        let mut equal = 0;
        for (index, server) in servers.iter().take(RUNTIMES).enumerate() {
            let (key, value) = (RecordKey::from(format!("/across/{index}").into_bytes()), vec![b'x'; index]);
            self.measures.put.add(timed(server.put_record(Record::new(key.clone(), value.clone()))).await);
            for asker in askers.iter().take(RUNTIMES) {
                let get = asker.get_record(key.clone()).timeout(CALL_TIMEOUT).await;
                equal += usize::from(get.is_ok_and(|answer| *answer.value() == *value && answer.record.peer.is_some()));
                self.progress.step();
            }
        }
        let (all, detail) = (RUNTIMES * RUNTIMES, format!("{equal} of {} ways", RUNTIMES * RUNTIMES));
        self.check("nodes on each runtime read what nodes on each runtime put", equal == all, &*detail);
        self.progress.end(format_args!("{detail}"));
    }

    /// A server other than the publisher reads every copy there is of a record.
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
                (timed(client.get_record(file.key.clone()).all().timeout(CALL_TIMEOUT)).await, file)
            })
            .buffer_unordered(CALLERS);
        let (mut copies, mut equal) = (0, 0);
        while let Some((get, file)) = gets.next().await {
            self.progress.step();
            if let Some(answer) = self.measures.get_all.add(get) {
                copies += answer.iter().count();
                equal += answer.iter().filter(|copy| *copy.record.value == *file.value).count();
            }
        }
        drop(gets);
        let ok = equal == copies && copies > self.stored.len().min(MAX_GET_ALL);
        self.check("every copy on every node is the same", ok, format!("{equal} of {copies} copies"));
        self.progress.end(format_args!("{copies} copies, {equal} equal"));
    }

    /// A key under which nothing is stored is not found, and that is an answer, not a timeout.
    pub(super) async fn get_missing(&mut self) {
        let not_found = self.ask_for_nothing("before").await;
        let all = self.network.len();
        self.check("a key that does not exist is not found", not_found == all, format!("{not_found} of {all} gets"));
    }

    /// Every node asks for a key that does not exist; how many were told so.
    pub(super) async fn ask_for_nothing(&mut self, when: &str) -> usize {
        self.progress.begin("get nothing", self.network.len());
        let gets = self.network.nodes().enumerate().map(|(index, node)| {
            let key = RecordKey::from(format!("/missing/{when}/{index}").into_bytes());
            let get = node.client().get_record(key).timeout(CALL_TIMEOUT);
            async move { matches!(get.await, Err(GetRecordError::NotFound { .. })) }
        });
        let gets = stream::iter(gets.collect::<Vec<_>>()).buffer_unordered(CALLERS);
        let not_found = gets.filter(|not_found| std::future::ready(*not_found)).count().await;
        self.progress.end(format_args!("{not_found} of {} not found", self.network.len()));
        not_found
    }

    /// Several servers announce each key, and every node that only asks finds all of them.
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
            .map(|(client, key)| async move { timed(client.start_providing(key).timeout(CALL_TIMEOUT)).await })
            .buffer_unordered(CALLERS);
        while let Some(provide) = provides.next().await {
            self.progress.step();
            self.measures.provide.add(provide);
        }
        drop(provides);
        self.progress.end(format_args!("{PROVIDED} keys, by {PROVIDERS} nodes each"));

        let jobs: Vec<_> =
            askers.iter().flat_map(|client| announced.iter().map(|key| (client.clone(), key.clone()))).collect();
        let count = jobs.len();
        self.progress.begin("providers", count);
        // An announcement is sent and not acknowledged, so it may still be on its way at first.
        let deadline = Instant::now() + WAIT;
        let mut finds = stream::iter(jobs)
            .map(|(client, (key, providers))| async move {
                let mut tries = Vec::new();
                loop {
                    let (took, found) = timed(client.get_providers(key.clone()).timeout(CALL_TIMEOUT)).await;
                    let complete = found
                        .as_ref()
                        .is_ok_and(|answer| providers.iter().all(|provider| answer.providers.contains(provider)));
                    tries.push((took, found));
                    if complete || Instant::now() > deadline {
                        return (complete, tries);
                    }
                }
            })
            .buffer_unordered(CALLERS);
        let mut complete = 0;
        while let Some((found_all, tries)) = finds.next().await {
            self.progress.step();
            complete += usize::from(found_all);
            for find in tries {
                self.measures.providers.add(find);
            }
        }
        drop(finds);
        self.check("every provider is found", complete == count, format!("{complete} of {count} lookups find all"));
        self.progress.end(format_args!("{complete} of {count} complete"));
    }

    /// Every node looks up the peers closest to others, which have to be the ones that really are.
    pub(super) async fn closest(&mut self) {
        let servers: Vec<PeerId> = self.network.servers.iter().map(|node| node.local_peer_id()).collect();
        let mut jobs = Vec::new();
        for node in self.network.nodes() {
            for target in servers.sample(&mut self.rng, 3) {
                jobs.push((node.client().clone(), *target, nearest(&servers, *target, node.local_peer_id())));
            }
        }
        let count = jobs.len();
        self.progress.begin("closest", count);
        let mut lookups = stream::iter(jobs)
            .map(|(client, target, nearest)| async move {
                (timed(client.get_closest_peers(target).timeout(CALL_TIMEOUT)).await, nearest)
            })
            .buffer_unordered(CALLERS);
        let (mut exact, mut found, mut wanted) = (0, 0, 0);
        while let Some((lookup, nearest)) = lookups.next().await {
            self.progress.step();
            if let Some(answer) = self.measures.closest.add(lookup) {
                let peers: Vec<PeerId> = answer.peers.iter().map(|peer| peer.peer_id).collect();
                exact += usize::from(peers.first() == nearest.first());
                found += nearest.iter().filter(|peer| peers.contains(peer)).count();
                wanted += nearest.len();
            }
        }
        drop(lookups);
        let detail = format!("{exact} of {count}; of the {wanted} closest peers of all lookups, {found} were found");
        self.check("the closest peer is found", exact == count && found * 100 >= wanted * 95, detail);
        self.progress.end(format_args!("{exact} of {count} exact"));
    }
}

/// The closest of the servers to a target, closest first, as the asker should find them: without itself.
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

    #[test]
    fn the_nearest_peer_to_a_peer_is_that_peer_but_never_the_asker() {
        let servers: Vec<PeerId> = (0..30).map(|_| PeerId::random()).collect();
        let near = nearest(&servers, servers[3], servers[4]);
        assert_eq!(near.len(), REPLICATION_FACTOR);
        assert_eq!(near[0], servers[3]);
        assert!(!nearest(&servers, servers[3], servers[3]).contains(&servers[3]));
    }
}
