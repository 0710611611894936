//! Tests of the tracker through its public API, in virtual time.
//!
//! One binary, so that the harness is compiled and checked for dead code once. The modules are marked as
//! tests for clippy, which lets tests alone use `unwrap`, `expect`, indexing and `panic!`.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod announcements;
#[cfg(test)]
mod best;
#[cfg(test)]
mod bootstrap;
#[cfg(test)]
mod cancel;
#[cfg(test)]
mod certainty;
#[cfg(test)]
mod closest;
#[cfg(test)]
mod deadlines;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod fanout;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod interleaving;
#[cfg(test)]
mod kad_faults;
#[cfg(test)]
mod late_joiners;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod priority;
#[cfg(test)]
mod provider_batches;
#[cfg(test)]
mod puts;
#[cfg(test)]
mod quorum;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod retry;
#[cfg(test)]
mod retry_rules;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod single_flight;
#[cfg(test)]
mod stall;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod validation;
#[cfg(test)]
mod written;
