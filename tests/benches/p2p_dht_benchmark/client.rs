//! Common interface of the clients, and its implementation for Kadence.

use kadence::{Client, GetRecordError, SwarmHandle};
use kadence_tests::{Behaviour, with_kad};
use libp2p::kad::RecordKey;

use crate::network::local_copies;

/// Result of a get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Value(Vec<u8>),
    /// The client reports that the record does not exist. Every requested record exists.
    NotFound,
    /// Any other error.
    Failed(String),
}

/// Client to measure. Clones share one node.
pub(crate) trait GetClient: Clone + Send + 'static {
    /// Gets a record.
    fn get(self, key: RecordKey) -> impl Future<Output = Answer> + Send;

    /// Returns the number of queries that its kad is running.
    fn live(&self) -> impl Future<Output = usize> + Send;

    /// Returns the number of records in its local store.
    fn copies(&self) -> impl Future<Output = usize> + Send;
}

/// Kadence's client.
#[derive(Clone)]
pub(crate) struct Kadence {
    client: Client,
    swarm: SwarmHandle<Behaviour>,
}

impl Kadence {
    pub(crate) fn new(client: Client, swarm: SwarmHandle<Behaviour>) -> Self {
        Self { client, swarm }
    }
}

impl GetClient for Kadence {
    async fn get(self, key: RecordKey) -> Answer {
        match self.client.get_record(key).await {
            Ok(answer) => Answer::Value(answer.value().to_vec()),
            Err(GetRecordError::NotFound { .. }) => Answer::NotFound,
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    async fn live(&self) -> usize {
        with_kad(&self.swarm, |kad| kad.iter_queries().count()).await
    }

    async fn copies(&self) -> usize {
        self.swarm.with(local_copies).await.expect("the driver runs")
    }
}
