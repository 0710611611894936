//! Client that most programs write for themselves: a map from kad's query ids to response channels.
//!
//! Every get becomes a query immediately, without a limit.

use std::collections::HashMap;

use futures::{
    FutureExt, SinkExt, StreamExt,
    channel::{mpsc, oneshot},
    select,
};
use kadence_tests::{Behaviour, BehaviourEvent, TestEnv, TestRuntime};
use libp2p::{
    Swarm,
    kad::{self, GetRecordError, GetRecordOk, GetRecordResult, QueryId, QueryResult, RecordKey},
    swarm::SwarmEvent,
};

use crate::{
    client::{Answer, GetClient},
    network::local_copies,
};

/// Handling of a query whose caller has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFirstRecord {
    /// The entry is removed from the map, and the query runs to its end.
    KeepRunning,
    /// The query is finished at its first record.
    Finish,
}

enum Command {
    Get { key: RecordKey, reply: oneshot::Sender<Answer> },
    Live { reply: oneshot::Sender<usize> },
    Copies { reply: oneshot::Sender<usize> },
}

/// Handle to the event loop.
#[derive(Clone)]
pub(crate) struct Naive {
    commands: mpsc::Sender<Command>,
}

impl Naive {
    /// Runs the event loop in a task, until the last handle is dropped.
    pub(crate) fn start<R: TestRuntime>(
        env: &TestEnv<R>,
        swarm: Swarm<Behaviour>,
        on_first_record: OnFirstRecord,
    ) -> Self {
        // Each clone of the sender adds room for one command.
        let (commands, received) = mpsc::channel(0);
        env.spawn(run(swarm, received, on_first_record)).forget();
        Self { commands }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.clone().send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl GetClient for Naive {
    async fn get(self, key: RecordKey) -> Answer {
        let answer = self.ask(|reply| Command::Get { key, reply }).await;
        answer.unwrap_or_else(|| Answer::Failed("the loop is gone".to_owned()))
    }

    async fn live(&self) -> usize {
        self.ask(|reply| Command::Live { reply }).await.expect("the loop runs")
    }

    async fn copies(&self) -> usize {
        self.ask(|reply| Command::Copies { reply }).await.expect("the loop runs")
    }
}

async fn run(mut swarm: Swarm<Behaviour>, mut commands: mpsc::Receiver<Command>, on_first_record: OnFirstRecord) {
    let mut pending: HashMap<QueryId, oneshot::Sender<Answer>> = HashMap::new();
    loop {
        select! {
            command = commands.next().fuse() => match command {
                Some(Command::Get { key, reply }) => {
                    let id = swarm.behaviour_mut().kad.get_record(key);
                    pending.insert(id, reply);
                }
                Some(Command::Live { reply }) => {
                    let _gone = reply.send(swarm.behaviour().kad.iter_queries().count());
                }
                Some(Command::Copies { reply }) => {
                    let _gone = reply.send(local_copies(&mut swarm));
                }
                None => return,
            },
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                    id,
                    result: QueryResult::GetRecord(result),
                    ..
                })) = event
                {
                    if on_first_record == OnFirstRecord::Finish
                        && result.is_ok()
                        && let Some(mut query) = swarm.behaviour_mut().kad.query_mut(&id)
                    {
                        query.finish();
                    }
                    if let Some(reply) = pending.remove(&id) {
                        let _gone = reply.send(answer(result));
                    }
                }
            }
        }
    }
}

fn answer(result: GetRecordResult) -> Answer {
    match result {
        Ok(GetRecordOk::FoundRecord(found)) => Answer::Value(found.record.value),
        Ok(GetRecordOk::FinishedWithNoAdditionalRecord { .. }) | Err(GetRecordError::NotFound { .. }) => {
            Answer::NotFound
        }
        Err(error @ GetRecordError::Timeout { .. }) => Answer::Failed(error.to_string()),
    }
}
