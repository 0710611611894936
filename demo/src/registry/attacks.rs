//! Attacks on the registry.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use futures::future::{join, join_all, try_join, try_join_all};
use kadence_registry::{
    ContentId, GetError, PackageId,
    p2p::{
        announce::{Announcement, SignedAnnouncement},
        head::{Lifetime, SignedHead, dht_key, next_head},
    },
};
use kadence_tokio::kadence::libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    identity::Keypair,
    kad::{Quorum, Record},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use semver::Version;
use tokio::time::sleep;

use super::{
    Demo, Member, NODES, Place, Published, READER, SLOW, SLOW_BYTES_PER_SECOND,
    adversary::Adversary,
    ms,
    sources::Source,
    work::{install_newest, publish},
};
use crate::{CALL_TIMEOUT, POLL, WAIT};

/// Indexes of nodes that read nothing before they are used, so that they answer from the network and not from memory.
const FRESH: [usize; 3] = [7, 8, 9];

/// Number of adversaries that serve an old head, in the network and around the victim.
const STALE_REPLICAS: usize = 3;

/// Number of messages of each kind that a spammer sends. Far more than the rate limits of a node accept, and few enough
/// that a slow computer has rejected all of them on every node within seconds.
const SPAM: usize = 150;

/// Size in bytes of the package that a corrupt provider offers: three seconds on the publisher's slow line.
const LARGE_PACKAGE: u64 = 3 * SLOW_BYTES_PER_SECOND;

/// Timeout of a put to every holder. Holders that reject a record do not answer.
const HOLDERS_PUT_TIMEOUT: Duration = Duration::from_secs(10);

impl Demo {
    /// Puts forged records under the key of another publisher's package: one that is not a head, a head of the
    /// attacker's own package, and the true head with a changed byte.
    ///
    /// # Errors
    ///
    /// If an adversary does not start, or the true head is not found.
    pub(super) async fn forge(&mut self) -> anyhow::Result<()> {
        self.progress.begin("forged head", 1);
        let id = self.packages.get(1).or(self.packages.first()).context("there are no packages")?.id.clone();
        let truth = self.member(READER)?.registry().index(&id).await?.context("its index is not found")?;
        let adversary = Adversary::start(&self.protocol, self.addresses()?, NODES).await?;
        let own = PackageId::new(adversary.keypair.public().to_peer_id(), id.name().clone())?;
        let own = next_head(&own, None, ContentId::of(b"adversary"), 4, Lifetime::default(), SystemTime::now())?;
        let own = SignedHead::sign(&adversary.keypair, own)?.bytes().to_owned();
        let head = head_record(self.member(READER)?, &id).await?;
        let mut changed = head.value.clone();
        let middle = changed.len() / 2;
        if let Some(byte) = changed.get_mut(middle) {
            *byte ^= 1;
        }
        let key = dht_key(&id)?;
        let forgeries = [b"not a head".to_vec(), own, changed].map(|value| Record::new(key.clone(), value));
        let holders: Vec<PeerId> = self.living().map(Member::peer).collect();
        let client = adversary.node.client();
        let put = async |record: &Record| {
            let put =
                client.put_record_to(record.clone(), holders.clone()).quorum(Quorum::One).timeout(HOLDERS_PUT_TIMEOUT);
            put.await.map_or_else(|_| Vec::new(), |put| put.acknowledged)
        };
        // Any node may store the true head. This shows that holders reject the forgeries and not the adversary.
        let mut accepted_by: BTreeSet<PeerId> = BTreeSet::new();
        let deadline = Instant::now() + WAIT;
        while accepted_by.len() < holders.len() && Instant::now() < deadline {
            accepted_by.extend(put(&head).await);
        }
        let true_taken = accepted_by.len();
        // A holder that rejects a record does not answer, and the put waits for it.
        let taken: usize = join_all(forgeries.iter().map(put)).await.iter().map(Vec::len).sum();
        // Honest holders reject the forgeries. Adversaries hold them nevertheless, and serve them to readers.
        let addresses = self.addresses()?;
        let replicas =
            forgeries.iter().map(|forgery| Adversary::holding(forgery, &self.protocol, addresses.clone(), NODES));
        let replicas = try_join_all(replicas).await?;
        let mut undeceived = 0;
        for index in FRESH {
            let found = self.member(index)?.registry().index(&id).await;
            undeceived += usize::from(found.is_ok_and(|found| found.as_ref() == Some(&truth)));
        }
        self.attackers.extend(replicas);
        self.attackers.push(adversary);
        let (all, readers) = (holders.len(), FRESH.len());
        let ok = taken == 0 && true_taken == all && undeceived == readers;
        let detail = format!(
            "{all} holders accept {true_taken} true heads and {taken} forged ones; {undeceived} of {readers} readers find the true one"
        );
        self.check("holders and readers reject forged heads", ok, &*detail);
        self.progress.end(format_args!("{detail}"));
        Ok(())
    }

    /// Serves an outdated head from some holders, and then starts a reader again where all holders serve it.
    ///
    /// # Errors
    ///
    /// If a node does not start, or the next version is not published.
    pub(super) async fn roll_back(&mut self) -> anyhow::Result<()> {
        self.progress.begin("rolled-back head", 2);
        let Published { source, id, publisher } = self.packages.last().context("there are no packages")?;
        let (source, id, publisher) = (source.clone(), id.clone(), *publisher);
        let old = head_record(self.member(READER)?, &id).await?;
        let next = source.bump()?;
        publish(self.member(publisher)?, &source).await?;

        let addresses = self.addresses()?;
        let replicas = (0..STALE_REPLICAS).map(|_| Adversary::holding(&old, &self.protocol, addresses.clone(), NODES));
        let victim = self.reader("victim", self.protocol.clone(), addresses.clone(), 1);
        let (replicas, victim) = try_join(try_join_all(replicas), victim).await?;
        let readers = [self.member(READER)?, &victim, self.member(FRESH[1])?];
        let mut newest = 0;
        for reader in readers {
            let found = reader.registry().get_package(&id).await?;
            newest += usize::from(found.is_some_and(|package| *package.version() == next));
        }
        self.attackers.extend(replicas);
        self.members.push(Some(victim));

        // The same reader with its memory of heads, in a network where every holder serves the outdated head.
        let elsewhere = StreamProtocol::try_from_owned(format!("{}/elsewhere", self.protocol))?;
        let first = Adversary::holding(&old, &elsewhere, Vec::new(), 0).await?;
        let seeds = first.node.listen_addrs();
        let others = (1..STALE_REPLICAS).map(|_| Adversary::holding(&old, &elsewhere, seeds.clone(), 1));
        let others = try_join_all(others).await?;
        copy_memory(&self.folder("victim"), &self.folder("victim-again"))?;
        let victim = self.reader("victim-again", elsewhere.clone(), seeds.clone(), 0).await?;
        let found = victim.registry().get_package(&id).await;
        let is_rollback = matches!(found, Err(GetError::Rollback { seen, offered }) if seen == offered + 1);
        let verdict = found.map_or_else(|error| error.to_string(), |_| "the outdated head was accepted".to_owned());
        self.attackers.extend(std::iter::once(first).chain(others));
        victim.node.shutdown().await;

        let detail = format!("{newest} of 3 readers find {next}, {STALE_REPLICAS} holders serve the version before");
        self.check("the newest head is found among outdated ones", newest == 3, &*detail);
        self.check("a reader that knows the newest head rejects an outdated one", is_rollback, &*verdict);
        self.progress.end(format_args!("{detail}; among outdated heads only: {verdict}"));
        Ok(())
    }

    /// Provides a package from an adversary that serves it with some bytes changed.
    ///
    /// # Errors
    ///
    /// If a node does not start, or the package is not published or not installed.
    pub(super) async fn corrupt(&mut self) -> anyhow::Result<()> {
        self.progress.begin("corrupt blob", 1);
        let source = large(&self.folder("film"), self.seed)?;
        let publisher = self.member(SLOW)?;
        let receipt = publish(publisher, &source).await?;
        let adversary = Adversary::start(&self.protocol, self.addresses()?, NODES).await?;
        adversary.corrupt(publisher.peer()).await?;
        for content in [receipt.archive, receipt.manifest, receipt.index] {
            adversary.node.client().start_providing(content.provider_key()).timeout(CALL_TIMEOUT).await?;
        }
        let reader = self.member(READER)?;
        wait_for_provider(reader, &receipt.archive, adversary.node.local_peer_id()).await?;
        let dir = self.folder("installed-film");
        let installed = install_newest(reader, &receipt.package, &dir).await.context("with a corrupt provider")?;
        let bad = reader.p2p.reputation().get(&adversary.node.local_peer_id()).map_or(0, |known| known.bad);
        let blamed = |index: usize| self.member(index).map(Member::peer);
        let blamed = (0..NODES).map(blamed).collect::<Result<Vec<_>, _>>()?;
        let blamed = blamed.iter().filter(|peer| reader.p2p.reputation().get(peer).is_some_and(|known| known.bad > 0));
        let blamed = blamed.count();
        let id = receipt.package;
        self.packages.push(Published { source, id, publisher: SLOW });
        let (same, _) = self.compare(&installed)?;
        self.attackers.push(adversary);
        let ok = same == 1 && bad > 0 && blamed == 0;
        let detail = format!(
            "{LARGE_PACKAGE} bytes as published; bad data noticed {bad} times, honest nodes blamed {blamed} times"
        );
        self.check("a corrupt provider is noticed, and others serve the download", ok, &*detail);
        self.progress.end(format_args!("{detail}"));
        Ok(())
    }

    /// Floods the network with announcements while an honest publisher publishes a version.
    ///
    /// # Errors
    ///
    /// If the adversary does not start, or the next version is not published.
    pub(super) async fn spam(&mut self) -> anyhow::Result<()> {
        self.progress.begin("spam", 3 * SPAM);
        let lives = |package: &&Published| self.member(package.publisher).is_ok();
        let living = self.packages.iter().find(lives).context("all publishers were killed")?;
        let Published { source, id, publisher } = living;
        let (source, id, publisher) = (source.clone(), id.clone(), *publisher);
        let adversary = Adversary::start(&self.protocol, self.addresses()?, NODES).await?;
        let known: Vec<usize> = self.living().map(|member| member.p2p.discovered().len()).collect();
        let next = source.bump()?;
        let flood = flood(&adversary);
        let honest = async {
            // During the flood.
            sleep(Duration::from_millis(200)).await;
            let began = Instant::now();
            publish(self.member(publisher)?, &source).await?;
            let published = began.elapsed();
            let heard = join_all(self.living().map(|member| discovers_version(member, &id, &next))).await;
            anyhow::Ok((heard.into_iter().filter(|heard| *heard).count(), published, began.elapsed()))
        };
        let (sent, heard) = join(flood, honest).await;
        let (sent, (heard, published, took)) = (sent?, heard?);
        let all = self.living().count();
        let through =
            self.living().zip(known).map(|(member, known)| member.p2p.discovered().len().saturating_sub(known));
        let through = through.max().unwrap_or_default();
        self.times.heard_in_spam_ms = Some(ms(took));
        self.attackers.push(adversary);
        let detail = format!(
            "{heard} of {all} nodes know {next} after {took:.1?}, of which publishing took {published:.1?}; of {sent} spam messages {through} were accepted"
        );
        // The rate limit accepts unknown publishers: twenty at once, and then one a second.
        let ok = heard == all && sent > 2 * SPAM && through < SPAM;
        self.check("an honest announcement arrives during spam", ok, &*detail);
        self.progress.end(format_args!("{detail}"));
        Ok(())
    }

    /// Returns addresses that a further node can join through.
    fn addresses(&self) -> anyhow::Result<Vec<Multiaddr>> {
        // Not those of a publisher, which may be killed.
        Ok(self.member(NODES - 1)?.node.listen_addrs())
    }

    /// Starts a further honest reader with a folder of its own.
    async fn reader(
        &self,
        folder: &str,
        protocol: StreamProtocol,
        peers: Vec<Multiaddr>,
        index: usize,
    ) -> anyhow::Result<Member> {
        let member = Member::start(Place { index, folder: self.folder(folder), protocol, peers, rate: None }).await?;
        member.node.ready(WAIT).await.context("a reader did not find any peer")?;
        member.node.client().bootstrap().timeout(WAIT).await.context("a reader cannot bootstrap")?;
        Ok(member)
    }
}

/// Returns the newest head that the network has, as a record.
async fn head_record(reader: &Member, id: &PackageId) -> anyhow::Result<Record> {
    let found = reader.node.client().get_record(dht_key(id)?.to_vec()).timeout(CALL_TIMEOUT).await?;
    Ok(Record::new(dht_key(id)?, found.value().to_vec()))
}

/// Writes a package of random bytes, which do not compress.
fn large(dir: &Path, seed: u64) -> anyhow::Result<Source> {
    fs::create_dir_all(dir)?;
    let mut bytes = vec![0; usize::try_from(LARGE_PACKAGE)?];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    fs::write(dir.join("film.bin"), bytes)?;
    fs::write(dir.join("ggen.toml"), "name = \"demo-film\"\nversion = \"1.0.0\"\ntitle = \"A large package\"\n")?;
    Ok(Source { name: "demo-film".parse()?, dir: dir.to_owned() })
}

/// Waits until a reader finds this provider.
async fn wait_for_provider(reader: &Member, content: &ContentId, by: PeerId) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT;
    loop {
        let found = reader.node.client().get_providers(content.provider_key()).timeout(CALL_TIMEOUT).await;
        if found.is_ok_and(|found| found.providers.contains(&by)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "a provider is not found within {WAIT:?}");
        sleep(POLL).await;
    }
}

/// Returns whether a node discovers a version within [`WAIT`].
async fn discovers_version(member: &Member, id: &PackageId, version: &Version) -> bool {
    let deadline = Instant::now() + WAIT;
    loop {
        let known = member.p2p.discovered();
        let mut known = known.iter().map(|package| package.newest.announcement());
        if known.any(|newest| newest.package == *id && newest.version == *version) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(POLL).await;
    }
}

/// Sends valid announcements of new publishers, announcements with a time in the future, and bytes that are not
/// announcements. Returns the number of messages sent.
async fn flood(adversary: &Adversary) -> anyhow::Result<usize> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut sent = 0;
    for round in 0..3 {
        for number in 0..SPAM {
            let published_at = if round == 1 { now + 3600 } else { now };
            let bytes = if round == 2 { format!("spam {number}").into_bytes() } else { announcement(published_at)? };
            // When its own queues are full, the spammer waits a moment.
            let mut tries = 0;
            while adversary.gossip(bytes.clone()).await?.is_err() && tries < 20 {
                tries += 1;
                sleep(Duration::from_millis(5)).await;
            }
            sent += usize::from(tries < 20);
        }
    }
    Ok(sent)
}

/// Returns an announcement by a new publisher.
fn announcement(published_at: u64) -> anyhow::Result<Vec<u8>> {
    let key = Keypair::generate_ed25519();
    let announcement = Announcement {
        schema: Announcement::SCHEMA,
        package: PackageId::new(key.public().to_peer_id(), "spam".parse()?)?,
        version: Version::new(1, 0, 0),
        seq: 1,
        head: ContentId::of(b"not a head"),
        index: ContentId::of(b"not an index"),
        title: "Buy this".to_owned(),
        published_at,
    };
    Ok(SignedAnnouncement::sign(&key, announcement)?.bytes().to_owned())
}

/// Copies the heads that a reader remembers to the folder of its next start.
fn copy_memory(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for name in ["heads.db", "heads.db-wal"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).context("cannot copy the heads of a reader")?;
        }
    }
    Ok(())
}
