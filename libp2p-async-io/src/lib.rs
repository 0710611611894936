#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]

#[cfg(feature = "dns")]
pub mod dns;
mod listen_addresses;
#[cfg(feature = "quic")]
pub mod quic;
pub mod tcp;
