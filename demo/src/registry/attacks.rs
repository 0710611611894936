//! What attackers do to the registry, and what comes of it.

use std::{
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
    PeerId, StreamProtocol,
    identity::Keypair,
    kad::{Quorum, Record},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use semver::Version;
use tokio::time::sleep;

use super::{
    Demo, Member, NODES, Place, Published, READER, SLOW, SLOW_BYTES_PER_SECOND,
    evil::Evil,
    ms,
    sources::Source,
    work::{install_newest, publish},
};
use crate::{CALL_TIMEOUT, POLL, WAIT};

/// Nodes that have read nothing before they are used, so that nothing that they say is remembered.
const FRESH: [usize; 3] = [7, 8, 9];

/// How many holders of an old head there are, in the network and around the victim.
const LIARS: usize = 3;

/// How much a spammer sends of each kind: far more than any gate lets through, and so little that a slow computer has read
/// and refused all of it within seconds, on every node.
const SPAM: usize = 150;

/// Of this size is the package that a corrupt provider offers: two seconds on the publisher's slow line.
const LARGE: u64 = 3 * SLOW_BYTES_PER_SECOND;

impl Demo {
    /// Somebody puts records under the key of another's package: one that is no head, one of another package, and one of
    /// this package that it has signed itself.
    ///
    /// # Errors
    ///
    /// If the attacker does not start, or a node that should be there is gone.
    pub(super) async fn forge(&mut self) -> anyhow::Result<()> {
        self.progress.begin("forged head", 1);
        let id = self.packages.get(1).or(self.packages.first()).context("there are no packages")?.id.clone();
        let truth = self.member(READER)?.registry().index(&id).await?.context("it is gone")?;
        let evil = Evil::start(&self.protocol, self.addresses()?, NODES).await?;
        let own = PackageId::new(evil.keypair.public().to_peer_id(), id.name().clone())?;
        let own = next_head(&own, None, ContentId::of(b"evil"), 4, Lifetime::default(), SystemTime::now())?;
        let own = SignedHead::sign(&evil.keypair, own)?.bytes().to_owned();
        // The true head, with a number in it that was changed.
        let head = head_record(self.member(READER)?, &id).await?;
        let mut changed = head.value.clone();
        let middle = changed.len() / 2;
        if let Some(byte) = changed.get_mut(middle) {
            *byte ^= 1;
        }
        let key = dht_key(&id)?;
        let forgeries = [b"no head".to_vec(), own, changed].map(|value| Record::new(key.clone(), value));
        let holders: Vec<PeerId> = self.living().map(Member::peer).collect();
        let client = evil.node.client();
        let put = async |record: &Record| {
            let put = client.put_record_to(record.clone(), holders.clone()).quorum(Quorum::One).timeout(CALL_TIMEOUT);
            put.await.map_or(0, |put| put.acknowledged.len())
        };
        // The true head may come from anybody, so that it is the forgery that is refused, and not the attacker.
        let true_taken = put(&head).await;
        // Who refuses does not answer, and is waited for.
        let taken: usize = join_all(forgeries.iter().map(put)).await.into_iter().sum();
        // Others may refuse them, but the attackers are holders, too: such as lie to whoever asks them.
        let addresses = self.addresses()?;
        let liars = forgeries.iter().map(|forgery| Evil::holding(forgery, &self.protocol, addresses.clone(), NODES));
        let liars = try_join_all(liars).await?;
        let mut undeceived = 0;
        for index in FRESH {
            let found = self.member(index)?.registry().index(&id).await;
            undeceived += usize::from(found.is_ok_and(|found| found.as_ref() == Some(&truth)));
        }
        self.attackers.extend(liars);
        self.attackers.push(evil);
        let (all, readers) = (holders.len(), FRESH.len());
        let ok = taken == 0 && true_taken == all && undeceived == readers;
        let detail = format!(
            "{all} holders take {true_taken} true heads and {taken} forged ones; {undeceived} of {readers} readers have the true one"
        );
        self.check("forged heads are refused by all who hold and all who read", ok, &*detail);
        self.progress.end(format_args!("{detail}"));
        Ok(())
    }

    /// Some holders serve the head before the newest. Then the victim meets nobody but such.
    ///
    /// # Errors
    ///
    /// If a node does not start, the next version is not published, or a node that should be there is gone.
    pub(super) async fn roll_back(&mut self) -> anyhow::Result<()> {
        self.progress.begin("rolled-back head", 2);
        let Published { source, id, publisher } = self.packages.last().context("there are no packages")?;
        let (source, id, publisher) = (source.clone(), id.clone(), *publisher);
        let old = head_record(self.member(READER)?, &id).await?;
        let next = source.bump()?;
        publish(self.member(publisher)?, &source).await?;

        let addresses = self.addresses()?;
        let liars = (0..LIARS).map(|_| Evil::holding(&old, &self.protocol, addresses.clone(), NODES));
        let victim = self.reader("victim", self.protocol.clone(), addresses.clone(), 1);
        let (liars, victim) = try_join(try_join_all(liars), victim).await?;
        let readers = [self.member(READER)?, &victim, self.member(FRESH[1])?];
        let mut newest = 0;
        for reader in readers {
            let found = reader.registry().get_package(&id).await?;
            newest += usize::from(found.is_some_and(|package| *package.version() == next));
        }
        self.progress.step();
        self.attackers.extend(liars);
        self.members.push(Some(victim));

        // The same reader, with what it remembers, where nobody tells the truth.
        let elsewhere = StreamProtocol::try_from_owned(format!("{}/elsewhere", self.protocol))?;
        let first = Evil::holding(&old, &elsewhere, Vec::new(), 0).await?;
        let seeds = first.node.listen_addrs();
        let others = (1..LIARS).map(|_| Evil::holding(&old, &elsewhere, seeds.clone(), 1));
        let others = try_join_all(others).await?;
        copy_memory(&self.folder("victim"), &self.folder("victim-again"))?;
        let victim = self.reader("victim-again", elsewhere.clone(), seeds.clone(), 0).await?;
        let refused = victim.registry().get_package(&id).await;
        let is_rollback = matches!(refused, Err(GetError::Rollback { seen, offered }) if seen == offered + 1);
        let said = refused.map_or_else(|error| error.to_string(), |_| "it was believed".to_owned());
        self.attackers.extend(std::iter::once(first).chain(others));
        victim.node.shutdown().await;

        let detail = format!("{newest} of 3 readers have {next}, though {LIARS} holders hide it");
        self.check("a newest head is found among older ones", newest == 3, &*detail);
        self.check("who has seen the newest refuses an older one", is_rollback, &*said);
        self.progress.end(format_args!("{detail}; alone among liars: {said}"));
        Ok(())
    }

    /// Somebody offers a package, and serves it with some bytes changed.
    ///
    /// # Errors
    ///
    /// If a node does not start, the package is not published, or a node that should be there is gone.
    pub(super) async fn corrupt(&mut self) -> anyhow::Result<()> {
        self.progress.begin("corrupt blob", 1);
        let source = large(&self.folder("film"), self.seed)?;
        let publisher = self.member(SLOW)?;
        let receipt = publish(publisher, &source).await?;
        let evil = Evil::start(&self.protocol, self.addresses()?, NODES).await?;
        evil.corrupt(publisher.peer()).await?;
        for content in [receipt.archive, receipt.manifest, receipt.index] {
            evil.node.client().start_providing(content.provider_key()).timeout(CALL_TIMEOUT).await?;
        }
        let reader = self.member(READER)?;
        is_provided(reader, &receipt.archive, evil.node.local_peer_id()).await?;
        let dir = self.folder("installed-film");
        let installed =
            install_newest(reader, &receipt.package, &dir).await.context("in spite of a corrupt provider")?;
        let bad = reader.market.reputation().get(&evil.node.local_peer_id()).map_or(0, |known| known.bad);
        let blamed = |index: usize| self.member(index).map(Member::peer);
        let blamed = (0..NODES).map(blamed).collect::<Result<Vec<_>, _>>()?;
        let blamed =
            blamed.iter().filter(|peer| reader.market.reputation().get(peer).is_some_and(|known| known.bad > 0));
        let blamed = blamed.count();
        let id = receipt.package;
        self.packages.push(Published { source, id, publisher: SLOW });
        let (same, _) = self.compare(&installed)?;
        self.attackers.push(evil);
        let ok = same == 1 && bad > 0 && blamed == 0;
        let detail =
            format!("{LARGE} bytes as published, the liar was noticed {bad} times, honest nodes {blamed} times");
        self.check("a corrupt provider is noticed, and the download succeeds from others", ok, &*detail);
        self.progress.end(format_args!("{detail}"));
        Ok(())
    }

    /// Somebody floods the network with announcements, while an honest publisher has one to make.
    ///
    /// # Errors
    ///
    /// If the attacker does not start, the next version is not published, or a node that should be there is gone.
    pub(super) async fn spam(&mut self) -> anyhow::Result<()> {
        self.progress.begin("spam", 3 * SPAM);
        let lives = |package: &&Published| self.member(package.publisher).is_ok();
        let living = self.packages.iter().find(lives).context("all publishers are dead")?;
        let Published { source, id, publisher } = living;
        let (source, id, publisher) = (source.clone(), id.clone(), *publisher);
        let evil = Evil::start(&self.protocol, self.addresses()?, NODES).await?;
        let known: Vec<usize> = self.living().map(|member| member.market.discovered().len()).collect();
        let next = source.bump()?;
        let flood = flood(&evil, &self.progress);
        let honest = async {
            // In the midst of it.
            sleep(Duration::from_millis(200)).await;
            let began = Instant::now();
            publish(self.member(publisher)?, &source).await?;
            let published = began.elapsed();
            let heard = join_all(self.living().map(|member| hears_version(member, &id, &next))).await;
            anyhow::Ok((heard.into_iter().filter(|heard| *heard).count(), published, began.elapsed()))
        };
        let (sent, heard) = join(flood, honest).await;
        let (sent, (heard, published, took)) = (sent?, heard?);
        let all = self.living().count();
        let through =
            self.living().zip(known).map(|(member, known)| member.market.discovered().len().saturating_sub(known));
        let through = through.max().unwrap_or_default();
        self.times.heard_in_spam_ms = ms(took);
        self.attackers.push(evil);
        let detail = format!(
            "{heard} of {all} nodes hear of {next} after {took:.1?}, of which publishing took {published:.1?}; of {sent} spam messages {through} come through"
        );
        // Newcomers may announce something: twenty at once, and then one a second.
        let ok = heard == all && sent > 2 * SPAM && through < SPAM;
        self.check("an honest announcement arrives in the midst of spam", ok, &*detail);
        self.progress.end(format_args!("{detail}"));
        Ok(())
    }

    /// Where a node that comes later can join.
    fn addresses(&self) -> anyhow::Result<Vec<kadence_tokio::kadence::libp2p::Multiaddr>> {
        // Not a publisher: one of those may be killed.
        Ok(self.member(NODES - 1)?.node.listen_addrs())
    }

    /// A further honest reader, with a folder of its own.
    async fn reader(
        &self,
        folder: &str,
        protocol: StreamProtocol,
        peers: Vec<kadence_tokio::kadence::libp2p::Multiaddr>,
        index: usize,
    ) -> anyhow::Result<Member> {
        let member = Member::start(Place { index, folder: self.folder(folder), protocol, peers, rate: None }).await?;
        member.node.ready(WAIT).await.context("a reader finds nobody")?;
        member.node.client().bootstrap().timeout(WAIT).await.context("a reader finds no neighbours")?;
        Ok(member)
    }
}

/// The newest head, as the network has it.
async fn head_record(reader: &Member, id: &PackageId) -> anyhow::Result<Record> {
    let found = reader.node.client().get_record(dht_key(id)?.to_vec()).timeout(CALL_TIMEOUT).await?;
    Ok(Record::new(dht_key(id)?, found.value().to_vec()))
}

/// A package of random bytes, which no packing makes smaller.
fn large(dir: &Path, seed: u64) -> anyhow::Result<Source> {
    fs::create_dir_all(dir)?;
    let mut bytes = vec![0; usize::try_from(LARGE)?];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    fs::write(dir.join("film.bin"), bytes)?;
    fs::write(dir.join("ggen.toml"), "name = \"demo-film\"\nversion = \"1.0.0\"\ntitle = \"A large package\"\n")?;
    Ok(Source { name: "demo-film".parse()?, dir: dir.to_owned() })
}

/// Waits until a reader is told of this provider.
async fn is_provided(reader: &Member, content: &ContentId, by: PeerId) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT;
    loop {
        let found = reader.node.client().get_providers(content.provider_key()).timeout(CALL_TIMEOUT).await;
        if found.is_ok_and(|found| found.providers.contains(&by)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "a provider is not found");
        sleep(POLL).await;
    }
}

/// Whether a node hears of a version in time.
async fn hears_version(member: &Member, id: &PackageId, version: &Version) -> bool {
    let deadline = Instant::now() + WAIT;
    loop {
        let known = member.market.discovered();
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

/// Announcements of publishers that were made up for it, which are true ones; of a time that is to come; and bytes that are
/// none. How many were sent.
async fn flood(evil: &Evil, progress: &crate::progress::Progress) -> anyhow::Result<usize> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut sent = 0;
    for round in 0..3 {
        for number in 0..SPAM {
            let published_at = if round == 1 { now + 3600 } else { now };
            let bytes = if round == 2 { format!("spam {number}").into_bytes() } else { announcement(published_at)? };
            // When its own queues are full, it waits a moment, as a spammer would.
            let mut tries = 0;
            while evil.gossip(bytes.clone()).await?.is_err() && tries < 20 {
                tries += 1;
                sleep(Duration::from_millis(5)).await;
            }
            sent += usize::from(tries < 20);
            progress.step();
        }
    }
    Ok(sent)
}

/// By a publisher that nobody has heard of.
fn announcement(published_at: u64) -> anyhow::Result<Vec<u8>> {
    let key = Keypair::generate_ed25519();
    let announcement = Announcement {
        schema: Announcement::SCHEMA,
        package: PackageId::new(key.public().to_peer_id(), "spam".parse()?)?,
        version: Version::new(1, 0, 0),
        seq: 1,
        head: ContentId::of(b"no head"),
        index: ContentId::of(b"no index"),
        title: "Buy this".to_owned(),
        published_at,
    };
    Ok(SignedAnnouncement::sign(&key, announcement)?.bytes().to_owned())
}

/// What a reader remembers of heads, for one that starts again.
fn copy_memory(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for name in ["heads.db", "heads.db-wal"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).context("the memory of heads")?;
        }
    }
    Ok(())
}
