//! libp2p transports for every runtime that is not tokio: TCP, DNS and QUIC on [`async-io`](async_io), the reactor of
//! smol.
//!
//! libp2p's own TCP, DNS and QUIC transports work on tokio only. These do the same with sockets and timers that need no
//! runtime around them: `async-io` has a thread of its own that wakes whoever polls, be it smol, async-std, a plain
//! `block_on`, or tokio itself. They depend on `libp2p-core` and are configured like libp2p's own:
//!
//! | instead of | take |
//! |---|---|
//! | `libp2p::tcp::tokio::Transport::new(libp2p::tcp::Config::default())` | [`tcp::Transport::new`]`(`[`tcp::Config::default()`](tcp::Config)`)` |
//! | `libp2p::dns::tokio::Transport::system(tcp)?` | [`dns::Transport::system`]`(tcp)` |
//! | `libp2p::quic::tokio::Transport::new(libp2p::quic::Config::new(&keypair))` | `quic::Transport::new(quic::Config::new(&keypair)?)`, with the feature `quic` |
//! | `libp2p::websocket::Config::new(dns)` | the same: libp2p's WebSocket works over any transport |
//!
//! QUIC is a feature that is off by default, because its implementation, quinn, compiles a part of tokio (channels and
//! locks, nothing that would have to run) and libp2p's TLS compiles C. Without it, nothing of tokio is compiled.
//!
//! # A swarm on smol
//!
//! ```
//! use futures::StreamExt;
//! use libp2p::{
//!     Swarm, Transport,
//!     core::upgrade::Version,
//!     identity::Keypair,
//!     noise, ping,
//!     swarm::{self, SwarmEvent},
//!     yamux,
//! };
//! use libp2p_async_io::{dns, tcp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keypair = Keypair::generate_ed25519();
//! let transport = dns::Transport::system(tcp::Transport::new(tcp::Config::default()))
//!     .upgrade(Version::V1Lazy)
//!     .authenticate(noise::Config::new(&keypair)?)
//!     .multiplex(yamux::Config::default())
//!     // Neither TCP nor DNS gives up by itself before the system does.
//!     .timeout(std::time::Duration::from_secs(20))
//!     .boxed();
//! let config = swarm::Config::with_executor(|task| smol::spawn(task).detach());
//! let mut swarm = Swarm::new(transport, ping::Behaviour::default(), keypair.public().to_peer_id(), config);
//!
//! smol::block_on(async {
//!     swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
//!     loop {
//!         match swarm.select_next_some().await {
//!             SwarmEvent::NewListenAddr { address, .. } => {
//!                 println!("listening on {address}");
//!                 break Ok(());
//!             }
//!             event => println!("{event:?}"),
//!         }
//!     }
//! })
//! # }
//! ```

#[cfg(feature = "dns")]
pub mod dns;
mod listen_addresses;
#[cfg(feature = "quic")]
pub mod quic;
pub mod tcp;
