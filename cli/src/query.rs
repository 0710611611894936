//! Commands that join a network, ask it once, and leave.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use kadence_tokio::kadence::{
    ClosestPeersAnswer, DriverClosedError, GetProvidersError, ProvidersAnswer,
    libp2p::{
        Multiaddr, PeerId, Swarm,
        kad::{Mode, PeerInfo, Record},
        swarm::dummy,
    },
    node::{Node, NodeBehaviour, NodeConfig},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    args::NetworkArgs,
    exit::Failure,
    node::{serve, signal},
    options::{Ask, ClosestArgs, GetArgs, ProvideArgs, ProvidersArgs, PutArgs},
    output,
};

/// Maximum number of bytes read of a value. Far more than a record can hold, so that the error of the call names the
/// actual limit, and few enough that an endless input is an error.
const MAX_READ: u64 = 16 * 1024 * 1024;

/// Looks up a record and prints its value.
///
/// # Errors
///
/// If the record does not exist, the network cannot be reached, or the output cannot be written.
pub(crate) async fn get(args: GetArgs, network: NetworkArgs) -> Result<(), Failure> {
    let GetArgs { key, ask, output } = args;
    let json = ask.json;
    let joined = Joined::client(ask, network).await?;
    let answer = joined.node.client().get_record(key.to_record_key()).timeout(joined.time_left()).await?;
    let value = answer.value();
    if let Some(path) = &output {
        std::fs::write(path, value).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if json {
        let (field, content) = match (&output, std::str::from_utf8(value)) {
            (Some(path), _) => ("output", path.display().to_string()),
            (None, Ok(text)) => ("value", text.to_owned()),
            (None, Err(_not_text)) => ("value_hex", hex::encode(value)),
        };
        output::json(&json!({
            "ok": true,
            "key": key.to_string(),
            "bytes": value.len(),
            "from": answer.record.peer.map(|peer| peer.to_string()),
            "publisher": answer.record.record.publisher.map(|peer| peer.to_string()),
            field: content,
        }))?;
    } else if output.is_none() {
        output::value(value)?;
    }
    Ok(())
}

/// Stores a record.
///
/// # Errors
///
/// If the value cannot be read or is too long, or too few peers store it.
pub(crate) async fn put(args: PutArgs, network: NetworkArgs) -> Result<(), Failure> {
    let PutArgs { key, value, file, ask } = args;
    let json = ask.json;
    // Before joining the network, because typing a value may take longer than the timeout.
    let value = match (value, file) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(path)) if path != Path::new("-") => {
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            read(file).with_context(|| format!("cannot read {}", path.display()))?
        }
        (None, _) => read(io::stdin().lock()).context("cannot read stdin")?,
    };
    let bytes = value.len();
    let joined = Joined::client(ask, network).await?;
    let record = Record::new(key.to_record_key(), value);
    let answer = joined.node.client().put_record(record).timeout(joined.time_left()).await?;
    if json {
        output::json(&json!({
            "ok": true,
            "key": key.to_string(),
            "bytes": bytes,
            "acknowledged": strings(&answer.acknowledged),
            "asked": answer.asked(),
        }))?;
    } else {
        let (acknowledged, asked) = (answer.acknowledged.len(), answer.asked());
        output::line(format_args!("stored {bytes} bytes under {key} at {acknowledged} of {asked} peers"))?;
    }
    Ok(())
}

/// Announces the node as a provider, and runs it until a signal comes.
///
/// # Errors
///
/// If the announcement fails, or the node ends by itself.
pub(crate) async fn provide(args: ProvideArgs, network: NetworkArgs) -> Result<(), Failure> {
    let ProvideArgs { key, listen, ask } = args;
    let json = ask.json;
    let signal = signal()?;
    let mut joined = Joined::new(ask, network, Mode::Server, listen.addresses).await?;
    let answer = joined.node.client().start_providing(key.to_record_key()).timeout(joined.time_left()).await?;
    let peer = joined.node.local_peer_id();
    if json {
        output::json(&json!({
            "ok": true,
            "key": key.to_string(),
            "peer": peer.to_string(),
            "addresses": strings(&joined.node.listen_addrs()),
            "sent_to": answer.sent_to,
        }))?;
    } else {
        output::line(format_args!("{peer} provides {key} until it is interrupted"))?;
    }
    serve(&mut joined.node, signal, |_| Ok(())).await?;
    joined.node.shutdown().await;
    Ok(())
}

/// Finds providers and prints each on a line. After a timeout, prints those found so far.
///
/// # Errors
///
/// If there are none, or the network cannot be reached in time.
pub(crate) async fn providers(args: ProvidersArgs, network: NetworkArgs) -> Result<(), Failure> {
    let ProvidersArgs { key, ask, limit } = args;
    let json = ask.json;
    let joined = Joined::client(ask, network).await?;
    let mut call = joined.node.client().get_providers(key.to_record_key()).timeout(joined.time_left());
    if let Some(limit) = limit {
        call = call.limit(limit);
    }
    let ProvidersAnswer { providers, .. } = match call.await {
        Err(GetProvidersError::Timeout { found, progress }) => {
            if !json {
                found.iter().try_for_each(output::line)?;
            }
            return Err(GetProvidersError::Timeout { found, progress }.into());
        }
        result => result?,
    };
    if json {
        output::json(&json!({ "ok": true, "key": key.to_string(), "providers": strings(&providers) }))?;
    } else {
        providers.iter().try_for_each(output::line)?;
    }
    Ok(())
}

/// Finds the closest peers and prints each on a line with its addresses.
///
/// # Errors
///
/// If the network cannot be reached.
pub(crate) async fn closest(args: ClosestArgs, network: NetworkArgs) -> Result<(), Failure> {
    let ClosestArgs { target, ask } = args;
    let json = ask.json;
    let joined = Joined::client(ask, network).await?;
    let call = joined.node.client().get_closest_peers(target.target()).timeout(joined.time_left());
    let ClosestPeersAnswer { peers, .. } = call.await?;
    let mut found = Vec::new();
    for PeerInfo { peer_id, mut addrs } in peers.iter().cloned() {
        if addrs.is_empty() {
            // The answer has only the addresses learned in the lookup. Those of its first peers are in the routing
            // table.
            addrs = known_addresses(&joined.node, peer_id).await?;
        }
        // Ends each address with the peer id, as --peer needs it.
        let addrs = addrs.into_iter().map(|addr| addr.with_p2p(peer_id).unwrap_or_else(|other| other));
        found.push((peer_id.to_string(), strings(&addrs.collect::<Vec<_>>())));
    }
    if json {
        let peers: Vec<Value> =
            found.iter().map(|(peer, addresses)| json!({ "peer": peer, "addresses": addresses })).collect();
        output::json(&json!({ "ok": true, "target": target.to_string(), "peers": peers }))?;
    } else {
        for (peer, addresses) in found {
            output::line([vec![peer], addresses].concat().join(" "))?;
        }
    }
    Ok(())
}

async fn known_addresses(node: &Node, peer: PeerId) -> Result<Vec<Multiaddr>, DriverClosedError> {
    let known = move |swarm: &mut Swarm<NodeBehaviour<dummy::Behaviour>>| {
        let bucket = swarm.behaviour_mut().kad.kad_mut().kbucket(peer)?;
        let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer)?;
        Some(entry.node.value.iter().cloned().collect())
    };
    Ok(node.swarm().with(known).await?.unwrap_or_default())
}

/// Node that has joined its network.
struct Joined {
    node: Node,
    deadline: Instant,
}

impl Joined {
    /// Joins as a client, which does not listen and is not asked by others.
    async fn client(ask: Ask, network: NetworkArgs) -> Result<Self, Failure> {
        Self::new(ask, network, Mode::Client, Vec::new()).await
    }

    async fn new(ask: Ask, network: NetworkArgs, mode: Mode, listen: Vec<Multiaddr>) -> Result<Self, Failure> {
        let Ask { peers, timeout, record, json: _ } = ask;
        let deadline = Instant::now() + timeout;
        let config = NodeConfig::default()
            .listen(listen)
            .bootstrap_peers(peers)
            .driver(record.driver()?)
            .protocol(network.protocol)
            .expected_network_size(network.network_size)
            .mode(mode);
        let node = kadence_tokio::node(config).await?;
        node.ready(timeout).await?;
        Ok(Self { node, deadline })
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

fn read(from: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if from.take(MAX_READ + 1).read_to_end(&mut bytes)? as u64 > MAX_READ {
        anyhow::bail!("value has more than {MAX_READ} bytes: too large for any record");
    }
    Ok(bytes)
}

fn strings<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_input_is_an_error() {
        assert!(read(io::repeat(0)).is_err());
        assert_eq!(read(b"a value".as_slice()).unwrap(), b"a value");
    }

    #[test]
    fn printed_peers_can_be_parsed_again() {
        let peers = [PeerId::random(), PeerId::random()];
        let read: Vec<PeerId> = strings(&peers).iter().map(|peer| peer.parse().unwrap()).collect();
        assert_eq!(read, peers);
    }
}
