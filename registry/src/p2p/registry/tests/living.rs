//! Tests with registries that start and stop while packages are published.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, StreamExt, future::join_all};
use kadence::{ContainsKad, OperationKind, OutcomeKind, ValidationError, Validator};
use kadence_smol::SmolRuntime;
use libp2p::kad::{RecordKey, store::RecordStore};
use libp2p_identity::Keypair;

use super::{network::Peer, *};
use crate::{
    ContentId, GetError, PublishError, Query, Receipt, Registry, Step, StepOutcome, StorageError,
    p2p::{
        head::{Lifetime, NAMESPACE, SignedHead},
        registry::{P2PRegistry, RegistryConfig, RegistryEvent, RegistryEvents, RegistryStartError},
        transfer,
    },
    resolve::{install, resolve},
    unix,
};

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(60 * 60);

async fn publish(publisher: &Peer, version: &str) -> Result<Receipt, PublishError> {
    let source = format!("name = \"p\"\nversion = \"{version}\"\ntags = [\"tagged\"]\n");
    let (release, _dir) = release(publisher.id(), &source, &[("version", version.as_bytes())]).await;
    publisher.registry.publish(release).await
}

async fn published_head(publisher: &Peer) -> SignedHead {
    publisher.registry.inner.published_head(&publisher.package("p")).await.unwrap().unwrap()
}

async fn installs(reader: &Peer, id: &crate::PackageId) {
    let lock = resolve(&[(id.clone(), "^1".parse().unwrap())], &reader.registry, None).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    let installed = install(&lock, &reader.registry, target.path()).await.unwrap();
    assert!(installed.packages[0].path.join("version").is_file());
}

/// Returns the number of keys that the node provides.
async fn provided(peer: &Peer) -> usize {
    peer.node.swarm().with(|swarm| swarm.behaviour_mut().kad().store_mut().provided().count()).await.unwrap()
}

async fn republished(events: &mut RegistryEvents) -> u64 {
    event(events, |event| match event {
        RegistryEvent::Republished { seq, .. } => Some(seq),
        _ => None,
    })
    .await
}

#[test]
fn a_package_is_fetched_from_a_reader_when_its_publisher_is_gone() {
    within(async {
        // There is no delay if no known provider is connected.
        let mut network = Network::with(6, |config| config.provider_lookup_delay = NEVER).await;
        publish(&network.peers[0], "1.0.0").await.unwrap();
        let id = network.peers[0].package("p");
        installs(&network.peers[1], &id).await;
        // Index, manifest and archive.
        soon("the offers", async || (provided(&network.peers[1]).await == 3).then_some(())).await;
        let gone = network.peers.remove(0);
        let peer = gone.id();
        gone.stop().await;
        let reader = network.peers.last().unwrap();
        soon("the leave", async || (!reader.node.connected_peers().await.unwrap().contains(&peer)).then_some(())).await;
        installs(reader, &id).await;
    });
}

#[test]
fn if_a_connected_publisher_fails_providers_are_looked_up_at_once() {
    within(async {
        let network = Network::with(4, |config| config.provider_lookup_delay = NEVER).await;
        let [publisher, holder, _, reader] = network.peers.as_slice() else { panic!() };
        let archive = publish(publisher, "1.0.0").await.unwrap().archive;
        let id = publisher.package("p");
        installs(holder, &id).await;
        soon("the offers", async || (provided(holder).await == 3).then_some(())).await;
        let blobs = publisher.registry.blobs().clone();
        blocking::unblock(move || blobs.remove(&archive)).await.unwrap();
        installs(reader, &id).await;
    });
}

#[test]
fn while_a_connected_publisher_delivers_no_providers_are_looked_up() {
    within(async {
        let network = Network::with(3, |config| config.provider_lookup_delay = NEVER).await;
        let [publisher, _, reader] = network.peers.as_slice() else { panic!() };
        publish(publisher, "1.0.0").await.unwrap();
        installs(reader, &publisher.package("p")).await;
        let metrics = reader.node.client().metrics().await.unwrap();
        let lookups = |kind: &OutcomeKind| metrics.durations(OperationKind::GetProviders, *kind).count();
        assert_eq!(OutcomeKind::ALL.iter().map(lookups).sum::<u64>(), 0);
    });
}

#[test]
fn a_registry_that_does_not_share_offers_nothing() {
    within(async {
        let mut network = Network::start(3).await;
        let selfish = network.node(Keypair::generate_ed25519(), tempfile::tempdir().unwrap(), |config| {
            config.share = false;
        });
        let selfish = selfish.await;
        network.peers.push(selfish);
        network.fill_routing_tables().await;
        let [publisher, reader, _, selfish] = network.peers.as_slice() else { panic!() };
        publish(publisher, "1.0.0").await.unwrap();
        installs(selfish, &publisher.package("p")).await;
        installs(reader, &publisher.package("p")).await;
        soon("the offers of another", async || (provided(reader).await == 3).then_some(())).await;
        assert_eq!(provided(selfish).await, 0);
    });
}

#[test]
fn a_restarted_registry_republishes_its_packages_and_renews_ending_heads() {
    within(async {
        let short = |config: &mut RegistryConfig| {
            config.lifetime = Lifetime { validity: Duration::from_secs(300), ttl: Duration::ZERO };
        };
        let mut network = Network::with(5, short).await;
        let publisher = network.peers.pop().unwrap();
        let id = publisher.package("p");
        publish(&publisher, "1.0.0").await.unwrap();
        let head = published_head(&publisher).await;
        assert_eq!(network.peers[0].registry.list_versions(&id).await.unwrap().unwrap().len(), 1);

        // The validity is the same as before: no new head is signed.
        let (keypair, folder) = publisher.stop().await;
        let publisher = network.node(keypair, folder, short).await;
        assert_eq!(republished(&mut publisher.registry.events()).await, 1);
        assert_eq!(published_head(&publisher).await, head);
        assert!(publisher.registry.republish(&id).await.unwrap().is_some());
        assert!(publisher.registry.republish(&publisher.package("never")).await.unwrap().is_none());

        // The rest of the old head is short for a validity of a month.
        let (keypair, folder) = publisher.stop().await;
        let publisher = network.node(keypair, folder, |_| {}).await;
        assert_eq!(republished(&mut publisher.registry.events()).await, 2);
        let renewed = published_head(&publisher).await;
        assert_eq!((renewed.head().prev, renewed.head().index), (Some(head.hash()), head.head().index));
        assert!(renewed.head().not_after > unix::seconds(SystemTime::now()) + 29 * 24 * 60 * 60);
        assert_eq!(network.peers[0].registry.list_versions(&id).await.unwrap().unwrap().len(), 1);
        let seen = network.peers[0].registry.head_store().checkpoint(&id).unwrap().unwrap();
        assert_eq!(seen.seq, 2);
    });
}

#[test]
fn a_head_with_a_validity_of_seconds_is_renewed_in_time() {
    within(async {
        let network = Network::with(3, |config| {
            config.lifetime = Lifetime { validity: Duration::from_secs(6), ttl: Duration::ZERO };
        });
        let network = network.await;
        let publisher = &network.peers[0];
        publish(publisher, "1.0.0").await.unwrap();
        let mut events = publisher.registry.events();
        while republished(&mut events).await < 4 {}
        assert_eq!(network.peers[1].registry.list_versions(&publisher.package("p")).await.unwrap().unwrap().len(), 1);
    });
}

/// Validator of a node that stores no heads for others.
#[derive(Debug)]
struct Refuses;

impl Validator for Refuses {
    fn validate(&self, _: &RecordKey, _: &[u8]) -> Result<(), ValidationError> {
        Err(ValidationError("not here".to_owned()))
    }

    fn compare(&self, _: &RecordKey, _: &[u8], _: &[u8]) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

#[test]
fn a_publication_that_failed_at_the_head_continues_with_the_same_head() {
    within(async {
        let mut network = Network { peers: Vec::new(), strangers: Vec::new() };
        network.join(|_| {}).await;
        let refusing = network.stranger_with(|node| {
            let validators = std::mem::take(&mut node.driver.tracker.validators);
            node.driver.tracker.validators = validators.with(NAMESPACE, Arc::new(Refuses));
        });
        let refusing = refusing.await;
        network.strangers.push(refusing);
        network.fill_routing_tables().await;
        let publisher = &network.peers[0];
        for (version, seq) in [("1.0.0", 1), ("1.0.0", 1), ("1.1.0", 2)] {
            let failed = publish(publisher, version).await;
            assert!(matches!(failed, Err(PublishError::Failed { step: Step::Head, .. })), "{failed:?}");
            assert_eq!(published_head(publisher).await.head().seq, seq);
        }
        let head = published_head(publisher).await;
        for _ in 0..3 {
            network.join(|_| {}).await;
        }
        network.fill_routing_tables().await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let receipt = publish(publisher, "1.1.0").await.unwrap();
        assert_eq!(receipt.steps.get(Step::Manifest), Some(&StepOutcome::AlreadyThere));
        assert_eq!(published_head(publisher).await, head);
        assert_eq!(reader.registry.list_versions(&publisher.package("p")).await.unwrap().unwrap().len(), 2);
    });
}

#[test]
fn releases_published_at_the_same_time_follow_each_other() {
    within(async {
        let network = Network::start(4).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let versions = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.3.0"];
        for receipt in join_all(versions.map(|version| publish(publisher, version))).await {
            receipt.unwrap();
        }
        assert_eq!(published_head(publisher).await.head().seq, 4);
        let found = reader.registry.list_versions(&publisher.package("p")).await.unwrap().unwrap();
        assert_eq!(
            found.iter().map(|info| info.version.to_string()).collect::<Vec<_>>(),
            ["1.3.0", "1.2.0", "1.1.0", "1.0.0"]
        );
    });
}

#[test]
fn publishing_again_is_already_there_and_other_contents_are_rejected() {
    within(async {
        let network = Network::start(4).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let first = publish(publisher, "1.0.0").await.unwrap();
        let head = published_head(publisher).await;
        let again = publish(publisher, "1.0.0").await.unwrap();
        assert!(again.steps.all_succeeded(), "{:?}", again.steps);
        for step in [Step::Manifest, Step::Index] {
            assert_eq!(again.steps.get(step), Some(&StepOutcome::AlreadyThere));
        }
        assert_eq!((again.manifest, again.archive, again.index), (first.manifest, first.archive, first.index));
        assert_eq!(published_head(publisher).await, head);
        let (other, _dir) = release(publisher.id(), "name = \"p\"\nversion = \"1.0.0\"\n", &[("else", b"1")]).await;
        let refused = publisher.registry.publish(other.clone()).await;
        assert!(matches!(refused, Err(PublishError::Index(_))), "{refused:?}");
        let foreign = reader.registry.publish(other).await;
        assert!(matches!(foreign, Err(PublishError::OtherPublisher { .. })), "{foreign:?}");
    });
}

#[test]
fn a_reader_never_sees_fewer_versions_than_before() {
    within(async {
        let network = Network::with(5, |config| config.max_head_age = Duration::ZERO).await;
        let [publisher, .., one, other] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("p");
        publish(publisher, "1.0.0").await.unwrap();
        let is_done = std::cell::Cell::new(false);
        let publishing = async {
            for minor in 1..8 {
                publish(publisher, &format!("1.{minor}.0")).await.unwrap();
            }
            is_done.set(true);
        };
        let reading = [one, one, other, other, publisher, publisher].map(async |reader| {
            let mut seen = 0;
            while !is_done.get() {
                let versions = reader.registry.list_versions(&id).await.unwrap().unwrap().len();
                assert!(versions >= seen, "{versions} after {seen}");
                seen = versions;
            }
            assert_eq!(reader.registry.list_versions(&id).await.unwrap().unwrap().len(), 8);
        });
        futures::join!(publishing, join_all(reading));
    });
}

#[test]
fn an_index_that_was_read_for_the_search_is_not_kept_and_is_fetched_again_on_demand() {
    within(async {
        let network = Network::start(4).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let receipt = publish(publisher, "1.0.0").await.unwrap();
        let tagged = Query::builder().tag("tagged").build().unwrap();
        soon("its tags", async || (reader.registry.search(&tagged).await.unwrap().total == 1).then_some(())).await;
        assert!(!reader.registry.blobs().contains(&receipt.index));
        assert!(!reader.registry.inner.index_cache.contains(&receipt.index));
        assert!(reader.registry.get_package(&publisher.package("p")).await.unwrap().is_some());
        assert!(reader.registry.blobs().contains(&receipt.index));
    });
}

#[test]
fn a_folder_and_a_node_are_for_one_registry() {
    within(async {
        let mut network = Network { peers: Vec::new(), strangers: Vec::new() };
        network.join(|_| {}).await;
        let mut first = network.peers.pop().unwrap();
        let mut other = network.stranger().await;
        let runtime = SmolRuntime::default();
        let config = RegistryConfig::in_folder(first.folder.path());
        let taken = P2PRegistry::start(&mut other, runtime, Keypair::generate_ed25519(), config).await;
        assert!(matches!(taken, Err(RegistryStartError::Storage(StorageError::InUse { .. }))), "{taken:?}");

        let elsewhere = tempfile::tempdir().unwrap();
        let config = RegistryConfig::in_folder(elsewhere.path());
        let runtime = SmolRuntime::default();
        let running = P2PRegistry::start(&mut first.node, runtime, first.keypair.clone(), config.clone()).await;
        assert!(matches!(running, Err(RegistryStartError::AlreadyRunning)), "{running:?}");

        // A head store as version 0.1 wrote it.
        let old = tempfile::tempdir().unwrap();
        let heads = old.path().join("heads.db");
        rusqlite::Connection::open(&heads)
            .unwrap()
            .execute_batch("PRAGMA application_id = 0x47476864; CREATE TABLE heads (x); PRAGMA user_version = 1")
            .unwrap();
        let old = RegistryConfig::in_folder(old.path());
        let foreign = P2PRegistry::start(&mut other, SmolRuntime::default(), first.keypair.clone(), old).await;
        let error = foreign.unwrap_err();
        assert!(matches!(&error, RegistryStartError::Foreign { path } if *path == heads), "{error}");

        let _events = other.events();
        let started = P2PRegistry::start(&mut other, SmolRuntime::default(), first.keypair.clone(), config).await;
        assert!(matches!(started, Err(RegistryStartError::EventsTaken)), "{started:?}");
    });
}

#[test]
fn connections_are_noticed_even_if_their_events_were_lost() {
    within(async {
        let network = Network::start(2).await;
        let [one, other] = network.peers.as_slice() else { panic!() };
        let inner = &one.registry.inner;
        let (here, away) = (inner.connections.wait(other.id()), inner.connections.wait(libp2p::PeerId::random()));
        inner.resync_connections().await;
        assert_eq!(here.await, Ok(true));
        assert_eq!(away.now_or_never(), None);
    });
}

#[test]
fn when_the_node_stops_calls_and_events_end_and_nothing_is_left_behind() {
    within(async {
        let network = Network::with_strangers(2, 1, |_| {}).await;
        let silent = &network.strangers[0];
        let content = ContentId::of(b"what is never given");
        let mut control = silent.swarm().with(|swarm| swarm.behaviour().app.streams.new_control()).await.unwrap();
        let mut incoming = control.accept(transfer::BLOB_PROTOCOL).unwrap();
        silent.client().start_providing(content.provider_key()).await.unwrap();

        let Network { mut peers, strangers: _strangers } = network;
        let publisher = peers.remove(0);
        publish(&publisher, "1.0.0").await.unwrap();
        let (id, other) = (publisher.package("p"), publisher.package("other"));
        let Peer { node, registry, keypair, folder } = publisher;
        let mut events = registry.events();
        let fetching = registry.clone();
        let fetched = smol::spawn({
            let id = id.clone();
            async move { fetching.fetch(&id, &content, 19).await }
        });
        let _stream = incoming.next().await.unwrap();
        node.shutdown().await;

        let fetched = fetched.await;
        assert!(matches!(fetched, Err(GetError::Closed)), "{fetched:?}");
        while events.next().await.is_some() {}
        assert_eq!(registry.events().next().await, None);
        let found = registry.index(&other).await;
        assert!(matches!(found, Err(GetError::Closed)), "{found:?}");
        let fetched = registry.fetch(&id, &content, 19).await;
        assert!(matches!(fetched, Err(GetError::Closed)), "{fetched:?}");
        let republished = registry.republish(&id).await;
        assert!(matches!(republished, Err(PublishError::Versions(GetError::Closed))), "{republished:?}");
        let (release, _dir) = release(registry.publisher(), "name = \"p\"\nversion = \"2.0.0\"\n", &[]).await;
        let published = registry.publish(release).await;
        assert!(matches!(published, Err(PublishError::Versions(GetError::Closed))), "{published:?}");
        // Local packages are still found.
        assert_eq!(registry.search_network(&Query::text("p").unwrap()).await.unwrap().total, 1);

        let inner = Arc::downgrade(&registry.inner);
        drop(registry);
        soon("the end of its tasks", async || (inner.strong_count() == 0).then_some(())).await;
        let alone = Network { peers: Vec::new(), strangers: Vec::new() };
        let again = alone.node(keypair, folder, |_| {}).await;
        assert_eq!(published_head(&again).await.head().seq, 1);
    });
}
