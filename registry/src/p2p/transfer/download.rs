//! State machine of one download: assigns pieces to providers, and retries them.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender};
use blocking::unblock;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kadence::{Clock, deadline_after};
use libp2p::PeerId;
use libp2p_stream::Control;

use super::{
    config::FetchConfig,
    error::FetchError,
    events::{FetchEvent, ProviderOutcome, ProviderReport},
    pieces::Pieces,
    proof::Slice,
    request::{BlobProvider, FetchRequest},
    worker::{DialLock, PieceRequest, Worker, WorkerError, WorkerEvent},
};
use crate::blob::{BlobError, BlobStore, Partial, groups_in};

/// Maximum number of providers that a download considers. An attacker could announce any number of false ones.
const MAX_KNOWN_PROVIDERS: usize = 256;

/// Number of consecutive failures after which a provider is given up.
const MAX_FAILURES: u32 = 3;

/// Number of consecutive refusals after which a provider is given up: busy responses, and streams that were closed
/// before the first response, as an overloaded server does.
const MAX_BUSY: u32 = 10;

/// Maximum time for which a busy provider can postpone the next attempt.
const MAX_PAUSE: Duration = Duration::from_secs(10);

pub(super) type Providers = Pin<Box<dyn Stream<Item = BlobProvider> + Send>>;
pub(super) type Observer = Arc<dyn Fn(FetchEvent) + Send + Sync>;

/// Resources of a fetcher, shared by all of its downloads.
#[derive(Clone)]
pub(super) struct FetchContext {
    pub(super) control: Control,
    pub(super) store: BlobStore,
    pub(super) clock: Clock,
    pub(super) config: FetchConfig,
    pub(super) dial_lock: DialLock,
}

pub(super) struct Download<'a> {
    context: &'a FetchContext,
    request: FetchRequest,
    deadline: Instant,
    observe: Observer,
    /// `None` after the end of the stream.
    providers: Option<Providers>,
    /// Every provider that was named.
    states: HashMap<PeerId, ProviderState>,
    /// Providers to ask, each with the earliest time.
    waiting: Vec<(Instant, BlobProvider)>,
    active: HashMap<PeerId, ActiveProvider>,
    workers: FuturesUnordered<BoxFuture<'static, (PeerId, Result<(), WorkerError>)>>,
    events: Events,
    size: Arc<OnceLock<u64>>,
    file: Option<File>,
    progress_at: Instant,
}

#[derive(Debug)]
struct ProviderState {
    preference: i32,
    failures: u32,
    busy: u32,
    /// Number of valid bytes that it sent; `None` if it sent none yet.
    bytes: Option<u64>,
    asked_at: Instant,
    last: Option<ProviderOutcome>,
}

impl ProviderState {
    fn add(&mut self, bytes: u64) {
        self.bytes = Some(self.bytes.unwrap_or(0).saturating_add(bytes));
    }
}

struct ActiveProvider {
    requests: Sender<PieceRequest>,
    is_ready: bool,
    pieces: HashSet<u32>,
}

/// File that is being filled. It exists once the size is known.
struct File {
    size: u64,
    pieces: Pieces,
    partial: Arc<Partial>,
    /// True if the file was started anew because the first one was damaged.
    is_second: bool,
}

impl<'a> Download<'a> {
    pub(super) fn new(
        context: &'a FetchContext,
        request: FetchRequest,
        deadline: Instant,
        providers: Providers,
        observe: Observer,
    ) -> Self {
        Self {
            context,
            request,
            deadline,
            observe,
            providers: Some(providers),
            states: HashMap::new(),
            waiting: Vec::new(),
            active: HashMap::new(),
            workers: FuturesUnordered::new(),
            events: events(),
            size: Arc::default(),
            file: None,
            progress_at: context.clock.now(),
        }
    }

    pub(super) async fn run(mut self) -> Result<u64, FetchError> {
        let mut alarm = self.context.clock.alarm();
        loop {
            self.add_ready_providers();
            let now = self.context.clock.now();
            self.start_workers(now);
            self.request_pieces(now);
            if self.is_complete()
                && let Some(size) = self.finish().await?
            {
                return Ok(size);
            }
            let give_up_at = self.deadline.min(deadline_after(self.progress_at, self.context.config.stall_timeout));
            if now >= give_up_at {
                self.report_late(now);
                return Err(FetchError::Timeout);
            }
            let is_over = self.workers.is_empty() && self.waiting.is_empty() && self.providers.is_none();
            // A worker may have sent an event just before it ended.
            if is_over && self.events.1.is_empty() {
                return Err(self.all_failed());
            }
            let wake_at = self.next_retry().into_iter().chain(self.next_hedge()).fold(give_up_at, Instant::min);
            match alarm.until(wake_at, self.next()).await {
                Err(_) => {}
                Ok(Step::Provider(provider)) => self.add(provider),
                Ok(Step::NoMoreProviders) => self.providers = None,
                Ok(Step::WorkerEvent(peer, event)) => self.on_event(peer, event).await?,
                Ok(Step::WorkerEnded(peer, result)) => self.on_end(peer, result)?,
            }
        }
    }

    async fn next(&mut self) -> Step {
        let mut no_more = futures::stream::pending();
        let providers: &mut (dyn Stream<Item = BlobProvider> + Unpin + Send) = match &mut self.providers {
            Some(providers) => providers,
            None => &mut no_more,
        };
        let mut providers = providers.fuse();
        futures::select_biased! {
            event = self.events.1.recv().fuse() => match event {
                Ok((peer, event)) => Step::WorkerEvent(peer, event),
                // Unreachable: `self.events` holds a sender.
                Err(_) => Step::NoMoreProviders,
            },
            ended = self.workers.select_next_some() => Step::WorkerEnded(ended.0, ended.1),
            provider = providers.next() => match provider {
                Some(provider) => Step::Provider(provider),
                None => Step::NoMoreProviders,
            },
        }
    }

    /// Takes providers that are ready without waiting, so that the best of them is asked first.
    fn add_ready_providers(&mut self) {
        for _ in 0..MAX_KNOWN_PROVIDERS {
            match self.providers.as_mut().and_then(|providers| providers.next().now_or_never()) {
                Some(Some(provider)) => self.add(provider),
                Some(None) => self.providers = None,
                None => return,
            }
        }
    }

    fn add(&mut self, provider: BlobProvider) {
        let now = self.context.clock.now();
        if self.states.len() >= MAX_KNOWN_PROVIDERS {
            self.providers = None;
        } else if !self.states.contains_key(&provider.peer) {
            let BlobProvider { peer, preference } = provider;
            self.states.insert(
                peer,
                ProviderState { preference, failures: 0, busy: 0, bytes: None, asked_at: now, last: None },
            );
            self.waiting.push((now, provider));
        }
    }

    /// Starts workers for the preferred providers that are due, up to the configured number.
    fn start_workers(&mut self, now: Instant) {
        let config = &self.context.config;
        while self.active.len() < config.providers.max(1) {
            let due = self.waiting.iter().enumerate().filter(|(_, (at, _))| *at <= now);
            let Some((best, _)) = due.max_by_key(|(at, (_, provider))| (provider.preference, std::cmp::Reverse(*at)))
            else {
                return;
            };
            let (_, BlobProvider { peer, .. }) = self.waiting.swap_remove(best);
            if let Some(state) = self.states.get_mut(&peer)
                && state.bytes.is_none()
            {
                state.asked_at = now;
            }
            let (requests, queued) = async_channel::bounded(config.pipeline.max(1));
            let worker = Worker {
                peer,
                id: self.request.id,
                control: self.context.control.clone(),
                clock: self.context.clock.clone(),
                config: *config,
                dial_lock: self.context.dial_lock.clone(),
                size: self.size.clone(),
                requests: queued,
                events: self.events.0.clone(),
            };
            self.active.insert(peer, ActiveProvider { requests, is_ready: false, pieces: HashSet::new() });
            self.workers.push(async move { (peer, worker.run().await) }.boxed());
        }
    }

    /// Assigns pieces in rounds, one for each provider a round, so that every provider has work while pieces are left.
    fn request_pieces(&mut self, now: Instant) {
        let config = &self.context.config;
        let Some(File { pieces, partial, .. }) = &mut self.file else { return };
        for ahead in 0..config.pipeline.max(1) {
            for (peer, active) in &mut self.active {
                if !active.is_ready || active.pieces.len() > ahead {
                    continue;
                }
                let piece = pieces.take(*peer, now).or_else(|| {
                    let is_idle = active.pieces.is_empty();
                    is_idle.then(|| pieces.hedge(*peer, now, config.hedge_after)).flatten()
                });
                let Some(piece) = piece else { continue };
                // Succeeds: the channel has room for `pipeline` requests.
                if active.requests.try_send(PieceRequest { piece, into: partial.clone() }).is_ok() {
                    active.pieces.insert(piece);
                } else {
                    pieces.give_back(piece, peer);
                }
            }
        }
    }

    async fn on_event(&mut self, peer: PeerId, event: WorkerEvent) -> Result<(), FetchError> {
        match event {
            WorkerEvent::Ready => {
                if let Some(active) = self.active.get_mut(&peer) {
                    active.is_ready = true;
                }
            }
            WorkerEvent::Size { size, last_group } => {
                self.request.check_size(size)?;
                if self.size.set(size).is_ok() {
                    self.made_progress();
                    self.open(size, false).await?;
                    self.update_state(peer, |state| state.add(len(&last_group.data)));
                    if groups_in(size) == 1 {
                        self.write_only_group(last_group).await?;
                    }
                }
            }
            WorkerEvent::Piece { piece, bytes } => {
                if let Some(active) = self.active.get_mut(&peer) {
                    active.pieces.remove(&piece);
                }
                self.update_state(peer, |state| {
                    state.add(bytes);
                    (state.failures, state.busy) = (0, 0);
                });
                let is_news = self.file.as_mut().is_some_and(|file| file.pieces.complete(piece));
                if is_news {
                    self.made_progress();
                    self.report_progress();
                }
            }
        }
        Ok(())
    }

    fn on_end(&mut self, peer: PeerId, result: Result<(), WorkerError>) -> Result<(), FetchError> {
        self.active.remove(&peer);
        if let Some(file) = &mut self.file {
            file.pieces.give_all_back(&peer);
        }
        let now = self.context.clock.now();
        let retry_after = self.context.config.retry_after;
        let Some(state) = self.states.get_mut(&peer) else { return Ok(()) };
        let (outcome, pause) = match result {
            Ok(()) => return Ok(()),
            Err(WorkerError::Store(error)) => return Err(error.into()),
            Err(WorkerError::BadData) => (ProviderOutcome::BadData, None),
            Err(WorkerError::NotFound) => (ProviderOutcome::NotFound, None),
            Err(WorkerError::Unsupported) => (ProviderOutcome::Failed, None),
            Err(WorkerError::Broken | WorkerError::Ended) => {
                state.failures += 1;
                let pause = retry_after.saturating_mul(state.failures);
                (ProviderOutcome::Failed, (state.failures < MAX_FAILURES).then_some(pause))
            }
            Err(WorkerError::RefusedStream) => {
                state.busy += 1;
                let pause = retry_after.saturating_mul(state.busy).min(MAX_PAUSE);
                // A busy peer has done nothing wrong. One that is always busy counts as failed.
                if state.busy < MAX_BUSY {
                    (ProviderOutcome::Busy, Some(pause))
                } else {
                    (ProviderOutcome::Failed, None)
                }
            }
            Err(WorkerError::Busy(after)) => {
                state.busy += 1;
                let pause = after.clamp(retry_after.min(MAX_PAUSE), MAX_PAUSE);
                (ProviderOutcome::Busy, (state.busy < MAX_BUSY).then_some(pause))
            }
        };
        state.last = Some(outcome);
        if let Some(pause) = pause {
            self.waiting.push((deadline_after(now, pause), BlobProvider { peer, preference: state.preference }));
        }
        (self.observe)(FetchEvent::Report(ProviderReport { peer, outcome }));
        Ok(())
    }

    /// Turns the complete file into a blob. Returns `None` if it was damaged and is fetched anew.
    async fn finish(&mut self) -> Result<Option<u64>, FetchError> {
        let Some(File { size, partial, is_second, .. }) = &self.file else { return Ok(None) };
        let (size, partial, is_second) = (*size, partial.clone(), *is_second);
        let (store, id) = (self.context.store.clone(), self.request.id);
        match unblock(move || partial.finish(&store, &id)).await {
            Ok(()) => {
                self.report_successes();
                Ok(Some(size))
            }
            // Each piece was valid when it was written: the disk failed, or an earlier run left bad data.
            Err(BlobError::Damaged(_)) if !is_second => {
                self.active.clear();
                self.workers.clear();
                // Events in the queue are about the deleted file.
                self.events = events();
                self.restart_workers();
                self.open(size, true).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn open(&mut self, size: u64, is_second: bool) -> Result<(), FetchError> {
        let (store, id, piece) = (self.context.store.clone(), self.request.id, self.context.config.piece_bytes());
        let (partial, done) = unblock(move || Partial::open(&store, &id, size, piece)).await?;
        let count = u32::try_from(size.div_ceil(piece).max(1)).unwrap_or(u32::MAX);
        let pieces = Pieces::new(count, &done);
        self.file = Some(File { size, pieces, partial: Arc::new(partial), is_second });
        self.report_progress();
        Ok(())
    }

    /// Writes a blob that has one group: it came with the proof of the size.
    async fn write_only_group(&mut self, Slice { data, proof }: Slice) -> Result<(), FetchError> {
        let Some(File { partial, pieces, .. }) = &mut self.file else { return Ok(()) };
        let partial = partial.clone();
        unblock(move || partial.write(0, 0, &data, &proof)).await?;
        *pieces = Pieces::new(0, &std::collections::BTreeSet::new());
        self.report_progress();
        Ok(())
    }

    /// Schedules all usable providers to be asked again from the beginning.
    fn restart_workers(&mut self) {
        let now = self.context.clock.now();
        let again = self.states.iter().filter(|(peer, state)| {
            !matches!(state.last, Some(ProviderOutcome::BadData | ProviderOutcome::NotFound))
                && !self.waiting.iter().any(|(_, waiting)| waiting.peer == **peer)
        });
        let again: Vec<_> =
            again.map(|(peer, state)| (now, BlobProvider { peer: *peer, preference: state.preference })).collect();
        self.waiting.extend(again);
    }

    fn report_successes(&self) {
        let now = self.context.clock.now();
        for (peer, state) in &self.states {
            if let Some(bytes) = state.bytes
                && state.last != Some(ProviderOutcome::BadData)
            {
                let time = now.saturating_duration_since(state.asked_at);
                let outcome = ProviderOutcome::Success { bytes, time };
                (self.observe)(FetchEvent::Report(ProviderReport { peer: *peer, outcome }));
            }
        }
    }

    /// Reports the providers that hold late pieces, as the cause of a timeout.
    fn report_late(&self, now: Instant) {
        let Some(File { pieces, .. }) = &self.file else { return };
        for peer in pieces.late(now, self.context.config.hedge_after) {
            (self.observe)(FetchEvent::Report(ProviderReport { peer, outcome: ProviderOutcome::Failed }));
        }
    }

    fn all_failed(&self) -> FetchError {
        if self.states.is_empty() {
            return FetchError::NoProvider;
        }
        let ended = |(peer, state): (&PeerId, &ProviderState)| ProviderReport {
            peer: *peer,
            outcome: state.last.unwrap_or(ProviderOutcome::Failed),
        };
        FetchError::AllFailed { reports: self.states.iter().map(ended).collect() }
    }

    fn update_state(&mut self, peer: PeerId, change: impl FnOnce(&mut ProviderState)) {
        if let Some(state) = self.states.get_mut(&peer) {
            change(state);
        }
    }

    fn made_progress(&mut self) {
        self.progress_at = self.context.clock.now();
    }

    fn report_progress(&self) {
        let Some(File { size, pieces, .. }) = &self.file else { return };
        let verified = u64::from(pieces.done_count()).saturating_mul(self.context.config.piece_bytes());
        let verified = if pieces.is_complete() { *size } else { verified.min(*size) };
        (self.observe)(FetchEvent::Progress { verified, total: *size });
    }

    fn is_complete(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.pieces.is_complete())
    }

    fn next_retry(&self) -> Option<Instant> {
        let has_room = self.active.len() < self.context.config.providers.max(1);
        self.waiting.iter().map(|(at, _)| *at).min().filter(|_| has_room)
    }

    /// Returns the time at which an idle provider may fetch a piece that another one is late with.
    fn next_hedge(&self) -> Option<Instant> {
        let is_idle = |active: &ActiveProvider| active.is_ready && active.pieces.is_empty();
        let late = self.file.as_ref()?.pieces.next_late(self.context.clock.now(), self.context.config.hedge_after);
        late.filter(|_| self.active.values().any(is_idle))
    }
}

type Events = (Sender<(PeerId, WorkerEvent)>, Receiver<(PeerId, WorkerEvent)>);

/// Returns an event channel. Workers wait while it is full.
fn events() -> Events {
    async_channel::bounded(16)
}

enum Step {
    Provider(BlobProvider),
    NoMoreProviders,
    WorkerEvent(PeerId, WorkerEvent),
    WorkerEnded(PeerId, Result<(), WorkerError>),
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
