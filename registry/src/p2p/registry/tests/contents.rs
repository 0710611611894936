//! Tests with peers that serve wrong data, and with publishers whose heads, indexes and manifests contradict each
//! other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture};
use kadence::node::Node;
use kadence_smol::SmolRuntime;
use libp2p::PeerId;
use libp2p_gossipsub::IdentTopic;
use libp2p_identity::Keypair;
use libp2p_stream::Control;

use super::{network::Peer, *};
use crate::{
    ContentId, GetError, PackageId, Query, Registry,
    p2p::{
        announce::{Announcement, CataloguePage, Cursor, DEFAULT_TOPIC, SignedAnnouncement},
        head::{Lifetime, SignedHead, next_head},
        registry::{RegistryBehaviour, RegistryConfig, RegistryEvent},
        requests,
        transfer::{self, ServerConfig},
    },
    resolve::{install, resolve},
    unix,
};

async fn control(node: &Node<RegistryBehaviour>) -> Control {
    node.swarm().with(|swarm| swarm.behaviour().app.streams.new_control()).await.unwrap()
}

/// Answers every request with wrong bytes, and counts the requests.
async fn serve_garbage(node: &Node<RegistryBehaviour>, size: u64) -> Arc<AtomicUsize> {
    let mut incoming = control(node).await.accept(transfer::BLOB_PROTOCOL).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let serve = async move {
        while let Some((_, mut stream)) = incoming.next().await {
            counted.fetch_add(1, SeqCst);
            let answer = async move {
                let mut request = [0; 44];
                stream.read_exact(&mut request).await?;
                stream.write_all(&[[0].as_slice(), &size.to_le_bytes(), &[7; 40_000]].concat()).await?;
                stream.flush().await
            };
            smol::spawn(answer).detach();
        }
    };
    smol::spawn(serve).detach();
    asked
}

const SOURCE: &str = "name = \"p\"\nversion = \"1.0.0\"\n";

/// Returns bytes that cannot be compressed.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn attack_corrupt_provider_another_one_is_used_and_the_corrupt_one_is_banned() {
    within(async {
        // Slow enough that the publisher has not sent everything before the other provider is asked.
        let slow = |config: &mut RegistryConfig| {
            config.server = ServerConfig { bytes_per_second_per_peer: 1 << 20, ..ServerConfig::default() };
        };
        let network = Network::with_strangers(3, 1, slow).await;
        let ([publisher, _, reader], [corrupt]) = (network.peers.as_slice(), network.strangers.as_slice()) else {
            panic!()
        };
        let id = publisher.package("p");
        let noise = noise(3 << 20);
        let (release, _dir) = release(publisher.id(), SOURCE, &[("noise", &noise)]).await;
        let receipt = publisher.registry.publish(release).await.unwrap();
        let package = reader.registry.get_package(&id).await.unwrap().unwrap();

        let asked = serve_garbage(corrupt, package.contents().archive_size).await;
        corrupt.client().start_providing(receipt.archive.provider_key()).await.unwrap();
        let mut events = reader.registry.events();
        let lock = resolve(&[(id.clone(), "^1".parse().unwrap())], &reader.registry, None).await.unwrap();
        let target = tempfile::tempdir().unwrap();
        let installed = install(&lock, &reader.registry, target.path()).await.unwrap();
        assert_eq!(std::fs::read(installed.packages[0].path.join("noise")).unwrap(), noise);
        let bad = event(&mut events, |event| match event {
            RegistryEvent::BadData { peer } => Some(peer),
            _ => None,
        });
        assert_eq!(bad.await, corrupt.local_peer_id());
        let now = SystemTime::now();
        assert!(reader.registry.reputation().banned_until(&corrupt.local_peer_id(), now).is_some());
        assert_eq!(reader.registry.reputation().banned_until(&publisher.id(), now), None);
        assert_eq!(asked.load(SeqCst), 1);

        // It is not asked again, even though it claims to be the only provider.
        let only_there = ContentId::of(b"what nobody has");
        corrupt.client().start_providing(only_there.provider_key()).await.unwrap();
        let fetched = reader.registry.fetch(&id, &only_there, 15).await;
        assert!(matches!(fetched, Err(GetError::Unavailable { .. })), "{fetched:?}");
        assert_eq!(asked.load(SeqCst), 1);
    });
}

/// Publishes a head that names these bytes, from the publisher's store, as the index of a package.
async fn name_as_index(network: &Network, publisher: &Peer, name: &str, bytes: &[u8], size: usize) -> PackageId {
    let id = publisher.package(name);
    let content = publisher.registry.blobs().put(bytes).unwrap();
    let head = next_head(&id, None, content, size as u64, Lifetime::default(), SystemTime::now()).unwrap();
    let head = SignedHead::sign(&publisher.keypair, head).unwrap();
    for node in network.nodes() {
        hold(node, &id, Some(head.bytes())).await;
    }
    id
}

#[test]
fn attack_wrong_name_an_index_or_a_manifest_of_another_package_is_an_error() {
    within(async {
        let network = Network::start(3).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let (first, _dir) = release(publisher.id(), SOURCE, &[("a", b"1")]).await;
        let p = publisher.registry.publish(first).await.unwrap();
        let (second, _dir) = release(publisher.id(), &SOURCE.replace("\"p\"", "\"q\""), &[("a", b"2")]).await;
        let q = publisher.registry.publish(second).await.unwrap();
        let index = publisher.registry.index(&p.package).await.unwrap().unwrap();

        let wrong = name_as_index(&network, publisher, "index-of-p", &index.to_json(), index.to_json().len()).await;
        for found in [
            reader.registry.index(&wrong).await.map(drop),
            reader.registry.get_package(&wrong).await.map(drop),
            reader.registry.exists(&wrong).await.map(drop),
        ] {
            assert!(
                matches!(&found, Err(GetError::OtherPackage { expected, found, .. })
                    if *expected == wrong.to_string() && *found == p.package.to_string()),
                "{found:?}"
            );
        }

        let entry = index.versions().get(&p.version).unwrap();
        let manifest = publisher.registry.blobs().size(&q.manifest).unwrap();
        let json = String::from_utf8(index.to_json()).unwrap();
        let json = json
            .replace(&entry.manifest.to_string(), &q.manifest.to_string())
            .replace(&format!("\"manifest_size\":{}", entry.manifest_size), &format!("\"manifest_size\":{manifest}"))
            .replace(&p.package.to_string(), &publisher.package("manifest-of-q").to_string());
        let wrong = name_as_index(&network, publisher, "manifest-of-q", json.as_bytes(), json.len()).await;
        assert!(reader.registry.exists(&wrong).await.unwrap());
        let found = reader.registry.get_package(&wrong).await;
        assert!(matches!(&found, Err(GetError::OtherPackage { content, .. }) if *content == q.manifest), "{found:?}");
    });
}

#[test]
fn attack_an_invalid_index_or_one_of_another_size_is_an_error() {
    within(async {
        let network = Network::start(3).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let none = name_as_index(&network, publisher, "none", b"{}", 2).await;
        let found = reader.registry.index(&none).await;
        assert!(matches!(found, Err(GetError::Invalid { .. })), "{found:?}");
        for size in [1, 3, 16 << 20] {
            let longer = name_as_index(&network, publisher, &format!("size{size}"), b"{ }{ }", size).await;
            let found = reader.registry.index(&longer).await;
            assert!(matches!(found, Err(GetError::Size { .. } | GetError::Invalid { .. })), "{found:?}");
        }
    });
}

fn announced(keypair: &Keypair, name: &str, seq: u64) -> SignedAnnouncement {
    let announcement = Announcement {
        schema: Announcement::SCHEMA,
        package: PackageId::new(keypair.public().to_peer_id(), name.parse().unwrap()).unwrap(),
        version: "1.0.0".parse().unwrap(),
        seq,
        head: ContentId::of(b"head"),
        index: ContentId::of(b"index"),
        title: "Flood".to_owned(),
        published_at: unix::seconds(SystemTime::now()),
    };
    SignedAnnouncement::sign(keypair, announcement).unwrap()
}

#[test]
fn attack_gossip_flood_an_honest_announcement_still_arrives() {
    within(async {
        let network = Network::with_strangers(4, 1, |_| {}).await;
        let ([publisher, .., reader], [flooder]) = (network.peers.as_slice(), network.strangers.as_slice()) else {
            panic!()
        };
        let mut events = reader.registry.events();
        soon("the flooder's neighbours", async || {
            let peers = flooder.swarm().with(|swarm| swarm.behaviour().app.gossipsub.all_peers().count());
            (peers.await.unwrap() == 4).then_some(())
        })
        .await;
        let flood = async {
            for number in 0_u32..600 {
                let bytes = match number % 3 {
                    0 => noise(100).iter().map(|byte| byte ^ number.to_le_bytes()[0]).collect(),
                    _ => announced(&Keypair::generate_ed25519(), "flood", 1).bytes().to_owned(),
                };
                let publish = move |gossip: &mut libp2p_gossipsub::Behaviour| {
                    gossip.publish(IdentTopic::new(DEFAULT_TOPIC), bytes).map(drop)
                };
                // Fails if the flooder's own queues are full.
                let _full = flooder.swarm().with(|swarm| publish(&mut swarm.behaviour_mut().app.gossipsub)).await;
            }
        };
        let (release, _dir) = release(publisher.id(), SOURCE, &[("a", b"1")]).await;
        let (_, receipt) = futures::join!(flood, publisher.registry.publish(release));
        receipt.unwrap();
        let id = publisher.package("p");
        event(&mut events, |event| match event {
            RegistryEvent::PackageDiscovered { package, .. } => (package == id).then_some(()),
            _ => None,
        })
        .await;
        let known = reader.registry.discovered_packages();
        assert!(known.iter().any(|package| package.newest.announcement().package == id));
        // Four neighbours bring twenty unknown publishers each, and one more each second.
        assert!(known.len() < 200, "{} packages", known.len());
        assert_eq!(reader.registry.get_package(&id).await.unwrap().unwrap().id(), &id);
    });
}

/// Catalogue that returns these entries for every request.
struct Forged(Vec<Vec<u8>>);

impl requests::CatalogueSource for Forged {
    fn page(&self, _: Cursor) -> BoxFuture<'_, CataloguePage> {
        let page = CataloguePage { entries: self.0.clone(), ..CataloguePage::default() };
        futures::future::ready(page).boxed()
    }

    fn matches(&self, _: String, _: usize) -> BoxFuture<'_, Vec<Vec<u8>>> {
        futures::future::ready(self.0.clone()).boxed()
    }
}

/// Serves such a catalogue from now on.
async fn serve_catalogue(node: &Node<RegistryBehaviour>, entries: Vec<Vec<u8>>) {
    let incoming = control(node).await.accept(requests::CATALOGUE_PROTOCOL).unwrap();
    smol::spawn(requests::serve_catalogue(SmolRuntime::default(), incoming, Arc::new(Forged(entries)))).detach();
}

async fn bad_data(events: &mut super::super::RegistryEvents) -> PeerId {
    event(events, |event| match event {
        RegistryEvent::BadData { peer } => Some(peer),
        _ => None,
    })
    .await
}

#[test]
fn attack_forged_catalogue_is_bad_data() {
    within(async {
        let often = |config: &mut RegistryConfig| config.catalogue_interval = Duration::from_millis(100);
        let network = Network::with_strangers(1, 1, often).await;
        let ([reader], [liar]) = (network.peers.as_slice(), network.strangers.as_slice()) else { panic!() };
        let mut events = reader.registry.events();
        let mut forged = announced(&Keypair::generate_ed25519(), "p", 1).bytes().to_owned();
        *forged.last_mut().unwrap() ^= 1;
        serve_catalogue(liar, vec![forged]).await;
        assert_eq!(bad_data(&mut events).await, liar.local_peer_id());
        assert!(reader.registry.reputation().banned_until(&liar.local_peer_id(), SystemTime::now()).is_some());
        assert_eq!(reader.registry.discovered_packages(), []);
        // A search does not ask it either.
        let page = reader.registry.search_network(&Query::text("flood").unwrap()).await.unwrap();
        assert_eq!(page.total, 0);
        assert_eq!(reader.registry.reputation().get(&liar.local_peer_id()).unwrap().bad, 1);
    });
}

#[test]
fn attack_forged_matches_and_invalid_answers_are_bad_data() {
    within(async {
        let network = Network::with_strangers(1, 2, |_| {}).await;
        let ([reader], [liar, babbler]) = (network.peers.as_slice(), network.strangers.as_slice()) else { panic!() };
        let mut events = reader.registry.events();
        let good = announced(&Keypair::generate_ed25519(), "p", 1).bytes().to_owned();
        serve_catalogue(liar, vec![good, b"forged".to_vec()]).await;
        let mut incoming = control(babbler).await.accept(requests::CATALOGUE_PROTOCOL).unwrap();
        let babble = async move {
            while let Some((_, mut stream)) = incoming.next().await {
                let _gone = stream.write_all(&[9; 100]).await;
                let _gone = stream.close().await;
            }
        };
        smol::spawn(babble).detach();
        let page = reader.registry.search_network(&Query::text("flood").unwrap()).await.unwrap();
        assert_eq!(page.total, 0);
        let mut bad = [bad_data(&mut events).await, bad_data(&mut events).await];
        bad.sort();
        let mut expected = [liar.local_peer_id(), babbler.local_peer_id()];
        expected.sort();
        assert_eq!(bad, expected);
    });
}
