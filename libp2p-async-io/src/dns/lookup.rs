use std::{
    fmt, io,
    net::{IpAddr, ToSocketAddrs},
    str,
    sync::{Arc, OnceLock},
};

use async_executor::Executor;
use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::NetError,
    proto::rr::{RData, RecordType, rdata::TXT},
};
use libp2p_core::{Multiaddr, multiaddr::Protocol};

use super::{Config, runtime::AsyncIo};

/// Number of cached responses. The cache lasts for one dial, which has at most 32 lookups.
const CACHE: u64 = 32;

/// Error of looking up a name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The name does not exist or has no records of the requested kind, such as IPv6 addresses for `/dns6`. For a name
    /// that does not exist the system's resolver reports [`System`](Self::System) instead.
    #[error("no records of the requested kind")]
    NoRecords,
    /// The system's resolver failed, or does not know the name: its error does not tell one from the other reliably.
    #[error("the system's resolver failed: {0}")]
    System(#[source] io::Error),
    /// The system's list of name servers, which `/dnsaddr` needs with [`Config::system`], cannot be read, or the client
    /// of the name servers cannot be set up.
    #[error("cannot read the system's name servers: {0}")]
    NoConfig(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A lookup by name servers failed for another reason: no name server sent a usable response in time, for example,
    /// or the name is invalid. Unless the name is invalid, a retry may help.
    #[error("name servers failed: {0}")]
    Servers(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A name in an address.
#[derive(Debug)]
pub(super) enum Name {
    Host(String, Family),
    /// Name of the TXT records, with the prefix `_dnsaddr.`.
    Dnsaddr(String),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

#[derive(Debug)]
pub(super) enum Found {
    Hosts(Vec<IpAddr>),
    Addresses(Vec<Multiaddr>),
}

impl Name {
    pub(super) fn of(protocol: &Protocol<'_>) -> Option<Self> {
        match protocol {
            Protocol::Dns(host) => Some(Self::Host(host.to_string(), Family::Any)),
            Protocol::Dns4(host) => Some(Self::Host(host.to_string(), Family::V4)),
            Protocol::Dns6(host) => Some(Self::Host(host.to_string(), Family::V6)),
            // The final dot keeps the system's search domains from being appended.
            Protocol::Dnsaddr(name) => Some(Self::Dnsaddr(format!("_dnsaddr.{}.", name.trim_end_matches('.')))),
            _ => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name, _) | Self::Dnsaddr(name) => f.write_str(name),
        }
    }
}

impl Family {
    fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}

/// Lookups of one dial.
pub(super) struct Lookups {
    config: Config,
    servers: OnceLock<Servers>,
}

impl Lookups {
    pub(super) fn new(config: Config) -> Self {
        Self { config, servers: OnceLock::new() }
    }

    pub(super) async fn find(&self, name: &Name) -> Result<Found, ResolveError> {
        match name {
            Name::Host(host, family) if self.config.name_servers.is_empty() => {
                non_empty(system(host.clone(), *family).await?).map(Found::Hosts)
            }
            Name::Host(host, family) => non_empty(self.servers().await?.hosts(host, *family).await?).map(Found::Hosts),
            Name::Dnsaddr(name) => self.servers().await?.addresses(name).await.map(Found::Addresses),
        }
    }

    async fn servers(&self) -> Result<&Servers, ResolveError> {
        if let Some(servers) = self.servers.get() {
            return Ok(servers);
        }
        let servers = Servers::new(self.config.clone()).await?;
        Ok(self.servers.get_or_init(|| servers))
    }
}

fn non_empty(ips: Vec<IpAddr>) -> Result<Vec<IpAddr>, ResolveError> {
    if ips.is_empty() { Err(ResolveError::NoRecords) } else { Ok(ips) }
}

async fn system(host: String, family: Family) -> Result<Vec<IpAddr>, ResolveError> {
    let found = blocking::unblock(move || (host, 0).to_socket_addrs()).await.map_err(ResolveError::System)?;
    Ok(found.map(|addr| addr.ip()).filter(|ip| family.has(*ip)).collect())
}

/// Client of name servers.
struct Servers {
    resolver: Resolver<AsyncIo>,
    /// Background tasks of the resolver. A lookup runs them while it waits, which is the only time they have work. They
    /// end with the executor.
    tasks: Arc<Executor<'static>>,
}

impl Servers {
    async fn new(config: Config) -> Result<Self, ResolveError> {
        let (servers, mut options) = if config.name_servers.is_empty() {
            blocking::unblock(hickory_resolver::system_conf::read_system_conf)
                .await
                .map_err(|error| ResolveError::NoConfig(Box::new(error)))?
        } else {
            let servers = config.name_servers.iter().map(|server| {
                let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
                (udp.port, tcp.port) = (server.port(), server.port());
                NameServerConfig::new(server.ip(), true, vec![udp, tcp])
            });
            (ResolverConfig::from_name_servers(servers.collect()), ResolverOpts::default())
        };
        options.timeout = config.timeout.unwrap_or(options.timeout);
        options.attempts = config.retries.unwrap_or(options.attempts);
        options.cache_size = CACHE;
        options.use_hosts_file = ResolveHosts::Never;
        let tasks = Arc::new(Executor::new());
        let resolver = Resolver::builder_with_config(servers, AsyncIo::new(&tasks))
            .with_options(options)
            .build()
            .map_err(|error| ResolveError::NoConfig(Box::new(error)))?;
        Ok(Self { resolver, tasks })
    }

    async fn hosts(&self, host: &str, family: Family) -> Result<Vec<IpAddr>, ResolveError> {
        let lookup = async {
            match family {
                Family::Any => self.resolver.lookup_ip(host).await.map(|found| found.iter().collect()),
                Family::V4 => self.resolver.lookup(host, RecordType::A).await.map(|found| ips(found.answers())),
                Family::V6 => self.resolver.lookup(host, RecordType::AAAA).await.map(|found| ips(found.answers())),
            }
        };
        self.tasks.run(lookup).await.map_err(failed)
    }

    async fn addresses(&self, name: &str) -> Result<Vec<Multiaddr>, ResolveError> {
        let found = self.tasks.run(self.resolver.lookup(name, RecordType::TXT)).await.map_err(failed)?;
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(text) => Some(text),
            _ => None,
        });
        // Skips TXT records of other kinds.
        Ok(texts.filter_map(dnsaddr).collect())
    }
}

fn ips(answers: &[hickory_resolver::proto::rr::Record]) -> Vec<IpAddr> {
    answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

fn failed(error: NetError) -> ResolveError {
    if error.is_no_records_found() { ResolveError::NoRecords } else { ResolveError::Servers(Box::new(error)) }
}

/// Returns the address of a record `dnsaddr=<address>`. A long one is split into several strings.
fn dnsaddr(record: &TXT) -> Option<Multiaddr> {
    let text = record.txt_data.concat();
    str::from_utf8(&text).ok()?.strip_prefix("dnsaddr=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_tasks_of_a_lookup_end_with_it() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = Config::name_servers([silent.local_addr().unwrap()]);
        let servers = async_io::block_on(Servers::new(config)).unwrap();
        let mut lookup = servers.addresses("_dnsaddr.host.test.").boxed();
        // The lookup is running once the server has its request.
        async_io::block_on(async {
            let asked = blocking::unblock(move || silent.recv_from(&mut [0; 512]));
            assert!(matches!(futures::future::select(&mut lookup, asked).await, futures::future::Either::Right(_)));
        });
        let tasks = Arc::downgrade(&servers.tasks);
        drop(lookup);
        drop(servers);
        assert!(tasks.upgrade().is_none(), "the tasks keep themselves alive");
    }

    #[test]
    fn a_record_is_an_address_or_skipped() {
        let parse = |strings: &[&str]| dnsaddr(&TXT::new(strings.iter().map(|text| (*text).to_owned()).collect()));
        let addr: Multiaddr = "/ip4/192.0.2.1/tcp/80".parse().unwrap();
        assert_eq!(parse(&["dnsaddr=/ip4/192.0.2.1/tcp/80"]), Some(addr.clone()));
        assert_eq!(parse(&["dnsaddr=/ip4/192.", "0.2.1/tcp/80"]), Some(addr));
        assert_eq!(parse(&["/ip4/192.0.2.1/tcp/80"]), None);
        assert_eq!(parse(&["dnsaddr=192.0.2.1"]), None);
        assert_eq!(parse(&["v=spf1 -all"]), None);
        assert_eq!(dnsaddr(&TXT::from_bytes(vec![b"dnsaddr=\xff"])), None);
    }
}
