//! Names, with a scripted name server.

#![cfg(feature = "dns")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod dials;
mod name_server;

use std::{future::Future, time::Duration};

use async_io::Timer;
use futures::future::{self, Either, FutureExt};
use libp2p::{
    Multiaddr,
    core::{
        Endpoint, Transport,
        transport::{DialOpts, PortUse, TransportError},
    },
};
use libp2p_async_io::dns::{self, Config, Error, ResolveError};

use self::{
    dials::{Dials, Refused},
    name_server::{Answer, NameServer, Via, a, aaaa, dnsaddr},
};

const DEADLINE: Duration = Duration::from_secs(30);
const PEER: &str = "/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf";
const OTHER_PEER: &str = "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

async fn within<F: Future>(what: F) -> F::Output {
    match future::select(Box::pin(what), Timer::after(DEADLINE)).await {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("nothing happened for {DEADLINE:?}"),
    }
}

/// Dials `addr` with the names of `server`.
fn dial(server: &NameServer, dials: &Dials, addr: &str) -> Result<Multiaddr, Error<Refused>> {
    // One attempt, which has all the time it needs on a loaded machine.
    let config = Config::name_servers([server.addr()]).timeout(Duration::from_secs(10)).retries(0);
    dial_with(config, dials, addr)
}

fn dial_with(config: Config, dials: &Dials, addr: &str) -> Result<Multiaddr, Error<Refused>> {
    let mut transport = dns::Transport::new(dials.clone(), config);
    let dial = transport.dial(addr.parse().unwrap(), opts()).unwrap();
    smol::block_on(within(dial))
}

fn opts() -> DialOpts {
    DialOpts { role: Endpoint::Dialer, port_use: PortUse::New }
}

fn failures(result: Result<Multiaddr, Error<Refused>>) -> Vec<Error<Refused>> {
    match result {
        Err(Error::Dial(errors)) => errors,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_has_the_addresses_of_the_version_asked_for() {
    let server = NameServer::start(|name, kind, _| match (name, kind) {
        ("host.test.", "A") => Answer::Records(vec![a([192, 0, 2, 1])]),
        ("host.test.", "AAAA") => Answer::Records(vec![aaaa("2001:db8::1")]),
        _ => Answer::NotThere,
    });
    let four = dial(&server, &Dials::accept(|_| true), &format!("/dns4/host.test/tcp/1{PEER}")).unwrap();
    assert_eq!(four.to_string(), format!("/ip4/192.0.2.1/tcp/1{PEER}"));
    let six = dial(&server, &Dials::accept(|_| true), "/dns6/host.test/tcp/1").unwrap();
    assert_eq!(six.to_string(), "/ip6/2001:db8::1/tcp/1");
    let dials = Dials::accept(|_| false);
    assert_eq!(failures(dial(&server, &dials, "/dns/host.test/tcp/1")).len(), 2);
    let mut dialled = dials.addresses();
    dialled.sort();
    assert_eq!(dialled, ["/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/tcp/1"]);
}

#[test]
fn addresses_are_dialled_in_order_until_one_works() {
    let server = NameServer::start(|_, _, _| Answer::Records((1..=4).map(|n| a([192, 0, 2, n])).collect()));
    let dials = Dials::accept(|addr| addr.contains("192.0.2.3"));
    let connected = dial(&server, &dials, "/dns4/host.test/tcp/1").unwrap();
    assert_eq!(connected.to_string(), "/ip4/192.0.2.3/tcp/1");
    assert_eq!(dials.addresses(), ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.3/tcp/1"]);
}

#[test]
fn every_attempt_is_in_the_error() {
    let server = NameServer::start(|_, _, _| Answer::Records(vec![a([192, 0, 2, 1]), a([192, 0, 2, 2])]));
    let error = dial(&server, &Dials::accept(|_| false), "/dns4/host.test/tcp/1").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/ip4/192.0.2.1/tcp/1 refused; /ip4/192.0.2.2/tcp/1 refused"), "{text}");
    assert!(failures(Err(error)).iter().all(|error| matches!(error, Error::Transport(Refused(_)))));
}

#[test]
fn a_dnsaddr_leads_to_addresses_and_to_further_names() {
    let server = NameServer::start(|name, kind, _| match (name, kind) {
        ("_dnsaddr.start.test.", "TXT") => Answer::Records(vec![
            dnsaddr("/dnsaddr/more.test"),
            dnsaddr("/dns4/host.test/tcp/3"),
            name_server::txt(&["something else"]),
        ]),
        ("_dnsaddr.more.test.", "TXT") => {
            Answer::Records(vec![dnsaddr("/ip4/192.0.2.1/tcp/1"), dnsaddr("/ip4/192.0.2.2/tcp/2")])
        }
        ("host.test.", "A") => Answer::Records(vec![a([192, 0, 2, 3])]),
        _ => Answer::NotThere,
    });
    let dials = Dials::accept(|_| false);
    assert_eq!(failures(dial(&server, &dials, "/dnsaddr/start.test")).len(), 3);
    assert_eq!(dials.addresses(), ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/2", "/ip4/192.0.2.3/tcp/3"]);
}

#[test]
fn only_addresses_of_the_peer_asked_for_are_dialled() {
    let server = NameServer::start(|_, _, _| {
        Answer::Records(vec![
            dnsaddr(&format!("/ip4/192.0.2.1/tcp/1{OTHER_PEER}")),
            dnsaddr(&format!("/ip4/192.0.2.2/tcp/2{PEER}")),
            dnsaddr("/ip4/192.0.2.3/tcp/3"),
        ])
    });
    let dials = Dials::accept(|_| false);
    assert_eq!(failures(dial(&server, &dials, &format!("/dnsaddr/start.test{PEER}"))).len(), 1);
    assert_eq!(dials.addresses(), [format!("/ip4/192.0.2.2/tcp/2{PEER}")]);
}

#[test]
fn records_that_all_belong_to_others_are_no_reason_to_dial() {
    let server = NameServer::start(|_, _, _| Answer::Records(vec![dnsaddr("/ip4/192.0.2.1/tcp/1")]));
    let error = dial(&server, &Dials::accept(|_| true), &format!("/dnsaddr/start.test{PEER}")).unwrap_err();
    assert_eq!(error.to_string(), "no record fits the dialled address");
    assert_eq!(failures(Err(error)).len(), 0);
}

#[test]
fn of_too_many_records_sixteen_are_dialled() {
    let server = NameServer::start(|_, kind, _| match kind {
        "TXT" => Answer::Records((0..200).map(|n| dnsaddr(&format!("/ip4/192.0.2.{n}/tcp/1"))).collect()),
        _ => Answer::Records((0..200).map(|n| a([192, 0, 2, n])).collect()),
    });
    for addr in ["/dnsaddr/many.test", "/dns4/many.test/tcp/1"] {
        let dials = Dials::accept(|_| false);
        assert_eq!(failures(dial(&server, &dials, addr)).len(), 16);
        assert_eq!(dials.addresses().len(), 16);
    }
}

#[test]
fn sixteen_dials_are_the_end_whatever_is_left() {
    let server = NameServer::start(|name, _, _| match name {
        "_dnsaddr.two.test." => Answer::Records(vec![dnsaddr("/dnsaddr/ten.test"), dnsaddr("/dnsaddr/ten.test")]),
        _ => Answer::Records((0..10).map(|n| dnsaddr(&format!("/ip4/192.0.2.{n}/tcp/1"))).collect()),
    });
    let dials = Dials::accept(|_| false);
    let errors = failures(dial(&server, &dials, "/dnsaddr/two.test"));
    assert_eq!(dials.addresses().len(), 16);
    assert_eq!(errors.len(), 17);
    assert!(matches!(errors.last(), Some(Error::TooManyDials)));
}

#[test]
fn names_that_go_on_for_ever_are_followed_for_thirty_two_lookups() {
    let server = NameServer::start(|name, _, _| {
        let depth: u32 = name.trim_start_matches("_dnsaddr.").split('.').next().unwrap().parse().unwrap();
        Answer::Records(vec![dnsaddr(&format!("/dnsaddr/{}.test", depth + 1))])
    });
    let errors = failures(dial(&server, &Dials::accept(|_| true), "/dnsaddr/0.test"));
    assert!(matches!(errors.as_slice(), [Error::TooManyLookups]), "{errors:?}");
    assert_eq!(server.questions().len(), 32);
}

#[test]
fn what_was_found_is_dialled_although_the_rest_goes_in_circles() {
    let server = NameServer::start(|_, _, _| {
        let mut records: Vec<_> = (0..8).map(|_| dnsaddr("/dnsaddr/circle.test")).collect();
        records.push(dnsaddr("/ip4/192.0.2.1/tcp/1"));
        Answer::Records(records)
    });
    let connected = dial(&server, &Dials::accept(|_| true), "/dnsaddr/circle.test").unwrap();
    assert_eq!(connected.to_string(), "/ip4/192.0.2.1/tcp/1");
}

#[test]
fn what_the_transport_does_not_speak_is_no_attempt() {
    let server = NameServer::start(|_, _, _| {
        let mut records: Vec<_> = (0..15).map(|n| dnsaddr(&format!("/ip4/192.0.2.{n}/udp/1/quic-v1"))).collect();
        records.push(dnsaddr("/ip4/192.0.2.1/tcp/1"));
        Answer::Records(records)
    });
    let dials = Dials::accept(|_| false);
    let errors = failures(dial(&server, &dials, "/dnsaddr/mixed.test"));
    assert_eq!(dials.addresses(), ["/ip4/192.0.2.1/tcp/1"]);
    assert_eq!(errors.iter().filter(|error| matches!(error, Error::MultiaddrNotSupported(_))).count(), 15);
}

#[test]
fn a_long_answer_comes_over_tcp() {
    // More than a packet may have, so that the server says to come back.
    let server = NameServer::start(|_, _, _| {
        Answer::Records((0..16).map(|n| dnsaddr(&format!("/dns4/{}.test/tcp/{n}", "x".repeat(60)))).collect())
    });
    let _failed = dial(&server, &Dials::accept(|_| true), "/dnsaddr/long.test");
    let questions = server.questions();
    let (first, second) = (&questions[0], &questions[1]);
    assert_eq!((first.name.as_str(), first.via), ("_dnsaddr.long.test.", Via::Udp));
    assert_eq!((second.name.as_str(), second.via), ("_dnsaddr.long.test.", Via::Tcp));
    assert_eq!(questions[2].kind, "A");
}

#[test]
fn an_answer_to_another_question_is_not_believed() {
    let server = NameServer::start(|_, _, _| Answer::AfterLies(vec![a([192, 0, 2, 1])]));
    let connected = dial(&server, &Dials::accept(|_| true), "/dns4/host.test/tcp/1").unwrap();
    assert_eq!(connected.to_string(), "/ip4/192.0.2.1/tcp/1");
}

#[test]
fn a_name_that_does_not_exist_is_told_from_servers_that_fail() {
    let server = NameServer::start(|name, _, _| match name {
        "_dnsaddr.broken.test." | "broken.test." => Answer::Broken,
        _ => Answer::NotThere,
    });
    for (addr, missing) in [
        ("/dns4/missing.test/tcp/1", true),
        ("/dns/missing.test/tcp/1", true),
        ("/dnsaddr/missing.test", true),
        ("/dns6/broken.test/tcp/1", false),
        ("/dnsaddr/broken.test", false),
    ] {
        let errors = failures(dial(&server, &Dials::accept(|_| true), addr));
        let [Error::Resolve { name, source }] = errors.as_slice() else { panic!("{addr}: {errors:?}") };
        assert!(name.ends_with("missing.test") == missing || name.ends_with("missing.test.") == missing, "{name}");
        assert_eq!(matches!(source, ResolveError::NoRecords), missing, "{addr}: {source}");
        assert_eq!(matches!(source, ResolveError::Servers(_)), !missing, "{addr}: {source}");
    }
}

#[test]
fn a_server_that_is_silent_costs_no_more_than_the_timeout() {
    let server = NameServer::start(|_, _, _| Answer::Silence);
    let config = Config::name_servers([server.addr()]).timeout(Duration::from_millis(50)).retries(0);
    let errors = failures(dial_with(config, &Dials::accept(|_| true), "/dnsaddr/silent.test"));
    assert!(matches!(errors.as_slice(), [Error::Resolve { source: ResolveError::Servers(_), .. }]), "{errors:?}");
}

#[test]
fn a_dropped_dial_asks_nothing_more() {
    let server = NameServer::start(|name, _, _| match name {
        "_dnsaddr.first.test." => Answer::Records(vec![dnsaddr("/dnsaddr/second.test")]),
        _ => Answer::Silence,
    });
    let dials = Dials::accept(|_| true);
    let config = Config::name_servers([server.addr()]).timeout(DEADLINE).retries(0);
    let mut transport = dns::Transport::new(dials.clone(), config);
    let mut dial = transport.dial("/dnsaddr/first.test".parse().unwrap(), opts()).unwrap();
    smol::block_on(within(async {
        let second = server.asked("_dnsaddr.second.test.");
        match future::select(&mut dial, Box::pin(second)).await {
            Either::Left((result, _)) => panic!("{result:?}"),
            Either::Right(((), _)) => {}
        }
    }));
    drop(dial);
    drop(transport);
    // Nothing that still runs has a handle on the wrapped transport.
    assert_eq!(dials.handles(), 1);
}

#[test]
fn the_machine_knows_itself_by_name() {
    let dials = Dials::accept(|_| true);
    let connected = dial_with(Config::default(), &dials, "/dns4/localhost/tcp/1").unwrap();
    assert_eq!(connected.to_string(), "/ip4/127.0.0.1/tcp/1");
    match dial_with(Config::system(), &dials, "/dns6/localhost/tcp/1") {
        Ok(connected) => assert_eq!(connected.to_string(), "/ip6/::1/tcp/1"),
        Err(error) => println!("skipped: localhost has no IPv6 address here ({error})"),
    }
}

#[test]
fn a_host_without_an_address_of_the_version_is_not_dialled() {
    // The system takes an address for a name that stands for itself.
    let errors = failures(dial_with(Config::system(), &Dials::accept(|_| true), "/dns6/127.0.0.1/tcp/1"));
    assert!(matches!(errors.as_slice(), [Error::Resolve { source: ResolveError::NoRecords, .. }]), "{errors:?}");
}

#[test]
fn the_system_says_why_a_name_is_not_found() {
    // Longer than a name can be, so that no server is asked.
    let addr = format!("/dns4/{}/tcp/1", "x".repeat(300));
    let errors = failures(dial_with(Config::system(), &Dials::accept(|_| true), &addr));
    assert!(matches!(errors.as_slice(), [Error::Resolve { source: ResolveError::System(_), .. }]), "{errors:?}");
}

#[test]
fn an_address_without_names_goes_straight_to_the_transport() {
    let dials = Dials::accept(|addr| addr.contains("192.0.2.1"));
    let connected = dial_with(Config::default(), &dials, "/ip4/192.0.2.1/tcp/1").unwrap();
    assert_eq!(connected.to_string(), "/ip4/192.0.2.1/tcp/1");
    let refused = dial_with(Config::default(), &dials, "/ip4/192.0.2.2/tcp/1");
    assert!(matches!(refused, Err(Error::Transport(Refused(_)))), "{refused:?}");
    let mut transport = dns::Transport::system(dials);
    let unknown: Multiaddr = "/ip4/192.0.2.1/udp/1/quic-v1".parse().unwrap();
    let refused = transport.dial(unknown.clone(), opts()).map(|dial| dial.now_or_never());
    assert!(matches!(refused, Err(TransportError::MultiaddrNotSupported(back)) if back == unknown));
}
