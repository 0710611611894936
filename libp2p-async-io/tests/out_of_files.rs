//! A process that can open no more files. In a program of its own, because the limit applies to the whole process.

#![cfg(target_os = "linux")]
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs::File,
    net::TcpStream,
    pin::Pin,
    time::{Duration, Instant},
};

use async_io::Timer;
use futures::{FutureExt, future, future::poll_fn};
use libp2p::core::{
    Transport,
    transport::{ListenerId, TransportEvent},
};
use libp2p_async_io::tcp;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Maximum number of open files of the process. More than it has open without the test.
const LIMIT: u64 = 64;

type Event = TransportEvent<<tcp::Transport as Transport>::ListenerUpgrade, std::io::Error>;

async fn next(transport: &mut tcp::Transport) -> Event {
    let event = poll_fn(|cx| Pin::new(&mut *transport).poll(cx));
    match future::select(event, Timer::after(Duration::from_secs(30))).await {
        future::Either::Left((event, _)) => event,
        future::Either::Right(_) => panic!("no event"),
    }
}

#[test]
fn a_listener_waits_until_files_can_be_opened_again() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
    smol::block_on(async {
        let mut transport = tcp::Transport::default();
        let id = ListenerId::next();
        transport.listen_on(id, "/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let addr = next(&mut transport).await.into_new_address().unwrap();
        let port: u16 = addr.to_string().rsplit('/').next().unwrap().parse().unwrap();
        // Connected by the system, and not accepted yet.
        let _clients = [(); 2].map(|()| TcpStream::connect(("127.0.0.1", port)).unwrap());
        let files: Vec<File> = std::iter::repeat_with(|| File::open("/dev/null")).map_while(Result::ok).collect();
        assert!(!files.is_empty());

        let started = Instant::now();
        for _ in 0..3 {
            let error = next(&mut transport).await.into_listener_error().unwrap();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        }
        // Two pauses of 100 ms between three errors.
        assert!(started.elapsed() >= Duration::from_millis(200), "a busy loop");

        drop(files);
        assert!(next(&mut transport).await.is_upgrade());

        let _files: Vec<File> = std::iter::repeat_with(|| File::open("/dev/null")).map_while(Result::ok).collect();
        assert!(next(&mut transport).await.into_listener_error().is_some());
        assert!(transport.remove_listener(id));
        let closed = next(&mut transport).now_or_never();
        assert!(matches!(closed, Some(TransportEvent::ListenerClosed { reason: Ok(()), .. })), "{closed:?}");
    });
}
