//! What every runtime has to pass: [`suite!`](crate::suite!) makes a `#[test]` of each function here.
//!
//! Names that begin with `t` and a number are the forms of a headline test that need real nodes. The same rules without
//! a network are tested where they are made, in the tracker.

#![expect(missing_docs, reason = "the tests' names are sentences")]

pub mod bootstrap;
pub mod budget;
pub mod deadlines;
pub mod drop_is_cancel;
pub mod events;
pub mod no_cross_talk;
pub mod no_deadlock;
pub mod operations;
pub mod shutdown;
pub mod single_flight;
pub mod slow_reader;
pub mod support;

/// Makes a `#[test]` of every test in the suite for a [`Runner`](crate::Runner), and of those that look at what goes
/// over the wire a second one over TCP, in a module `over_tcp`.
#[macro_export]
macro_rules! suite {
    ($runner:ty) => {
        $crate::operations! { $runner, Memory }

        mod over_tcp {
            $crate::operations! { $runner, Tcp }
        }

        $crate::tests! { $runner, Memory,
            no_cross_talk {
                concurrent_calls_of_all_kinds_each_get_their_own_answer,
                callers_of_one_key_with_different_policies_each_get_what_they_asked_for,
            }
            drop_is_cancel {
                a_call_dropped_while_queued_never_starts,
                a_call_dropped_before_its_first_event_frees_its_slot_at_once,
                a_stream_dropped_halfway_frees_its_slot_at_once,
                a_put_dropped_in_its_lookup_sends_and_keeps_nothing,
                a_dropped_announcement_leaves_no_local_provider,
                an_announcement_made_before_survives_a_dropped_one,
                a_dropped_bootstrap_ends_in_all_its_phases,
                calls_dropped_before_the_driver_took_them_are_never_accepted,
                calls_dropped_as_soon_as_they_are_sent_leave_nothing,
                a_thousand_gets_dropped_midway_leave_nothing,
            }
            bootstrap {
                a_bootstrap_ends_once_after_all_its_phases,
                other_bootstraps_disturb_nothing_and_are_handed_on,
            }
            slow_reader {
                a_stream_that_nobody_reads_holds_up_nobody_and_keeps_its_end,
                what_a_slow_reader_gets_and_what_it_missed_add_up,
                a_reader_that_keeps_up_misses_nothing,
            }
            shutdown {
                shutdown_now_ends_every_call_with_shutdown,
                an_aborted_task_ends_every_call_with_shutdown,
                a_panic_in_the_task_ends_every_call_with_shutdown,
                a_driver_dropped_by_its_application_ends_every_call_with_shutdown,
                a_graceful_shutdown_answers_what_was_accepted,
                a_graceful_shutdown_is_over_at_the_last_deadline,
                the_task_outlives_its_handles,
            }
            deadlines {
                a_silent_peer_is_known_and_asked_and_never_answers,
                a_deadline_on_silent_peers_comes_with_what_was_found,
                every_operation_ends_at_its_deadline_on_silent_peers,
                a_deadline_comes_neither_early_nor_late,
                a_call_that_never_got_a_slot_expires_in_the_queue,
                silent_peers_do_not_use_up_the_slots,
            }
            single_flight {
                equal_gets_share_one_query_that_lives_as_long_as_any_of_them,
            }
            no_deadlock {
                full_channels_and_a_driver_that_sleeps_block_nobody_for_ever,
                many_callers_with_a_channel_of_one_all_get_through,
            }
            budget {
                a_swarm_that_never_rests_holds_up_no_call,
                a_swarm_that_never_rests_leaves_the_runtime_to_others,
                a_flood_of_calls_does_not_hold_up_the_swarm,
                a_node_under_a_flood_of_calls_still_asks_and_answers,
                an_idle_driver_is_not_polled_for_ten_seconds,
            }
            events {
                what_the_application_asks_kad_itself_is_yielded_untouched,
                kads_own_bootstraps_are_handed_on,
                a_slow_reader_of_events_learns_how_many_it_missed,
                events_that_nobody_wants_hold_up_nobody,
                an_idle_driver_is_never_woken_by_its_own_timer,
            }
        }
    };
}

/// The part of the [`suite!`](crate::suite!) that looks at what goes over the wire.
#[doc(hidden)]
#[macro_export]
macro_rules! operations {
    ($runner:ty, $transport_kind:ident) => {
        $crate::tests! { $runner, $transport_kind,
            operations {
                a_record_that_was_put_is_found_by_every_node,
                a_get_of_what_nobody_has_is_not_found_and_says_how_many_were_asked,
                a_local_record_needs_no_peer,
                with_nobody_known_every_operation_says_so,
                providers_are_found_and_each_is_named_once,
                nobody_provides_what_nobody_announced,
                who_stops_providing_is_no_local_provider_any_more,
                the_closest_peers_come_closest_first,
                a_bootstrap_fills_the_routing_table,
                a_value_that_no_packet_carries_is_refused_at_the_call,
                a_put_that_cannot_reach_its_quorum_sends_and_keeps_nothing,
                a_put_to_named_peers_reaches_them_and_nobody_else,
                a_put_to_named_peers_counts_those_that_acknowledge,
                only_an_own_record_is_removed,
            }
        }
    };
}

/// `#[test]`s of functions of the suite.
#[doc(hidden)]
#[macro_export]
macro_rules! tests {
    ($runner:ty, $transport_kind:ident, $($module:ident { $($test:ident),* $(,)? })*) => {$($(
        #[test]
        fn $test() {
            $crate::run::<$runner>($crate::TransportKind::$transport_kind, $crate::suite::$module::$test);
        }
    )*)*};
}
