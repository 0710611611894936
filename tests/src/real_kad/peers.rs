//! Peers that answer by a script, and what they have said.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::{
    Multiaddr, PeerId,
    kad::{ConnectionType, K_VALUE, KBucketKey, KadPeer, Record, RecordKey},
};

use super::{
    rng::Rng,
    wire::{Answer, PeerRequest},
};

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerKind {
    /// Answers what it knows, and keeps what is put and announced.
    Prompt,
    /// Answers, and knows nobody and nothing. It acknowledges what is put and forgets it.
    Empty,
    /// As a prompt one; and of many keys it has a record and knows providers.
    Holder,
    /// Answers with the wrong key, with peers that do not exist, with itself, with the asker, to another question.
    Liar,
    /// Every stream to it breaks.
    Refusing,
    /// Takes every request and answers none.
    Silent,
    /// Closes the connection on which it is asked, with all requests that are under way on it.
    HangsUp,
    /// Dials of it fail.
    Unreachable,
    /// Dials of it never end.
    NeverConnects,
}

impl PeerKind {
    /// All of them.
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

/// What comes of a request.
#[derive(Debug)]
pub(super) enum Reaction {
    Answers(Answer),
    Breaks,
    HangsUp,
    /// Announcements are not answered.
    Nothing,
}

/// All peers of a network.
#[derive(Debug)]
pub(super) struct Peers {
    local: PeerId,
    peers: Vec<Peer>,
    by_id: BTreeMap<PeerId, usize>,
    /// What was said.
    pub(super) answer_log: AnswerLog,
}

/// What peers have said, by which answers are judged.
#[derive(Debug, Default)]
pub(super) struct AnswerLog {
    /// Who sent which value under which key.
    pub(super) records: BTreeSet<(PeerId, Vec<u8>, Vec<u8>)>,
    /// Who acknowledged which value under which key.
    pub(super) stored: BTreeSet<(PeerId, Vec<u8>, Vec<u8>)>,
    /// Who was named a provider of which key.
    pub(super) providers: BTreeSet<(Vec<u8>, PeerId)>,
    /// Who answered anything.
    pub(super) answered: BTreeSet<PeerId>,
}

#[derive(Debug)]
struct Peer {
    id: PeerId,
    place: KBucketKey<PeerId>,
    address: Multiaddr,
    kind: PeerKind,
    /// The others it knows.
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
            address: format!("/memory/{}", place + 1).parse().expect("an address"),
            kind,
            knows: Vec::new(),
            records: BTreeMap::new(),
            providers: BTreeMap::new(),
        };
        self.peers.push(peer);
        self.by_id.insert(id, place);
    }

    /// Every peer learns of every other with so many chances in a hundred.
    pub(super) fn connect_randomly(&mut self, chances: usize, rng: &mut Rng) {
        let all = self.peers.len();
        for (place, peer) in self.peers.iter_mut().enumerate() {
            peer.knows = (0..all).filter(|other| *other != place && rng.percent(chances)).collect();
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

    /// What a peer makes of a request.
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
            // Those that are never connected may have been connected before they became so.
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
                    // Most holders agree.
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
            // To another question.
            (PeerRequest::FindNode { target }, 0) => {
                Answer::Record { record: Some(Record::new(RecordKey::new(target), b"lie".to_vec())), closer }
            }
            (PeerRequest::FindNode { target }, 1) => Answer::Stored { key: RecordKey::new(target), value: Vec::new() },
            (PeerRequest::GetRecord { key: _ }, 0) => Answer::Providers { closer, providers: vec![self.contact(own)] },
            (PeerRequest::GetProviders { key }, 0) => {
                Answer::Record { record: Some(Record::new(key.clone(), b"lie".to_vec())), closer }
            }
            (PeerRequest::PutRecord { record: _ }, 0) => Answer::Closer(closer),
            // With the wrong words.
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

    /// The peers closest to a target that a peer knows.
    fn closest(&self, place: usize, target: &[u8]) -> Vec<KadPeer> {
        let target = KBucketKey::new(target.to_vec());
        let mut known: Vec<_> = self.peers[place].knows.iter().map(|known| &self.peers[*known]).collect();
        known.sort_by_cached_key(|peer| peer.place.distance(&target));
        known.truncate(K_VALUE.get());
        known.into_iter().map(|peer| self.contact(peer.id)).collect()
    }

    fn contact(&self, id: PeerId) -> KadPeer {
        let address = self.address(id).unwrap_or_else(|| "/memory/1000000".parse().expect("an address"));
        KadPeer { node_id: id, multiaddrs: vec![address], connection_ty: ConnectionType::CanConnect }
    }
}

impl Peer {
    /// Whether it has something under a key from the beginning.
    fn holds(&self, key: &RecordKey) -> bool {
        self.kind == PeerKind::Holder && key.as_ref().last().is_some_and(|byte| byte % 2 == 0)
    }
}

fn stored(record: &Record) -> Answer {
    Answer::Stored { key: record.key.clone(), value: record.value.clone() }
}
