//! Runs lifecycles on a tracker with PENDING waiting requests: `lifecycles PENDING LIFECYCLES`. Counted by
//! `cargo xtask instructions`.

#[path = "../benches/support/mod.rs"]
mod support;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (Some(Ok(pending)), Some(Ok(lifecycles))) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: lifecycles PENDING LIFECYCLES");
        std::process::exit(2);
    };
    let mut load = support::Load::new(pending);
    for _ in 0..lifecycles {
        load.lifecycle();
    }
    assert_eq!(load.ended, lifecycles);
}
