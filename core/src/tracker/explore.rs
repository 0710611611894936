//! Every ordering of a small scope: a model checker drives the real tracker through all inputs in all orders.
//!
//! The scope is a list of requests, and a kad that answers them in every way that its contract allows, and in some that
//! it does not. `KADENCE_EXPLORE_DEPTH` explores the large scope deeper.

#![expect(clippy::disallowed_methods, reason = "the checker has no clock to pass, and its seconds are a figure")]

mod surroundings;

use std::{
    fmt::{self, Write},
    hash::{Hash, Hasher},
};

use stateright::{Checker, HasDiscoveries, Model, Property};

use self::surroundings::{Input, Scope, World};
use super::{Env, LiveRequest, QueryTracker};

/// Everything that decides what the tracker does next; times are relative to the latest input. Left out are counters,
/// durations that are only measured, and what never changes.
impl<Id: Copy + Eq + Hash + fmt::Debug> Hash for QueryTracker<Id> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            local_peer: _,
            clock: _,
            env,
            requests,
            scheduler,
            announcements,
            read_repairs,
            network,
            shutting_down,
            metrics: _,
            recorder: _,
        } = self;
        let Env { config: _, now, actions, timers, stats: _ } = env;
        now.set_base();
        let mut requests: Vec<_> = requests.iter().collect();
        requests.sort_unstable_by_key(|(id, _)| **id);
        let mut state = HashText(state);
        for (_, request) in requests {
            let LiveRequest { plan, retry, accepted: _, deadline, phase, waiter } = &**request;
            // Writing into a hasher does not fail.
            let _ = write!(state, "{plan:?}{retry:?}{deadline:?}{phase:?}{waiter:?}");
        }
        let _ = write!(
            state,
            "{actions:?}{timers:?}{scheduler:?}{announcements:?}{read_repairs:?}{network:?}{shutting_down:?}"
        );
    }
}

/// Hashes text as it is written.
struct HashText<'a, H>(&'a mut H);

impl<H: Hasher> Write for HashText<'_, H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Model for Scope {
    type State = World;
    type Action = Input;

    fn init_states(&self) -> Vec<World> {
        let begun = |inputs: &Vec<Input>| {
            let mut world = World::new(self);
            inputs.iter().for_each(|input| world.apply(self, *input));
            world.rare_left = 2;
            world
        };
        self.beginnings.iter().map(begun).collect()
    }

    fn actions(&self, world: &World, inputs: &mut Vec<Input>) {
        world.inputs(self, inputs);
    }

    fn next_state(&self, world: &World, input: Input) -> Option<World> {
        let mut next = world.clone();
        next.apply(self, input);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the world notices nothing wrong", |_: &Self, world: &World| world.broken.is_empty()),
            Property::always("never more queries than slots", |scope: &Self, world: &World| world.slots_hold(scope)),
            Property::always("time alone empties the tracker", |_: &Self, world: &World| world.drains()),
        ]
    }
}

fn explore(scope: Scope, depth: usize) -> (usize, usize) {
    let name = scope.name;
    let began = std::time::Instant::now();
    let checker =
        scope.checker().target_max_depth(depth).threads(2).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    println!(
        "{name}: {} states, {} of them distinct, depth {}, {} ms",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_millis(),
    );
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let broken = path.last_state().broken.clone();
        panic!("{name}: {property}: {broken:?}\n{:#?}", path.into_actions());
    }
    (checker.unique_state_count(), checker.max_depth())
}

/// Depth of the large scope.
fn depth(default: usize) -> usize {
    std::env::var("KADENCE_EXPLORE_DEPTH").ok().and_then(|depth| depth.parse().ok()).unwrap_or(default)
}

#[test]
fn a_small_scope_holds_in_every_ordering_to_its_end() {
    let (_, reached) = explore(Scope::small(), 1_000);
    assert!(reached < 1_000, "the frontier is not empty");
}

#[test]
fn a_large_scope_holds_in_every_ordering_to_a_depth() {
    explore(Scope::large(), depth(6));
    // A property of something that never happens proves nothing.
    let met = surroundings::met();
    let missing: Vec<_> = surroundings::possible().into_iter().filter(|what| !met.contains_key(what)).collect();
    for (what, times) in &met {
        println!("{times:>10}  {what}");
    }
    assert!(missing.is_empty(), "never met: {missing:#?}");
}
