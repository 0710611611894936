//! Nodes of the demonstration, connected by TCP on the loopback interface.

use anyhow::{Context, anyhow, bail};
use futures::{
    StreamExt,
    future::{join_all, try_join_all},
    stream,
};
use kadence_tokio::kadence::{
    Client, Events, REPLICATION_FACTOR, TaskEnd,
    libp2p::{Multiaddr, StreamProtocol, kad::Mode, swarm::dummy},
    node::{Node, NodeConfig, NodeError, NodeEvent},
};
use tokio::time::timeout;

use super::{
    BOOTSTRAP_TIMEOUT, CALLERS, WAIT,
    measure::{Measures, timed},
    progress::Progress,
    retry,
};

/// Number of nodes that only ask. They store nothing, so each of their gets goes over the network, while a server of a
/// small network stores nearly every record itself.
pub(super) const CLIENTS: usize = 4;

/// Room in each node's store in addition to one record for each file.
const SPARE_RECORDS: usize = 256;

/// Number of runtimes. In a mixed network, any three neighbours in the list of nodes are on different ones.
pub(super) const RUNTIMES: usize = 3;

async fn node(index: usize, mixed: bool, config: NodeConfig) -> Result<Node, NodeError> {
    let runtime = if mixed { index % RUNTIMES } else { 0 };
    match runtime {
        #[cfg(feature = "mixed")]
        1 => kadence_async_std::node(config).await,
        #[cfg(feature = "mixed")]
        2 => kadence_smol::node(config).await,
        _ => kadence_tokio::node(config).await,
    }
}

pub(super) struct Network {
    /// Nodes that store and answer. All others joined through the first.
    pub(super) servers: Vec<Node>,
    /// Nodes that only ask.
    pub(super) askers: Vec<Node>,
}

impl Network {
    /// Starts the nodes and waits until each knows enough of the others.
    ///
    /// # Errors
    ///
    /// If a node does not start, or does not find the others in time.
    pub(super) async fn start(
        servers: usize,
        mixed: bool,
        files: usize,
        protocol: StreamProtocol,
        progress: &mut Progress,
        measures: &mut Measures,
    ) -> anyhow::Result<Self> {
        raise_file_limit(servers)?;
        let config = |mode, listen: &[Multiaddr], bootstrap_peers: &[Multiaddr]| {
            NodeConfig::default()
                .listen(listen.to_vec())
                .bootstrap_peers(bootstrap_peers.to_vec())
                .protocol(protocol.clone())
                .mode(mode)
                .max_records(files + SPARE_RECORDS)
        };
        progress.begin("start", servers + CLIENTS);
        let loopback: [Multiaddr; 1] = ["/ip4/127.0.0.1/tcp/0".parse()?];
        let first =
            node(0, mixed, config(Mode::Server, &loopback, &[])).await.context("cannot start the first node")?;
        let seeds = first.listen_addrs();
        if seeds.is_empty() {
            bail!("the first node does not listen on any address");
        }
        let others = (1..servers).map(|index| node(index, mixed, config(Mode::Server, &loopback, &seeds)));
        let askers = (0..CLIENTS).map(|index| node(index, mixed, config(Mode::Client, &[], &seeds)));
        let others = try_join_all(others).await.context("cannot start a node")?;
        let askers = try_join_all(askers).await.context("cannot start a client")?;
        let mut network = Self { servers: std::iter::once(first).chain(others).collect(), askers };
        try_join_all(network.nodes().map(|node| node.ready(WAIT))).await.context("a node did not find any other")?;
        progress.end(format_args!("{} nodes, all connected", network.len()));

        network.join(progress, measures).await?;
        Ok(network)
    }

    /// Bootstraps every node, and waits until its routing table is full enough.
    async fn join(&mut self, progress: &mut Progress, measures: &mut Measures) -> anyhow::Result<()> {
        progress.begin("bootstrap", self.len());
        let bootstraps =
            self.nodes().map(|node| timed(node.client().bootstrap().retry(retry()).timeout(BOOTSTRAP_TIMEOUT)));
        let mut bootstraps = stream::iter(bootstraps.collect::<Vec<_>>()).buffer_unordered(CALLERS);
        while let Some(bootstrap) = bootstraps.next().await {
            measures.bootstrap.add(bootstrap);
        }
        drop(bootstraps);
        let servers = self.servers.len();
        let wanted = |others: usize| others.min(REPLICATION_FACTOR);
        let known = self.servers.iter_mut().map(|node| (wanted(servers - 1), node));
        let known = known.chain(self.askers.iter_mut().map(|node| (wanted(servers), node)));
        try_join_all(known.map(|(peers, node)| knows(node, peers))).await?;
        progress.end(format_args!("every node knows the others"));
        Ok(())
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.servers.iter().chain(&self.askers)
    }

    pub(super) fn len(&self) -> usize {
        self.servers.len() + self.askers.len()
    }

    /// Returns the clients of the servers, and those of the nodes that only ask.
    pub(super) fn clients(&self) -> (Vec<Client>, Vec<Client>) {
        let clients = |nodes: &[Node]| nodes.iter().map(|node| node.client().clone()).collect();
        (clients(&self.servers), clients(&self.askers))
    }

    /// Shuts all nodes down at the same time. Returns the number that finished gracefully, and the number of all.
    pub(super) async fn shutdown(&mut self) -> (usize, usize) {
        let nodes = self.servers.drain(..).chain(self.askers.drain(..));
        let ends = join_all(nodes.map(|node| timeout(WAIT, node.shutdown()))).await;
        (ends.iter().filter(|end| matches!(end, Ok(TaskEnd::Finished))).count(), ends.len())
    }
}

/// Waits until a node's routing table has `peers` entries. Looks at it again at each event of the node.
async fn knows(node: &mut Node, peers: usize) -> anyhow::Result<()> {
    let mut events: Events<NodeEvent<dummy::Behaviour>> =
        node.events().ok_or_else(|| anyhow!("events of the node are read elsewhere"))?;
    let swarm = node.swarm().clone();
    let known = || {
        swarm.with(|swarm| {
            swarm.behaviour_mut().kad.kad_mut().kbuckets().map(|bucket| bucket.num_entries()).sum::<usize>()
        })
    };
    let waited = timeout(WAIT, async {
        while known().await? < peers {
            events.next().await.ok_or_else(|| anyhow!("the node ended by itself"))?.ok();
        }
        anyhow::Ok(())
    });
    match waited.await {
        Ok(result) => result,
        Err(_elapsed) => bail!("a node knows only {} of {peers} peers after {WAIT:?}", known().await?),
    }
}

/// Raises the limit of open files. Every node may be connected to every other, each end of a connection is an open file
/// of this process, and the limit is 256 or 1024 on many systems.
fn raise_file_limit(servers: usize) -> anyhow::Result<()> {
    let needed = (servers * (servers + 2 * CLIENTS) + 128) as u64;
    // Twice as many, because two nodes may dial each other at the same time.
    let limit = rlimit::increase_nofile_limit(2 * needed).unwrap_or(u64::MAX);
    if limit < needed {
        bail!("the system allows {limit} open files and {servers} nodes need {needed}: use fewer --nodes");
    }
    Ok(())
}
