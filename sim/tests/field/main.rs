//! Faults of the field, as scenarios. One that still fails names the issue that will end it: when it succeeds,
//! its test fails until the mark is taken away.

#![cfg(test)]

mod abuse;
mod finding;
mod networks;
mod packages;
mod strangers;
