//! Checks, mutants and measurements of this workspace.
fn main() {}
