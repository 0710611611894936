//! Plain kad with a correct event loop: a map from query ids to response channels. Every query is read to its end,
//! except that a get for one value ends at the first one.

use std::{collections::HashMap, pin::pin};

use futures::{
    FutureExt, SinkExt, StreamExt,
    channel::{mpsc, oneshot},
    future::{Either, select},
    select as select_loop,
};
use kadence_tests::{PROTOCOL, TestEnv, TestRuntime};
use libp2p::{
    PeerId, Swarm,
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    kad::{self, GetClosestPeersError, GetRecordOk, Mode, QueryId, QueryResult, Record, store::MemoryStore},
    ping,
    swarm::{NetworkBehaviour, SwarmEvent},
};

use crate::{
    client::Answer,
    plan::{Job, Operation, value},
};

/// kad and the other behaviours of a Kadence node, so that both clients have the same traffic on their connections.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

impl Behaviour {
    fn new(keypair: &Keypair) -> Self {
        let local = PeerId::from(keypair.public());
        let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), kad::Config::new(PROTOCOL));
        kad.set_mode(Some(Mode::Client));
        let identify = identify::Config::new("/plain/1.0.0".to_owned(), keypair.public());
        Self {
            limits: connection_limits::Behaviour::new(ConnectionLimits::default()),
            kad,
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
        }
    }
}

type Closure = Box<dyn FnOnce(&mut Swarm<Behaviour>) + Send>;

enum Command {
    Ask { job: Job, reply: oneshot::Sender<Answer> },
    With(Closure),
}

/// Query with a waiting caller.
struct Waiting {
    job: Job,
    answer: Answer,
    reply: oneshot::Sender<Answer>,
}

/// Handle to the event loop.
#[derive(Clone)]
pub(crate) struct Plain {
    commands: mpsc::Sender<Command>,
}

impl Plain {
    /// Runs the event loop in a task, until the last handle is dropped.
    pub(crate) fn start<R: TestRuntime>(env: &TestEnv<R>, keypair: &Keypair) -> Self {
        let (commands, received) = mpsc::channel(0);
        env.spawn(run(env.swarm(keypair, Behaviour::new(keypair)), received)).forget();
        Self { commands }
    }

    /// Waits for the answer until `max_wait` ends.
    pub(crate) async fn ask(&self, job: Job, max_wait: impl Future<Output = ()>) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Ask { job, reply }).await;
        match select(answer, pin!(max_wait)).await {
            Either::Left((answer, _)) => answer.expect("the loop runs"),
            Either::Right(((), _)) => {
                let mut answer = Answer::default();
                answer.fail("no answer within the limit");
                answer
            }
        }
    }

    pub(crate) async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Swarm<Behaviour>) -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = oneshot::channel();
        let closure = Box::new(move |swarm: &mut Swarm<Behaviour>| {
            let _gone = reply.send(f(swarm));
        });
        self.send(Command::With(closure)).await;
        answer.await.expect("the loop runs")
    }

    async fn send(&self, command: Command) {
        self.commands.clone().send(command).await.expect("the loop runs");
    }
}

async fn run(mut swarm: Swarm<Behaviour>, mut commands: mpsc::Receiver<Command>) {
    let mut waiting: HashMap<QueryId, Waiting> = HashMap::new();
    loop {
        select_loop! {
            command = commands.next().fuse() => match command {
                Some(Command::Ask { job, reply }) => {
                    let id = start(&mut swarm.behaviour_mut().kad, &job);
                    waiting.insert(id, Waiting { job, answer: Answer::default(), reply });
                }
                Some(Command::With(closure)) => closure(&mut swarm),
                None => return,
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                    id,
                    result,
                    stats,
                    step,
                })) => {
                    let Some(mut query) = waiting.remove(&id) else { continue };
                    query.handle(result);
                    query.answer.requests = Some(stats.num_requests());
                    let enough = query.job.operation == Operation::GetFirst && query.answer.ok;
                    if enough && let Some(mut query) = swarm.behaviour_mut().kad.query_mut(&id) {
                        query.finish();
                    }
                    if enough || step.last {
                        let _impatient = query.reply.send(query.answer);
                    } else {
                        waiting.insert(id, query);
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }))
                    if info.protocols.contains(&PROTOCOL) =>
                {
                    for address in info.listen_addrs {
                        swarm.behaviour_mut().kad.add_address(&peer_id, address);
                    }
                }
                _ => {}
            },
        }
    }
}

fn start(kad: &mut kad::Behaviour<MemoryStore>, job: &Job) -> QueryId {
    match job.operation {
        Operation::Closest | Operation::ClosestThorough => kad.get_closest_peers(job.key.to_vec()),
        Operation::Put => {
            let record = Record::new(job.key.clone(), value(&job.key));
            kad.put_record(record, job.quorum).expect("the local store has room")
        }
        Operation::GetAll | Operation::GetFirst => kad.get_record(job.key.clone()),
    }
}

impl Waiting {
    fn handle(&mut self, result: QueryResult) {
        let answer = &mut self.answer;
        match result {
            QueryResult::GetClosestPeers(Ok(found)) => {
                answer.peers = found.peers.into_iter().map(|peer| peer.peer_id).collect();
                answer.ok = !answer.peers.is_empty();
            }
            QueryResult::GetClosestPeers(Err(GetClosestPeersError::Timeout { .. })) => answer.fail("timeout"),
            QueryResult::PutRecord(Ok(_)) => answer.ok = true,
            QueryResult::PutRecord(Err(error)) => answer.fail(error),
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                answer.found(&self.job.key, found.peer, &found.record.value);
            }
            QueryResult::GetRecord(Ok(GetRecordOk::FinishedWithNoAdditionalRecord { .. })) => {}
            // Records found before a timeout count.
            QueryResult::GetRecord(Err(error)) if !answer.ok => answer.fail(error),
            QueryResult::GetRecord(Err(_)) => {}
            other => unreachable!("nobody asked for {other:?}"),
        }
    }
}
