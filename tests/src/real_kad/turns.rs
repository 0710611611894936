//! The loop: the driver's steps in its order, and what it does with each action.

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

use super::{Fault, RealKad, facts};

/// So many polls in a row without rest are a loop without an end.
pub(super) const POLLS_AT_MOST: usize = 100_000;

impl RealKad {
    /// Turns the loop until it would go to sleep. Returns how often kad was polled to no avail: the standing orders
    /// were repeated after each of these polls but the last.
    pub fn settle(&mut self) -> usize {
        let before = self.rests;
        assert!(self.turn(POLLS_AT_MOST), "kad does not come to rest");
        self.rests - before
    }

    /// Turns the loop for at most so many polls of kad. Returns whether it would go to sleep.
    ///
    /// The steps are the driver's, in its order.
    pub fn turn(&mut self, polls: usize) -> bool {
        for _ in 0..polls {
            self.act();
            self.keep_time();
            if self.poll_kad().is_ready() {
                continue;
            }
            self.rests += 1;
            self.check_kad();
            if self.repeat_finishes() || self.answer_probes() {
                continue;
            }
            self.check_rest();
            return true;
        }
        false
    }

    /// Lets everything happen that will without the clock.
    pub fn play(&mut self) {
        self.settle();
        while self.step() {
            self.settle();
        }
    }

    /// Ends one of the dials or requests in the network, if there is one that ends. The loop is not turned.
    pub fn step(&mut self) -> bool {
        self.end_a_dial() || self.end_a_request()
    }

    pub(super) fn end_a_dial(&mut self) -> bool {
        self.network.end_a_dial(&mut self.kad)
    }

    pub(super) fn end_a_request(&mut self) -> bool {
        self.network.end_a_request(&mut self.kad)
    }

    pub(super) fn act(&mut self) {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Start { step, request, query } => {
                    let result = self.start(request, query);
                    self.tracker.handle_started(step, result, self.now());
                }
                Action::Finish(id) => {
                    self.note(|| format!("finish {id}"));
                    assert!(self.ours.contains(&id) && !self.finishing.contains(&id), "{id} is finished once");
                    if self.goes_wrong(Fault::NeverFinishes) {
                        continue;
                    }
                    if let Some(mut query) = self.kad.query_mut(&id) {
                        query.finish();
                    }
                    if !self.goes_wrong(Fault::FinishesOnce) {
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
                    if !self.goes_wrong(Fault::KeepsAnnouncing) {
                        self.kad.stop_providing(&key);
                    }
                }
                Action::Item { request, item: _ } => {
                    let call = self.calls.get_mut(&request).expect("an item of a request that has not ended");
                    assert!(call.streaming, "an item for {request}, which wants none");
                    call.items += 1;
                }
                Action::Outcome { request, outcome } => {
                    if self.goes_wrong(Fault::RepeatsOutcomes) {
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
                self.network.peers.said.providers.insert((key.to_vec(), self.local));
                self.kad.start_providing(key).map_err(QueryStartError::from)
            }
            Query::GetClosestPeers { target } => Ok(self.kad.get_closest_peers(target.to_vec())),
            Query::Bootstrap => self.kad.bootstrap().map_err(|kad::NoKnownPeers()| QueryStartError::NoKnownPeers),
        };
        self.note(|| format!("start for {request}: {kind} is {result:?}"));
        let id = result?;
        self.facts.started(id);
        self.ours.insert(id);
        self.latest = Some(id);
        if !request.is_reserved() {
            self.calls.get_mut(&request).expect("a query for a request that has not ended").query = Some(id);
        }
        Ok(Started { id, had_provider })
    }

    fn end(&mut self, request: RequestId, outcome: Outcome) {
        self.note(|| format!("outcome of {request}: {:?}", outcome.error().map(ToString::to_string)));
        let call = self.calls.remove(&request).expect("one outcome for each accepted request, and no more");
        self.expected.judge(&call, &outcome, self.now, &self.network.peers.said, &self.facts);
        self.outcomes.insert(request, outcome);
    }

    fn keep_time(&mut self) {
        if !self.goes_wrong(Fault::MissesDeadlines) && self.tracker.poll_timeout().is_some_and(|due| due <= self.now())
        {
            self.tracker.handle_timeout(self.now());
            self.act();
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
        self.note(|| facts::describe(&event));
        if let kad::Event::OutboundQueryProgressed { id, result, stats, step } = event {
            self.facts.event(id, &result, &step);
            assert_eq!(self.tracker.owns(&id), self.ours.contains(&id), "whose query {id} is");
            if self.tracker.owns(&id) {
                let last = step.last;
                if last {
                    self.finishing.retain(|finishing| *finishing != id);
                }
                if last && self.goes_wrong(Fault::LosesEvents) {
                    return;
                }
                let id = self.latest.filter(|_| self.goes_wrong(Fault::ConfusesQueries)).unwrap_or(id);
                let event = QueryEvent { id, result, progress: Progress::from(&stats), last };
                self.tracker.handle_event(event, self.now());
                self.act();
            } else {
                assert!(self.has_strangers || facts::may_be_kads_own(&result), "nobody asked for {result:?}");
                self.handed_on.push((id, result));
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
        self.act();
        !probes.is_empty()
    }

    /// Whether the driver does this wrong, and now.
    pub(super) fn goes_wrong(&mut self, fault: Fault) -> bool {
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
