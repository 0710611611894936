//! Tests of the catalogue protocol with two swarms over the memory transport.

mod exchange;
mod liars;

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, Transport,
    core::{transport::MemoryTransport, upgrade},
    noise, swarm, yamux,
};
use libp2p_identity::Keypair;

use super::*;
use crate::{
    ContentId, PackageId,
    p2p::announce::{Announcement, CataloguePage, Cursor, Discovered, SignedAnnouncement},
};

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

#[derive(Clone)]
struct TestRuntime;

struct TestTimer(smol::Timer);

impl kadence::Runtime for TestRuntime {
    type Timer = TestTimer;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn timer(&self, deadline: Instant) -> TestTimer {
        TestTimer(smol::Timer::at(deadline))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        smol::spawn(task).detach();
    }
}

impl kadence::Timer for TestTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.set_at(deadline);
    }

    fn poll_elapsed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

fn swarm() -> Swarm<libp2p_stream::Behaviour> {
    let key = Keypair::generate_ed25519();
    let transport = MemoryTransport::new()
        .upgrade(upgrade::Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let config = swarm::Config::with_executor(|task| smol::spawn(task).detach())
        .with_idle_connection_timeout(Duration::from_secs(60));
    Swarm::new(transport, libp2p_stream::Behaviour::new(), key.public().to_peer_id(), config)
}

/// Returns a client that is connected to a server, whose control is passed to `serve`.
async fn connected(
    serve: impl FnOnce(libp2p_stream::Control),
    deadline: Duration,
) -> (CatalogueClient<TestRuntime>, PeerId) {
    let (peer, address) = listening(serve).await;
    (asker(address, deadline).await, peer)
}

async fn listening(serve: impl FnOnce(libp2p_stream::Control)) -> (PeerId, Multiaddr) {
    let mut server = swarm();
    serve(server.behaviour().new_control());
    let address: Multiaddr = "/memory/0".parse().unwrap();
    server.listen_on(address).unwrap();
    let address = loop {
        if let swarm::SwarmEvent::NewListenAddr { address, .. } = server.select_next_some().await {
            break address;
        }
    };
    let peer = *server.local_peer_id();
    smol::spawn(async move { while server.next().await.is_some() {} }).detach();
    (peer, address)
}

/// Returns a client that is connected to this address.
async fn asker(address: Multiaddr, deadline: Duration) -> CatalogueClient<TestRuntime> {
    let mut client = swarm();
    client.dial(address).unwrap();
    while !matches!(client.select_next_some().await, swarm::SwarmEvent::ConnectionEstablished { .. }) {}
    let control = client.behaviour().new_control();
    smol::spawn(async move { while client.next().await.is_some() {} }).detach();
    CatalogueClient::new(TestRuntime, control, deadline)
}

async fn honest(known: Arc<KnownPackages>) -> (CatalogueClient<TestRuntime>, PeerId) {
    let serve = |mut control: libp2p_stream::Control| {
        let incoming = control.accept(CATALOGUE_PROTOCOL).unwrap();
        smol::spawn(serve_catalogue(TestRuntime, incoming, known)).detach();
    };
    connected(serve, Duration::from_secs(30)).await
}

/// Starts a server that answers every request with these bytes, or never for `None`.
async fn liar(answer: Option<Vec<u8>>, deadline: Duration) -> (CatalogueClient<TestRuntime>, PeerId) {
    let serve = |mut control: libp2p_stream::Control| {
        let mut incoming = control.accept(CATALOGUE_PROTOCOL).unwrap();
        smol::spawn(async move {
            let mut silent: Vec<Stream> = Vec::new();
            while let Some((_, mut stream)) = incoming.next().await {
                let _request = wire::read_request(&mut stream).await.unwrap();
                match &answer {
                    Some(answer) => {
                        // Fails if the client has closed the stream.
                        let _written = futures::AsyncWriteExt::write_all(&mut stream, answer).await;
                        let _closed = futures::AsyncWriteExt::close(&mut stream).await;
                    }
                    None => silent.push(stream),
                }
            }
        })
        .detach();
    };
    connected(serve, deadline).await
}

struct KnownPackages(Mutex<Discovered>);

impl KnownPackages {
    fn new(announcements: &[SignedAnnouncement]) -> Arc<Self> {
        let mut discovered = Discovered::new(5);
        for announcement in announcements {
            discovered.add(announcement, PeerId::random(), now());
        }
        Arc::new(Self(Mutex::new(discovered)))
    }
}

impl CatalogueSource for KnownPackages {
    fn page(&self, after: Cursor) -> BoxFuture<'_, CataloguePage> {
        let page = self.0.lock().unwrap().page(after);
        Box::pin(async { page })
    }

    /// Returns all packages with this text in the name. The server applies the limit.
    fn matches(&self, text: String, _limit: usize) -> BoxFuture<'_, Vec<Vec<u8>>> {
        let known = self.0.lock().unwrap();
        let matches = known
            .since(0)
            .filter(|package| package.newest.announcement().package.name().as_str().contains(&text))
            .map(|package| package.newest.bytes().to_owned())
            .collect();
        Box::pin(async { matches })
    }
}

fn signed(name: &str, published_at: u64) -> SignedAnnouncement {
    let key = Keypair::ed25519_from_bytes([1; 32]).unwrap();
    let announcement = Announcement {
        schema: Announcement::SCHEMA,
        package: PackageId::new(key.public().to_peer_id(), name.parse().unwrap()).unwrap(),
        version: semver::Version::new(1, 0, 0),
        seq: 1,
        head: ContentId::of(b"head"),
        index: ContentId::of(b"index"),
        title: String::new(),
        published_at,
    };
    SignedAnnouncement::sign(&key, announcement).unwrap()
}

fn some(count: usize) -> Vec<SignedAnnouncement> {
    (0..count).map(|number| signed(&format!("package-{number}"), NOW)).collect()
}
