//! A name that is followed, through a name server of the test's own.
#![cfg(feature = "dns")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use routing_core::{DatabaseUrl, Discovered, Discovery as _, DnsDiscovery, DnsOptions, InvalidDns};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What the name server says.
#[derive(Clone, Debug)]
enum Says {
    /// These addresses, for so many seconds.
    Addresses(Vec<u8>, u32),
    /// These targets and ports, for so many seconds.
    Services(Vec<(&'static str, u16)>, u32),
    /// There is no such name.
    Unknown,
    /// The name has no address.
    Empty,
    /// Something is wrong with it.
    Fails,
    /// Nothing.
    Silent,
}

struct NameServer {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    task: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let says = Arc::new(Mutex::new(Says::Silent));
        let said = says.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let says = said.lock().unwrap().clone();
                if let Some(answer) = answer(&question, &says) {
                    socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        Self { address, says, task }
    }

    fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    fn discovery(&self, url: &str) -> DnsDiscovery {
        let mut options = DnsOptions::new(url.parse().unwrap());
        options.servers = vec![self.address];
        options.probe_url = Some("postgres://monitor@anything/shop".parse().unwrap());
        DnsDiscovery::new(options).unwrap()
    }
}

fn answer(question: &Message, says: &Says) -> Option<Message> {
    let query = question.queries.first().unwrap().clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    let (name, wanted) = (query.name().clone(), query.query_type());
    answer.add_query(query);
    match says {
        Says::Silent => return None,
        Says::Unknown => answer.metadata.response_code = ResponseCode::NXDomain,
        Says::Fails => answer.metadata.response_code = ResponseCode::ServFail,
        Says::Empty => {}
        Says::Addresses(last, ttl) if wanted == RecordType::A => {
            for last in last {
                let address = RData::A(A(Ipv4Addr::new(10, 0, 0, *last)));
                answer.add_answer(Record::from_rdata(name.clone(), *ttl, address));
            }
        }
        Says::Services(targets, ttl) if wanted == RecordType::SRV => {
            for (target, port) in targets {
                let target = Name::from_ascii(target).unwrap();
                let service = RData::SRV(SRV::new(0, 0, *port, target));
                answer.add_answer(Record::from_rdata(name.clone(), *ttl, service));
            }
        }
        Says::Addresses(..) | Says::Services(..) => {}
    }
    Some(answer)
}

fn names(found: &Discovered) -> Vec<&str> {
    found.nodes.iter().map(|node| node.name.as_str()).collect()
}

#[tokio::test]
async fn every_address_of_a_name_is_a_node_with_the_urls_of_the_name() {
    let server = NameServer::start().await;
    let dns = server.discovery("postgres://app:hunter2@db.internal:6432/shop?application_name=shop");
    server.say(Says::Addresses(vec![3, 1, 2, 1], 12));
    let found = dns.discover().await.unwrap();
    assert_eq!(names(&found), ["10.0.0.1:6432", "10.0.0.2:6432", "10.0.0.3:6432"]);
    let first = &found.nodes[0];
    assert_eq!(first.url.expose(), "postgres://app:hunter2@10.0.0.1:6432/shop?application_name=shop");
    assert_eq!(first.probe_url().expose(), "postgres://monitor@10.0.0.1:6432/shop");
    let again = found.ask_again.unwrap();
    assert!((Duration::from_secs(5)..=Duration::from_secs(12)).contains(&again), "{again:?}");
    server.say(Says::Addresses(vec![2], 12));
    assert_eq!(names(&dns.discover().await.unwrap()), ["10.0.0.2:6432"], "nothing is kept from before");
}

#[tokio::test]
async fn a_time_to_live_counts_between_a_floor_and_a_ceiling() {
    let server = NameServer::start().await;
    let dns = server.discovery("postgres://app@db.internal/shop");
    for (ttl, expected) in [(0, 5), (1, 5), (86_400, 30)] {
        server.say(Says::Addresses(vec![1], ttl));
        assert_eq!(dns.discover().await.unwrap().ask_again, Some(Duration::from_secs(expected)), "{ttl}");
    }
}

#[tokio::test]
async fn services_name_targets_with_their_own_ports() {
    let server = NameServer::start().await;
    let dns = server.discovery("postgres://app@_postgresql._tcp.db.internal/shop");
    server.say(Says::Services(vec![("db2.internal.", 5433), ("db1.internal.", 5432)], 10));
    let found = dns.discover().await.unwrap();
    assert_eq!(names(&found), ["db1.internal:5432", "db2.internal:5433"]);
    assert_eq!(found.nodes[1].url.expose(), "postgres://app@db2.internal:5433/shop");
}

#[tokio::test]
async fn no_answer_is_an_error_that_names_what_was_asked() {
    let server = NameServer::start().await;
    let dns = server.discovery("postgres://app:hunter2@db.internal/shop");
    for says in [Says::Unknown, Says::Empty, Says::Fails, Says::Silent] {
        server.say(says.clone());
        let error = dns.discover().await.unwrap_err();
        assert_eq!(&*error.asked, "db.internal", "{says:?}");
        assert_eq!(error.ask_again, Some(Duration::from_secs(5)));
        assert!(!format!("{error} {error:?} {dns:?}").contains("hunter2"));
    }
}

#[test]
fn an_address_is_no_name() {
    for host in ["10.0.0.1", "[::1]"] {
        let url: DatabaseUrl = format!("postgres://app@{host}/shop").parse().unwrap();
        assert!(matches!(DnsDiscovery::new(DnsOptions::new(url)), Err(InvalidDns::Address(_))));
    }
}
