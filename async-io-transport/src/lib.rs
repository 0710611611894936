//! libp2p transports on `async-io`.

#[cfg(feature = "dns")]
pub mod dns;
pub mod tcp;
