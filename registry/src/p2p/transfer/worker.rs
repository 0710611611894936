//! One provider of a download: a stream on which pieces are asked for and received.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_channel::{Receiver, Sender};
use blocking::{Task, unblock};
use futures::{
    AsyncReadExt, AsyncWriteExt,
    future::join,
    io::{BufReader, ReadHalf, WriteHalf},
};
use kadence::{Alarm, Clock, ElapsedError};
use libp2p::{PeerId, Stream};
use libp2p_stream::Control;

use super::{
    config::FetchConfig,
    proof::{Slice, SliceError, receive},
    wire::{BLOB_PROTOCOL, HEAD_LEN, Head, LAST, MAX_BLOB_LEN, Request},
};
use crate::{
    ContentId,
    blob::{BlobError, GROUP_BYTES, Partial, groups_in},
};

/// Hashes are not read from the stream one by one; groups, which are larger, are read to where they go.
const BUFFER: usize = 4 << 10;

/// How long it takes at most until the swarm has noticed that it is to dial somebody.
const DIAL_PAUSE: Duration = Duration::from_millis(20);

/// What a worker is told: which piece to fetch, and where it goes.
#[derive(Debug)]
pub(super) struct PieceRequest {
    pub(super) piece: u32,
    pub(super) into: Arc<Partial>,
}

/// What a worker tells.
#[derive(Debug)]
pub(super) enum WorkerEvent {
    /// The size is proven, by the last group, which is here.
    Size { size: u64, last_group: Slice },
    /// It knows the size and can be given orders.
    Ready,
    /// The piece was verified and written.
    Piece { piece: u32, bytes: u64 },
}

/// Why a worker has ended before it was told to.
#[derive(Debug)]
pub(super) enum WorkerError {
    /// No stream could be opened, or it has failed, ended, or become too slow.
    Broken,
    /// The stream has ended.
    Ended,
    /// The same before anything has come: the peer had no room for it, and could not even say so.
    RefusedStream,
    NotFound,
    Busy(Duration),
    /// It does not speak the protocol, or will not.
    Unsupported,
    BadData,
    Store(BlobError),
}

impl From<ElapsedError> for WorkerError {
    fn from(_: ElapsedError) -> Self {
        Self::Broken
    }
}

impl From<io::Error> for WorkerError {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

impl From<SliceError> for WorkerError {
    fn from(error: SliceError) -> Self {
        match error {
            SliceError::Wrong => Self::BadData,
            SliceError::Broken | SliceError::Slow => Self::Broken,
        }
    }
}

/// Held while a stream is opened, until it is open or [`DIAL_PAUSE`] has passed: of several peers that are to be dialled at
/// the same moment, the stream behaviour keeps one and forgets the others.
pub(super) type DialLock = Arc<futures::lock::Mutex<()>>;

pub(super) struct Worker {
    pub(super) peer: PeerId,
    pub(super) id: ContentId,
    pub(super) control: Control,
    pub(super) clock: Clock,
    pub(super) config: FetchConfig,
    pub(super) dial_lock: DialLock,
    /// The proven size, once somebody has proven it.
    pub(super) size: Arc<OnceLock<u64>>,
    pub(super) requests: Receiver<PieceRequest>,
    pub(super) events: Sender<(PeerId, WorkerEvent)>,
}

impl Worker {
    /// Until there are no more orders, or it does not go on.
    pub(super) async fn run(mut self) -> Result<(), WorkerError> {
        let mut link = self.open().await?;
        match self.work(&mut link).await {
            Err(WorkerError::Ended) if !link.has_answered => Err(WorkerError::RefusedStream),
            Err(WorkerError::Ended) => Err(WorkerError::Broken),
            result => result,
        }
    }

    async fn work(&self, link: &mut Link) -> Result<(), WorkerError> {
        let size = match self.size.get() {
            Some(size) => *size,
            None => self.prove_size(link).await?,
        };
        if self.events.send((self.peer, WorkerEvent::Ready)).await.is_err() {
            return Ok(());
        }
        let mut asked: VecDeque<PieceRequest> = VecDeque::new();
        // A piece is written while the next one comes.
        let mut writing: Option<Writing> = None;
        loop {
            let request = if asked.is_empty() {
                if !self.written(writing.take()).await? {
                    return Ok(());
                }
                match self.requests.recv().await {
                    Ok(request) => Some(request),
                    Err(_) => return Ok(()),
                }
            } else {
                self.requests.try_recv().ok()
            };
            if let Some(request) = request {
                let groups = self.groups(request.piece, size);
                let count = u32::try_from(groups.end.saturating_sub(groups.start)).unwrap_or(u32::MAX);
                link.ask(&Request { id: self.id, first: groups.start, count }, &self.config).await?;
                asked.push_back(request);
                continue;
            }
            let Some(PieceRequest { piece, into }) = asked.pop_front() else { continue };
            let received = link.receive(&self.id, Some(size), |_| self.groups(piece, size), &self.config);
            // Whatever comes after it, or does not, what was received counts, and at once.
            let (is_open, received) = join(self.written(writing.take()), received).await;
            if !is_open? {
                return Ok(());
            }
            let Slice { data, proof } = received?.1;
            let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let at = u64::from(piece).saturating_mul(self.config.piece_bytes());
            let done = unblock(move || into.write(piece, at, &data, &proof));
            writing = Some(Writing { piece, bytes, done });
        }
    }

    /// Tells of a piece once it is written. `false`: nobody listens any more.
    async fn written(&self, writing: Option<Writing>) -> Result<bool, WorkerError> {
        let Some(Writing { piece, bytes, done }) = writing else { return Ok(true) };
        done.await.map_err(WorkerError::Store)?;
        Ok(self.events.send((self.peer, WorkerEvent::Piece { piece, bytes })).await.is_ok())
    }

    async fn open(&mut self) -> Result<Link, WorkerError> {
        let mut alarm = self.clock.alarm();
        let deadline = self.clock.now() + self.config.open_timeout;
        let dialling = alarm.until(deadline, self.dial_lock.lock()).await?;
        let mut opening = pin!(self.control.open_stream(self.peer, BLOB_PROTOCOL));
        let early = alarm.within(DIAL_PAUSE, opening.as_mut()).await;
        drop(dialling);
        let opened = match early {
            Ok(opened) => opened,
            Err(ElapsedError) => alarm.until(deadline, opening).await?,
        };
        let stream = opened.map_err(|error| match error {
            libp2p_stream::OpenStreamError::UnsupportedProtocol(_) => WorkerError::Unsupported,
            _ => WorkerError::Broken,
        })?;
        let (read, write) = stream.split();
        let whole = self.clock.alarm();
        Ok(Link { read: BufReader::with_capacity(BUFFER, read), write, alarm, whole, has_answered: false })
    }

    /// Fetches the last group, which no other size has a place for.
    async fn prove_size(&self, link: &mut Link) -> Result<u64, WorkerError> {
        link.ask(&Request { id: self.id, first: LAST, count: 1 }, &self.config).await?;
        let last = |size| {
            let groups = groups_in(size);
            groups.saturating_sub(1)..groups
        };
        let (size, last_group) = link.receive(&self.id, None, last, &self.config).await?;
        // An error: the download has ended.
        let _gone = self.events.send((self.peer, WorkerEvent::Size { size, last_group })).await;
        Ok(size)
    }

    fn groups(&self, piece: u32, size: u64) -> Range<u64> {
        let per_piece = self.config.piece_bytes() / GROUP_BYTES;
        let first = u64::from(piece).saturating_mul(per_piece);
        first..first.saturating_add(per_piece).min(groups_in(size))
    }
}

struct Writing {
    piece: u32,
    bytes: u64,
    done: Task<Result<(), BlobError>>,
}

struct Link {
    read: BufReader<ReadHalf<Stream>>,
    write: WriteHalf<Stream>,
    alarm: Alarm,
    /// Every step in time is not enough: a piece is many steps.
    whole: Alarm,
    has_answered: bool,
}

impl Link {
    async fn ask(&mut self, request: &Request, config: &FetchConfig) -> Result<(), WorkerError> {
        let request = request.encode();
        let write = async {
            self.write.write_all(&request).await?;
            self.write.flush().await
        };
        Ok(self.alarm.within(config.step_timeout, write).await??)
    }

    /// A response, whose groups depend on the size that it says.
    async fn receive(
        &mut self,
        id: &ContentId,
        size: Option<u64>,
        groups: impl Fn(u64) -> Range<u64>,
        config: &FetchConfig,
    ) -> Result<(u64, Slice), WorkerError> {
        let mut head = [0; HEAD_LEN];
        self.alarm.within(config.step_timeout, self.read.read_exact(&mut head)).await??;
        self.has_answered = true;
        let claimed = match Head::decode(&head) {
            Some(Head::Have(size)) => size,
            Some(Head::NotFound) => return Err(WorkerError::NotFound),
            Some(Head::Busy(after)) => return Err(WorkerError::Busy(after)),
            Some(Head::Invalid) => return Err(WorkerError::Unsupported),
            None => return Err(WorkerError::BadData),
        };
        if size.is_some_and(|size| size != claimed) || claimed > MAX_BLOB_LEN {
            return Err(WorkerError::BadData);
        }
        let groups = groups(claimed);
        let slice = receive(&mut self.read, &mut self.alarm, config.step_timeout, id, claimed, &groups);
        Ok((claimed, self.whole.within(config.piece_timeout, slice).await??))
    }
}
