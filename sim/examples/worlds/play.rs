//! Plays a plan, and checks what has to hold.

use std::{
    cell::RefCell,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{self, Either},
    stream::FuturesUnordered,
};
use kadence_sim::{
    DiskState, ForeignPeer, Host, Latency, Link, PORT, Reach, World, WorldConfig,
    kadence::{
        Certainty, Client, ContainsKad, GetProvidersError, GetRecordError, PutRecordError, RequestError, SwarmHandle,
        node::{Identity, Node, NodeConfig},
        tracker::{ValidationError, Validator, Validators},
    },
    libp2p::{
        Multiaddr, PeerId,
        identity::Keypair,
        kad::{Mode, Record, RecordKey, store::RecordStore},
    },
    run,
};
use rand::{Rng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use crate::{
    packages::{self, Packages},
    plan::{Call, FIRST, Fault, JOINED, Kind, LIVELY, Operation, Plan, REST, What},
};

/// Findings in a world.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) violations: Vec<Violation>,
    /// Numbers of violations that are known.
    pub(crate) known: BTreeMap<String, u64>,
    /// Number of times that each invariant could have been violated.
    pub(crate) stakes: BTreeMap<String, u64>,
    pub(crate) faults: BTreeSet<String>,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) virtual_s: u64,
    pub(crate) steps: u64,
    pub(crate) trace: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Violation {
    pub(crate) invariant: String,
    pub(crate) text: String,
    /// Events that have to do with it, each with its time.
    pub(crate) events: Vec<String>,
}

/// Virtual time that the final reads may take.
const FINAL_READS: Duration = Duration::from_secs(4 * 60 * 60);

/// Values are valid under their own key alone, and a later number is better.
struct OfKey;

impl Validator for OfKey {
    fn validate(&self, key: &RecordKey, value: &[u8]) -> Result<(), ValidationError> {
        if number_in(key.as_ref(), value).is_some() {
            Ok(())
        } else {
            Err(ValidationError("of another key".to_owned()))
        }
    }

    fn compare(&self, key: &RecordKey, left: &[u8], right: &[u8]) -> Ordering {
        number_in(key.as_ref(), left).cmp(&number_in(key.as_ref(), right))
    }
}

/// Returns whether values under a key are validated. Of other keys, nobody knows the genuine values.
fn is_validated(key: usize) -> bool {
    key % 3 != 2
}

fn name_of_key(number: usize) -> String {
    format!("{}{number}", if is_validated(number) { "/world/" } else { "plain " })
}

fn key(number: usize) -> RecordKey {
    RecordKey::from(name_of_key(number).into_bytes())
}

fn value(key: usize, number: usize, len: usize) -> Vec<u8> {
    let mut value = format!("{}={number};", name_of_key(key)).into_bytes();
    value.resize(len.max(value.len()), b'.');
    value
}

fn number_in(key: &[u8], value: &[u8]) -> Option<u64> {
    let rest = value.strip_prefix(key)?.strip_prefix(b"=")?;
    let (number, _) = std::str::from_utf8(rest).ok()?.split_once(';')?;
    number.parse().ok()
}

/// Plays a plan to its end.
pub(crate) fn play(plan: Plan) -> Report {
    let latency = plan.latency_ms.map_or(Latency::CLOUD_REGIONS, |ms| Latency::Constant(Duration::from_millis(ms)));
    let limit = Duration::from_secs(JOINED + LIVELY + REST) + FINAL_READS;
    let config = WorldConfig::default().seed(plan.seed).latency(latency).limit(limit);
    let ran = run(config, |world| async move {
        let stage = Stage::start(world, plan).await;
        stage.play().await
    });
    let mut report = ran.result;
    (report.virtual_s, report.steps, report.trace) = (ran.took.as_secs(), ran.steps, format!("{:016x}", ran.trace));
    report
}

pub(crate) struct Stage {
    world: World,
    plan: Rc<Plan>,
    actors: Vec<RefCell<Actor>>,
    /// Ids that each actor has had.
    names: RefCell<BTreeMap<PeerId, usize>>,
    events: RefCell<Vec<Event>>,
    report: RefCell<Report>,
    acknowledged: RefCell<BTreeSet<usize>>,
    /// Keys and their providers, with the time of the first announcement.
    announced: RefCell<BTreeMap<(usize, PeerId), Duration>>,
    packages: RefCell<Packages>,
    /// Last known addresses of the first nodes.
    last_addresses: RefCell<BTreeMap<usize, Multiaddr>>,
    /// Nodes on islands, each with the one that it knows.
    islands: RefCell<BTreeMap<usize, Option<usize>>>,
}

pub(crate) struct Actor {
    pub(crate) host: Host,
    pub(crate) keypair: Keypair,
    pub(crate) who: Who,
}

pub(crate) enum Who {
    Kadence(Box<Node>),
    Registry(Box<packages::Peer>),
    Foreign(Rc<ForeignPeer>),
    Gone,
}

struct Event {
    at: Duration,
    nodes: Vec<usize>,
    key: Option<usize>,
    text: String,
}

fn link(node: &crate::plan::Node) -> Link {
    let reach = if node.kind == Kind::Hidden { Reach::Nat } else { Reach::Open };
    let link = Link::default().up(node.bandwidth).down(node.bandwidth).loss(node.loss).reach(reach);
    link.delay(Duration::from_millis(node.delay_ms))
}

fn config(host: &Host, kind: Kind, keypair: &Keypair, known: &[Multiaddr]) -> NodeConfig {
    let validators = Validators::default().with("world", Arc::new(OfKey));
    let config = NodeConfig::default()
        .identity(Identity::Keypair(keypair.clone()))
        .listen([host.multiaddr(PORT)])
        .bootstrap_peers(known.to_vec());
    let config = if kind == Kind::Client { config.mode(Mode::Client) } else { config };
    let mut driver = config.driver.clone();
    driver.tracker.validators = validators;
    config.driver(driver)
}

impl Stage {
    async fn start(world: World, plan: Plan) -> Self {
        let mut stage = Self {
            world,
            plan: Rc::new(plan),
            actors: Vec::new(),
            names: RefCell::default(),
            events: RefCell::default(),
            report: RefCell::default(),
            acknowledged: RefCell::default(),
            announced: RefCell::default(),
            packages: RefCell::default(),
            last_addresses: RefCell::default(),
            islands: RefCell::default(),
        };
        stage.report.borrow_mut().seed = stage.plan.seed;
        for (at, node) in Rc::clone(&stage.plan).nodes.iter().enumerate() {
            let host = stage.world.host(link(node));
            host.set_wall_clock(node.seconds_ahead);
            let keypair = Keypair::generate_ed25519();
            stage.names.borrow_mut().insert(keypair.public().to_peer_id(), at);
            let who = Who::Gone;
            stage.actors.push(RefCell::new(Actor { host, keypair, who }));
            stage.start_process(at).await;
            stage.world.sleep(Duration::from_millis(500)).await;
        }
        let joined = Duration::from_secs(JOINED);
        stage.world.sleep(joined.saturating_sub(stage.world.now())).await;
        stage
    }

    /// Returns addresses of others for a node that starts: that of its friend, or those of some of the first nodes, the
    /// current ones, as a name would give, or the last ones.
    fn addresses_of_some(&self, but: usize) -> Vec<Multiaddr> {
        let known = self.plan.nodes.get(but).map_or(1, |node| node.known);
        let mut last = self.last_addresses.borrow_mut();
        for (at, actor) in self.actors.iter().enumerate().take(FIRST) {
            if let Who::Kadence(node) = &actor.borrow().who {
                last.extend(node.listen_addrs().into_iter().next().map(|address| (at, address)));
            }
        }
        let address_of = |at: usize| match &self.actor(at)?.borrow().who {
            Who::Kadence(node) => node.listen_addrs().into_iter().next(),
            Who::Registry(_) | Who::Foreign(_) | Who::Gone => None,
        };
        if let Some(known) = self.islands.borrow().get(&but) {
            return known.and_then(address_of).into_iter().collect();
        }
        if let Some(address) = self.plan.friend(but).and_then(address_of) {
            return vec![address];
        }
        // Each node begins elsewhere.
        let others = last.iter().filter(|(at, _)| **at != but).map(|(_, address)| address.clone());
        let mut others: Vec<_> = others.collect();
        let by = but % others.len().max(1);
        others.rotate_left(by);
        others.truncate(known);
        others
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn packages(&self) -> &RefCell<Packages> {
        &self.packages
    }

    pub(crate) fn actor(&self, at: usize) -> Option<&RefCell<Actor>> {
        self.actors.get(at)
    }

    pub(crate) fn kind(&self, at: usize) -> Kind {
        self.plan.nodes.get(at).map_or(Kind::Server, |node| node.kind)
    }

    async fn start_process(&self, at: usize) {
        let Some(actor) = self.actor(at) else { return };
        let known = self.addresses_of_some(at);
        let (host, keypair) = {
            let actor = actor.borrow();
            // Another fault of the same node has ended before.
            if !matches!(actor.who, Who::Gone) {
                return;
            }
            (actor.host.clone(), actor.keypair.clone())
        };
        let kind = self.kind(at);
        let started = match kind.habit() {
            Some(habit) => ForeignPeer::start_as(host, &keypair, habit, &known)
                .map(|peer| Who::Foreign(Rc::new(peer)))
                .map_err(|error| error.to_string()),
            None if kind == Kind::Registry => {
                let config = config(&host, kind, &keypair, &known);
                let peer = host.by_clock(Box::pin(packages::Peer::start(&host, config, &keypair))).await;
                peer.map(|peer| Who::Registry(Box::new(peer))).map_err(|error| error.to_string())
            }
            None => {
                let config = config(&host, kind, &keypair, &known);
                host.node(config).await.map(|node| Who::Kadence(Box::new(node))).map_err(|error| error.to_string())
            }
        };
        match started {
            Ok(who) => actor.borrow_mut().who = who,
            Err(error) => self.violated("start", format!("{} does not start: {error}", self.name(at)), &[at], None),
        }
    }

    pub(crate) fn name(&self, at: usize) -> String {
        format!("{at} ({:?})", self.kind(at))
    }

    fn name_of(&self, peer: PeerId) -> String {
        self.names.borrow().get(&peer).map_or_else(|| peer.to_string(), |at| self.name(*at))
    }

    fn client(&self, at: usize) -> Option<Client> {
        match &self.actor(at)?.borrow().who {
            Who::Kadence(node) => Some(node.client().clone()),
            Who::Registry(peer) => Some(peer.node.client().clone()),
            Who::Foreign(_) | Who::Gone => None,
        }
    }

    pub(crate) fn note(&self, nodes: &[usize], key: Option<usize>, text: String) {
        let event = Event { at: self.world.now(), nodes: nodes.to_vec(), key, text };
        self.events.borrow_mut().push(event);
    }

    pub(crate) fn at_stake(&self, invariant: &str) {
        *self.report.borrow_mut().stakes.entry(invariant.to_owned()).or_default() += 1;
    }

    pub(crate) fn outcome(&self, outcome: String) {
        *self.report.borrow_mut().outcomes.entry(outcome).or_default() += 1;
    }

    pub(crate) fn violated(&self, invariant: &str, text: String, nodes: &[usize], key: Option<usize>) {
        let events = self.events.borrow();
        let concerns = |event: &&Event| {
            (key.is_some() && event.key == key)
                || (event.key.is_none() && event.nodes.iter().any(|at| nodes.contains(at)))
        };
        let events =
            events.iter().filter(concerns).map(|event| format!("{:9.3} s  {}", event.at.as_secs_f64(), event.text));
        let violation = Violation { invariant: invariant.to_owned(), text, events: events.collect() };
        self.report.borrow_mut().violations.push(violation);
    }

    async fn play(self) -> Report {
        let plan = Rc::clone(&self.plan);
        let calls: FuturesUnordered<_> =
            plan.calls.iter().enumerate().map(|(number, call)| self.call_or_drop(number, call)).collect();
        let of_packages: FuturesUnordered<_> = plan.package_calls.iter().map(|call| self.package_call(call)).collect();
        let faults: FuturesUnordered<_> = plan.faults.iter().map(|fault| self.fault(fault)).collect();
        future::join3(calls.collect::<()>(), of_packages.collect::<()>(), faults.collect::<()>()).await;
        let end = Duration::from_secs(JOINED + LIVELY);
        self.world.sleep(end.saturating_sub(self.world.now())).await;
        self.world.sleep(Duration::from_secs(REST)).await;
        self.check_leaks().await;
        self.check_acknowledged_records_are_found().await;
        self.check_announced_providers_are_found().await;
        self.check_packages_are_found().await;
        self.check_packages_are_published().await;
        self.check_packages_are_genuine();
        self.report.into_inner()
    }

    async fn fault(&self, fault: &Fault) {
        self.sleep_until(Duration::from_secs(fault.at)).await;
        let what = format!("{:?}", fault.what);
        self.report.borrow_mut().faults.insert(what.clone());
        let names: Vec<_> = fault.nodes.iter().map(|at| self.name(*at)).collect();
        self.note(&fault.nodes, None, format!("{what} begins: {}", names.join(", ")));
        for at in &fault.nodes {
            self.begin(fault, *at);
        }
        if fault.what == What::Partition {
            self.partition(&fault.nodes, true);
        }
        self.isolate(fault).await;
        self.flood(fault).await;
        self.churn(fault).await;
        self.sleep_until(Duration::from_secs(fault.until)).await;
        for at in &fault.nodes {
            self.end(fault, *at).await;
        }
        if fault.what == What::Partition {
            self.partition(&fault.nodes, false);
        }
        self.note(&fault.nodes, None, format!("{what} ends: {}", names.join(", ")));
    }

    fn begin(&self, fault: &Fault, at: usize) {
        let (Some(actor), Some(node)) = (self.actor(at), self.plan.nodes.get(at)) else { return };
        let host = actor.borrow().host.clone();
        match fault.what {
            What::Stall => host.set_stalled(true),
            What::Freeze => host.set_frozen(true),
            What::Unplug => host.set_online(false),
            What::Restart => self.kill(at),
            What::Replace | What::Island => {
                // Nobody will be there with this key.
                self.last_addresses.borrow_mut().remove(&at);
                self.kill(at);
            }
            What::PowerFailure => {
                host.lose_power();
                self.kill(at);
            }
            What::FullDisk => host.set_disk(DiskState::Full),
            What::Move => host.change_address(),
            What::Reset => host.reset_connections(),
            What::Narrow => host.set_link(link(node).up(256_000).down(256_000)),
            What::Loss => host.set_link(link(node).loss(0.1)),
            What::Slow => host.set_link(link(node).delay(Duration::from_secs(1))),
            What::Clock => host.set_wall_clock(node.seconds_ahead + 3_600),
            What::HalfOpen | What::Partition | What::Flood | What::Churn => {}
        }
    }

    /// Starts nodes with new keys that know one of them at most.
    async fn isolate(&self, fault: &Fault) {
        if fault.what != What::Island {
            return;
        }
        let mut known = None;
        for at in &fault.nodes {
            self.islands.borrow_mut().insert(*at, known);
            known = known.or(Some(*at));
            self.change_key(*at);
            self.start_process(*at).await;
        }
    }

    fn change_key(&self, at: usize) {
        let Some(actor) = self.actor(at) else { return };
        let keypair = Keypair::generate_ed25519();
        self.names.borrow_mut().insert(keypair.public().to_peer_id(), at);
        actor.borrow_mut().keypair = keypair;
    }

    /// Kills and starts the processes of nodes until a fault of this kind ends.
    async fn churn(&self, fault: &Fault) {
        if fault.what != What::Churn {
            return;
        }
        let until = Duration::from_secs(fault.until);
        let each = fault.nodes.iter().map(|at| async move {
            loop {
                let (life, absence) = (self.exponential(30.0), self.exponential(10.0));
                if self.world.now() + life + absence >= until {
                    break;
                }
                self.world.sleep(life).await;
                self.kill(*at);
                self.world.sleep(absence).await;
                self.start_process(*at).await;
            }
        });
        future::join_all(each).await;
    }

    /// Draws a time from an exponential distribution, of at least a second.
    fn exponential(&self, mean_s: f64) -> Duration {
        let share = self.world.random(|random| random.random_range(0.0..1.0_f64));
        Duration::from_secs_f64((-mean_s * (1.0 - share).ln()).max(1.0))
    }

    fn kill(&self, at: usize) {
        if let Some(actor) = self.actor(at) {
            let mut actor = actor.borrow_mut();
            actor.host.kill();
            actor.who = Who::Gone;
        }
    }

    /// Does what goes on during a fault.
    async fn flood(&self, fault: &Fault) {
        let [from, to] = fault.nodes.as_slice() else { return };
        let (Some(from), Some(to)) = (self.actor(*from), self.actor(*to)) else { return };
        let (from_host, to_host) = (from.borrow().host.clone(), to.borrow().host.clone());
        match fault.what {
            What::HalfOpen => {
                for _ in 0..400 {
                    from_host.half_open(&to_host.multiaddr(PORT));
                    self.world.sleep(Duration::from_millis(20)).await;
                }
            }
            What::Flood => {
                let peer = to.borrow().keypair.public().to_peer_id();
                let flooder = match &from.borrow().who {
                    Who::Foreign(flooder) => Rc::clone(flooder),
                    Who::Kadence(_) | Who::Registry(_) | Who::Gone => return,
                };
                let mut puts = FuturesUnordered::new();
                for number in 0..50 * (fault.until - fault.at).min(20) {
                    let key = format!("/flood/{number}").into_bytes();
                    puts.push(flooder.put_at(peer, key, vec![1; 100], None));
                    self.world.sleep(Duration::from_millis(20)).await;
                    while let Some(Some(_acknowledged)) = puts.next().now_or_never() {}
                }
            }
            _ => {}
        }
    }

    async fn end(&self, fault: &Fault, at: usize) {
        let (Some(actor), Some(node)) = (self.actor(at), self.plan.nodes.get(at)) else { return };
        let host = actor.borrow().host.clone();
        match fault.what {
            What::Stall => host.set_stalled(false),
            What::Freeze => host.set_frozen(false),
            What::Unplug => host.set_online(true),
            What::Restart => self.start_process(at).await,
            What::PowerFailure => {
                host.set_online(true);
                self.start_process(at).await;
            }
            What::FullDisk => host.set_disk(DiskState::Healthy),
            What::Replace => {
                self.change_key(at);
                self.start_process(at).await;
            }
            What::Island => {
                self.islands.borrow_mut().remove(&at);
                self.kill(at);
                self.start_process(at).await;
            }
            What::Narrow | What::Loss | What::Slow => host.set_link(link(node)),
            What::Clock => host.set_wall_clock(node.seconds_ahead),
            What::Move | What::Reset | What::HalfOpen | What::Partition | What::Flood | What::Churn => {}
        }
    }

    fn partition(&self, side: &[usize], is_cut: bool) {
        let hosts = |of_side: bool| -> Vec<Host> {
            let actors = self.actors.iter().enumerate().filter(|(at, _)| side.contains(at) == of_side);
            actors.map(|(_, actor)| actor.borrow().host.clone()).collect()
        };
        self.world.set_partition(&hosts(true), &hosts(false), is_cut);
    }

    pub(crate) async fn sleep_until(&self, at: Duration) {
        self.world.sleep(at.saturating_sub(self.world.now())).await;
    }

    /// Makes a call, and drops it if the plan says so.
    async fn call_or_drop(&self, number: usize, call: &Call) {
        let made = self.call(number, call);
        let Some(after) = call.dropped_after else { return made.await };
        let drops = self.sleep_until(Duration::from_millis(call.at + after));
        if let Either::Right(_) = future::select(pin!(made), pin!(drops)).await {
            let text = format!("{} drops {:?} of key {}", self.name(call.by), call.operation, call.key);
            self.note(&[call.by], Some(call.key), text);
            self.outcome("dropped".to_owned());
        }
    }

    async fn call(&self, number: usize, call: &Call) {
        self.sleep_until(Duration::from_millis(call.at)).await;
        let Some(client) = self.client(call.by) else { return };
        let began = self.world.now();
        let timeout = Duration::from_secs(call.timeout_s);
        let begins =
            format!("{} begins {:?} of key {}, timeout {timeout:?}", self.name(call.by), call.operation, call.key);
        self.note(&[call.by], Some(call.key), begins);
        let made = self.within_deadline(call, timeout, self.perform(&client, call, number, timeout));
        let Some((outcome, has_timed_out)) = made.await else { return };
        let took = self.world.now() - began;
        let ends =
            format!("{} ends {:?} of key {} after {took:?}: {outcome}", self.name(call.by), call.operation, call.key);
        self.note(&[call.by], Some(call.key), ends.clone());
        self.outcome(format!("{} {}", word(&format!("{:?}", call.operation)), word(&outcome)));
        if has_timed_out {
            self.at_stake("deadline");
        }
        if took > timeout && !self.plan.is_halted(call.by, began, self.world.now()) {
            self.violated("deadline", format!("{ends}, which is after its deadline"), &[call.by], Some(call.key));
        }
    }

    /// Awaits a call, and gives it up if it does not end by its deadline.
    async fn within_deadline<T>(&self, call: &Call, timeout: Duration, made: impl Future<Output = T>) -> Option<T> {
        let began = self.world.now();
        let mut made = pin!(made);
        let mut limit = timeout + Duration::from_secs(1);
        loop {
            match future::select(made, pin!(self.world.sleep(limit))).await {
                Either::Left((outcome, _)) => return Some(outcome),
                Either::Right((_, unmade)) => {
                    let now = self.world.now();
                    // A caller that is halted goes on later.
                    let is_halted = self.plan.is_halted(call.by, began, now);
                    if !is_halted || now - began > Duration::from_secs(LIVELY + REST) {
                        break;
                    }
                    (made, limit) = (unmade, Duration::from_secs(60));
                }
            }
        }
        let text = format!("{:?} of key {} by {} does not end", call.operation, call.key, self.name(call.by));
        self.violated("deadline", text, &[call.by], Some(call.key));
        None
    }

    async fn perform(&self, client: &Client, call: &Call, number: usize, timeout: Duration) -> (String, bool) {
        match call.operation {
            Operation::Get | Operation::GetQuorum | Operation::GetBest => self.get(client, call, timeout).await,
            Operation::Put(len) => self.put(client, call, number, len, timeout).await,
            Operation::Provide => {
                let announced = client.start_providing(key(call.key)).timeout(timeout).await;
                if announced.is_ok() {
                    let announcement = (call.key, client.local_peer_id());
                    self.announced.borrow_mut().entry(announcement).or_insert(self.world.now());
                }
                outcome_of(&announced)
            }
            Operation::Providers => {
                let began = self.world.now();
                let found = client.get_providers(key(call.key)).timeout(timeout).await;
                if let Err(GetProvidersError::NotFound { certainty: Certainty::Conclusive, .. }) = &found {
                    self.check_conclusive_providers(call, began);
                }
                outcome_of(&found)
            }
            Operation::Closest => {
                outcome_of(&client.get_closest_peers(format!("near {}", call.key).into_bytes()).timeout(timeout).await)
            }
        }
    }

    async fn get(&self, client: &Client, call: &Call, timeout: Duration) -> (String, bool) {
        let began = self.world.now();
        let holders = self.holders(call.key).await;
        let get = client.get_record(key(call.key)).timeout(timeout);
        let found = match call.operation {
            Operation::GetQuorum => get.quorum(2).await,
            // Without a validator, no value is better than another.
            Operation::GetBest if is_validated(call.key) => get.best().await,
            _ => get.await,
        };
        match &found {
            Ok(found) => {
                if is_validated(call.key) && self.plan.nodes.iter().any(|node| node.kind.lies()) {
                    self.at_stake("value");
                }
                self.check_value(call.by, call.key, &found.record.record);
            }
            Err(GetRecordError::NotFound { certainty, .. }) => {
                self.check_conclusive(call, *certainty == Certainty::Conclusive, began, holders).await;
            }
            Err(_) => {}
        }
        outcome_of(&found)
    }

    fn check_value(&self, by: usize, number: usize, record: &Record) {
        let is_genuine = !is_validated(number) || number_in(key(number).as_ref(), &record.value).is_some();
        if record.key != key(number) || !is_genuine {
            let [key, value] = [record.key.as_ref(), &record.value].map(|bytes| bytes.escape_ascii().to_string());
            let text = format!("{} got {value} under {key}", self.name(by));
            self.violated("value", text, &[by], Some(number));
        }
    }

    /// Returns whether nothing was between a caller and another node since a time, and both went on. The caller may know
    /// nobody; the other node may not be one that nobody knows.
    fn was_near(&self, caller: usize, at: usize, began: Duration) -> bool {
        let now = self.world.now();
        let hosts = [caller, at].map(|at| self.actor(at).map(|actor| actor.borrow().host.clone()));
        let [Some(a), Some(b)] = hosts else { return false };
        at != caller
            && self.world.reach_each_other(&a, &b)
            && !self.plan.is_disturbed(at, began, now)
            && !self.plan.is_disturbed(caller, began, now)
            && !self.plan.is_cut(at, caller, began, now)
            && !self.plan.is_on_island(at, began, now)
    }

    /// A get has found nothing. `held` had the record when it began.
    async fn check_conclusive(&self, call: &Call, is_conclusive: bool, began: Duration, held: Vec<usize>) {
        let still = self.holders(call.key).await;
        let holders: Vec<_> =
            held.into_iter().filter(|at| still.contains(at) && self.was_near(call.by, *at, began)).collect();
        if is_conclusive {
            self.at_stake("conclusive");
        }
        if is_conclusive && !holders.is_empty() {
            let mut text = format!(
                "{} was told that key {} is not there, conclusively, and it is at",
                self.name(call.by),
                call.key
            );
            for at in &holders {
                let _infallible = write!(text, " {}", self.name(*at));
            }
            let involved: Vec<_> = holders.into_iter().chain([call.by]).collect();
            self.violated("conclusive", text, &involved, Some(call.key));
        }
    }

    /// A lookup of providers has said that there are none.
    fn check_conclusive_providers(&self, call: &Call, began: Duration) {
        self.at_stake("conclusive providers");
        let announced = self.announced.borrow();
        for ((_, peer), since) in announced.iter().filter(|((number, _), since)| *number == call.key && **since < began)
        {
            let Some(at) = self.names.borrow().get(peer).copied() else { continue };
            let is_there = self.kind(at) == Kind::Server && self.was_near(call.by, at, *since);
            if is_there && self.client(at).is_some_and(|client| client.local_peer_id() == *peer) {
                let text = format!(
                    "{} was told that nobody provides key {}, conclusively, and {} does",
                    self.name(call.by),
                    call.key,
                    self.name(at)
                );
                self.violated("conclusive providers", text, &[call.by, at], Some(call.key));
            }
        }
    }

    async fn put(&self, client: &Client, call: &Call, number: usize, len: usize, timeout: Duration) -> (String, bool) {
        let value = value(call.key, number, len);
        let put = client.put_record(Record::new(key(call.key), value)).timeout(timeout).await;
        match &put {
            Ok(answer) => {
                self.acknowledged.borrow_mut().insert(call.key);
                self.check_acknowledged(call, &answer.acknowledged).await;
            }
            Err(
                PutRecordError::QuorumFailed { acknowledged, .. } | PutRecordError::NotVerified { acknowledged, .. },
            ) => self.check_acknowledged(call, acknowledged).await,
            Err(_) => {}
        }
        outcome_of(&put)
    }

    /// Those that are said to hold a record have it.
    async fn check_acknowledged(&self, call: &Call, acknowledged: &[PeerId]) {
        for peer in acknowledged {
            let Some(at) = self.names.borrow().get(peer).copied() else { continue };
            let since = Duration::from_millis(call.at);
            if !self.kind(at).is_faithful() || self.plan.is_halted(at, since, self.world.now()) {
                continue;
            }
            let has_record = self.has_record(at, call.key).await;
            if has_record.is_some() {
                self.at_stake("acknowledged");
            }
            if has_record == Some(false) {
                let text = format!(
                    "{} is said to have acknowledged key {} and does not have it",
                    self.name_of(*peer),
                    call.key
                );
                self.violated("acknowledged", text, &[at, call.by], Some(call.key));
            }
        }
    }

    /// Returns whether a node has a record. `None` if that cannot be seen now.
    async fn has_record(&self, at: usize, number: usize) -> Option<bool> {
        if self.plan.is_halted(at, self.world.now(), self.world.now()) {
            return None;
        }
        // Nothing of the node is borrowed while it answers.
        let has_record = match &self.actor(at)?.borrow().who {
            Who::Kadence(node) => has(node.swarm().clone(), number).boxed_local(),
            Who::Registry(peer) => has(peer.node.swarm().clone(), number).boxed_local(),
            Who::Foreign(peer) => return Some(peer.has_record(key(number).as_ref())),
            Who::Gone => return None,
        };
        has_record.await
    }

    /// Returns the faithful nodes that have a record.
    async fn holders(&self, number: usize) -> Vec<usize> {
        let mut holders = Vec::new();
        for at in (0..self.actors.len()).filter(|at| self.kind(*at).is_faithful()) {
            if self.has_record(at, number).await == Some(true) {
                holders.push(at);
            }
        }
        holders
    }

    async fn check_leaks(&self) {
        for at in 0..self.actors.len() {
            let Some(client) = self.client(at) else { continue };
            self.at_stake("leak");
            // A registry makes calls of its own, from time to time.
            let mut tries = if self.kind(at) == Kind::Registry { 60 } else { 1 };
            loop {
                match client.snapshot().await {
                    Ok(snapshot) if snapshot.is_empty() => break,
                    _ if tries > 1 => tries -= 1,
                    other => {
                        self.violated("leak", format!("{} has left {other:?}", self.name(at)), &[at], None);
                        break;
                    }
                }
                self.world.sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// All faults are over: who has a record is found.
    async fn check_acknowledged_records_are_found(&self) {
        let keys = self.acknowledged.borrow().clone();
        for number in keys {
            let holders = self.holders(number).await;
            if holders.is_empty() {
                continue;
            }
            // Who has it finds it at home.
            for reader in self.readers_but(&holders) {
                let Some(client) = self.client(reader) else { continue };
                self.at_stake("found at last");
                let found = client.get_record(key(number)).timeout(Duration::from_secs(60)).await;
                if let Ok(found) = &found {
                    self.check_value(reader, number, &found.record.record);
                }
                let is_missing = !matches!(&found, Ok(_) | Err(GetRecordError::Request(RequestError::Shutdown)));
                if is_missing {
                    let names: Vec<_> = holders.iter().map(|at| self.name(*at)).collect();
                    let error = found.err().map(|error| error.to_string()).unwrap_or_default();
                    let text = format!(
                        "{} does not find key {number}, which is at {}: {error}",
                        self.name(reader),
                        names.join(", ")
                    );
                    self.violated("found at last", text, &[reader], Some(number));
                }
            }
        }
    }

    async fn check_announced_providers_are_found(&self) {
        let announced = self.announced.borrow().clone();
        for (number, peer) in announced.into_keys() {
            let Some(at) = self.names.borrow().get(&peer).copied() else { continue };
            let was_killed = self.plan.is_halted(at, Duration::ZERO, self.world.now());
            if self.kind(at) != Kind::Server || was_killed {
                continue;
            }
            for reader in self.readers_but(&[at]) {
                self.check_provider_is_found(reader, at, number, peer).await;
            }
        }
    }

    async fn check_provider_is_found(&self, reader: usize, at: usize, number: usize, peer: PeerId) {
        let Some(client) = self.client(reader) else { return };
        self.at_stake("provider found at last");
        let found = match client.get_providers(key(number)).timeout(Duration::from_secs(60)).await {
            Ok(found) if found.providers.contains(&peer) => return,
            Ok(found) => format!("{} others", found.providers.len()),
            Err(GetProvidersError::Timeout { found, progress, .. }) => {
                format!("{} others at the deadline, {progress:?}", found.len())
            }
            Err(error) => error.to_string(),
        };
        let text = format!("{} does not find that {} provides key {number}: {found}", self.name(reader), self.name(at));
        self.violated("provider found at last", text, &[reader, at], Some(number));
    }

    /// Returns up to three of Kadence's nodes other than these.
    fn readers_but(&self, others: &[usize]) -> Vec<usize> {
        let is_reader = |at: &usize| self.client(*at).is_some() && !others.contains(at);
        let mut readers: Vec<_> = (0..self.actors.len()).filter(is_reader).collect();
        self.world.random(|random| readers.shuffle(random));
        readers.truncate(3);
        readers
    }
}

/// Returns whether the store of a swarm has a record.
async fn has<B: ContainsKad>(swarm: SwarmHandle<B>, number: usize) -> Option<bool> {
    swarm.with(move |swarm| swarm.behaviour_mut().kad().store_mut().get(&key(number)).is_some()).await.ok()
}

/// Returns the outcome of a call in words, and whether it ended at its deadline.
fn outcome_of<T, E: std::fmt::Debug>(outcome: &Result<T, E>) -> (String, bool) {
    match outcome {
        Ok(_) => ("Ok".to_owned(), false),
        Err(error) => {
            let mut text = format!("{error:?}");
            let is_timeout = text.starts_with("Timeout");
            if let Some((end, _)) = text.char_indices().nth(300) {
                text.truncate(end);
            }
            (text, is_timeout)
        }
    }
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}
