//! DNS messages: what is a question that can be answered, and the bytes of the answer. Pure. Sources: RFC 1035, RFC 6891
//! (EDNS), RFC 8914 (Extended DNS Errors), RFC 2308 (the SOA in negative answers).

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{self, Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::Via;
use crate::config::Hostname;

/// The largest answer over UDP: what needs no fragments on any path (DNS flag day 2020).
pub(super) const UDP_MAX: u16 = 1232;
/// The shortest thing that can be answered.
const HEADER: usize = 12;
/// Seconds that a synthetic address may be kept. It stays the name's as long as the workload lives; the time is short
/// so that the name is decided again.
const TTL: u32 = 60;
/// Seconds that "no such name" may be kept: policy may change.
const NEGATIVE_TTL: u32 = 5;
/// The longest text of an Extended DNS Error; with the longest name it fits 512 bytes.
const WHY_MAX: usize = 160;

/// What came of reading a message.
pub(super) enum Read {
    /// It deserves no answer: too short, or an answer itself.
    Nothing,
    /// It can't be answered; these bytes say why.
    Refusal(Vec<u8>),
    /// A question.
    Query(Box<Query>),
}

/// A question of class IN.
pub(super) struct Query {
    metadata: Metadata,
    question: op::Query,
    /// What the asker said of itself in EDNS.
    edns: Option<Edns>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// This address.
    Address(RData),
    /// The name is there and has nothing of the type (NOERROR).
    Empty,
    /// NXDOMAIN.
    NoSuchName(Option<Why>),
    /// SERVFAIL.
    Failure(Why),
}

/// Why there is no address, as an Extended DNS Error with text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// Policy, or not a target (15, Blocked).
    Blocked(String),
    /// The upstream look-up (22, No Reachable Authority).
    Upstream(String),
    /// Our own (0, Other).
    Fault(String),
}

/// Reads a message.
pub(super) fn read(bytes: &[u8]) -> Read {
    let Some(&[id_high, id_low, flags, ..]) = bytes.first_chunk::<HEADER>() else { return Read::Nothing };
    let is_response = flags & 0x80 != 0;
    if is_response {
        return Read::Nothing;
    }
    let Ok(mut message) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes([id_high, id_low]);
        let op_code = OpCode::from_u8(flags >> 3 & 0x0f);
        let code = if op_code == OpCode::Query { ResponseCode::FormErr } else { ResponseCode::NotImp };
        return refusal(Message::error_msg(id, op_code, code));
    };
    let edns = message.edns.take();
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata = reply_metadata(&message.metadata);
    reply.edns = edns.as_ref().map(|_| our_edns());
    let single = match message.queries.len() {
        1 => message.queries.pop(),
        _ => None,
    };
    reply.metadata.response_code = match &single {
        _ if message.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        _ if edns.as_ref().is_some_and(|edns| edns.version() != 0) => ResponseCode::BADVERS,
        _ if !message.answers.is_empty() || !message.authorities.is_empty() => ResponseCode::FormErr,
        None => ResponseCode::FormErr,
        Some(question) if question.query_class != DNSClass::IN => ResponseCode::Refused,
        Some(_) => ResponseCode::NoError,
    };
    match single {
        Some(question) if reply.metadata.response_code == ResponseCode::NoError => {
            Read::Query(Box::new(Query { metadata: reply.metadata, question, edns }))
        }
        question => {
            reply.add_queries(question);
            refusal(reply)
        }
    }
}

impl Query {
    /// The name; none if it isn't one that a host can have.
    pub(super) fn hostname(&self) -> Option<Hostname> {
        // Labels are bytes (RFC 2181 section 11); one with a dot or worse inside must not read as another name.
        let mut text = String::with_capacity(self.question.name.len());
        for label in self.question.name.iter() {
            let label = std::str::from_utf8(label).ok()?;
            if !label.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')) {
                return None;
            }
            text.push_str(label);
            text.push('.');
        }
        text.parse().ok()
    }

    /// The type, as `dig` writes it.
    pub(super) fn qtype(&self) -> String {
        self.question.query_type.to_string()
    }

    /// Whether an address is asked for: A or AAAA.
    pub(super) fn asks_for_address(&self) -> bool {
        matches!(self.question.query_type, RecordType::A | RecordType::AAAA)
    }

    /// The one of two addresses that was asked for; nothing for other types.
    pub(super) fn addresses(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> Answer {
        match self.question.query_type {
            RecordType::A => Answer::Address(RData::A(A(v4))),
            RecordType::AAAA => Answer::Address(RData::AAAA(AAAA(v6))),
            _ => Answer::Empty,
        }
    }

    /// The bytes of the answer: never more than the asker takes, with TC set if that cost something.
    pub(super) fn reply(&self, answer: Answer, via: Via) -> Vec<u8> {
        let mut reply = Message::response(self.metadata.id, self.metadata.op_code);
        reply.metadata = self.metadata;
        reply.add_query(self.question.clone());
        reply.edns = self.edns.as_ref().map(|_| our_edns());
        let why = match answer {
            Answer::Address(data) => {
                reply.add_answer(Record::from_rdata(self.question.name.clone(), TTL, data));
                None
            }
            Answer::Empty => {
                reply.add_authority(soa());
                None
            }
            Answer::NoSuchName(why) => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.add_authority(soa());
                why
            }
            Answer::Failure(why) => {
                reply.metadata.response_code = ResponseCode::ServFail;
                Some(why)
            }
        };
        if let (Some(edns), Some(why)) = (&mut reply.edns, why) {
            edns.options_mut().insert(why.option());
        }
        let limit = match via {
            Via::Tcp => u16::MAX,
            Via::Udp => self.edns.as_ref().map_or(512, |edns| edns.max_payload().clamp(512, UDP_MAX)),
        };
        fit(reply, limit.into())
    }
}

impl Why {
    /// RFC 8914 section 2: the code, then text in UTF-8.
    fn option(&self) -> EdnsOption {
        let (code, text) = match self {
            Why::Blocked(text) => (15_u16, text),
            Why::Upstream(text) => (22, text),
            Why::Fault(text) => (0, text),
        };
        let mut end = text.len().min(WHY_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        EdnsOption::Unknown(15, [&code.to_be_bytes(), &text.as_bytes()[..end]].concat())
    }
}

fn refusal(reply: Message) -> Read {
    Read::Refusal(fit(reply, 512))
}

/// Encodes a reply; without its records if it would be too long.
fn fit(reply: Message, limit: usize) -> Vec<u8> {
    let whole = reply.to_vec().ok().filter(|bytes| bytes.len() <= limit);
    whole.unwrap_or_else(|| {
        let mut short = reply.truncate();
        short.edns = reply.edns.as_ref().map(|_| our_edns());
        short.to_vec().unwrap_or_else(|_| bare_failure(&reply.metadata))
    })
}

/// SERVFAIL with nothing but the header, for what can't be encoded.
fn bare_failure(metadata: &Metadata) -> Vec<u8> {
    let [high, low] = metadata.id.to_be_bytes();
    vec![high, low, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn reply_metadata(query: &Metadata) -> Metadata {
    let mut metadata = Metadata::response_from_request(query);
    metadata.message_type = MessageType::Response;
    metadata.recursion_available = true;
    metadata
}

fn our_edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_MAX);
    edns
}

/// The authority of all names here: the root, so that it is above whatever was asked for.
fn soa() -> Record {
    let own = |label: &str| Name::from_ascii(label).unwrap_or_else(|_| Name::root());
    let data = SOA::new(own("interceptor."), own("hostmaster.interceptor."), 1, 3600, 600, 86400, NEGATIVE_TTL);
    Record::from_rdata(Name::root(), NEGATIVE_TTL, RData::SOA(data))
}
