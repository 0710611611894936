//! Commands of callers: validation, admission and shutdown.

use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use libp2p::kad::Record;

use super::{
    QueryTracker,
    policy::first_query,
    results::distinct,
    state::{Attempts, LiveRequest, Phase, Timer},
    time::Time,
};
use crate::{
    Action, CommandError, InvalidRequestError, LocalCopy, Operation, Policy, Priority, Quorum, Request, RequestError,
    RequestId, RequestOptions, StepId,
};

impl<Id: Copy + Eq + Hash + fmt::Debug> QueryTracker<Id> {
    pub(super) fn accept(&mut self, request: Request, now: Time) -> Result<(), CommandError> {
        let Request { id, operation, options } = request;
        if let Err(error) = self.check(id, &operation, now) {
            self.stats.refused += 1;
            return Err(CommandError(error));
        }
        // Before the check for room, because it needs none.
        if let Some(outcome) = self.cached(id, &operation, options, now) {
            self.stats.accepted += 1;
            self.metrics.ended(&outcome, Duration::ZERO);
            self.actions.push_back(Action::Outcome { request: id, outcome });
            return Ok(());
        }
        if let Err(error) = self.make_room(&operation, options.priority, now) {
            self.stats.refused += 1;
            return Err(CommandError(error));
        }
        self.drop_cached_by(&operation);
        let operation = self.adopt(operation);
        let deadline = now.after(options.timeout.unwrap_or(self.config.default_timeout));
        let query = first_query(&operation);
        // `StepId(0)` is a placeholder until the request is attached to a query, which happens next.
        let first_copy = match &operation {
            Operation::PutRecord { record, quorum: _, options } if options.local_copy == LocalCopy::First => {
                Some(Arc::clone(record))
            }
            _ => None,
        };
        let phase = match &first_copy {
            Some(_) => Phase::Storing { answer: None },
            None => Phase::Attached { step: StepId(0) },
        };
        let RequestOptions { timeout: _, streaming, priority, retry, fresh: _ } = options;
        let request = LiveRequest {
            operation,
            streaming,
            priority,
            retry: retry.map(|retry| Box::new(Attempts { retry, failed: 0, earlier: None })),
            accepted: now,
            deadline,
            phase,
            put: None,
            closest: None,
            begun: false,
            second_step: false,
            announced: false,
        };
        self.requests.insert(id, Box::new(request));
        self.timers.insert((deadline, Timer::Deadline(id)));
        self.stats.accepted += 1;
        if let Some(record) = first_copy {
            self.actions.push_back(Action::StoreLocal { request: id, record });
        } else {
            self.attach(id, query, now);
        }
        Ok(())
    }

    /// Validates a request, before anything changes.
    pub(super) fn check(&self, id: RequestId, operation: &Operation, now: Time) -> Result<(), RequestError> {
        if self.shutting_down {
            return Err(RequestError::Shutdown);
        }
        if id.is_reserved() {
            return Err(InvalidRequestError::ReservedId.into());
        }
        if self.requests.contains_key(&id) {
            return Err(InvalidRequestError::DuplicateId.into());
        }
        let len = operation.key().len();
        if len > self.config.max_key_len {
            return Err(InvalidRequestError::KeyTooLong { len, max: self.config.max_key_len }.into());
        }
        match operation {
            Operation::GetRecord { key, policy } => match policy {
                Policy::Limit(0) | Policy::Quorum(Quorum::N(0)) | Policy::Best { agree: Some(Quorum::N(0)) } => {
                    return Err(InvalidRequestError::ZeroLimit.into());
                }
                Policy::Best { agree: _ } if self.config.validators.of(key.as_ref()).is_none() => {
                    return Err(InvalidRequestError::NoValidator.into());
                }
                Policy::First | Policy::Limit(_) | Policy::All | Policy::Quorum(_) | Policy::Best { agree: _ } => {}
            },
            Operation::GetProviders { key: _, policy } => match policy {
                Policy::Limit(0) => return Err(InvalidRequestError::ZeroLimit.into()),
                Policy::Quorum(_) | Policy::Best { agree: _ } => {
                    return Err(InvalidRequestError::PolicyForRecords.into());
                }
                Policy::First | Policy::Limit(_) | Policy::All => {}
            },
            Operation::PutRecord { record: _, quorum: Quorum::N(0), options: _ }
            | Operation::PutRecordTo { record: _, peers: _, quorum: Quorum::N(0) } => {
                return Err(InvalidRequestError::ZeroLimit.into());
            }
            Operation::PutRecord { record, quorum: _, options: _ } => self.check_record(record, now)?,
            Operation::PutRecordTo { record, peers, quorum: _ } => {
                self.check_record(record, now)?;
                if peers.iter().all(|peer| *peer == self.local_peer) {
                    return Err(InvalidRequestError::NoPeers.into());
                }
            }
            Operation::StartProviding { .. } | Operation::GetClosestPeers { .. } | Operation::Bootstrap => {}
        }
        Ok(())
    }

    pub(super) fn check_record(&self, record: &Record, now: Time) -> Result<(), InvalidRequestError> {
        let (len, max) = (record.value.len(), self.config.max_value_len_for(record.key.as_ref().len()));
        if len > max {
            return Err(InvalidRequestError::ValueTooLong { len, max });
        }
        if self.clock.instant(now).is_some_and(|now| record.is_expired(now)) {
            return Err(InvalidRequestError::RecordExpired);
        }
        if let Some(validator) = self.config.validators.of(record.key.as_ref()) {
            validator
                .validate(&record.key, &record.value)
                .map_err(|rejected| InvalidRequestError::Rejected { reason: rejected.to_string() })?;
        }
        Ok(())
    }

    /// Makes room in the queue for a request, or refuses it.
    ///
    /// A request that joins a running query needs no place in the queue, and neither does one that backs off. The number
    /// of live requests bounds both: joining stops at twice as many as the queue and the slots hold, everything else at
    /// three times as many. The gap keeps joining requests from locking out all others.
    pub(super) fn make_room(
        &mut self,
        operation: &Operation,
        priority: Priority,
        now: Time,
    ) -> Result<(), RequestError> {
        let full = self.queue_slots.taken() >= self.config.max_queued && self.free_slots() == 0;
        let room = self.config.max_queued.saturating_add(self.config.max_running);
        let live = self.requests.len();
        let many = live >= room.saturating_mul(2);
        if !full && !many {
            return Ok(());
        }
        if self.joins_running(operation, now) {
            return if many { Err(RequestError::Overloaded) } else { Ok(()) };
        }
        let crowded = live >= room.saturating_mul(3);
        if !full && !crowded {
            return Ok(());
        }
        let victim = self.queue_slots.last_below(priority);
        match victim {
            Some(victim) => {
                self.fail(victim, RequestError::Overloaded, now);
                Ok(())
            }
            None => Err(RequestError::Overloaded),
        }
    }

    /// Adapts an accepted operation to kad.
    pub(super) fn adopt(&self, mut operation: Operation) -> Operation {
        match &mut operation {
            Operation::PutRecord { record, quorum: _, options: _ } => {
                // Copies the record only if the caller still holds it.
                if record.publisher != Some(self.local_peer) {
                    Arc::make_mut(record).publisher = Some(self.local_peer);
                }
            }
            // kad never ends a store at the local peer, and a duplicate makes `Quorum::All` impossible.
            Operation::PutRecordTo { record: _, peers, quorum: _ } => {
                *peers = distinct(peers.iter().copied().filter(|peer| *peer != self.local_peer));
            }
            Operation::GetRecord { .. }
            | Operation::GetProviders { .. }
            | Operation::StartProviding { .. }
            | Operation::GetClosestPeers { .. }
            | Operation::Bootstrap => {}
        }
        operation
    }

    pub(super) fn shut_down(&mut self, drain: bool, now: Time) {
        self.shutting_down = true;
        // Read repairs have no caller, so a drain does not wait for them.
        let mut ids: Vec<_> = self.requests.keys().filter(|id| !drain || id.is_reserved()).copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.fail(id, RequestError::Shutdown, now);
        }
    }
}
