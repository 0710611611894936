//! One download: who is asked for what.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender};
use blocking::unblock;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kadence::Clock;
use libp2p::PeerId;
use libp2p_stream::Control;

use super::{
    config::FetchConfig,
    error::FetchError,
    events::{FetchEvent, ProviderOutcome, ProviderReport},
    pieces::Pieces,
    proof::Slice,
    request::{BlobProvider, FetchRequest},
    worker::{DialLock, Event, Failure, PieceRequest, Worker},
};
use crate::blob::{BlobError, BlobStore, Partial, groups_in};

/// How many providers a download takes notice of. Nobody needs more, and whoever announces them may be lying.
const MAX_KNOWN_PROVIDERS: usize = 256;

/// How often a provider is asked that fails, without having sent a piece in between.
const MAX_FAILURES: u32 = 3;

/// How often a provider is asked that is busy, or closes the stream at once as one with too much to do does, without having
/// sent a piece in between.
const MAX_BUSY: u32 = 10;

/// The longest time that a busy provider can tell us to wait.
const MAX_PAUSE: Duration = Duration::from_secs(10);

pub(super) type Providers = Pin<Box<dyn Stream<Item = BlobProvider> + Send>>;
pub(super) type Observer = Arc<dyn Fn(FetchEvent) + Send + Sync>;

/// Means of a fetcher that all of its downloads share.
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
    wanted: FetchRequest,
    deadline: Instant,
    observe: Observer,
    /// `None`: there will be no more.
    providers: Option<Providers>,
    /// All that were ever named, and how it went with them.
    known: HashMap<PeerId, ProviderState>,
    /// Those that wait, and until when at least.
    waiting: Vec<(Instant, BlobProvider)>,
    working: HashMap<PeerId, ActiveProvider>,
    workers: FuturesUnordered<BoxFuture<'static, (PeerId, Result<(), Failure>)>>,
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
    /// What it has sent that was of use, if anything.
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
    orders: Sender<PieceRequest>,
    is_ready: bool,
    pieces: HashSet<u32>,
}

/// What is being filled, once the size is known.
struct File {
    size: u64,
    pieces: Pieces,
    partial: Arc<Partial>,
    /// Whether it was begun anew because what was there was wrong.
    is_second: bool,
}

impl<'a> Download<'a> {
    pub(super) fn new(
        context: &'a FetchContext,
        wanted: FetchRequest,
        deadline: Instant,
        providers: Providers,
        observe: Observer,
    ) -> Self {
        Self {
            context,
            wanted,
            deadline,
            observe,
            providers: Some(providers),
            known: HashMap::new(),
            waiting: Vec::new(),
            working: HashMap::new(),
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
            self.add_those_known();
            let now = self.context.clock.now();
            self.start_workers(now);
            self.give_orders(now);
            if self.is_complete()
                && let Some(size) = self.finish().await?
            {
                return Ok(size);
            }
            let give_up_at = self.deadline.min(self.progress_at + self.context.config.stall_timeout);
            if now >= give_up_at {
                self.report_late(now);
                return Err(FetchError::Timeout);
            }
            let is_over = self.workers.is_empty() && self.waiting.is_empty() && self.providers.is_none();
            // A worker may have told something just before it ended.
            if is_over && self.events.1.is_empty() {
                return Err(self.nobody_left());
            }
            let wake_at = self.next_retry().into_iter().chain(self.next_race()).fold(give_up_at, Instant::min);
            match alarm.until(wake_at, self.next()).await {
                Err(_) => {}
                Ok(Happened::Provider(provider)) => self.add(provider),
                Ok(Happened::NoMoreProviders) => self.providers = None,
                Ok(Happened::Event(peer, event)) => self.on_event(peer, event).await?,
                Ok(Happened::WorkerEnded(peer, result)) => self.on_end(peer, result)?,
            }
        }
    }

    async fn next(&mut self) -> Happened {
        let mut no_more = futures::stream::pending();
        let providers: &mut (dyn Stream<Item = BlobProvider> + Unpin + Send) = match &mut self.providers {
            Some(providers) => providers,
            None => &mut no_more,
        };
        let mut providers = providers.fuse();
        futures::select_biased! {
            event = self.events.1.recv().fuse() => match event {
                Ok((peer, event)) => Happened::Event(peer, event),
                // It cannot be: one sender is here.
                Err(_) => Happened::NoMoreProviders,
            },
            ended = self.workers.select_next_some() => Happened::WorkerEnded(ended.0, ended.1),
            provider = providers.next() => match provider {
                Some(provider) => Happened::Provider(provider),
                None => Happened::NoMoreProviders,
            },
        }
    }

    /// Takes those that need not be waited for, so that the best of them is asked first.
    fn add_those_known(&mut self) {
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
        if self.known.len() >= MAX_KNOWN_PROVIDERS {
            self.providers = None;
        } else if !self.known.contains_key(&provider.peer) {
            let BlobProvider { peer, preference } = provider;
            self.known.insert(
                peer,
                ProviderState { preference, failures: 0, busy: 0, bytes: None, asked_at: now, last: None },
            );
            self.waiting.push((now, provider));
        }
    }

    /// The best of those that wait are asked, as many as may be at a time.
    fn start_workers(&mut self, now: Instant) {
        let config = &self.context.config;
        while self.working.len() < config.providers.max(1) {
            let due = self.waiting.iter().enumerate().filter(|(_, (at, _))| *at <= now);
            let Some((best, _)) = due.max_by_key(|(at, (_, provider))| (provider.preference, std::cmp::Reverse(*at)))
            else {
                return;
            };
            let (_, BlobProvider { peer, .. }) = self.waiting.swap_remove(best);
            if let Some(known) = self.known.get_mut(&peer)
                && known.bytes.is_none()
            {
                known.asked_at = now;
            }
            let (orders, inbox) = async_channel::bounded(config.pipeline.max(1));
            let worker = Worker {
                peer,
                id: self.wanted.id,
                control: self.context.control.clone(),
                clock: self.context.clock.clone(),
                config: *config,
                dial_lock: self.context.dial_lock.clone(),
                size: self.size.clone(),
                orders: inbox,
                events: self.events.0.clone(),
            };
            self.working.insert(peer, ActiveProvider { orders, is_ready: false, pieces: HashSet::new() });
            self.workers.push(async move { (peer, worker.run().await) }.boxed());
        }
    }

    /// A piece for each in turn, so that all have something to do while there is enough.
    fn give_orders(&mut self, now: Instant) {
        let config = &self.context.config;
        let Some(File { pieces, partial, .. }) = &mut self.file else { return };
        for ahead in 0..config.pipeline.max(1) {
            for (peer, working) in &mut self.working {
                if !working.is_ready || working.pieces.len() > ahead {
                    continue;
                }
                let piece = pieces.take(*peer, now).or_else(|| {
                    let is_idle = working.pieces.is_empty();
                    is_idle.then(|| pieces.race(*peer, now, config.hedge_after)).flatten()
                });
                let Some(piece) = piece else { continue };
                // There is room for as many as are given out.
                if working.orders.try_send(PieceRequest { piece, into: partial.clone() }).is_ok() {
                    working.pieces.insert(piece);
                } else {
                    pieces.give_back(piece, peer);
                }
            }
        }
    }

    async fn on_event(&mut self, peer: PeerId, event: Event) -> Result<(), FetchError> {
        match event {
            Event::Ready => {
                if let Some(working) = self.working.get_mut(&peer) {
                    working.is_ready = true;
                }
            }
            Event::Size { size, last_group } => {
                self.wanted.check_size(size)?;
                if self.size.set(size).is_ok() {
                    self.made_progress();
                    self.open(size, false).await?;
                    self.known_mut(peer, |known| known.add(len(&last_group.data)));
                    if groups_in(size) == 1 {
                        self.write_only_group(last_group).await?;
                    }
                }
            }
            Event::Piece { piece, bytes } => {
                if let Some(working) = self.working.get_mut(&peer) {
                    working.pieces.remove(&piece);
                }
                self.known_mut(peer, |known| {
                    known.add(bytes);
                    (known.failures, known.busy) = (0, 0);
                });
                let is_news = self.file.as_mut().is_some_and(|file| file.pieces.done(piece));
                if is_news {
                    self.made_progress();
                    self.tell_progress();
                }
            }
        }
        Ok(())
    }

    fn on_end(&mut self, peer: PeerId, result: Result<(), Failure>) -> Result<(), FetchError> {
        self.working.remove(&peer);
        if let Some(file) = &mut self.file {
            file.pieces.give_all_back(&peer);
        }
        let now = self.context.clock.now();
        let retry_after = self.context.config.retry_after;
        let Some(known) = self.known.get_mut(&peer) else { return Ok(()) };
        let (outcome, pause) = match result {
            Ok(()) => return Ok(()),
            Err(Failure::Store(error)) => return Err(error.into()),
            Err(Failure::BadData) => (ProviderOutcome::BadData, None),
            Err(Failure::NotFound) => (ProviderOutcome::NotFound, None),
            Err(Failure::Unwilling) => (ProviderOutcome::Failed, None),
            Err(Failure::Broken | Failure::Ended) => {
                known.failures += 1;
                let pause = retry_after.saturating_mul(known.failures);
                (ProviderOutcome::Failed, (known.failures < MAX_FAILURES).then_some(pause))
            }
            Err(Failure::Refused) => {
                known.busy += 1;
                let pause = retry_after.saturating_mul(known.busy).min(MAX_PAUSE);
                // Nothing against the peer, unless it does nothing else.
                if known.busy < MAX_BUSY {
                    (ProviderOutcome::Busy, Some(pause))
                } else {
                    (ProviderOutcome::Failed, None)
                }
            }
            Err(Failure::Busy(after)) => {
                known.busy += 1;
                let pause = after.clamp(retry_after.min(MAX_PAUSE), MAX_PAUSE);
                (ProviderOutcome::Busy, (known.busy < MAX_BUSY).then_some(pause))
            }
        };
        known.last = Some(outcome);
        if let Some(pause) = pause {
            self.waiting.push((now + pause, BlobProvider { peer, preference: known.preference }));
        }
        (self.observe)(FetchEvent::Report(ProviderReport { peer, outcome }));
        Ok(())
    }

    /// All pieces are there. `None`: they were not what they were noted to be, and are fetched anew.
    async fn finish(&mut self) -> Result<Option<u64>, FetchError> {
        let Some(File { size, partial, is_second, .. }) = &self.file else { return Ok(None) };
        let (size, partial, is_second) = (*size, partial.clone(), *is_second);
        let (store, id) = (self.context.store.clone(), self.wanted.id);
        match unblock(move || partial.finish(&store, &id)).await {
            Ok(()) => {
                self.report_successes();
                Ok(Some(size))
            }
            // Each piece was right when it was written: it is the disk, or what an earlier time has left.
            Err(BlobError::Damaged(_)) if !is_second => {
                self.working.clear();
                self.workers.clear();
                // What they have told is of the file that is gone.
                self.events = events();
                self.restart_workers();
                self.open(size, true).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn open(&mut self, size: u64, is_second: bool) -> Result<(), FetchError> {
        let (store, id, piece) = (self.context.store.clone(), self.wanted.id, self.context.config.piece_bytes());
        let (partial, done) = unblock(move || Partial::open(&store, &id, size, piece)).await?;
        let count = u32::try_from(size.div_ceil(piece).max(1)).unwrap_or(u32::MAX);
        let pieces = Pieces::new(count, &done);
        self.file = Some(File { size, pieces, partial: Arc::new(partial), is_second });
        self.tell_progress();
        Ok(())
    }

    /// The proof of the size was all there is.
    async fn write_only_group(&mut self, Slice { data, proof }: Slice) -> Result<(), FetchError> {
        let Some(File { partial, pieces, .. }) = &mut self.file else { return Ok(()) };
        let partial = partial.clone();
        unblock(move || partial.write(0, 0, &data, &proof)).await?;
        *pieces = Pieces::new(0, &std::collections::BTreeSet::new());
        self.tell_progress();
        Ok(())
    }

    /// Those that were at work are asked again from the beginning.
    fn restart_workers(&mut self) {
        let now = self.context.clock.now();
        let again = self.known.iter().filter(|(peer, known)| {
            !matches!(known.last, Some(ProviderOutcome::BadData | ProviderOutcome::NotFound))
                && !self.waiting.iter().any(|(_, waiting)| waiting.peer == **peer)
        });
        let again: Vec<_> =
            again.map(|(peer, known)| (now, BlobProvider { peer: *peer, preference: known.preference })).collect();
        self.waiting.extend(again);
    }

    fn report_successes(&self) {
        let now = self.context.clock.now();
        for (peer, known) in &self.known {
            if let Some(bytes) = known.bytes
                && known.last != Some(ProviderOutcome::BadData)
            {
                let time = now.saturating_duration_since(known.asked_at);
                let outcome = ProviderOutcome::Success { bytes, time };
                (self.observe)(FetchEvent::Report(ProviderReport { peer: *peer, outcome }));
            }
        }
    }

    /// Those who keep pieces back are why it takes too long.
    fn report_late(&self, now: Instant) {
        let Some(File { pieces, .. }) = &self.file else { return };
        for peer in pieces.late(now, self.context.config.hedge_after) {
            (self.observe)(FetchEvent::Report(ProviderReport { peer, outcome: ProviderOutcome::Failed }));
        }
    }

    fn nobody_left(&self) -> FetchError {
        if self.known.is_empty() {
            return FetchError::NoProvider;
        }
        let ended = |(peer, known): (&PeerId, &ProviderState)| ProviderReport {
            peer: *peer,
            outcome: known.last.unwrap_or(ProviderOutcome::Failed),
        };
        FetchError::AllFailed { reports: self.known.iter().map(ended).collect() }
    }

    fn known_mut(&mut self, peer: PeerId, change: impl FnOnce(&mut ProviderState)) {
        if let Some(known) = self.known.get_mut(&peer) {
            change(known);
        }
    }

    fn made_progress(&mut self) {
        self.progress_at = self.context.clock.now();
    }

    fn tell_progress(&self) {
        let Some(File { size, pieces, .. }) = &self.file else { return };
        let verified = u64::from(pieces.done_count()).saturating_mul(self.context.config.piece_bytes());
        let verified = if pieces.is_complete() { *size } else { verified.min(*size) };
        (self.observe)(FetchEvent::Progress { verified, total: *size });
    }

    fn is_complete(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.pieces.is_complete())
    }

    fn next_retry(&self) -> Option<Instant> {
        let has_room = self.working.len() < self.context.config.providers.max(1);
        self.waiting.iter().map(|(at, _)| *at).min().filter(|_| has_room)
    }

    /// When somebody who has nothing to do may take what another is slow with.
    fn next_race(&self) -> Option<Instant> {
        let is_idle = |working: &ActiveProvider| working.is_ready && working.pieces.is_empty();
        let late = self.file.as_ref()?.pieces.next_late(self.context.clock.now(), self.context.config.hedge_after);
        late.filter(|_| self.working.values().any(is_idle))
    }
}

type Events = (Sender<(PeerId, Event)>, Receiver<(PeerId, Event)>);

/// Workers wait for room.
fn events() -> Events {
    async_channel::bounded(16)
}

enum Happened {
    Provider(BlobProvider),
    NoMoreProviders,
    Event(PeerId, Event),
    WorkerEnded(PeerId, Result<(), Failure>),
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
