//! Test network: nodes with streams only, in one process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_channel::Sender;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, stream};
use kadence_smol::SmolRuntime;
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    identity::Keypair,
    swarm::{self, SwarmEvent},
    yamux,
};
use libp2p_plaintext as plaintext;
use libp2p_stream::{Behaviour, Control};
use smol::Task;
use tempfile::TempDir;

use super::super::{
    BLOB_PROTOCOL, BlobProvider, FetchConfig, FetchError, FetchEvent, FetchRequest, Fetcher, ProviderOutcome,
    ProviderReport, Server, ServerConfig, StatsHandle,
    wire::{HEAD_LEN, Head, REQUEST_LEN, Request},
};
use crate::{ContentId, blob::BlobStore};

/// Timeout of the tests: much longer than any of them takes if it succeeds.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Node {
    pub(super) peer: PeerId,
    pub(super) control: Control,
    pub(super) store: BlobStore,
    pub(super) folder: TempDir,
    restarted_in: Option<PathBuf>,
    address: Multiaddr,
    dial: Sender<(Multiaddr, Sender<()>)>,
    tasks: Vec<Task<()>>,
}

impl Node {
    pub(super) async fn new() -> Self {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let transport = MemoryTransport::default()
            .upgrade(Version::V1)
            .authenticate(plaintext::Config::new(&keypair))
            .multiplex(yamux::Config::default())
            .boxed();
        let config = swarm::Config::with_executor(|task| smol::spawn(task).detach())
            .with_idle_connection_timeout(Duration::from_secs(120));
        let behaviour = Behaviour::new();
        let control = behaviour.new_control();
        let mut swarm = Swarm::new(transport, behaviour, peer, config);
        swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let (dial, to_dial) = async_channel::bounded::<(Multiaddr, Sender<()>)>(1);
        let task = smol::spawn(async move {
            let mut connected: Vec<Sender<()>> = Vec::new();
            let mut to_dial = Box::pin(to_dial.fuse());
            loop {
                futures::select! {
                    event = swarm.select_next_some() => if let SwarmEvent::ConnectionEstablished { .. } = event {
                        for done in connected.drain(..) {
                            done.try_send(()).unwrap();
                        }
                    },
                    (address, done) = to_dial.select_next_some() => {
                        swarm.dial(address).unwrap();
                        connected.push(done);
                    }
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(folder.path()).unwrap();
        Self { peer, control, store, folder, restarted_in: None, address, dial, tasks: vec![task] }
    }

    /// Returns a node that is connected to the others.
    pub(super) async fn client_of(others: &[&Node]) -> Self {
        let node = Self::new().await;
        for other in others {
            let (done, connected) = async_channel::bounded(1);
            node.dial.send((other.address.clone(), done)).await.unwrap();
            connected.recv().await.unwrap();
        }
        node
    }

    pub(super) async fn serving(config: ServerConfig, blobs: &[&[u8]]) -> (Self, StatsHandle) {
        let mut node = Self::new().await;
        for blob in blobs {
            node.store.put(blob).unwrap();
        }
        let server = Server::new(&mut node.control, node.store.clone(), &SmolRuntime::default(), config).unwrap();
        let stats = server.stats();
        node.tasks.push(smol::spawn(server.run()));
        (node, stats)
    }

    /// Returns a node that has these blobs and answers with a script, which gets each stream and the store.
    pub(super) async fn scripted<F: Future<Output = Option<()>> + Send + 'static>(
        blobs: &[&[u8]],
        script: impl Fn(Stream, BlobStore) -> F + Send + 'static,
    ) -> Self {
        let mut node = Self::new().await;
        for blob in blobs {
            node.store.put(blob).unwrap();
        }
        let mut incoming = node.control.accept(BLOB_PROTOCOL).unwrap();
        let store = node.store.clone();
        node.tasks.push(smol::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                smol::spawn(script(stream, store.clone())).detach();
            }
        }));
        node
    }

    pub(super) fn fetcher(&self, config: FetchConfig) -> Fetcher {
        Fetcher::new(self.control.clone(), self.store.clone(), &SmolRuntime::default(), config)
    }

    pub(super) async fn stream_to(&self, other: &Node) -> Stream {
        self.control.clone().open_stream(other.peer, BLOB_PROTOCOL).await.unwrap()
    }

    /// Returns the folder of the current store.
    fn store_folder(&self) -> PathBuf {
        self.restarted_in.clone().unwrap_or_else(|| self.folder.path().to_owned())
    }

    /// Opens the store in this folder in place of the current one.
    pub(super) fn restart_in(&mut self, folder: &Path) {
        self.store = BlobStore::open(folder).unwrap();
        self.restarted_in = Some(folder.to_owned());
    }

    /// Returns the number of files in the store's folder that are not blobs.
    pub(super) fn leftovers(&self) -> usize {
        let folders = ["tmp", "partial", "damaged"].map(|name| self.folder.path().join(name));
        folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).count()
    }
}

/// Returns a configuration with pieces of 64 KiB and a short retry delay.
pub(super) fn quick() -> FetchConfig {
    FetchConfig { piece_groups: 4, retry_after: Duration::from_millis(5), ..FetchConfig::default() }
}

pub(super) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251 + at / 65_536) % 256).unwrap()).collect()
}

pub(super) fn named(nodes: &[&Node]) -> impl futures::Stream<Item = BlobProvider> + Send + 'static {
    stream::iter(nodes.iter().map(|node| BlobProvider { peer: node.peer, preference: 0 }).collect::<Vec<_>>())
}

pub(super) fn wanted(blob: &[u8]) -> FetchRequest {
    FetchRequest { id: ContentId::of(blob), max: 1 << 30, size: None }
}

/// Records all events of a download.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<FetchEvent>>>);

impl Log {
    pub(super) fn note(&self) -> impl Fn(FetchEvent) + Send + Sync + 'static {
        let log = self.clone();
        move |event| log.0.lock().unwrap().push(event)
    }

    pub(super) fn reports_of(&self, node: &Node) -> Vec<ProviderOutcome> {
        let of_node = |event: &FetchEvent| match event {
            FetchEvent::Report(ProviderReport { peer, outcome }) => (*peer == node.peer).then_some(*outcome),
            FetchEvent::Progress { .. } => None,
        };
        self.0.lock().unwrap().iter().filter_map(of_node).collect()
    }

    pub(super) fn progress(&self) -> Vec<(u64, u64)> {
        let progress = |event: &FetchEvent| match event {
            FetchEvent::Progress { verified, total } => Some((*verified, *total)),
            FetchEvent::Report(_) => None,
        };
        self.0.lock().unwrap().iter().filter_map(progress).collect()
    }
}

/// Fetches with a timeout, and requires that the blob is in the store exactly if the fetch succeeds.
pub(super) async fn fetch(
    client: &Node,
    config: FetchConfig,
    blob: &[u8],
    providers: &[&Node],
    log: &Log,
) -> Result<u64, FetchError> {
    let fetcher = client.fetcher(config);
    let fetched = within(fetcher.fetch(wanted(blob), named(providers), log.note())).await;
    let id = ContentId::of(blob);
    match fetched {
        Ok(_) => {
            assert!(client.store.read(&id, 1 << 30).unwrap() == blob, "other bytes");
            // The hashes that were stored with it are its hashes.
            let hex = id.hash().to_hex();
            let tree = client.store_folder().join("blobs").join(&hex[..2]).join(format!("{hex}.tree"));
            let came = std::fs::read(&tree).unwrap_or_default();
            client.store.verify(&id).unwrap();
            assert!(std::fs::read(&tree).unwrap_or_default() == came, "other hashes");
        }
        Err(_) => assert!(!client.store.contains(&id)),
    }
    fetched
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    let timeout = async {
        smol::Timer::after(PATIENCE).await;
        panic!("it hangs");
    };
    smol::future::or(future, timeout).await
}

pub(super) async fn ask(stream: &mut Stream, request: Request) {
    stream.write_all(&request.encode()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads the head of a response; `None` at the end of the stream.
pub(super) async fn head(stream: &mut Stream) -> Option<Head> {
    let mut head = [0; HEAD_LEN];
    within(stream.read_exact(&mut head)).await.ok()?;
    Some(Head::decode(&head).unwrap())
}

pub(super) async fn next_request(stream: &mut Stream) -> Option<Request> {
    let mut request = [0; REQUEST_LEN];
    stream.read_exact(&mut request).await.ok()?;
    Some(Request::decode(&request).unwrap())
}

/// Returns a valid answer with its head.
pub(super) fn answer(store: &BlobStore, request: &Request) -> Vec<u8> {
    let mut slice = Vec::new();
    let size = store.encode(&request.id, request.groups(), &mut slice).unwrap();
    [Head::Have(size).encode().to_vec(), slice].concat()
}

pub(super) async fn send(stream: &mut Stream, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()?;
    stream.flush().await.ok()
}
