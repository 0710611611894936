//! QUIC: this crate's transport with itself, and with libp2p's own in both directions.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "`pub(crate)` on everything would say nothing here")]

mod contract;
mod endings;
mod streams;
mod subject;
mod swarms;

use subject::{Libp2p, Ours};

/// One module for each pair of a dialler and a listener, with a test for each function of the suite.
macro_rules! suite {
    ($($test:ident)*) => {
        suite!(@ ours_to_ours Ours Ours $($test)*);
        suite!(@ ours_to_libp2p Ours Libp2p $($test)*);
        suite!(@ libp2p_to_ours Libp2p Ours $($test)*);
    };
    (@ $module:ident $dialler:ident $listener:ident $($test:ident)*) => {
        mod $module {
            use super::*;
            $(
                #[test]
                fn $test() {
                    // libp2p's transport needs tokio; the other one runs anywhere.
                    subject::on_tokio(streams::$test::<$dialler, $listener>());
                }
            )*
        }
    };
}

suite! {
    each_end_knows_the_other_over_ipv4
    each_end_knows_the_other_over_ipv6
    streams_go_both_ways_at_once
    much_data_arrives_whole_and_in_order
    a_closed_direction_ends_while_the_other_goes_on
    a_stream_that_nobody_reads_can_no_longer_be_written
    a_closed_connection_ends_at_both_ends
    a_dropped_connection_ends_at_the_other_end
    streams_over_the_limit_wait
}
