use std::{
    fmt,
    future::{Future, IntoFuture},
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_channel::TrySendError;
use futures::{
    FutureExt, Stream,
    future::{BoxFuture, FusedFuture},
    stream::FusedStream,
};
use kadence_core::{
    BootstrapAnswer, BootstrapError, BootstrapPhase, ClosestPeersAnswer, GetClosestPeersError, GetProvidersError,
    GetRecordError, Item, LocalCopy, Operation, Outcome, Policy, Priority, ProvideAnswer, ProvidersAnswer, PutAnswer,
    PutOptions, PutRecordError, Quorum, RecordAnswer, Request, RequestError, RequestId, RequestOptions, Retry,
    StartProvidingError,
};
use libp2p::{PeerId, kad::PeerRecord};

use crate::{
    Client, DriverClosedError,
    client::Message,
    response::{self, Letter, channel},
};

/// A request that is about to be made: await it for its answer, or read it as a [`stream`](Call::stream).
///
/// ```no_run
/// # async fn example(client: kadence::Client, key: kadence::libp2p::kad::RecordKey) {
/// use std::time::Duration;
///
/// match client.get_record(key).timeout(Duration::from_secs(5)).await {
///     Ok(answer) => println!("{} bytes", answer.value().len()),
///     Err(error) => println!("{error}"),
/// }
/// # }
/// ```
///
/// Dropping the future or the stream cancels the request at once.
#[must_use = "a call does nothing until it is awaited or read as a stream"]
pub struct Call<K> {
    client: Client,
    operation: Operation,
    options: RequestOptions,
    buffer: usize,
    kind: PhantomData<fn() -> K>,
}

/// What a call's stream yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<T, R> {
    /// The next item.
    Item(T),
    /// The reader was slower than the items came: so many are missing here. The end carries the whole answer.
    Lagged {
        /// How many items were skipped.
        skipped: u64,
    },
    /// How the request ended: always there, always last.
    End(R),
}

/// The operation of a [`Call`], which decides the types of its items and its end.
pub trait Kind: sealed::Sealed + 'static {
    /// What the stream yields before its end.
    type Item: Send + 'static;
    /// What the call answers.
    type Answer: Send + 'static;
    /// Why it failed.
    type Error: From<RequestError> + Send + 'static;

    #[doc(hidden)]
    fn item(item: Item) -> Option<Self::Item>;
    #[doc(hidden)]
    fn result(outcome: Outcome) -> Option<Result<Self::Answer, Self::Error>>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $item:ty, $of_item:expr => $answer:ty, $error:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $kind {}

        impl sealed::Sealed for $kind {}

        impl Kind for $kind {
            type Item = $item;
            type Answer = $answer;
            type Error = $error;

            fn item(item: Item) -> Option<Self::Item> {
                let of_item: fn(Item) -> Option<Self::Item> = $of_item;
                of_item(item)
            }

            fn result(outcome: Outcome) -> Option<Result<Self::Answer, Self::Error>> {
                match outcome {
                    Outcome::$kind(result) => Some(result),
                    _ => None,
                }
            }
        }
    )*};
}

kinds! {
    /// Of [`Client::get_record`]: items are records with the peer that each came from.
    GetRecord: Arc<PeerRecord>, |item| match item {
        Item::Record(record) => Some(record),
        Item::Provider(_) | Item::BootstrapPhase(_) => None,
    } => RecordAnswer, GetRecordError;
    /// Of [`Client::put_record`]: there are no items.
    PutRecord: NoItem, |_| None => PutAnswer, PutRecordError;
    /// Of [`Client::put_record_to`]: there are no items.
    PutRecordTo: NoItem, |_| None => PutAnswer, PutRecordError;
    /// Of [`Client::get_providers`]: items are providers, each once.
    GetProviders: PeerId, |item| match item {
        Item::Provider(provider) => Some(provider),
        Item::Record(_) | Item::BootstrapPhase(_) => None,
    } => ProvidersAnswer, GetProvidersError;
    /// Of [`Client::start_providing`]: there are no items.
    StartProviding: NoItem, |_| None => ProvideAnswer, StartProvidingError;
    /// Of [`Client::get_closest_peers`]: there are no items.
    GetClosestPeers: NoItem, |_| None => ClosestPeersAnswer, GetClosestPeersError;
    /// Of [`Client::bootstrap`]: an item for each lookup.
    Bootstrap: BootstrapPhase, |item| match item {
        Item::BootstrapPhase(phase) => Some(phase),
        Item::Record(_) | Item::Provider(_) => None,
    } => BootstrapAnswer, BootstrapError;
}

/// The item type of operations that have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoItem {}

impl<K> Call<K> {
    pub(crate) fn new(client: Client, operation: Operation, buffer: usize) -> Self {
        Self { client, operation, options: RequestOptions::default(), buffer, kind: PhantomData }
    }

    /// Ends the call after this time at the latest, with what was found until then. It counts from the moment the
    /// driver has taken the call, and time spent waiting for a slot counts.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Who goes first when calls wait for a slot. [`Priority::Normal`] by default.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Tries again what failed and may not fail another time, within the timeout. Never by default.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = Some(retry);
        self
    }
}

impl Call<GetRecord> {
    /// Satisfied by exactly `limit` records from different peers, or by fewer if there are no more. Zero is refused.
    pub fn limit(self, limit: usize) -> Self {
        self.policy(Policy::Limit(limit))
    }

    /// Every record that the lookup comes by.
    pub fn all(self) -> Self {
        self.policy(Policy::All)
    }

    /// Ends when enough sources hold exactly the same bytes; the local store is one source. Takes a number or a
    /// [`Quorum`], of which `Majority` and `All` are those of [`REPLICATION_FACTOR`](crate::REPLICATION_FACTOR). Zero is
    /// invalid.
    pub fn quorum(self, quorum: impl Into<Quorum>) -> Self {
        self.policy(Policy::Quorum(quorum.into()))
    }

    /// Waits for the end of the lookup, and returns the record that the validator of the key's namespace prefers to all
    /// others. Invalid without a validator
    /// ([`TrackerConfig::validators`](kadence_core::TrackerConfig::validators)).
    pub fn best(self) -> Self {
        self.policy(Policy::Best { agree: None })
    }

    /// Returns the best record, as [`best`](Self::best) does, but ends the lookup as soon as a quorum of sources holds the
    /// best record found so far. If the lookup ends with fewer, the best record is still the answer. Zero is invalid.
    pub fn best_with_quorum(self, quorum: impl Into<Quorum>) -> Self {
        self.policy(Policy::Best { agree: Some(quorum.into()) })
    }

    /// Asks the network even if an answer was kept ([`Cache`](kadence_core::Cache), off by default).
    pub fn fresh(mut self) -> Self {
        self.options.fresh = true;
        self
    }
}

impl Call<GetProviders> {
    /// Satisfied by exactly `limit` providers, or by fewer if there are no more. Zero is refused.
    pub fn limit(self, limit: usize) -> Self {
        self.policy(Policy::Limit(limit))
    }

    /// Satisfied by the first provider.
    pub fn first(self) -> Self {
        self.policy(Policy::First)
    }

    /// Asks the network even if an answer was kept ([`Cache`](kadence_core::Cache), off by default).
    pub fn fresh(mut self) -> Self {
        self.options.fresh = true;
        self
    }
}

impl Call<PutRecord> {
    /// Lowers a quorum of more peers than are found to as many as are found, so that a small network can meet it.
    pub fn clamp_quorum(self) -> Self {
        self.put_options(|options| options.clamp_quorum = true)
    }

    /// When the record goes into the local store: [`LocalCopy::First`] keeps it there, and republished, whatever becomes
    /// of the put.
    pub fn local_copy(self, when: LocalCopy) -> Self {
        self.put_options(|options| options.local_copy = when)
    }

    /// Succeeds only if `n` peers, when they are asked, give back the record with exactly these bytes, and as soon as they
    /// have. That takes a lookup more.
    pub fn verify(self, n: usize) -> Self {
        self.put_options(|options| options.verify = n)
    }

    fn put_options(mut self, change: impl FnOnce(&mut PutOptions)) -> Self {
        if let Operation::PutRecord { record: _, quorum: _, options } = &mut self.operation {
            change(options);
        }
        self
    }

    /// Number of the peers *found* that must acknowledge the record: a number or a [`Quorum`], of which `Majority` and
    /// `All` are those of the peers found. A number is exact: if fewer peers are found, nothing is sent, and the call
    /// fails. Zero is invalid.
    pub fn quorum(self, quorum: impl Into<Quorum>) -> Self {
        self.with_quorum(quorum.into())
    }
}

impl Call<PutRecordTo> {
    /// Number of the named peers that must acknowledge the record: a number or a [`Quorum`], of which `Majority` and `All`
    /// are those of the named peers. Zero is invalid.
    pub fn quorum(self, quorum: impl Into<Quorum>) -> Self {
        self.with_quorum(quorum.into())
    }
}

impl Call<GetClosestPeers> {
    /// Looks for peers that a lookup misses where some are silent: a second lookup begins at the farthest peer that the first
    /// has found, and the answer is the closest of both. It takes about twice the time and the requests; where the time is
    /// up, or the second lookup fails, there is what the first has found.
    pub fn thorough(mut self) -> Self {
        if let Operation::GetClosestPeers { target: _, thorough } = &mut self.operation {
            *thorough = true;
        }
        self
    }
}

impl<K> Call<K> {
    fn policy(mut self, wanted: Policy) -> Self {
        if let Operation::GetRecord { key: _, policy } | Operation::GetProviders { key: _, policy } =
            &mut self.operation
        {
            *policy = wanted;
        }
        self
    }

    fn with_quorum(mut self, wanted: Quorum) -> Self {
        if let Operation::PutRecord { record: _, quorum, options: _ }
        | Operation::PutRecordTo { record: _, peers: _, quorum } = &mut self.operation
        {
            *quorum = wanted;
        }
        self
    }
}

impl<K: Kind> Call<K> {
    /// Reads the items as they come, and then the end.
    pub fn stream(self) -> CallStream<K> {
        self.start(true)
    }

    /// How many items the stream holds while nobody reads it.
    pub fn buffer(mut self, items: usize) -> Self {
        self.buffer = items;
        self
    }

    fn start(self, streaming: bool) -> CallStream<K> {
        let Self { client, operation, mut options, buffer, kind } = self;
        options.streaming = streaming;
        CallStream { state: State::Unsent { client, operation, options, buffer }, kind }
    }
}

impl<K: Kind> IntoFuture for Call<K> {
    type Output = Result<K::Answer, K::Error>;
    type IntoFuture = CallFuture<K>;

    fn into_future(self) -> CallFuture<K> {
        CallFuture { stream: self.start(false) }
    }
}

impl<K> fmt::Debug for Call<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("operation", &self.operation)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A running call. Dropping it cancels the request.
#[must_use = "a call does nothing until it is polled"]
pub struct CallFuture<K> {
    stream: CallStream<K>,
}

impl<K: Kind> Future for CallFuture<K> {
    type Output = Result<K::Answer, K::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Update::Item(_) | Update::Lagged { skipped: _ }) => {}
                Some(Update::End(result)) => return Poll::Ready(result),
                // Polled after its end.
                None => return Poll::Pending,
            }
        }
    }
}

impl<K: Kind> FusedFuture for CallFuture<K> {
    fn is_terminated(&self) -> bool {
        self.stream.is_terminated()
    }
}

/// A running call, item by item. Dropping it cancels the request.
#[must_use = "a stream does nothing until it is polled"]
pub struct CallStream<K> {
    state: State,
    kind: PhantomData<fn() -> K>,
}

/// ```text
///   Unsent ──► Sending (only while the channel is full) ──► Waiting ──► Over
/// ```
enum State {
    Unsent { client: Client, operation: Operation, options: RequestOptions, buffer: usize },
    Sending { sending: BoxFuture<'static, Result<(), DriverClosedError>>, answer: Answer },
    Waiting { answer: Answer },
    Over,
}

/// The receiving end of a call, which cancels the request if it is dropped between its sending and its end.
struct Answer {
    client: Client,
    id: RequestId,
    letters: response::Receiver<Item, Outcome>,
    /// Whether the driver has, or will have, the request. A call that still waits for room in the channel is only
    /// dropped: the cancels are then bounded by the calls that were sent.
    live: bool,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.live {
            // In this order: a driver that takes the cancel first, and finds nothing to cancel, must find the mailbox
            // closed when it comes to the request.
            self.letters.close();
            self.client.cancel(self.id);
        }
    }
}

impl<K: Kind> Stream for CallStream<K> {
    type Item = Update<K::Item, Result<K::Answer, K::Error>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Unsent { client, operation, options, buffer } => {
                    self.state = send(client, operation, options, buffer);
                }
                State::Sending { mut sending, mut answer } => match sending.poll_unpin(cx) {
                    Poll::Ready(Ok(())) => {
                        answer.live = true;
                        self.state = State::Waiting { answer };
                    }
                    // The reply was dropped with the message, so the letters say the same.
                    Poll::Ready(Err(DriverClosedError)) => self.state = State::Waiting { answer },
                    Poll::Pending => {
                        self.state = State::Sending { sending, answer };
                        return Poll::Pending;
                    }
                },
                State::Waiting { mut answer } => {
                    let Poll::Ready(letter) = answer.letters.poll_next(cx) else {
                        self.state = State::Waiting { answer };
                        return Poll::Pending;
                    };
                    let result = match letter {
                        Letter::Item(item) => {
                            self.state = State::Waiting { answer };
                            if let Some(item) = K::item(item) {
                                return Poll::Ready(Some(Update::Item(item)));
                            }
                            continue;
                        }
                        Letter::Lagged(skipped) => {
                            self.state = State::Waiting { answer };
                            return Poll::Ready(Some(Update::Lagged { skipped }));
                        }
                        Letter::End(outcome) => K::result(outcome),
                        Letter::Gone => None,
                    };
                    answer.live = false;
                    let result = result.unwrap_or_else(|| Err(RequestError::Shutdown.into()));
                    return Poll::Ready(Some(Update::End(result)));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }
}

impl<K: Kind> FusedStream for CallStream<K> {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Over)
    }
}

impl<K> fmt::Debug for CallFuture<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").field("stream", &self.stream).finish()
    }
}

impl<K> fmt::Debug for CallStream<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, id) = match &self.state {
            State::Unsent { .. } => ("unsent", None),
            State::Sending { sending: _, answer } => ("sending", Some(answer.id)),
            State::Waiting { answer } => ("waiting", Some(answer.id)),
            State::Over => ("over", None),
        };
        f.debug_struct("CallStream").field("state", &state).field("id", &id).finish()
    }
}

fn send(client: Client, operation: Operation, options: RequestOptions, buffer: usize) -> State {
    let id = client.next_id();
    let (reply, letters) = channel(if options.streaming { buffer } else { 0 });
    let message = Message::Request { request: Request { id, operation, options }, reply };
    let mut answer = Answer { client: client.clone(), id, letters, live: false };
    match client.try_send(message) {
        Ok(()) => {
            answer.live = true;
            State::Waiting { answer }
        }
        Err(TrySendError::Full(message)) => State::Sending { sending: client.send(message).boxed(), answer },
        // The reply is dropped with the message: the letters say that the driver is gone.
        Err(TrySendError::Closed(_message)) => State::Waiting { answer },
    }
}
