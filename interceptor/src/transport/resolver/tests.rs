//! A table of questions, what the sockets do, and what random bytes can't.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Mutex;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use nix::sys::socket::{setsockopt, sockopt};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::{Home, IdentitySource, Level, Match, WorkloadSettings};
use crate::ids::LaunchId;
use crate::transport::dial::Looking;

mod sockets;
mod table;

/// What became of a look-up, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// Admits `*.example.com` and `*.corp`; fails for `broken.example.com` as if the record were full.
struct TestGate(Log);

impl Gate for TestGate {
    fn admit(&self, _: &Arc<Workload>, name: &Hostname, qtype: &str) -> Result<(), Fault> {
        self.0.lock().unwrap().push(format!("admit {name} {qtype}"));
        let fault =
            |code, blame, told: &str| Err(Fault { code, blame, told: told.to_owned(), next: "ask the operator" });
        match name.as_str() {
            "broken.example.com" => fault("record-full", Blame::Interceptor, "the verdict couldn't be recorded"),
            name if name.ends_with(".example.com") || name.ends_with(".corp") => Ok(()),
            _ => fault("not-a-target", Blame::Policy, "no target has this host"),
        }
    }
}

struct TestLookup(Log, HashMap<&'static str, Result<Found, LookupError>>);

impl Lookup for TestLookup {
    fn lookup<'a>(&'a self, name: &'a Hostname) -> Looking<'a> {
        self.0.lock().unwrap().push(format!("lookup {name}"));
        let answer = self.1.get(name.as_str()).cloned();
        Box::pin(async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

fn resolver(folder: &Path, limit: usize) -> (Arc<Resolver>, Log) {
    let log = Log::default();
    let found = |fixed, addresses: &[&str]| {
        Ok(Found { fixed, addresses: addresses.iter().map(|text| text.parse().unwrap()).collect() })
    };
    let answers = HashMap::from([
        ("api.example.com", found(false, &["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])),
        ("mixed.example.com", found(false, &["93.184.215.14", "10.0.0.7"])),
        ("fixed.example.com", found(true, &["127.0.0.1"])),
        ("_srv.example.com", found(false, &["93.184.215.14"])),
        ("db.corp", found(false, &["10.1.2.3"])),
        ("gone.example.com", Err(LookupError::NoSuchName)),
        ("empty.example.com", Err(LookupError::NoAddress)),
        ("ill.example.com", Err(LookupError::Failed("temporary failure in name resolution".to_owned()))),
    ]);
    let workload = Arc::new(Workload {
        id: LaunchId::new(),
        settings: Arc::new(WorkloadSettings {
            name: "crm".parse().unwrap(),
            matches: Match::default(),
            user: None,
            home: Home::Guarded,
            unix: Vec::new(),
            classes: Vec::new(),
            identity: IdentitySource::Observed,
            publish: Vec::new(),
            adopt: Vec::new(),
            containment: Level::Steered,
        }),
        initiator: 1000,
        loginuid: None,
        uid: 1000,
        init: 1,
        cgroup: "/nowhere".into(),
        folder: folder.to_owned(),
    });
    let names = Arc::new(Names::open(folder, limit).unwrap());
    let lookup = Arc::new(TestLookup(log.clone(), answers));
    (Resolver::new(workload, names, Arc::new(TestGate(log.clone())), lookup, Arc::default()), log)
}

fn question(name: &str, qtype: RecordType, edns: bool) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    // What isn't a host name by hickory's rules either is taken label by label.
    let labels = || Name::from_labels(name.trim_end_matches('.').split('.').map(str::as_bytes));
    message.add_query(Question::query(Name::from_ascii(name).or_else(|_| labels()).unwrap(), qtype));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.set_edns(edns);
    }
    message
}

fn udp_socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    if socket.local_addr().unwrap().is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
    }
    socket
}
