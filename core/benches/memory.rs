//! Allocations of a request's whole life, and bytes of a pending request, by the number of pending requests.
//!
//! What a request brings (its key) and what an event brings (its record) is made outside of what is counted.

mod support;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use self::support::Load;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Lifecycles over which the allocations are averaged.
const LIFECYCLES: u32 = 100_000;

fn main() {
    println!("| pending | bytes per pending request | allocations per lifecycle | bytes allocated per lifecycle |");
    println!("|---:|---:|---:|---:|");
    for pending in [1_000_u32, 10_000, 100_000, 1_000_000] {
        let mut load = Load::new(0);
        let requests: Vec<_> = (0..pending).map(|_| load.next_request()).collect();
        let region = Region::new(ALLOCATOR);
        requests.into_iter().for_each(|request| load.ask(request));
        let filled = region.change();
        // The list of the requests itself was freed in between.
        let list = usize::try_from(pending).unwrap_or(usize::MAX) * size_of::<kadence_core::Request>();
        let held = (filled.bytes_allocated + list).saturating_sub(filled.bytes_deallocated);

        // What grows to its working size does so before the counting.
        (0..1_000).for_each(|_| load.lifecycle());
        let (mut allocations, mut bytes) = (0, 0);
        for _ in 0..LIFECYCLES {
            let request = load.next_request();
            let region = Region::new(ALLOCATOR);
            load.ask(request);
            let asked = region.change();
            let [found, last] = load.next_events();
            let region = Region::new(ALLOCATOR);
            load.answer(found, last);
            let answered = region.change();
            allocations += asked.allocations + answered.allocations;
            bytes += asked.bytes_allocated + answered.bytes_allocated;
        }
        println!(
            "| {pending} | {:.0} | {:.2} | {:.0} |",
            ratio(held, pending),
            ratio(allocations, LIFECYCLES),
            ratio(bytes, LIFECYCLES),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(sum: usize, of: u32) -> f64 {
    sum as f64 / f64::from(of)
}
