use super::*;
use crate::{
    GetError, Query, Registry, Step, StepOutcome, Steps,
    p2p::registry::RegistryEvent,
    resolve::{install, resolve},
};

fn confirmed(steps: &Steps, step: Step) -> usize {
    match steps.get(step) {
        Some(StepOutcome::Confirmed { by, of: _ }) => *by,
        other => panic!("{step}: {other:?}"),
    }
}

const SOURCE: &str = "name = \"left-pad\"\nversion = \"1.0.0\"\ntitle = \"Pads on the left\"\ntags = [\"text\"]\n";

#[test]
fn a_published_package_is_found_and_read_by_others() {
    within(async {
        let network = Network::start(6).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("left-pad");
        assert_eq!(reader.registry.get_package(&id).await.unwrap(), None);
        assert!(!reader.registry.exists(&id).await.unwrap());

        let mut events = reader.registry.events();
        let (release, dir) = release(publisher.id(), SOURCE, &[("src/pad.txt", &[7; 100_000])]).await;
        let receipt = publisher.registry.publish(release).await.unwrap();
        assert!(receipt.steps.all_succeeded(), "{:?}", receipt.steps);
        assert_eq!(confirmed(&receipt.steps, Step::Head), 5);
        assert_eq!(confirmed(&receipt.steps, Step::ReadBack), 5);

        let found = event(&mut events, |event| match event {
            RegistryEvent::PackageDiscovered { package, version } => Some((package, version.to_string())),
            _ => None,
        });
        assert_eq!(found.await, (id.clone(), "1.0.0".to_owned()));
        let package = reader.registry.get_package(&id).await.unwrap().unwrap();
        assert_eq!(package.metadata().title, "Pads on the left");
        let by_tag = Query::builder().tag("text").build().unwrap();
        let page = soon("the tag", async || {
            let page = reader.registry.search(&by_tag).await.unwrap();
            (page.total == 1).then_some(page)
        });
        assert_eq!(page.await.hits[0].package, id);

        let lock = resolve(&[(id.clone(), "^1".parse().unwrap())], &reader.registry, None).await.unwrap();
        let target = tempfile::tempdir().unwrap();
        let installed = install(&lock, &reader.registry, target.path()).await.unwrap();
        let path = &installed.packages[0].path;
        assert_eq!(std::fs::read(path.join("src/pad.txt")).unwrap(), [7; 100_000]);
        drop(dir);

        let other = publisher.package("right-pad");
        assert_eq!(reader.registry.get_package(&other).await.unwrap(), None);
    });
}

#[test]
fn a_yanked_version_is_no_longer_found_until_it_is_unyanked() {
    within(async {
        let network = Network::start(4).await;
        let [publisher, .., reader] = network.peers.as_slice() else { panic!() };
        let id = publisher.package("left-pad");
        let (first, _dir) = release(publisher.id(), SOURCE, &[("a", b"1")]).await;
        publisher.registry.publish(first).await.unwrap();
        let second = SOURCE.replace("1.0.0", "1.1.0");
        let (second, _dir) = release(publisher.id(), &second, &[("a", b"2")]).await;
        publisher.registry.publish(second.clone()).await.unwrap();
        let again = publisher.registry.publish(second).await.unwrap();
        assert_eq!(again.steps.get(Step::Manifest), Some(&StepOutcome::AlreadyThere));
        let version = "1.1.0".parse().unwrap();
        assert_eq!(reader.registry.get_package(&id).await.unwrap().unwrap().version(), &version);

        let mut events = reader.registry.events();
        publisher.registry.yank(&id, &version).await.unwrap();
        let discovered = |event| match event {
            RegistryEvent::PackageDiscovered { package, version } => (package == id).then_some(version.to_string()),
            _ => None,
        };
        assert_eq!(event(&mut events, discovered).await, "1.0.0");
        assert_eq!(reader.registry.get_package(&id).await.unwrap().unwrap().version().to_string(), "1.0.0");
        let versions = reader.registry.list_versions(&id).await.unwrap().unwrap();
        assert_eq!(versions.iter().map(|info| info.entry.yanked).collect::<Vec<_>>(), [true, false]);
        let foreign = publisher.registry.yank(&reader.package("x"), &version).await;
        assert!(foreign.is_err(), "{foreign:?}");

        publisher.registry.unyank(&id, &version).await.unwrap();
        // Until it is announced, the reader may use the head that it knows.
        assert_eq!(event(&mut events, discovered).await, "1.1.0");
        assert_eq!(reader.registry.get_package(&id).await.unwrap().unwrap().version(), &version);
    });
}

#[test]
fn the_readme_of_the_current_version_is_searched_after_a_yank() {
    within(async {
        let network = Network::start(3).await;
        let publisher = &network.peers[0];
        let id = publisher.package("left-pad");
        for (version, readme) in [("1.0.0", "quagga"), ("1.1.0", "okapi")] {
            let source = SOURCE.replace("1.0.0", version);
            let (release, _dir) = release(publisher.id(), &source, &[("README.md", readme.as_bytes())]).await;
            publisher.registry.publish(release).await.unwrap();
        }
        let found = async |word: &str| {
            let page = publisher.registry.search(&Query::text(word).unwrap()).await.unwrap();
            page.hits.iter().any(|hit| hit.package == id)
        };
        let [first, second] = ["1.0.0", "1.1.0"].map(|version| version.parse().unwrap());
        assert_eq!((found("quagga").await, found("okapi").await), (false, true));
        publisher.registry.yank(&id, &first).await.unwrap();
        assert_eq!((found("quagga").await, found("okapi").await), (false, true));
        publisher.registry.unyank(&id, &first).await.unwrap();
        publisher.registry.yank(&id, &second).await.unwrap();
        assert_eq!((found("quagga").await, found("okapi").await), (true, false));
        publisher.registry.unyank(&id, &second).await.unwrap();
        assert_eq!((found("quagga").await, found("okapi").await), (false, true));
    });
}

#[test]
fn a_late_joiner_reads_catalogues_and_searches_those_of_others() {
    within(async {
        let mut network = Network::start(4).await;
        let publisher = &network.peers[0];
        let id = publisher.package("left-pad");
        let (release, _dir) = release(publisher.id(), SOURCE, &[("a", b"1")]).await;
        publisher.registry.publish(release).await.unwrap();
        let late = network.join(|_| {}).await;
        soon("the catalogue", async || {
            late.registry
                .discovered_packages()
                .iter()
                .any(|package| package.newest.announcement().package == id)
                .then_some(())
        })
        .await;
        let query = Query::text("pads").unwrap();
        let page = late.registry.search_network(&query).await.unwrap();
        assert_eq!(page.hits[0].package, id);
        let tagged = Query::builder().tag("text").build().unwrap();
        soon("its tags", async || (late.registry.search(&tagged).await.unwrap().total == 1).then_some(())).await;
    });
}

#[test]
fn a_node_without_peers_is_inconclusive_about_a_package() {
    within(async {
        let network = Network::with(1, |_| {});
        let network = futures::FutureExt::now_or_never(network);
        assert!(network.is_none(), "a node alone is never ready");
        let folder = tempfile::tempdir().unwrap();
        let alone = Network { peers: Vec::new(), strangers: Vec::new() };
        let peer = alone.node(libp2p_identity::Keypair::generate_ed25519(), folder, |_| {}).await;
        let found = peer.registry.get_package(&peer.package("x")).await;
        assert!(matches!(found, Err(GetError::Inconclusive { asked: 0, answered: 0 })), "{found:?}");
    });
}
