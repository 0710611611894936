//! Worker for one provider of a download: requests pieces on a stream, and verifies and writes them.

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
use kadence::{Alarm, Clock, ElapsedError, deadline_after};
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

/// Size of the read buffer: enough for many hash pairs. Groups are larger and are read without it.
const BUFFER: usize = 4 << 10;

/// Time after which the swarm has surely started to dial.
const DIAL_PAUSE: Duration = Duration::from_millis(20);

/// Piece to fetch, and the file to write it to.
#[derive(Debug)]
pub(super) struct PieceRequest {
    pub(super) piece: u32,
    pub(super) into: Arc<Partial>,
}

/// Event of a worker.
#[derive(Debug)]
pub(super) enum WorkerEvent {
    /// The size is proven, by the last group of the blob.
    Size { size: u64, last_group: Slice },
    /// The worker knows the size and takes requests.
    Ready,
    /// A piece is verified and written.
    Piece { piece: u32, bytes: u64 },
}

/// Reason why a worker ended early.
#[derive(Debug)]
pub(super) enum WorkerError {
    /// The stream could not be opened, failed, or was too slow.
    Broken,
    /// The peer closed the stream.
    Ended,
    /// The stream ended before its first response: the peer closed it, as an overloaded server does, or the connection
    /// was lost. Counts as busy.
    RefusedStream,
    NotFound,
    Busy(Duration),
    /// The peer does not speak the protocol, or calls our request invalid.
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

/// Held while a stream is opened, until it is open or [`DIAL_PAUSE`] has passed. The stream behaviour remembers only
/// one of several peers that are to be dialled at the same moment.
pub(super) type DialLock = Arc<futures::lock::Mutex<()>>;

pub(super) struct Worker {
    pub(super) peer: PeerId,
    pub(super) id: ContentId,
    pub(super) control: Control,
    pub(super) clock: Clock,
    pub(super) config: FetchConfig,
    pub(super) dial_lock: DialLock,
    /// Proven size of the blob, shared by all workers.
    pub(super) size: Arc<OnceLock<u64>>,
    pub(super) requests: Receiver<PieceRequest>,
    pub(super) events: Sender<(PeerId, WorkerEvent)>,
}

impl Worker {
    /// Runs until there are no more requests, or the provider fails.
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
        // A piece is written while the next one is received.
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
            // Count the previous piece at once, whether or not this one arrives.
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

    /// Sends the event of a piece once it is written. Returns `false` if the download has ended.
    async fn written(&self, writing: Option<Writing>) -> Result<bool, WorkerError> {
        let Some(Writing { piece, bytes, done }) = writing else { return Ok(true) };
        done.await.map_err(WorkerError::Store)?;
        Ok(self.events.send((self.peer, WorkerEvent::Piece { piece, bytes })).await.is_ok())
    }

    async fn open(&mut self) -> Result<Link, WorkerError> {
        let mut alarm = self.clock.alarm();
        let deadline = deadline_after(self.clock.now(), self.config.open_timeout);
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

    /// Fetches the last group of the blob, which proves the size.
    async fn prove_size(&self, link: &mut Link) -> Result<u64, WorkerError> {
        link.ask(&Request { id: self.id, first: LAST, count: 1 }, &self.config).await?;
        let last = |size| {
            let groups = groups_in(size);
            groups.saturating_sub(1)..groups
        };
        let (size, last_group) = link.receive(&self.id, None, last, &self.config).await?;
        // Fails if the download has ended.
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
    /// Limits a whole piece: many steps, each just in time, could take hours.
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

    /// Receives a response. The groups to expect depend on the size in its head.
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
