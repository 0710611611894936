//! Test suite that every runtime has to pass. [`suite!`](crate::suite!) generates a `#[test]` for each function here.
//!
//! These tests need real nodes. Rules that need no network are tested in `kadence-core`.

#![expect(missing_docs, reason = "the names of the tests describe them")]

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

/// Generates a `#[test]` for every test of the suite, run by a [`Runner`](crate::Runner). Tests of messages on the wire
/// also run over TCP, in a module `over_tcp`.
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
                other_bootstraps_do_not_interfere_and_are_forwarded,
            }
            slow_reader {
                an_unread_stream_blocks_no_other_call_and_keeps_its_end,
                items_received_and_skipped_by_a_slow_reader_add_up,
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
                a_call_that_is_awaited_in_place_of_the_driver_ends_at_its_deadline,
            }
            single_flight {
                equal_gets_share_one_query_that_lives_as_long_as_any_of_them,
            }
            no_deadlock {
                full_channels_and_an_unpolled_driver_do_not_deadlock,
                many_callers_share_a_channel_of_one,
            }
            budget {
                a_busy_swarm_does_not_delay_calls,
                a_busy_swarm_does_not_starve_other_tasks,
                a_flood_of_calls_does_not_starve_the_swarm,
                a_node_under_a_flood_of_calls_still_sends_and_answers_requests,
                an_idle_driver_is_not_polled_for_ten_seconds,
            }
            events {
                queries_of_the_application_are_forwarded_unchanged,
                bootstraps_of_kad_are_forwarded,
                a_slow_reader_of_events_learns_how_many_it_missed,
                unread_events_do_not_block_the_driver,
                an_idle_driver_is_never_woken_by_its_own_timer,
            }
        }
    };
}

/// Tests of messages on the wire, as part of the [`suite!`](crate::suite!).
#[doc(hidden)]
#[macro_export]
macro_rules! operations {
    ($runner:ty, $transport_kind:ident) => {
        $crate::tests! { $runner, $transport_kind,
            operations {
                a_record_that_was_put_is_found_by_every_node,
                a_missing_record_is_not_found_and_the_error_counts_the_peers_asked,
                a_query_that_the_application_finishes_is_inconclusive,
                a_local_record_needs_no_peer,
                without_known_peers_every_operation_fails,
                providers_are_found_and_each_is_named_once,
                a_key_without_providers_is_not_found,
                stop_providing_removes_the_local_provider,
                closest_peers_are_sorted_by_distance,
                a_bootstrap_fills_the_routing_table,
                a_value_too_large_for_a_packet_is_rejected_before_sending,
                a_put_that_cannot_reach_its_quorum_sends_and_stores_nothing,
                a_put_to_named_peers_reaches_them_and_nobody_else,
                a_put_to_named_peers_counts_those_that_acknowledge,
                only_records_of_the_local_node_are_removed,
            }
        }
    };
}

/// Generates a `#[test]` for each function of the suite.
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
