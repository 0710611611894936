//! The driver's event loop, and the execution of the tracker's actions.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use kadence::{
    Progress,
    tracker::{Action, Outcome, Query, QueryEvent, QueryStartError, RequestId, Started},
};
use libp2p::{
    kad::{self, Quorum, store::RecordStore},
    swarm::{NetworkBehaviour, ToSwarm},
};

use super::{Fault, RealKad, kad_events};

/// Number of consecutive polls that counts as an endless loop.
pub(super) const MAX_POLLS: usize = 100_000;

impl RealKad {
    /// Runs the loop until it would go to sleep. Returns the number of polls of kad without result. After each of them
    /// but the last, the `finish` calls were repeated.
    pub fn run_until_idle(&mut self) -> usize {
        let before = self.idle_polls;
        assert!(self.run_loop(MAX_POLLS), "kad does not become idle");
        self.idle_polls - before
    }

    /// Runs the loop for at most `polls` polls of kad. Returns whether it would go to sleep.
    ///
    /// The steps and their order are the driver's.
    pub fn run_loop(&mut self, polls: usize) -> bool {
        for _ in 0..polls {
            self.handle_actions();
            self.handle_timeout();
            if self.poll_kad().is_ready() {
                continue;
            }
            self.idle_polls += 1;
            self.check_kad();
            if self.repeat_finishes() || self.answer_probes() {
                continue;
            }
            self.check_rest();
            return true;
        }
        false
    }

    /// Runs everything that happens without the clock.
    pub fn run_to_end(&mut self) {
        self.run_until_idle();
        while self.deliver_one() {
            self.run_until_idle();
        }
    }

    /// Ends one of the pending dials or requests. Returns whether there was one. Does not run the loop.
    pub fn deliver_one(&mut self) -> bool {
        self.finish_dial() || self.finish_request()
    }

    pub(super) fn finish_dial(&mut self) -> bool {
        self.network.finish_dial(&mut self.kad)
    }

    pub(super) fn finish_request(&mut self) -> bool {
        self.network.finish_request(&mut self.kad)
    }

    pub(super) fn handle_actions(&mut self) {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Start { step, request, query } => {
                    let result = self.start(request, query);
                    self.tracker.handle_started(step, result, self.now());
                }
                Action::Finish(id) => {
                    self.note(|| format!("finish {id}"));
                    assert!(
                        self.own_queries.contains(&id) && !self.finishing.contains(&id),
                        "{id} is finished at most once"
                    );
                    if self.injects(Fault::NeverFinishes) {
                        continue;
                    }
                    if let Some(mut query) = self.kad.query_mut(&id) {
                        query.finish();
                    }
                    if !self.injects(Fault::FinishesOnce) {
                        self.finishing.push(id);
                    }
                }
                Action::FinishPhase(id) => {
                    self.note(|| format!("finish the phase of {id}"));
                    if let Some(mut query) = self.kad.query_mut(&id) {
                        query.finish();
                    }
                }
                Action::Probe(id) => self.probes.push(id),
                Action::Forget(id) => {
                    self.note(|| format!("forget {id}"));
                    self.finishing.retain(|finishing| *finishing != id);
                    self.forgotten.insert(id);
                }
                Action::LocalPeers { request, target } => {
                    let target = kad::KBucketKey::new(target);
                    let peers = self.kad.get_closest_local_peers(&target).map(|key| *key.preimage()).collect();
                    self.tracker.handle_local_peers(request, peers, self.now());
                }
                Action::StoreLocal { request, record } => {
                    let result = self.kad.store_mut().put(Arc::unwrap_or_clone(record));
                    self.note(|| format!("store the record of {request}: {result:?}"));
                    self.tracker.handle_stored(request, result, self.now());
                }
                Action::StopProviding { key } => {
                    self.note(|| format!("stop providing {}", key.as_ref().escape_ascii()));
                    if !self.injects(Fault::KeepsAnnouncing) {
                        self.kad.stop_providing(&key);
                    }
                }
                Action::Item { request, item: _ } => {
                    let call = self.calls.get_mut(&request).expect("an item belongs to a live request");
                    assert!(call.streaming, "an item for {request}, which is not streaming");
                    call.items += 1;
                }
                Action::Outcome { request, outcome } => {
                    if self.injects(Fault::RepeatsOutcomes) {
                        self.end(request, outcome.clone());
                    }
                    self.end(request, outcome);
                }
            }
        }
    }

    fn start(&mut self, request: RequestId, query: Query) -> Result<Started, QueryStartError> {
        let kind = query.kind().name();
        let mut had_provider = false;
        let result = match query {
            Query::GetRecord { key } => Ok(self.kad.get_record(key)),
            Query::PutRecordTo { record, peers } => {
                Ok(self.kad.put_record_to(Arc::unwrap_or_clone(record), peers.iter().copied(), Quorum::All))
            }
            Query::GetProviders { key } => Ok(self.kad.get_providers(key)),
            Query::StartProviding { key } => {
                had_provider = self.kad.store_mut().providers(&key).iter().any(|entry| entry.provider == self.local);
                self.network.peers.answer_log.providers.insert((key.to_vec(), self.local));
                self.kad.start_providing(key).map_err(QueryStartError::from)
            }
            Query::GetClosestPeers { target } => Ok(self.kad.get_closest_peers(target.to_vec())),
            Query::Bootstrap => self.kad.bootstrap().map_err(|kad::NoKnownPeers()| QueryStartError::NoKnownPeers),
        };
        self.note(|| format!("start for {request}: {kind} is {result:?}"));
        let id = result?;
        self.kad_events.started(id);
        self.own_queries.insert(id);
        self.last_started_query = Some(id);
        if !request.is_reserved() {
            self.calls.get_mut(&request).expect("a query belongs to a live request").query = Some(id);
        }
        Ok(Started { id, had_provider })
    }

    fn end(&mut self, request: RequestId, outcome: Outcome) {
        self.note(|| format!("outcome of {request}: {:?}", outcome.error().map(ToString::to_string)));
        let call = self.calls.remove(&request).expect("each accepted request gets one outcome");
        self.expected.check_outcome(&call, &outcome, self.now, &self.network.peers.answer_log, &self.kad_events);
        self.outcomes.insert(request, outcome);
    }

    fn handle_timeout(&mut self) {
        if !self.injects(Fault::MissesDeadlines) && self.tracker.poll_timeout().is_some_and(|due| due <= self.now()) {
            self.tracker.handle_timeout(self.now());
            self.handle_actions();
        }
    }

    pub(super) fn poll_kad(&mut self) -> Poll<()> {
        match self.kad.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(ToSwarm::GenerateEvent(event)) => self.take(event),
            Poll::Ready(ToSwarm::Dial { opts }) => self.network.dial(&mut self.kad, &opts),
            Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event }) => {
                self.network.notify(peer_id, &handler, event);
            }
            Poll::Ready(_) => {}
        }
        Poll::Ready(())
    }

    fn take(&mut self, event: kad::Event) {
        self.note(|| kad_events::describe(&event));
        if let kad::Event::OutboundQueryProgressed { id, result, stats, step } = event {
            self.kad_events.event(id, &result, &step);
            assert_eq!(self.tracker.owns(&id), self.own_queries.contains(&id), "ownership of query {id}");
            if self.tracker.owns(&id) {
                let last = step.last;
                if last {
                    self.finishing.retain(|finishing| *finishing != id);
                }
                if last && self.injects(Fault::LosesEvents) {
                    return;
                }
                let id = self.last_started_query.filter(|_| self.injects(Fault::ConfusesQueries)).unwrap_or(id);
                let event = QueryEvent { id, result, progress: Progress::from(&stats), last };
                self.tracker.handle_event(event, self.now());
                self.handle_actions();
            } else {
                assert!(self.others_start_queries || kad_events::may_be_kads_own(&result), "unexpected {result:?}");
                self.forwarded.push((id, result));
            }
        }
    }

    pub(super) fn repeat_finishes(&mut self) -> bool {
        let mut finished = false;
        for id in &self.finishing {
            if let Some(mut query) = self.kad.query_mut(id) {
                query.finish();
                finished = true;
            }
        }
        finished
    }

    fn answer_probes(&mut self) -> bool {
        let probes = std::mem::take(&mut self.probes);
        for id in &probes {
            let progress = self.kad.query(id).map(|query| Progress::from(query.stats()));
            self.tracker.handle_probe(*id, progress, self.now());
        }
        self.handle_actions();
        !probes.is_empty()
    }

    /// Returns whether this fault is to be injected now.
    pub(super) fn injects(&mut self, fault: Fault) -> bool {
        if self.fault != Some(fault) {
            return false;
        }
        self.faults += 1;
        match fault {
            Fault::LosesEvents | Fault::ConfusesQueries | Fault::RepeatsOutcomes => self.faults.is_multiple_of(3),
            Fault::NeverFinishes
            | Fault::FinishesOnce
            | Fault::KeepsAnnouncing
            | Fault::StoresBeforehand
            | Fault::MissesDeadlines => true,
        }
    }
}
