use std::io::Write;

use super::*;
use crate::policy::{Authentic, Bound, PrincipalKind};

#[test]
fn only_what_says_nothing_is_left_out() {
    for name in ["date", "user-agent", "traceparent", "x-ms-client-request-id", "client-request-id", "connection", "te"]
    {
        assert!(is_noise(&name.parse().unwrap()), "{name}");
    }
    for name in ["authorization", "content-type", "accept", "prefer", "if-match", "x-request", "cookie"] {
        assert!(!is_noise(&name.parse().unwrap()), "{name}");
    }
}

#[test]
fn a_body_is_known_by_what_it_says_however_it_is_coded() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(b"{}").unwrap();
    let gzip = gzip.finish().unwrap();
    let headers = |coding: &str| HeaderMap::from_iter([(header::CONTENT_ENCODING, coding.parse().unwrap())]);
    assert_eq!(decoded(&headers("gzip"), &gzip).unwrap(), b"{}");
    assert_eq!(decoded(&headers("gzip"), &gzip[..9]), None, "a broken one stays as it is, with its header");
    assert_eq!(decoded(&headers("compress"), b"x"), None);
    assert_eq!(decoded(&HeaderMap::new(), b"{}"), None);
}

#[test]
fn no_two_lists_of_fields_have_the_same_digest() {
    let key = ApprovalKey::new(&keyfile::random().unwrap());
    let digest = |fields: &[&str]| {
        let mut digest = Fields(Context::with_key(&key.0));
        fields.iter().for_each(|field| digest.field(field));
        digest.end()
    };
    assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
    assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    assert_ne!(digest(&["a", ""]), digest(&["a"]));
}

/// A request that stays the same but for one thing.
struct Case {
    workload: &'static str,
    asker: Asker,
    principal: Option<Principal>,
    credential: Credential,
    scheme: &'static str,
    host: &'static str,
    port: u16,
    parts: Parts,
    websocket: bool,
    body: Vec<u8>,
}

impl Case {
    fn new() -> Self {
        let id = |last: u32| format!("72f988bf-86f1-41af-91ab-2d7cd011db47/00000000-0000-4000-8000-00000000000{last}");
        let request = http::Request::post("/v1.0/users?a=1")
            .header("authorization", "Bearer one")
            .header("content-type", "application/json")
            .header("prefer", "a")
            .header("prefer", "b")
            .header("user-agent", "one")
            .header("date", "then");
        let workload = "crm".parse().unwrap();
        Self {
            workload: "crm",
            asker: Asker { workload, classes: Vec::new(), initiator: 1000, loginuid: Some(1000) },
            principal: Some(Principal {
                id: id(1).parse().unwrap(),
                kind: PrincipalKind::User,
                client: Some("44444444-0000-4000-8000-000000000004".parse().unwrap()),
                groups: None,
                roles: Vec::new(),
                authentic: Authentic::Signature,
                bound: Bound::IssuedHere,
            }),
            credential: Credential::Entra,
            scheme: "https",
            host: "graph.microsoft.com",
            port: 443,
            parts: request.body(()).unwrap().into_parts().0,
            websocket: false,
            body: b"{\"n\":1}".to_vec(),
        }
    }

    fn fields(&self) -> Vec<Vec<u8>> {
        let origin = Origin {
            workload: self.workload,
            asker: &self.asker,
            principal: self.principal.as_ref(),
            credential: self.credential,
            scheme: self.scheme,
            host: self.host,
            port: self.port,
        };
        let mut all = Vec::new();
        fields(&origin, (&self.parts, self.websocket), &self.body, |field| all.push(field.to_vec()));
        all
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.parts.headers.insert(name, value.parse().unwrap());
    }
}

#[test]
fn each_thing_that_people_said_yes_to_makes_another_operation() {
    type Change = (&'static str, fn(&mut Case));
    let changes: [Change; 21] = [
        ("nothing", |_| {}),
        ("workload", |case| case.workload = "batch"),
        ("initiator", |case| case.asker.initiator = 1001),
        ("login", |case| case.asker.loginuid = Some(1001)),
        ("no login", |case| case.asker.loginuid = None),
        ("principal", |case| {
            let other = "72f988bf-86f1-41af-91ab-2d7cd011db47/00000000-0000-4000-8000-000000000002";
            case.principal.as_mut().unwrap().id = other.parse().unwrap();
        }),
        ("client", |case| {
            let other = "44444444-0000-4000-8000-000000000005".parse().unwrap();
            case.principal.as_mut().unwrap().client = Some(other);
        }),
        ("nobody", |case| case.principal = None),
        ("method", |case| case.parts.method = http::Method::PUT),
        ("scheme", |case| case.scheme = "http"),
        ("host", |case| case.host = "graph.microsoft.us"),
        ("port", |case| case.port = 8443),
        ("path", |case| case.parts.uri = "/v1.0/users/?a=1".parse().unwrap()),
        ("query", |case| case.parts.uri = "/v1.0/users?a=2".parse().unwrap()),
        ("no query", |case| case.parts.uri = "/v1.0/users".parse().unwrap()),
        ("a header's value", |case| case.set("content-type", "text/plain")),
        ("one header less", |case| _ = case.parts.headers.remove("content-type")),
        ("one of two values", |case| case.set("prefer", "a")),
        ("one header more", |case| case.set("if-match", "1")),
        ("body", |case| case.body = b"{\"n\":2}".to_vec()),
        ("a WebSocket", |case| case.websocket = true),
    ];
    let mut known = std::collections::BTreeMap::new();
    for (what, change) in changes {
        let mut case = Case::new();
        change(&mut case);
        if let Some(other) = known.insert(case.fields(), what) {
            panic!("`{what}` is the same operation as `{other}`");
        }
    }
    // An empty query isn't none.
    let mut empty = Case::new();
    empty.parts.uri = "/v1.0/users?".parse().unwrap();
    assert!(known.insert(empty.fields(), "an empty query").is_none());
}

#[test]
fn what_differs_from_one_try_to_the_next_makes_no_other_operation() {
    let known = Case::new().fields();
    type Change = (&'static str, fn(&mut Case));
    let changes: [Change; 6] = [
        ("a renewed token of the same", |case| case.set("authorization", "Bearer two")),
        ("the tool", |case| case.set("user-agent", "two")),
        ("the time", |case| case.set("date", "now")),
        ("a trace", |case| case.set("x-ms-client-request-id", "2")),
        ("why", |case| case.set("interceptor-justification", "ticket 8")),
        ("the body's coding", |case| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&case.body).unwrap();
            case.body = gzip.finish().unwrap();
            case.set("content-encoding", "gzip");
            case.set("content-length", "999");
        }),
    ];
    for (what, change) in changes {
        let mut case = Case::new();
        change(&mut case);
        assert_eq!(case.fields(), known, "{what}");
    }
    // A credential that isn't judged is part of what was asked.
    let foreign = |token: &str| {
        let mut case = Case { credential: Credential::Foreign, principal: None, ..Case::new() };
        case.set("authorization", token);
        case.fields()
    };
    assert_ne!(foreign("Basic one"), foreign("Basic two"));
}

/// What opens a WebSocket, without what is of one hop: as it is when it is known.
fn handshake(websocket: bool) -> Case {
    let request = http::Request::get("/chat")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .header("sec-websocket-extensions", "permessage-deflate")
        .header("origin", "https://one.example");
    let parts = request.body(()).unwrap().into_parts().0;
    Case { parts, websocket, body: Vec::new(), ..Case::new() }
}

#[test]
fn a_websocket_is_known_by_all_but_the_key_of_one_handshake() {
    let known = handshake(true).fields();
    let set = |name: &'static str, value: &str| {
        let mut case = handshake(true);
        case.set(name, value);
        case.fields()
    };
    assert_eq!(set("sec-websocket-key", "AQIDBAUGBwgJCgsMDQ4PEA=="), known, "a retry has another one");
    for (name, value) in [
        ("sec-websocket-protocol", "admin"),
        ("sec-websocket-extensions", "x-other"),
        ("sec-websocket-version", "8"),
        ("origin", "https://two.example"),
    ] {
        assert_ne!(set(name, value), known, "{name}");
    }
    let plain = handshake(false);
    assert_ne!(plain.fields(), known, "it isn't the GET of the same URL");
    // Which may have a field of that name as well, and there it is one like others.
    let mut other = handshake(false);
    other.set("sec-websocket-key", "AQIDBAUGBwgJCgsMDQ4PEA==");
    assert_ne!(other.fields(), plain.fields());
}
