//! One provider of a download: a stream on which pieces are asked for and received.

use std::{
    collections::VecDeque,
    ops::Range,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_channel::{Receiver, Sender};
use blocking::unblock;
use futures::{
    AsyncReadExt, AsyncWriteExt,
    io::{BufReader, ReadHalf, WriteHalf},
};
use libp2p::{PeerId, Stream};
use libp2p_stream::Control;

use super::{
    MAX_BLOB_BYTES, PROTOCOL,
    clock::{Alarm, Clock, Elapsed},
    fetcher::{FetchConfig, Gate},
    proof::{SliceError, receive},
    wire::{HEAD_LEN, Head, LAST, Request},
};
use crate::{
    ContentId,
    blob::{BlobError, GROUP_BYTES, Partial, groups_in},
};

/// Hashes are read in small parts, which the stream is not asked for one by one.
const BUFFER: usize = 32 << 10;

/// How long it takes at most until the swarm has noticed that it is to dial somebody.
const DIAL_PAUSE: Duration = Duration::from_millis(20);

/// What a worker is told: which piece to fetch, and where it goes.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) piece: u32,
    pub(super) into: Arc<Partial>,
}

/// What a worker tells.
#[derive(Debug)]
pub(super) enum Event {
    /// The size is proven, by the last group, which is here.
    Size { size: u64, last_group: Vec<u8> },
    /// It knows the size and can be given orders.
    Ready,
    /// The piece was verified and written.
    Piece { piece: u32, bytes: u64 },
}

/// Why a worker has ended before it was told to.
#[derive(Debug)]
pub(super) enum Failure {
    /// No stream could be opened, or it has failed, ended, or become too slow.
    Broken,
    NotFound,
    Busy(Duration),
    /// The stream was closed before anything came, which is also what becomes of one too many.
    TurnedAway,
    /// It does not speak the protocol, or will not.
    Unwilling,
    BadData,
    Store(BlobError),
}

impl From<Elapsed> for Failure {
    fn from(_: Elapsed) -> Self {
        Self::Broken
    }
}

impl From<SliceError> for Failure {
    fn from(error: SliceError) -> Self {
        match error {
            SliceError::Wrong => Self::BadData,
            SliceError::Broken | SliceError::Slow => Self::Broken,
        }
    }
}

pub(super) struct Worker {
    pub(super) peer: PeerId,
    pub(super) id: ContentId,
    pub(super) control: Control,
    pub(super) clock: Clock,
    pub(super) config: FetchConfig,
    pub(super) gate: Gate,
    /// The proven size, once somebody has proven it.
    pub(super) size: Arc<OnceLock<u64>>,
    pub(super) orders: Receiver<Order>,
    pub(super) events: Sender<(PeerId, Event)>,
}

impl Worker {
    /// Until there are no more orders, or it does not go on.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let mut link = self.open().await?;
        let size = match self.size.get() {
            Some(size) => *size,
            None => self.prove_size(&mut link).await?,
        };
        if self.events.send((self.peer, Event::Ready)).await.is_err() {
            return Ok(());
        }
        let mut asked: VecDeque<Order> = VecDeque::new();
        loop {
            let order = if asked.is_empty() {
                match self.orders.recv().await {
                    Ok(order) => Some(order),
                    Err(_) => return Ok(()),
                }
            } else {
                self.orders.try_recv().ok()
            };
            if let Some(order) = order {
                let groups = self.groups(order.piece, size);
                let count = u32::try_from(groups.end.saturating_sub(groups.start)).unwrap_or(u32::MAX);
                link.ask(&Request { id: self.id, first: groups.start, count }, &self.config).await?;
                asked.push_back(order);
                continue;
            }
            let Some(Order { piece, into }) = asked.pop_front() else { continue };
            let data = link.receive(&self.id, Some(size), |_| self.groups(piece, size), &self.config).await?.1;
            let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let at = u64::from(piece).saturating_mul(self.config.piece_bytes());
            unblock(move || into.write(piece, at, &data)).await.map_err(Failure::Store)?;
            if self.events.send((self.peer, Event::Piece { piece, bytes })).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn open(&mut self) -> Result<Link, Failure> {
        let mut alarm = self.clock.alarm();
        let deadline = self.clock.now() + self.config.open_timeout;
        let gate = alarm.until(deadline, self.gate.lock()).await?;
        let mut opening = pin!(self.control.open_stream(self.peer, PROTOCOL));
        let early = alarm.within(DIAL_PAUSE, opening.as_mut()).await;
        drop(gate);
        let opened = match early {
            Ok(opened) => opened,
            Err(Elapsed) => alarm.until(deadline, opening).await?,
        };
        let stream = opened.map_err(|error| match error {
            libp2p_stream::OpenStreamError::UnsupportedProtocol(_) => Failure::Unwilling,
            _ => Failure::Broken,
        })?;
        let (read, write) = stream.split();
        Ok(Link { read: BufReader::with_capacity(BUFFER, read), write, alarm, is_answered: false })
    }

    /// Fetches the last group, which no other size has a place for.
    async fn prove_size(&self, link: &mut Link) -> Result<u64, Failure> {
        link.ask(&Request { id: self.id, first: LAST, count: 1 }, &self.config).await?;
        let last = |size| {
            let groups = groups_in(size);
            groups.saturating_sub(1)..groups
        };
        let (size, last_group) = link.receive(&self.id, None, last, &self.config).await?;
        // An error: the download has ended.
        let _gone = self.events.send((self.peer, Event::Size { size, last_group })).await;
        Ok(size)
    }

    fn groups(&self, piece: u32, size: u64) -> Range<u64> {
        let per_piece = self.config.piece_bytes() / GROUP_BYTES;
        let first = u64::from(piece).saturating_mul(per_piece);
        first..first.saturating_add(per_piece).min(groups_in(size))
    }
}

struct Link {
    read: BufReader<ReadHalf<Stream>>,
    write: WriteHalf<Stream>,
    alarm: Alarm,
    /// Whether anything has come.
    is_answered: bool,
}

impl Link {
    fn closed(&self) -> Failure {
        if self.is_answered { Failure::Broken } else { Failure::TurnedAway }
    }

    async fn ask(&mut self, request: &Request, config: &FetchConfig) -> Result<(), Failure> {
        let request = request.encode();
        let write = async {
            self.write.write_all(&request).await?;
            self.write.flush().await
        };
        self.alarm.within(config.step_timeout, write).await?.map_err(|_| self.closed())
    }

    /// A response, whose groups depend on the size that it says.
    async fn receive(
        &mut self,
        id: &ContentId,
        size: Option<u64>,
        groups: impl Fn(u64) -> Range<u64>,
        config: &FetchConfig,
    ) -> Result<(u64, Vec<u8>), Failure> {
        let mut head = [0; HEAD_LEN];
        let read = self.alarm.within(config.step_timeout, self.read.read_exact(&mut head)).await?;
        read.map_err(|_| self.closed())?;
        self.is_answered = true;
        let claimed = match Head::decode(&head) {
            Some(Head::Have(size)) => size,
            Some(Head::NotFound) => return Err(Failure::NotFound),
            Some(Head::Busy(after)) => return Err(Failure::Busy(after)),
            Some(Head::Refused) => return Err(Failure::Unwilling),
            None => return Err(Failure::BadData),
        };
        if size.is_some_and(|size| size != claimed) || claimed > MAX_BLOB_BYTES {
            return Err(Failure::BadData);
        }
        // Every step in time is not enough: a piece is many steps.
        let mut whole = self.alarm.clock().alarm();
        let groups = groups(claimed);
        let slice = receive(&mut self.read, &mut self.alarm, config.step_timeout, id, claimed, &groups);
        Ok((claimed, whole.within(config.piece_timeout, slice).await??))
    }
}
