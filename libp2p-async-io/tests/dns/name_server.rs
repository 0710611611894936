use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
};

use async_io::Async;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, channel::mpsc};
use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{RData, Record, rdata::TXT},
};
use smol::Task;

/// A name server on loopback, over UDP and TCP. It truncates responses that do not fit a packet, as real ones do.
pub(crate) struct NameServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: [Task<()>; 2],
}

type Script = dyn Fn(&str, &str, Via) -> Answer + Send + Sync;

struct Shared {
    script: Box<Script>,
    questions: Mutex<Vec<Question>>,
    asked: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
    tell: mpsc::UnboundedSender<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) via: Via,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Udp,
    Tcp,
}

pub(crate) enum Answer {
    Records(Vec<RData>),
    /// Sends packets that do not answer the request first: noise, and responses to other requests.
    AfterLies(Vec<RData>),
    NotThere,
    Broken,
    Silence,
}

pub(crate) fn a(ip: [u8; 4]) -> RData {
    RData::A(Ipv4Addr::from(ip).into())
}

pub(crate) fn aaaa(ip: &str) -> RData {
    RData::AAAA(ip.parse().unwrap())
}

pub(crate) fn txt(strings: &[&str]) -> RData {
    RData::TXT(TXT::new(strings.iter().map(|text| (*text).to_owned()).collect()))
}

pub(crate) fn dnsaddr(addr: &str) -> RData {
    txt(&[&format!("dnsaddr={addr}")])
}

impl NameServer {
    /// The script gets the name (with the final dot), the kind of record and the protocol.
    pub(crate) fn start(script: impl Fn(&str, &str, Via) -> Answer + Send + Sync + 'static) -> Self {
        let (tcp, udp) = sockets();
        let addr = tcp.local_addr().unwrap();
        let (tell, asked) = mpsc::unbounded();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            questions: Mutex::default(),
            asked: Mutex::new(Some(asked)),
            tell,
        });
        let tasks = [
            smol::spawn(serve_udp(Async::new(udp).unwrap(), shared.clone())),
            smol::spawn(serve_tcp(Async::new(tcp).unwrap(), shared.clone())),
        ];
        Self { addr, shared, _tasks: tasks }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn questions(&self) -> Vec<Question> {
        self.shared.questions.lock().unwrap().clone()
    }

    /// Waits for a request for `name`. Can be used once.
    pub(crate) async fn asked(&self, name: &str) {
        let mut asked = self.shared.asked.lock().unwrap().take().unwrap();
        while asked.next().await.unwrap() != name {}
    }
}

/// Binds the same port for both protocols. A port that is free for one may be taken for the other.
fn sockets() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
}

async fn serve_udp(socket: Async<UdpSocket>, shared: Arc<Shared>) {
    let mut packet = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut packet).await.unwrap();
        let request = Message::from_vec(packet.get(..length).unwrap()).unwrap();
        let limit = usize::from(request.max_payload());
        for mut answer in shared.answers(&request, Via::Udp) {
            if answer.len() > limit {
                let mut short = Message::from_vec(&answer).unwrap();
                short.answers.clear();
                short.metadata.truncation = true;
                answer = short.to_vec().unwrap();
            }
            // The client may have disconnected.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: Async<TcpListener>, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        smol::spawn(serve_connection(stream, shared.clone())).detach();
    }
}

async fn serve_connection(mut stream: Async<TcpStream>, shared: Arc<Shared>) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).await.is_ok() {
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut packet).await.unwrap();
        for answer in shared.answers(&Message::from_vec(&packet).unwrap(), Via::Tcp) {
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length, answer.as_slice()].concat()).await.unwrap();
        }
    }
}

impl Shared {
    /// Returns the packets to send for a request, in order.
    fn answers(&self, request: &Message, via: Via) -> Vec<Vec<u8>> {
        let query = request.queries.first().unwrap();
        let question = Question { name: query.name().to_string(), kind: query.query_type().to_string(), via };
        self.questions.lock().unwrap().push(question.clone());
        let answer = (self.script)(&question.name, &question.kind, via);
        let _ = self.tell.unbounded_send(question.name);
        let response = |records: Vec<RData>| {
            let mut response = Message::response(request.metadata.id, OpCode::Query);
            response.metadata.recursion_desired = true;
            response.metadata.recursion_available = true;
            response.add_query(query.clone());
            response.add_answers(records.into_iter().map(|data| Record::from_rdata(query.name().clone(), 60, data)));
            response
        };
        let with_code = |code| {
            let mut response = response(Vec::new());
            response.metadata.response_code = code;
            vec![response.to_vec().unwrap()]
        };
        match answer {
            Answer::Records(records) => vec![response(records).to_vec().unwrap()],
            Answer::AfterLies(records) => {
                let mut other_id = response(vec![a([203, 0, 113, 1])]);
                other_id.metadata.id = request.metadata.id.wrapping_add(1);
                let packets = [other_id, response(records)].map(|message| message.to_vec().unwrap());
                [vec![b"noise".to_vec()], packets.to_vec()].concat()
            }
            Answer::NotThere => with_code(ResponseCode::NXDomain),
            Answer::Broken => with_code(ResponseCode::ServFail),
            Answer::Silence => Vec::new(),
        }
    }
}
