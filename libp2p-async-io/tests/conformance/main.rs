//! Runs the same tests on libp2p's own TCP transport and on this crate's, and then the two with each other.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "`pub(crate)` on everything would say nothing here")]

mod crossing;
mod streams;
mod subject;
mod tcp;

use subject::{Libp2p, Ours, Subject};

/// One module for each transport, with a test for each function of the suite.
macro_rules! suite {
    ($($test:ident)*) => {
        suite!(@ ours Ours $($test)*);
        suite!(@ libp2p Libp2p $($test)*);
    };
    (@ $module:ident $subject:ident $($test:ident)*) => {
        mod $module {
            use super::*;
            $(
                #[test]
                fn $test() {
                    $subject::block_on(tcp::$test::<$subject>());
                }
            )*
        }
    };
}

suite! {
    bytes_go_both_ways_over_ipv4
    bytes_go_both_ways_over_ipv6
    much_data_arrives_whole_and_in_order
    a_closed_direction_ends_while_the_other_goes_on
    a_closed_connection_can_be_closed_again
    a_reset_connection_can_be_closed
    a_concrete_address_is_announced_with_its_port
    a_wildcard_is_announced_for_each_ipv4_address
    a_wildcard_is_announced_for_each_ipv6_address
    two_listeners_are_told_apart
    reuse_dials_from_the_listening_port
    reuse_without_a_listener_takes_a_new_port
    reuse_of_a_port_in_use_for_the_same_remote_takes_a_new_port
    a_new_port_is_not_the_listening_one
    a_removed_listener_is_closed_and_refuses
    an_unknown_listener_is_not_removed
    a_peer_id_at_the_end_is_accepted
    foreign_addresses_are_given_back
    nobody_can_be_dialled_at_an_unspecified_address
    a_refused_connection_says_so
    a_port_that_is_taken_cannot_be_listened_on
    a_dial_does_nothing_before_it_is_polled
    a_dropped_dial_leaves_no_connection
    options_hold_for_both_ends
}
