//! Simulated peers, and a log of their answers.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::{
    Multiaddr, PeerId,
    kad::{ConnectionType, K_VALUE, KBucketKey, KadPeer, Record, RecordKey},
};

use super::{
    rng::Rng,
    wire::{Answer, PeerRequest},
};

/// Behaviour of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerKind {
    /// Answers correctly, and stores records and announcements.
    Prompt,
    /// Answers, but knows no peers, records or providers. Acknowledges puts without storing them.
    Empty,
    /// Like `Prompt`; it also has a record and providers for many keys from the beginning.
    Holder,
    /// Answers with wrong keys, with peers that do not exist, with itself, with the requester, or to another kind of
    /// request.
    Liar,
    /// Every stream to it breaks.
    Refusing,
    /// Accepts every request and answers none.
    Silent,
    /// Closes the connection on which it gets a request, with all pending requests on it.
    HangsUp,
    /// Dials to it fail.
    Unreachable,
    /// Dials to it never end.
    NeverConnects,
}

impl PeerKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Prompt,
        Self::Empty,
        Self::Holder,
        Self::Liar,
        Self::Refusing,
        Self::Silent,
        Self::HangsUp,
        Self::Unreachable,
        Self::NeverConnects,
    ];
}

/// Reaction to a request.
#[derive(Debug)]
pub(super) enum Reaction {
    Answers(Answer),
    Breaks,
    HangsUp,
    /// No reaction. Announcements are never answered.
    Nothing,
}

/// All peers of a network.
#[derive(Debug)]
pub(super) struct Peers {
    local: PeerId,
    peers: Vec<Peer>,
    by_id: BTreeMap<PeerId, usize>,
    /// Log of all answers.
    pub(super) answer_log: AnswerLog,
}

/// Answers of peers, against which outcomes are checked.
#[derive(Debug, Default)]
pub(super) struct AnswerLog {
    /// Peer, key and value of every record sent.
    pub(super) records: BTreeSet<(PeerId, Vec<u8>, Vec<u8>)>,
    /// Peer, key and value of every put acknowledged.
    pub(super) stored: BTreeSet<(PeerId, Vec<u8>, Vec<u8>)>,
    /// Key and provider of every provider named.
    pub(super) providers: BTreeSet<(Vec<u8>, PeerId)>,
    /// Peers that have answered any request.
    pub(super) answered: BTreeSet<PeerId>,
}

#[derive(Debug)]
struct Peer {
    id: PeerId,
    place: KBucketKey<PeerId>,
    address: Multiaddr,
    kind: PeerKind,
    /// Indices of the peers that it knows.
    knows: Vec<usize>,
    records: BTreeMap<Vec<u8>, Record>,
    providers: BTreeMap<Vec<u8>, BTreeSet<PeerId>>,
}

impl Peers {
    pub(super) fn new(local: PeerId) -> Self {
        Self { local, peers: Vec::new(), by_id: BTreeMap::new(), answer_log: AnswerLog::default() }
    }

    pub(super) fn add(&mut self, id: PeerId, kind: PeerKind) {
        let place = self.peers.len();
        let peer = Peer {
            id,
            place: KBucketKey::from(id),
            address: format!("/memory/{}", place + 1).parse().expect("the address is valid"),
            kind,
            knows: Vec::new(),
            records: BTreeMap::new(),
            providers: BTreeMap::new(),
        };
        self.peers.push(peer);
        self.by_id.insert(id, place);
    }

    /// Makes every peer know every other one with this probability, in percent.
    pub(super) fn connect_randomly(&mut self, percent: usize, rng: &mut Rng) {
        let all = self.peers.len();
        for (place, peer) in self.peers.iter_mut().enumerate() {
            peer.knows = (0..all).filter(|other| *other != place && rng.percent(percent)).collect();
        }
    }

    pub(super) fn address(&self, id: PeerId) -> Option<Multiaddr> {
        self.get(id).map(|peer| peer.address.clone())
    }

    /// Peers that only a liar has named do not exist.
    pub(super) fn kind(&self, id: PeerId) -> PeerKind {
        self.get(id).map_or(PeerKind::Unreachable, |peer| peer.kind)
    }

    pub(super) fn set_kind(&mut self, id: PeerId, kind: PeerKind) {
        if let Some(place) = self.by_id.get(&id) {
            self.peers[*place].kind = kind;
        }
    }

    fn get(&self, id: PeerId) -> Option<&Peer> {
        self.by_id.get(&id).map(|place| &self.peers[*place])
    }

    /// Returns the reaction of a peer to a request.
    pub(super) fn respond(&mut self, id: PeerId, request: &PeerRequest, rng: &mut Rng) -> Reaction {
        let Some(place) = self.by_id.get(&id).copied() else { return Reaction::Breaks };
        let answer = match self.peers[place].kind {
            PeerKind::Prompt | PeerKind::Holder => self.honest(place, request),
            PeerKind::Empty => match request {
                PeerRequest::FindNode { target: _ } => Some(Answer::Closer(Vec::new())),
                PeerRequest::GetProviders { key: _ } => {
                    Some(Answer::Providers { closer: Vec::new(), providers: Vec::new() })
                }
                PeerRequest::GetRecord { key: _ } => Some(Answer::Record { record: None, closer: Vec::new() }),
                PeerRequest::PutRecord { record } => Some(stored(record)),
                PeerRequest::AddProvider { key: _ } => None,
            },
            PeerKind::Liar => self.lie(place, request, rng),
            // Such peers may have been connected before they became unreachable.
            PeerKind::Refusing | PeerKind::Unreachable | PeerKind::NeverConnects => return Reaction::Breaks,
            PeerKind::Silent => return Reaction::Nothing,
            PeerKind::HangsUp => return Reaction::HangsUp,
        };
        let Some(answer) = answer else { return Reaction::Nothing };
        self.log(id, request, &answer);
        Reaction::Answers(answer)
    }

    fn log(&mut self, id: PeerId, request: &PeerRequest, answer: &Answer) {
        self.answer_log.answered.insert(id);
        match (answer, request) {
            (Answer::Record { record: Some(record), closer: _ }, _) => {
                self.answer_log.records.insert((id, record.key.to_vec(), record.value.clone()));
            }
            (Answer::Providers { closer: _, providers }, request) => {
                let named = providers.iter().map(|provider| (request.target().to_vec(), provider.node_id));
                self.answer_log.providers.extend(named);
            }
            (Answer::Stored { .. }, PeerRequest::PutRecord { record }) => {
                self.answer_log.stored.insert((id, record.key.to_vec(), record.value.clone()));
            }
            (Answer::Closer(_) | Answer::Record { record: None, closer: _ } | Answer::Stored { .. }, _) => {}
        }
    }

    fn honest(&mut self, place: usize, request: &PeerRequest) -> Option<Answer> {
        let closer = self.closest(place, request.target());
        let friend = self.peers[place].knows.first().map(|known| self.peers[*known].id);
        let peer = &mut self.peers[place];
        Some(match request {
            PeerRequest::FindNode { target: _ } => Answer::Closer(closer),
            PeerRequest::GetProviders { key } => {
                let mut providers = peer.providers.get(key.as_ref()).cloned().unwrap_or_default();
                if peer.holds(key) {
                    providers.insert(peer.id);
                    providers.extend(friend);
                }
                Answer::Providers { closer, providers: providers.into_iter().map(|id| self.contact(id)).collect() }
            }
            PeerRequest::AddProvider { key } => {
                peer.providers.entry(key.to_vec()).or_default().insert(self.local);
                return None;
            }
            PeerRequest::GetRecord { key } => {
                let mut record = peer.records.get(key.as_ref()).cloned();
                if record.is_none() && peer.holds(key) {
                    // Most holders have the same value.
                    let value = if peer.id.to_bytes()[2] < 0x40 { "other" } else { "value" };
                    record = Some(Record::new(key.clone(), value.into()));
                }
                Answer::Record { record, closer }
            }
            PeerRequest::PutRecord { record } => {
                peer.records.insert(record.key.to_vec(), record.clone());
                stored(record)
            }
        })
    }

    fn lie(&mut self, place: usize, request: &PeerRequest, rng: &mut Rng) -> Option<Answer> {
        let own = self.peers[place].id;
        let closer = match rng.below(6) {
            0 => (0..5).map(|_| self.contact(rng.peer())).collect(),
            1 => vec![self.contact(own)],
            2 => vec![self.contact(self.local)],
            3 => vec![self.contact(own); 40],
            4 => Vec::new(),
            _ => self.closest(place, request.target()),
        };
        let wrong = |key: &RecordKey| RecordKey::new(&[key.as_ref(), b"?"].concat());
        Some(match (request, rng.below(4)) {
            // Answers to another kind of request.
            (PeerRequest::FindNode { target }, 0) => {
                Answer::Record { record: Some(Record::new(RecordKey::new(target), b"lie".to_vec())), closer }
            }
            (PeerRequest::FindNode { target }, 1) => Answer::Stored { key: RecordKey::new(target), value: Vec::new() },
            (PeerRequest::GetRecord { key: _ }, 0) => Answer::Providers { closer, providers: vec![self.contact(own)] },
            (PeerRequest::GetProviders { key }, 0) => {
                Answer::Record { record: Some(Record::new(key.clone(), b"lie".to_vec())), closer }
            }
            (PeerRequest::PutRecord { record: _ }, 0) => Answer::Closer(closer),
            // Answers with wrong contents.
            (PeerRequest::GetRecord { key }, 1) => {
                Answer::Record { record: Some(Record::new(wrong(key), b"lie".to_vec())), closer }
            }
            (PeerRequest::GetRecord { key }, _) => {
                Answer::Record { record: Some(Record::new(key.clone(), vec![b'l'; rng.below(20)])), closer }
            }
            (PeerRequest::GetProviders { key: _ }, _) => {
                let providers = [own, self.local, rng.peer()].map(|id| self.contact(id)).to_vec();
                Answer::Providers { closer, providers }
            }
            (PeerRequest::PutRecord { record }, _) => {
                Answer::Stored { key: wrong(&record.key), value: b"lie".to_vec() }
            }
            (PeerRequest::FindNode { target: _ }, _) => Answer::Closer(closer),
            (PeerRequest::AddProvider { key: _ }, _) => return None,
        })
    }

    /// Returns the peers closest to a target that a peer knows.
    fn closest(&self, place: usize, target: &[u8]) -> Vec<KadPeer> {
        let target = KBucketKey::new(target.to_vec());
        let mut known: Vec<_> = self.peers[place].knows.iter().map(|known| &self.peers[*known]).collect();
        known.sort_by_cached_key(|peer| peer.place.distance(&target));
        known.truncate(K_VALUE.get());
        known.into_iter().map(|peer| self.contact(peer.id)).collect()
    }

    fn contact(&self, id: PeerId) -> KadPeer {
        let address = self.address(id).unwrap_or_else(|| "/memory/1000000".parse().expect("the address is valid"));
        KadPeer { node_id: id, multiaddrs: vec![address], connection_ty: ConnectionType::CanConnect }
    }
}

impl Peer {
    /// Returns whether the peer has a record and providers for a key from the beginning.
    fn holds(&self, key: &RecordKey) -> bool {
        self.kind == PeerKind::Holder && key.as_ref().last().is_some_and(|byte| byte % 2 == 0)
    }
}

fn stored(record: &Record) -> Answer {
    Answer::Stored { key: record.key.clone(), value: record.value.clone() }
}
