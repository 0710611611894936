//! Types of the tracker and of kad as tokens.

use libp2p::{
    PeerId,
    kad::{
        AddProviderError, AddProviderOk, BootstrapError as KadBootstrapError, BootstrapOk, GetClosestPeersError,
        GetClosestPeersOk, GetProvidersError, GetProvidersOk, GetRecordError, GetRecordOk, KBucketDistance, PeerInfo,
        PeerRecord, PutRecordError, PutRecordOk, QueryResult, Record, U256, store,
    },
};

use super::tokens::{Field, Tokens, Writer};
use crate::{
    Action, BootstrapAnswer, BootstrapError as OurBootstrapError, BootstrapPhase, Candidate, Certainty,
    ClosestPeersAnswer, Command, GetClosestPeersError as OurGetClosestPeersError,
    GetProvidersError as OurGetProvidersError, GetRecordError as OurGetRecordError, InvalidRequestError, Item,
    LocalCopy, Network, Operation, Outcome, Policy, Priority, Progress, ProvideAnswer, ProvidersAnswer, PutAnswer,
    PutOptions, PutRecordError as OurPutRecordError, Query, QueryEvent, QueryStartError, Quorum, Reachability,
    RecordAnswer, Request, RequestError, RequestId, RequestOptions, Retry, Stall, StartProvidingError, Started, StepId,
    TrackerConfig, Validators,
};

/// Implements [`Field`] for structs. Fields are written in the given order. Each is named, so that a new one is a
/// compile error.
macro_rules! structs {
    ($($type:ident $(<$of:ty>)? { $($field:ident),* })*) => {$(
        impl Field for $type $(<$of>)? {
            fn put(&self, writer: &mut Writer) {
                let Self { $($field),* } = self;
                $($field.put(writer);)*
            }

            fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
                Some(Self { $($field: Field::take(tokens)?),* })
            }
        }
    )*};
}

/// Implements [`Field`] for enums. A variant is written as a word and its fields.
macro_rules! enums {
    ($($type:ident { $($word:literal => $variant:ident $({ $($field:ident),* })? $(( $($value:ident),* ))?),* $(,)? })*) => {$(
        impl Field for $type {
            fn put(&self, writer: &mut Writer) {
                match self {
                    $(Self::$variant $({ $($field),* })? $(( $($value),* ))? => {
                        writer.word($word);
                        $($($field.put(writer);)*)?
                        $($($value.put(writer);)*)?
                    })*
                }
            }

            fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
                Some(match tokens.next()? {
                    $($word => {
                        $($(let $field = Field::take(tokens)?;)*)?
                        $($(let $value = Field::take(tokens)?;)*)?
                        Self::$variant $({ $($field),* })? $(( $($value),* ))?
                    })*
                    _ => return None,
                })
            }
        }
    )*};
}

structs! {
    RequestOptions { timeout, streaming, priority, retry, fresh }
    Retry { attempts, base, cap, jitter_percent }
    PutOptions { clamp_quorum, local_copy, verify }
    Request { id, operation, options }
    Progress { requests, successes, failures }
    Started<u64> { id, had_provider }
    QueryEvent<u64> { id, result, progress, last }
    PeerRecord { peer, record }
    PeerInfo { peer_id, addrs }
    PutRecordOk { key }
    AddProviderOk { key }
    BootstrapOk { peer, num_remaining }
    GetClosestPeersOk { key, peers }
    BootstrapPhase { ok, remaining }
    Stall { min_quiet, max_quiet, initial_quiet, parallelism }
    Network { size, reachability }
}

enums! {
    Priority { "background" => Background, "normal" => Normal, "interactive" => Interactive }
    LocalCopy { "on_success" => OnSuccess, "first" => First }
    Reachability { "unknown" => Unknown, "connected" => Connected, "isolated" => Isolated }
    Certainty { "conclusive" => Conclusive, "inconclusive" => Inconclusive }
    Quorum { "one" => One, "majority" => Majority, "all" => All, "n" => N(n) }
    Operation {
        "get_record" => GetRecord { key, policy },
        "put_record" => PutRecord { record, quorum, options },
        "put_record_to" => PutRecordTo { record, peers, quorum },
        "get_providers" => GetProviders { key, policy },
        "start_providing" => StartProviding { key },
        "get_closest_peers" => GetClosestPeers { target, thorough },
        "bootstrap" => Bootstrap,
    }
    Command { "request" => Request(request), "cancel" => Cancel { id }, "shutdown" => Shutdown { drain }, "written" => Written { key } }
    QueryStartError { "no_known_peers" => NoKnownPeers, "store" => Store(error), "no_external_address" => NoExternalAddress }
    QueryResult {
        "bootstrap" => Bootstrap(result),
        "get_closest_peers" => GetClosestPeers(result),
        "get_providers" => GetProviders(result),
        "start_providing" => StartProviding(result),
        "republish_provider" => RepublishProvider(result),
        "get_record" => GetRecord(result),
        "put_record" => PutRecord(result),
        "republish_record" => RepublishRecord(result),
    }
    GetRecordError { "not_found" => NotFound { key, closest_peers }, "timeout" => Timeout { key } }
    PutRecordError {
        "quorum_failed" => QuorumFailed { key, success, quorum },
        "timeout" => Timeout { key, success, quorum },
    }
    KadBootstrapError { "timeout" => Timeout { peer, num_remaining } }
    GetClosestPeersError { "timeout" => Timeout { key, peers } }
    GetProvidersError { "timeout" => Timeout { key, closest_peers } }
    AddProviderError { "timeout" => Timeout { key } }
    Item { "record" => Record(record), "provider" => Provider(peer), "phase" => BootstrapPhase(phase) }
}

structs! {
    RecordAnswer { record, others, agreeing, dissenting, repairing, progress }
    Candidate { record, votes }
    PutAnswer { acknowledged, unacknowledged, verified, progress }
    ProvidersAnswer { providers, progress }
    ProvideAnswer { sent_to, progress }
    ClosestPeersAnswer { peers, certainty, progress }
    BootstrapAnswer { phases, failed, progress }
}

enums! {
    Outcome {
        "get_record" => GetRecord(result),
        "put_record" => PutRecord(result),
        "put_record_to" => PutRecordTo(result),
        "get_providers" => GetProviders(result),
        "start_providing" => StartProviding(result),
        "get_closest_peers" => GetClosestPeers(result),
        "bootstrap" => Bootstrap(result),
    }
    RequestError {
        "invalid" => Invalid(why),
        "overloaded" => Overloaded,
        "expired_in_queue" => ExpiredInQueue,
        "cancelled" => Cancelled,
        "shutdown" => Shutdown,
        "not_polled" => NotPolled,
        "refused" => Refused(error),
    }
    InvalidRequestError {
        "key_too_long" => KeyTooLong { len, max },
        "value_too_long" => ValueTooLong { len, max },
        "record_expired" => RecordExpired,
        "rejected" => Rejected { reason },
        "no_validator" => NoValidator,
        "policy_for_records" => PolicyForRecords,
        "zero_limit" => ZeroLimit,
        "no_peers" => NoPeers,
        "quorum_exceeds_peers" => QuorumExceedsPeers { needed, peers },
        "reserved_id" => ReservedId,
        "duplicate_id" => DuplicateId,
    }
    OurGetRecordError {
        "not_found" => NotFound { closest_peers, certainty, rejected, progress },
        "no_response" => NoResponse { progress },
        "conflict" => Conflict { candidates, needed },
        "quorum_not_reached" => QuorumNotReached { candidate, needed },
        "timeout" => Timeout { found, progress },
        "no_known_peers" => NoKnownPeers,
        "request" => Request(error),
    }
    OurPutRecordError {
        "quorum_failed" => QuorumFailed { acknowledged, needed, asked },
        "no_response" => NoResponse { progress },
        "insufficient_peers" => InsufficientPeers { found, needed },
        "timeout" => Timeout { sent_to, progress },
        "not_verified" => NotVerified { acknowledged, verified, needed },
        "store" => Store { error, acknowledged },
        "no_known_peers" => NoKnownPeers,
        "request" => Request(error),
    }
    OurGetProvidersError {
        "not_found" => NotFound { closest_peers, certainty, progress },
        "no_response" => NoResponse { progress },
        "timeout" => Timeout { found, progress },
        "no_known_peers" => NoKnownPeers,
        "request" => Request(error),
    }
    StartProvidingError {
        "no_response" => NoResponse { progress },
        "timeout" => Timeout { progress },
        "store" => Store(error),
        "no_known_peers" => NoKnownPeers,
        "no_external_address" => NoExternalAddress,
        "request" => Request(error),
    }
    OurGetClosestPeersError {
        "no_response" => NoResponse { progress },
        "timeout" => Timeout { peers, progress },
        "no_known_peers" => NoKnownPeers,
        "request" => Request(error),
    }
    OurBootstrapError {
        "all_phases_failed" => AllPhasesFailed { phases, progress },
        "no_response" => NoResponse { progress },
        "timeout" => Timeout { phases, failed, progress },
        "no_known_peers" => NoKnownPeers,
        "request" => Request(error),
    }
}

macro_rules! numbers {
    ($($type:ident),*) => {$(
        impl Field for $type {
            fn put(&self, writer: &mut Writer) {
                self.0.put(writer);
            }

            fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
                Field::take(tokens).map(Self)
            }
        }
    )*};
}

numbers!(RequestId, StepId);

/// The quorum of a get is written as the number of sources that it stands for, and read as that number: to the tracker
/// they are the same.
impl Field for Policy {
    fn put(&self, writer: &mut Writer) {
        match self {
            Self::First => writer.word("first"),
            Self::Limit(n) => {
                writer.word("limit");
                n.put(writer);
            }
            Self::All => writer.word("all"),
            Self::Quorum(quorum) => {
                writer.word("quorum");
                quorum.of_sources().put(writer);
            }
            Self::Best { agree: Some(quorum) } => {
                writer.word("best");
                writer.word("n");
                quorum.of_sources().put(writer);
            }
            Self::Best { agree: None } => {
                writer.word("best");
                writer.word("all");
            }
        }
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        let quorum = |tokens: &mut Tokens<'_>| u32::try_from(usize::take(tokens)?).ok().map(Quorum::N);
        Some(match tokens.next()? {
            "first" => Self::First,
            "limit" => Self::Limit(usize::take(tokens)?),
            "all" => Self::All,
            "quorum" => Self::Quorum(quorum(tokens)?),
            "best" => Self::Best {
                agree: match tokens.next()? {
                    "n" => Some(quorum(tokens)?),
                    "all" => None,
                    _ => return None,
                },
            },
            _ => return None,
        })
    }
}

impl Field for Record {
    fn put(&self, writer: &mut Writer) {
        let Self { key, value, publisher, expires } = self;
        key.put(writer);
        writer.value(value);
        publisher.put(writer);
        expires.put(writer);
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        Some(Self {
            key: Field::take(tokens)?,
            value: tokens.value()?,
            publisher: Field::take(tokens)?,
            expires: Field::take(tokens)?,
        })
    }
}

impl Field for GetRecordOk {
    fn put(&self, writer: &mut Writer) {
        match self {
            Self::FoundRecord(found) => {
                writer.word("found");
                found.put(writer);
            }
            Self::FinishedWithNoAdditionalRecord { cache_candidates } => {
                writer.word("finished");
                cache_candidates.values().copied().collect::<Vec<_>>().put(writer);
            }
        }
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        match tokens.next()? {
            "found" => Field::take(tokens).map(Self::FoundRecord),
            // In their order: the tracker does not use the distances themselves.
            "finished" => {
                let peers = Vec::<PeerId>::take(tokens)?;
                let cache_candidates =
                    peers.into_iter().enumerate().map(|(at, peer)| (KBucketDistance(U256::from(at)), peer)).collect();
                Some(Self::FinishedWithNoAdditionalRecord { cache_candidates })
            }
            _ => None,
        }
    }
}

impl Field for GetProvidersOk {
    fn put(&self, writer: &mut Writer) {
        match self {
            Self::FoundProviders { key, providers } => {
                writer.word("found");
                key.put(writer);
                // kad's set is randomly seeded; its order means nothing.
                let mut providers: Vec<PeerId> = providers.iter().copied().collect();
                providers.sort_unstable();
                providers.put(writer);
            }
            Self::FinishedWithNoAdditionalRecord { closest_peers } => {
                writer.word("finished");
                closest_peers.put(writer);
            }
        }
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        match tokens.next()? {
            "found" => Some(Self::FoundProviders {
                key: Field::take(tokens)?,
                providers: Vec::<PeerId>::take(tokens)?.into_iter().collect(),
            }),
            "finished" => {
                Field::take(tokens).map(|closest_peers| Self::FinishedWithNoAdditionalRecord { closest_peers })
            }
            _ => None,
        }
    }
}

impl Field for store::Error {
    fn put(&self, writer: &mut Writer) {
        writer.word(match self {
            Self::MaxRecords => "max_records",
            Self::MaxProvidedKeys => "max_provided_keys",
            Self::ValueTooLarge => "value_too_long",
        });
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        Some(match tokens.next()? {
            "max_records" => Self::MaxRecords,
            "max_provided_keys" => Self::MaxProvidedKeys,
            "value_too_long" => Self::ValueTooLarge,
            _ => return None,
        })
    }
}

impl Field for String {
    fn put(&self, writer: &mut Writer) {
        writer.bytes(self.as_bytes());
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        Self::from_utf8(tokens.bytes()?).ok()
    }
}

impl Field for [u32; 3] {
    fn put(&self, writer: &mut Writer) {
        self.iter().for_each(|share| share.put(writer));
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        Some([u32::take(tokens)?, u32::take(tokens)?, u32::take(tokens)?])
    }
}

/// Without the validators, which are code.
impl Field for TrackerConfig {
    fn put(&self, writer: &mut Writer) {
        let Self {
            max_running,
            max_queued,
            shares,
            seed,
            validators: _,
            max_replay_bytes,
            default_timeout,
            finish_timeout,
            stall,
            max_read_repairs,
            max_items,
            max_item_bytes,
            expected_network_size,
            max_key_len,
            max_value_len,
            max_packet_len,
        } = self;
        max_running.put(writer);
        max_queued.put(writer);
        shares.put(writer);
        seed.put(writer);
        max_replay_bytes.put(writer);
        default_timeout.put(writer);
        finish_timeout.put(writer);
        stall.put(writer);
        max_read_repairs.put(writer);
        max_items.put(writer);
        max_item_bytes.put(writer);
        expected_network_size.put(writer);
        max_key_len.put(writer);
        max_value_len.put(writer);
        max_packet_len.put(writer);
    }

    fn take(tokens: &mut Tokens<'_>) -> Option<Self> {
        Some(Self {
            max_running: Field::take(tokens)?,
            max_queued: Field::take(tokens)?,
            shares: Field::take(tokens)?,
            seed: Field::take(tokens)?,
            validators: Validators::default(),
            max_replay_bytes: Field::take(tokens)?,
            default_timeout: Field::take(tokens)?,
            finish_timeout: Field::take(tokens)?,
            stall: Field::take(tokens)?,
            max_read_repairs: Field::take(tokens)?,
            max_items: Field::take(tokens)?,
            max_item_bytes: Field::take(tokens)?,
            expected_network_size: Field::take(tokens)?,
            max_key_len: Field::take(tokens)?,
            max_value_len: Field::take(tokens)?,
            max_packet_len: Field::take(tokens)?,
        })
    }
}

/// Only written: a replay compares actions as text.
pub(super) fn put_action<Id>(action: &Action<Id>, writer: &mut Writer, number: &mut dyn FnMut(&Id) -> u64) {
    match action {
        Action::Start { step, request, query } => {
            writer.word("start");
            step.put(writer);
            request.put(writer);
            put_query(query, writer);
        }
        Action::Finish(id) => {
            writer.word("finish");
            number(id).put(writer);
        }
        Action::FinishPhase(id) => {
            writer.word("finish_phase");
            number(id).put(writer);
        }
        Action::Probe(id) => {
            writer.word("probe");
            number(id).put(writer);
        }
        Action::Forget(id) => {
            writer.word("forget");
            number(id).put(writer);
        }
        Action::LocalPeers { request, target } => {
            writer.word("local_peers");
            request.put(writer);
            target.put(writer);
        }
        Action::StoreLocal { request, record } => {
            writer.word("store_local");
            request.put(writer);
            record.put(writer);
        }
        Action::StopProviding { key } => {
            writer.word("stop_providing");
            key.put(writer);
        }
        Action::Item { request, item } => {
            writer.word("item");
            request.put(writer);
            item.put(writer);
        }
        Action::Outcome { request, outcome } => {
            writer.word("outcome");
            request.put(writer);
            outcome.put(writer);
        }
    }
}

fn put_query(query: &Query, writer: &mut Writer) {
    writer.word(query.kind());
    match query {
        Query::GetRecord { key } | Query::GetProviders { key } | Query::StartProviding { key } => key.put(writer),
        Query::PutRecordTo { record, peers } => {
            record.put(writer);
            peers.to_vec().put(writer);
        }
        Query::GetClosestPeers { target } => target.put(writer),
        Query::Bootstrap => {}
    }
}
