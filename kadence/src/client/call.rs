use std::{
    fmt,
    future::{Future, IntoFuture},
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{
    FutureExt, Stream,
    future::{BoxFuture, FusedFuture},
    stream::FusedStream,
};
use kadence_core::{
    Item, LocalCopy, Operation, Policy, Priority, PutOptions, Quorum, Request, RequestError, RequestId, RequestOptions,
    Retry,
};
use libp2p::PeerId;

use super::{
    connection::{CallEnd, Connection, DriverClosedError, Message},
    kind::{GetClosestPeers, GetProviders, GetRecord, Kind, PutRecord, PutRecordTo},
    polls::Watch,
};
use crate::{
    response::{Response, ResponseReceiver, response_channel},
    sync::channel::TrySendError,
};

/// Request that has not been sent yet. Awaiting the call sends the request and returns the answer or the error;
/// [`stream`](Self::stream) returns the request's items as they arrive.
///
/// ```
/// use std::time::Duration;
///
/// use kadence::{Client, GetRecordError, Priority, Retry};
///
/// async fn greeting(client: &Client) -> Result<Vec<u8>, GetRecordError> {
///     let answer = client
///         .get_record("greeting")
///         .timeout(Duration::from_secs(5))
///         .priority(Priority::Interactive)
///         .retry(Retry::default())
///         .await?;
///     Ok(answer.value().to_vec())
/// }
/// ```
///
/// Dropping the future or the stream cancels the request.
///
/// A request that is sent and not cancelled ends exactly once, with an answer or an error, at the request's deadline at
/// the latest, provided that the driver is polled then. The `Timeout` error of a get contains records or providers that
/// were found before the timeout. In a loop that awaits a call in place of the driver's next event, nobody polls the driver:
/// the call ends a tenth of a second after its deadline, with [`RequestError::NotPolled`].
#[must_use = "a call does nothing until it is awaited or read as a stream"]
pub struct Call<K> {
    draft: Draft,
    kind: PhantomData<fn() -> K>,
}

/// Everything needed to send a request.
struct Draft {
    connection: Arc<Connection>,
    operation: Operation,
    locate: Option<PeerId>,
    options: RequestOptions,
    buffer: usize,
}

/// Element of a [`CallStream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<T, R> {
    /// The next item.
    Item(T),
    /// The reader fell behind, and items were dropped at this point. A successful answer at the end contains every
    /// record and provider, the dropped ones included; that of a bootstrap only counts its lookups.
    Lagged {
        /// Number of dropped items.
        skipped: u64,
    },
    /// Result of the request, exactly once and as the last element of the stream.
    End(R),
}

impl<K> Call<K> {
    /// Prepares a request. With `locate`, its end names the addresses of that peer in the routing table.
    pub(super) fn new(
        connection: Arc<Connection>,
        operation: Operation,
        locate: Option<PeerId>,
        buffer: usize,
    ) -> Self {
        let draft = Draft { connection, operation, locate, options: RequestOptions::default(), buffer };
        Self { draft, kind: PhantomData }
    }

    /// Sets the time from the driver's acceptance of the request to the request's deadline. This time includes the wait
    /// for a free query slot, all steps of the operation and all retries. Default:
    /// [`TrackerConfig::default_timeout`](kadence_core::TrackerConfig::default_timeout), 30 s unless it was changed.
    ///
    /// A request that has not ended at the deadline fails with the `Timeout` error of its operation, or with
    /// [`RequestError::ExpiredInQueue`] if no query has started for it. [`Client::find_peer`](crate::Client::find_peer)
    /// instead returns the addresses in the local routing table, if there are any; its `Timeout` is inside a
    /// [`FindPeerError::Lookup`](crate::FindPeerError::Lookup).
    ///
    /// ```
    /// # async fn example(client: kadence::Client) {
    /// use std::time::Duration;
    ///
    /// let result = client.get_record("greeting").timeout(Duration::from_secs(5)).await;
    /// # let _ = result;
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.draft.options.timeout = Some(timeout);
        self
    }

    /// Sets the priority class. While requests of several classes wait for a query to start,
    /// [`TrackerConfig::shares`](kadence_core::TrackerConfig::shares) determines how many queries each class starts.
    /// Default: [`Priority::Normal`].
    ///
    /// ```
    /// # async fn example(client: kadence::Client) {
    /// use kadence::Priority;
    ///
    /// let result = client.bootstrap().priority(Priority::Background).await;
    /// # let _ = result;
    /// # }
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.draft.options.priority = priority;
        self
    }

    /// Retries failures that another attempt could fix, with at most [`Retry::attempts`] attempts in all, and only if
    /// the next attempt can begin before the deadline. Off by default.
    ///
    /// [`Outcome::is_retryable`](kadence_core::Outcome::is_retryable) says which failures are retried. A request that
    /// is read as a stream is not retried after an attempt that found an item.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) {
    /// use kadence::Retry;
    ///
    /// let result = client.get_providers("file").retry(Retry::default()).await;
    /// # let _ = result;
    /// # }
    /// ```
    pub fn retry(mut self, retry: Retry) -> Self {
        self.draft.options.retry = Some(retry);
        self
    }
}

impl Call<GetRecord> {
    /// Ends the lookup when `limit` sources, which are peers or the local store, have returned a valid record. If the
    /// lookup ends without a timeout and with fewer records, but at least one, the answer is those. More than
    /// [`TrackerConfig::max_items`](kadence_core::TrackerConfig::max_items) counts as that number. Zero fails with
    /// [`RequestError::Invalid`].
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetRecordError> {
    /// let answer = client.get_record("greeting").limit(3).await?;
    /// for found in answer.iter() {
    ///     println!("{:?}: {} bytes", found.peer, found.record.value.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit(self, limit: usize) -> Self {
        self.policy(Policy::Limit(limit))
    }

    /// Collects every valid record that the lookup finds, one for each source, until the lookup ends or reaches a limit
    /// such as [`TrackerConfig::max_items`](kadence_core::TrackerConfig::max_items). If the lookup times out, the call
    /// fails, and its error contains the records.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetRecordError> {
    /// let answer = client.get_record("greeting").all().await?;
    /// println!("{} sources agree, {} differ", answer.agreeing, answer.dissenting);
    /// # Ok(())
    /// # }
    /// ```
    pub fn all(self) -> Self {
        self.policy(Policy::All)
    }

    /// Requires a quorum of sources that return exactly the same value, and ends the lookup when the quorum is reached.
    /// The local store counts as one source. Takes a number or a [`Quorum`]. `Quorum::Majority` is more than half of
    /// [`REPLICATION_FACTOR`](kadence_core::REPLICATION_FACTOR), 11, and `Quorum::All` is 20. Zero fails with
    /// [`RequestError::Invalid`].
    ///
    /// If the lookup finds records and ends before the quorum is reached, the call fails.
    /// [`Conflict`](kadence_core::GetRecordError::Conflict) means that sources returned different values.
    /// [`QuorumNotReached`](kadence_core::GetRecordError::QuorumNotReached) means that all of them returned the same
    /// value, but were too few. [`Timeout`](kadence_core::GetRecordError::Timeout) means that the deadline of the call,
    /// or kad's query timeout, passed before the quorum was reached.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetRecordError> {
    /// let answer = client.get_record("greeting").quorum(3).await?;
    /// assert!(answer.agreeing >= 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn quorum(self, quorum: impl Into<Quorum>) -> Self {
        self.policy(Policy::Quorum(quorum.into()))
    }

    /// Waits until the lookup ends or reaches a limit such as
    /// [`TrackerConfig::max_items`](kadence_core::TrackerConfig::max_items), and returns the best record found, by the
    /// validator of the key's namespace. If the lookup times out, the call fails, and its error contains the records
    /// found. If the namespace has no validator
    /// ([`TrackerConfig::validators`](kadence_core::TrackerConfig::validators)), the call fails with
    /// [`RequestError::Invalid`].
    ///
    /// The best record is then sent in the background to the closest peers known to hold a worse record or none. This
    /// read repair is left out for a record that has expired, during a shutdown, and while
    /// [`TrackerConfig::max_read_repairs`](kadence_core::TrackerConfig::max_read_repairs) others are running.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetRecordError> {
    /// let newest = client.get_record("/pkg/editor").best().await?;
    /// # let _ = newest;
    /// # Ok(())
    /// # }
    /// ```
    pub fn best(self) -> Self {
        self.policy(Policy::Best { agree: None })
    }

    /// Returns the best record, like [`best`](Self::best), and ends the lookup early when a quorum of sources has
    /// returned the best value found so far. The quorum is counted as in [`quorum`](Self::quorum). If the lookup ends
    /// without a timeout and with fewer sources, the best record is still the answer. Zero fails with
    /// [`RequestError::Invalid`].
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetRecordError> {
    /// let newest = client.get_record("/pkg/editor").best_with_quorum(5).await?;
    /// println!("{} sources agree", newest.agreeing);
    /// # Ok(())
    /// # }
    /// ```
    pub fn best_with_quorum(self, quorum: impl Into<Quorum>) -> Self {
        self.policy(Policy::Best { agree: Some(quorum.into()) })
    }

    /// Runs a query of its own, or joins one that waits to be started, but none that is running: everything that it
    /// finds was found after the call.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetRecordError> {
    /// let answer = client.get_record("greeting").fresh().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn fresh(mut self) -> Self {
        self.draft.options.fresh = true;
        self
    }
}

impl Call<GetProviders> {
    /// Ends the lookup when `limit` providers are found. If the lookup ends without a timeout and with fewer providers,
    /// but at least one, the answer is those. More than
    /// [`TrackerConfig::max_items`](kadence_core::TrackerConfig::max_items) counts as that number. Zero fails with
    /// [`RequestError::Invalid`].
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetProvidersError> {
    /// let answer = client.get_providers("file").limit(5).await?;
    /// assert!(answer.providers.len() <= 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit(self, limit: usize) -> Self {
        self.policy(Policy::Limit(limit))
    }

    /// Ends the lookup at the first provider, which may be one that the local store knows.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetProvidersError> {
    /// let answer = client.get_providers("file").first().await?;
    /// assert_eq!(answer.providers.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn first(self) -> Self {
        self.policy(Policy::First)
    }

    /// Runs a query of its own, or joins one that waits to be started, but none that is running: everything that it
    /// finds was found after the call.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetProvidersError> {
    /// let answer = client.get_providers("file").fresh().await?;
    /// # let _ = answer;
    /// # Ok(())
    /// # }
    /// ```
    pub fn fresh(mut self) -> Self {
        self.draft.options.fresh = true;
        self
    }
}

impl Call<PutRecord> {
    /// Lowers the quorum to the number of peers that the first lookup finds, if that number is smaller, so that a put
    /// can succeed in a network with fewer peers than the quorum. Off by default.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::PutRecordError> {
    /// use kadence::libp2p::kad::Record;
    ///
    /// let record = Record::new(b"greeting".to_vec(), b"hello".to_vec());
    /// client.put_record(record).quorum(3).clamp_quorum().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn clamp_quorum(self) -> Self {
        self.put_options(|options| options.clamp_quorum = true)
    }

    /// Sets the time at which the record is put into the local store. [`LocalCopy::First`] puts it there before
    /// anything is sent; the record stays there and is republished even if the put fails later. Default:
    /// [`LocalCopy::OnSuccess`], after everything else has succeeded. If the local store rejects the record, the put
    /// fails with [`Store`](kadence_core::PutRecordError::Store); with `First`, nothing is sent then.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::PutRecordError> {
    /// use kadence::{LocalCopy, libp2p::kad::Record};
    ///
    /// let record = Record::new(b"greeting".to_vec(), b"hello".to_vec());
    /// client.put_record(record).local_copy(LocalCopy::First).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_copy(self, when: LocalCopy) -> Self {
        self.put_options(|options| options.local_copy = when)
    }

    /// Reads the record back by one more lookup after the quorum has acknowledged it, and succeeds only when `n` peers
    /// have returned exactly the record's value. If the lookup ends before, the call fails with
    /// [`NotVerified`](kadence_core::PutRecordError::NotVerified). Zero, the default, disables this.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::PutRecordError> {
    /// use kadence::libp2p::kad::Record;
    ///
    /// let record = Record::new(b"greeting".to_vec(), b"hello".to_vec());
    /// let answer = client.put_record(record).verify(3).await?;
    /// assert_eq!(answer.verified, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(self, n: usize) -> Self {
        self.put_options(|options| options.verify = n)
    }

    fn put_options(mut self, change: impl FnOnce(&mut PutOptions)) -> Self {
        if let Operation::PutRecord { record: _, quorum: _, options } = &mut self.draft.operation {
            change(options);
        }
        self
    }

    /// Sets the number of peers that must acknowledge the record. Takes a number or a [`Quorum`]: `Majority` and `All`
    /// are of the peers that the lookup finds. If too few peers acknowledge the record, the call fails with
    /// [`QuorumFailed`](kadence_core::PutRecordError::QuorumFailed). A number is not lowered, unless
    /// [`clamp_quorum`](Self::clamp_quorum) is set: if the lookup finds peers, but together with further ones from the
    /// routing table and a second lookup fewer than the number, the call fails with
    /// [`InsufficientPeers`](kadence_core::PutRecordError::InsufficientPeers) and nothing is sent. Zero fails with
    /// [`RequestError::Invalid`]. Default: [`Quorum::Majority`].
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::PutRecordError> {
    /// use kadence::libp2p::kad::Record;
    ///
    /// let record = Record::new(b"greeting".to_vec(), b"hello".to_vec());
    /// let answer = client.put_record(record).quorum(3).await?;
    /// assert!(answer.acknowledged.len() >= 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn quorum(self, quorum: impl Into<Quorum>) -> Self {
        self.with_quorum(quorum.into())
    }
}

impl Call<PutRecordTo> {
    /// Sets the number of the given peers that must acknowledge the record. Takes a number or a [`Quorum`]: `Majority`
    /// and `All` are of the given peers, without duplicates and the local peer. If too few acknowledge the record, the
    /// call fails with [`QuorumFailed`](kadence_core::PutRecordError::QuorumFailed). A number above that of the given
    /// peers, and zero, fail with [`RequestError::Invalid`]; nothing is sent. Default: [`Quorum::All`].
    ///
    /// ```
    /// # use kadence::libp2p::PeerId;
    /// # async fn example(client: kadence::Client, peers: Vec<PeerId>) -> Result<(), kadence::PutRecordError> {
    /// use kadence::{Quorum, libp2p::kad::Record};
    ///
    /// let record = Record::new(b"greeting".to_vec(), b"hello".to_vec());
    /// client.put_record_to(record, peers).quorum(Quorum::Majority).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn quorum(self, quorum: impl Into<Quorum>) -> Self {
        self.with_quorum(quorum.into())
    }
}

impl Call<GetClosestPeers> {
    /// Adds a second lookup, whose target is the farthest peer that the first lookup found, and returns the up to 20
    /// peers of both lookups that are closest to the original target. The second lookup finds peers that the first one
    /// misses because other peers named silent peers in their place. The call takes about twice the time and twice the
    /// requests.
    ///
    /// If the first lookup finds no peer or reaches kad's query timeout, there is no second one. If the second lookup
    /// fails, the answer contains the peers of the first one. If the deadline passes during the second lookup, the call
    /// fails with [`Timeout`](kadence_core::GetClosestPeersError::Timeout), which contains the peers of the first one.
    ///
    /// ```
    /// # async fn example(client: kadence::Client) -> Result<(), kadence::GetClosestPeersError> {
    /// let answer = client.get_closest_peers("greeting").thorough().await?;
    /// # let _ = answer;
    /// # Ok(())
    /// # }
    /// ```
    pub fn thorough(mut self) -> Self {
        if let Operation::GetClosestPeers { target: _, thorough } = &mut self.draft.operation {
            *thorough = true;
        }
        self
    }
}

impl<K> Call<K> {
    fn policy(mut self, wanted: Policy) -> Self {
        if let Operation::GetRecord { key: _, policy } | Operation::GetProviders { key: _, policy } =
            &mut self.draft.operation
        {
            *policy = wanted;
        }
        self
    }

    fn with_quorum(mut self, wanted: Quorum) -> Self {
        if let Operation::PutRecord { record: _, quorum, options: _ }
        | Operation::PutRecordTo { record: _, peers: _, quorum } = &mut self.draft.operation
        {
            *quorum = wanted;
        }
        self
    }
}

impl<K: Kind> Call<K> {
    /// Returns a stream of the request's items, which ends with the result. The first poll of the stream sends the
    /// request.
    ///
    /// ```
    /// use futures::StreamExt;
    /// use kadence::{Client, Update};
    ///
    /// async fn print_providers(client: &Client) {
    ///     let mut providers = client.get_providers("file").limit(10).stream();
    ///     while let Some(update) = providers.next().await {
    ///         match update {
    ///             Update::Item(peer) => println!("{peer}"),
    ///             Update::Lagged { skipped } => println!("{skipped} providers skipped"),
    ///             Update::End(Ok(answer)) => println!("{} in all", answer.providers.len()),
    ///             Update::End(Err(error)) => println!("{error}"),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn stream(self) -> CallStream<K> {
        self.start(true)
    }

    /// Sets the maximum number of items that the stream keeps for its reader. While the stream keeps that many, further
    /// items are dropped and reported as [`Update::Lagged`]. Zero drops all items. Has no effect if the call is
    /// awaited. Default: [`DriverConfig::stream_capacity`](crate::DriverConfig::stream_capacity), 256 unless it was
    /// changed.
    ///
    /// ```
    /// # fn example(client: kadence::Client) {
    /// let providers = client.get_providers("file").buffer(16).stream();
    /// # let _ = providers;
    /// # }
    /// ```
    pub fn buffer(mut self, items: usize) -> Self {
        self.draft.buffer = items;
        self
    }

    fn start(self, streaming: bool) -> CallStream<K> {
        let Self { mut draft, kind } = self;
        draft.options.streaming = streaming;
        CallStream { state: State::Unsent(draft), kind }
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
            .field("operation", &self.draft.operation)
            .field("options", &self.draft.options)
            .finish_non_exhaustive()
    }
}

/// Future of a call's result. Dropping the future cancels the request.
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

/// Stream of a call's items, which ends with the result. Dropping the stream cancels the request.
#[must_use = "a stream does nothing until it is polled"]
pub struct CallStream<K> {
    state: State,
    kind: PhantomData<fn() -> K>,
}

/// ```text
///   Unsent ──► Sending (only while the channel is full) ──► Waiting ──► Ended
/// ```
enum State {
    Unsent(Draft),
    Sending { sending: BoxFuture<'static, Result<(), DriverClosedError>>, pending: PendingCall },
    Waiting { pending: PendingCall },
    Ended,
}

/// Receiving side of a request. Cancels the request if it is dropped after the request was sent and before its end.
struct PendingCall {
    connection: Arc<Connection>,
    id: RequestId,
    responses: ResponseReceiver<Item, CallEnd>,
    /// True from the sending of the request to its end. A call that still waits for room in the channel sends no
    /// cancellation, so that there are never more cancellations than requests that were sent.
    sent: bool,
    timeout: Duration,
    watch: Watch,
}

impl PendingCall {
    /// Returns `Ready` if the call would never end, because nobody polls the driver.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.watch.poll(cx, &self.connection, self.timeout)
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if self.sent {
            // The order matters: if the driver receives the cancellation before the request, it finds nothing to
            // cancel. It then has to find the response channel closed when it receives the request.
            self.responses.close();
            self.connection.cancel(self.id);
        }
    }
}

impl<K: Kind> Stream for CallStream<K> {
    type Item = Update<K::Item, Result<K::Answer, K::Error>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Unsent(draft) => self.state = draft.send(),
                State::Sending { mut sending, mut pending } => match sending.poll_unpin(cx) {
                    Poll::Ready(Ok(())) => {
                        pending.sent = true;
                        self.state = State::Waiting { pending };
                    }
                    // The response sender was dropped with the message, so the receiver reports the same.
                    Poll::Ready(Err(DriverClosedError)) => self.state = State::Waiting { pending },
                    Poll::Pending => {
                        if pending.poll_watch(cx).is_ready() {
                            return Poll::Ready(Some(Update::End(Err(RequestError::NotPolled.into()))));
                        }
                        self.state = State::Sending { sending, pending };
                        return Poll::Pending;
                    }
                },
                State::Waiting { mut pending } => {
                    let Poll::Ready(response) = pending.responses.poll_next(cx) else {
                        if pending.poll_watch(cx).is_ready() {
                            return Poll::Ready(Some(Update::End(Err(RequestError::NotPolled.into()))));
                        }
                        self.state = State::Waiting { pending };
                        return Poll::Pending;
                    };
                    let result = match response {
                        Response::Item(item) => {
                            self.state = State::Waiting { pending };
                            if let Some(item) = K::item(item) {
                                return Poll::Ready(Some(Update::Item(item)));
                            }
                            continue;
                        }
                        Response::Lagged(skipped) => {
                            self.state = State::Waiting { pending };
                            return Poll::Ready(Some(Update::Lagged { skipped }));
                        }
                        Response::End(end) => K::result(end),
                        Response::Disconnected => None,
                    };
                    pending.sent = false;
                    let result = result.unwrap_or_else(|| Err(RequestError::Shutdown.into()));
                    return Poll::Ready(Some(Update::End(result)));
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl<K: Kind> FusedStream for CallStream<K> {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Ended)
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
            State::Unsent(_) => ("unsent", None),
            State::Sending { sending: _, pending } => ("sending", Some(pending.id)),
            State::Waiting { pending } => ("waiting", Some(pending.id)),
            State::Ended => ("ended", None),
        };
        f.debug_struct("CallStream").field("state", &state).field("id", &id).finish()
    }
}

impl Draft {
    fn send(self) -> State {
        let Self { connection, operation, locate, options, buffer } = self;
        let id = connection.next_request_id();
        let timeout = options.timeout.unwrap_or(connection.default_timeout());
        let (response, responses) = response_channel(if options.streaming { buffer } else { 0 });
        let message = Message::Request { request: Request { id, operation, options }, locate, response };
        let watch = Watch::default();
        let mut pending =
            PendingCall { connection: Arc::clone(&connection), id, responses, sent: false, timeout, watch };
        match connection.try_send(message) {
            Ok(()) => {
                pending.sent = true;
                State::Waiting { pending }
            }
            Err(TrySendError::Full(message)) => {
                State::Sending { sending: async move { connection.send(message).await }.boxed(), pending }
            }
            // The response sender is dropped with the message, so the receiver reports that the driver is closed.
            Err(TrySendError::Closed(_message)) => State::Waiting { pending },
        }
    }
}
