//! The program as a person or a script runs it.

mod demo;
mod network;
mod pkg;
mod process;
mod usage;
