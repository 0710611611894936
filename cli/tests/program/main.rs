//! Tests of the program `kadence` as a process.

mod demo;
mod network;
mod pkg;
mod process;
mod usage;
