//! Cost of fetching a blob, verified and stored, compared with copying as many bytes over a bare stream.
//!
//! All nodes run in one process, connected by loopback TCP with noise and yamux. Rounds of fetches and copies
//! alternate. Compare only figures of the same run.
//!
//! ```text
//! cargo bench -p kadence-registry --bench transfer              10 MiB, 15 rounds
//! cargo bench -p kadence-registry --bench transfer -- --strict  fails if a fetch is slower than half the stream's speed
//! ```

#![expect(clippy::expect_used, reason = "a benchmark that cannot measure has to stop")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod support;

use std::{
    env,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, stream};
use kadence_registry::{
    ContentId,
    blob::BlobStore,
    p2p::transfer::{BlobProvider, FetchConfig, FetchRequest, Fetcher, Server, ServerConfig},
};
use kadence_smol::SmolRuntime;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, Transport,
    core::upgrade::Version,
    identity::Keypair,
    noise,
    swarm::{self, SwarmEvent},
    yamux,
};
use libp2p_async_io::tcp;
use libp2p_stream::{Behaviour, Control};
use smol::Executor;
use tempfile::TempDir;

use self::support::on_all_cores;

/// Protocol of the bare stream.
const COPY: StreamProtocol = StreamProtocol::new("/bench/copy/1");

/// Minimum speed of a fetch as a share of the bare stream's.
const BOUND: f64 = 0.5;

struct Size {
    bytes: usize,
    rounds: usize,
}

fn main() -> ExitCode {
    let has = |option: &str| env::args().any(|given| given == option);
    // `cargo test` does not pass `--bench`.
    let is_smoke = !has("--bench") || has("--test") || has("--smoke");
    if has("--list") {
        println!("transfer: benchmark");
        return ExitCode::SUCCESS;
    }
    let size = if is_smoke { Size { bytes: 1 << 20, rounds: 1 } } else { Size { bytes: 10 << 20, rounds: 15 } };
    let ratios = on_all_cores(async |executor| executor.spawn(measure(executor.clone(), size)).await);
    let missed = ratios.iter().any(|ratio| *ratio < BOUND);
    if missed && has("--strict") { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Measures fetches from one and from three providers. Returns their speeds as shares of the bare stream's.
async fn measure(executor: Arc<Executor<'static>>, size: Size) -> [f64; 2] {
    let blob: Arc<Vec<u8>> = Arc::new((0..size.bytes).map(|at| (at * 31 % 251) as u8).collect());
    let mut providers = Vec::new();
    for _ in 0..3 {
        providers.push(Node::serving(&executor, &blob).await);
    }
    let client = Node::new(&executor, &providers.iter().map(|node| node.address.clone()).collect::<Vec<_>>()).await;
    let (mut copy, mut one, mut three) = (Vec::new(), Vec::new(), Vec::new());
    let first = providers.get(..1).unwrap_or_default();
    for _ in 0..size.rounds {
        for provider in first {
            copy.push(client.copy(provider, size.bytes).await);
        }
        one.push(client.fetch(&executor, first, &blob).await);
        three.push(client.fetch(&executor, &providers, &blob).await);
    }
    let copy = median(copy);
    let show = |what: &str, time: Duration| {
        let speed = size.bytes as f64 / f64::from(1 << 20) / time.as_secs_f64();
        let ratio = copy.as_secs_f64() / time.as_secs_f64();
        println!("{what:<28} {:>8.1} ms {speed:>8.1} MiB/s {ratio:>6.2}", time.as_secs_f64() * 1000.0);
        ratio
    };
    println!("{} KiB, median of {}; the bound is {BOUND}", size.bytes >> 10, size.rounds);
    show("bare stream", copy);
    [show("fetch from one provider", median(one)), show("fetch from three providers", median(three))]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

struct Node {
    peer: PeerId,
    address: Multiaddr,
    control: Control,
    _folder: TempDir,
    store: BlobStore,
}

impl Node {
    async fn new(executor: &Arc<Executor<'static>>, dial: &[Multiaddr]) -> Self {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let transport = tcp::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&keypair).expect("an Ed25519 key"))
            .multiplex(yamux::Config::default())
            .boxed();
        let spawner = executor.clone();
        let config = swarm::Config::with_executor(move |task| spawner.spawn(task).detach())
            .with_idle_connection_timeout(Duration::from_secs(600));
        let behaviour = Behaviour::new();
        let control = behaviour.new_control();
        let mut swarm = Swarm::new(transport, behaviour, peer, config);
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("loopback");
        for address in dial {
            swarm.dial(address.clone()).expect("an address");
        }
        let (mut address, mut connected) = (None, 0);
        while address.is_none() || connected < dial.len() {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address: of, .. } => address = Some(of),
                SwarmEvent::ConnectionEstablished { .. } => connected += 1,
                _ => {}
            }
        }
        executor.spawn(async move { while swarm.next().await.is_some() {} }).detach();
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path()).expect("a store");
        Self { peer, address: address.expect("it listens"), control, _folder: folder, store }
    }

    /// Starts a node that serves the blob, and copies of it over bare streams.
    async fn serving(executor: &Arc<Executor<'static>>, blob: &Arc<Vec<u8>>) -> Self {
        let mut node = Self::new(executor, &[]).await;
        node.store.put(blob).expect("the disk works");
        // No limit, as there is none to the bare stream.
        let config = ServerConfig::default().bytes_per_second(u64::MAX).bytes_per_second_per_peer(u64::MAX);
        let runtime = SmolRuntime::on(executor);
        let server = Server::new(&mut node.control, node.store.clone(), &runtime, config).expect("the only one");
        executor.spawn(server.run()).detach();
        let mut incoming = node.control.accept(COPY).expect("the only one");
        let blob = blob.clone();
        let copies = async move {
            while let Some((_, mut stream)) = incoming.next().await {
                stream.write_all(&blob).await.expect("the client reads");
                stream.close().await.expect("the client reads");
            }
        };
        executor.spawn(copies).detach();
        node
    }

    async fn copy(&self, from: &Self, bytes: usize) -> Duration {
        let begun = Instant::now();
        let mut stream = self.control.clone().open_stream(from.peer, COPY).await.expect("it is connected");
        let (mut buffer, mut all) = (vec![0; 64 << 10], 0);
        loop {
            match stream.read(&mut buffer).await.expect("the server sends") {
                0 => break,
                read => all += read,
            }
        }
        assert_eq!(all, bytes, "not all was copied");
        begun.elapsed()
    }

    async fn fetch(&self, executor: &Arc<Executor<'static>>, from: &[Self], blob: &[u8]) -> Duration {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path()).expect("a store");
        let runtime = SmolRuntime::on(executor);
        let fetcher = Fetcher::new(self.control.clone(), store.clone(), &runtime, FetchConfig::default());
        let providers: Vec<_> = from.iter().map(|node| BlobProvider { peer: node.peer, preference: 0 }).collect();
        let wanted = FetchRequest { id: ContentId::of(blob), max: 1 << 30, size: None };
        let begun = Instant::now();
        fetcher.fetch(wanted, stream::iter(providers), |_| {}).await.expect("the providers have it");
        let took = begun.elapsed();
        assert!(store.read(&wanted.id, 1 << 30).expect("it is there") == blob, "other bytes were fetched");
        took
    }
}
