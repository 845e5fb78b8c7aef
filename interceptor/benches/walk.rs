//! What a request pays on its way, piece by piece: `cargo bench --bench walk`. The whole walk is measured by
//! `cargo xtask bench`.

#![expect(clippy::expect_used, reason = "a benchmark that can't go on ends")]

use std::cell::LazyCell;
use std::fmt::Write;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use interceptor::bpf::Origin;
use interceptor::clock::{Clock, SystemClock};
use interceptor::config::{Host, Settings};
use interceptor::ids::{LaunchId, OperationId, SessionId};
use interceptor::policy::{
    Asker, Authentic, Basis, Bound, CanonicalPath, Credential, Grants, HttpRequest, Operation, Principal,
    PrincipalKind, Question, Snapshot, Source, decide,
};
use interceptor::record::event::{Identity, Payload, Verdict, What};
use interceptor::record::payload::Message;
use interceptor::record::{Content, Event, Journal, Record, SessionKey};
use interceptor::transport::authority::Authority;
use interceptor::who::{Workload, attribute};
use nix::sys::resource::{UsageWho, getrusage};

const TENANT: &str = "7c3e5b1a-0d64-4f2e-9a18-5be0c1d2f301";
const OBJECT: &str = "3a9b7c10-52de-4f81-a6c4-7e08d1f3b522";
/// How many policies a question is answered from.
const SLICE: usize = 10;
/// How many operations are moved into the database at once.
const INGESTED: u32 = 20_000;

fn settings(targets: usize) -> Arc<Settings> {
    let mut text = format!("[[tenant]]\nid = \"{TENANT}\"\n[[workload]]\nname = \"crm\"\n");
    for number in 0..targets {
        write!(text, "[[target]]\nname = \"t{number}\"\nhosts = [\"t{number}.example\"]\n").expect("it is a string");
    }
    Arc::new(Settings::parse("/etc/interceptor/config.toml", &text).expect("the configuration is sound"))
}

/// So many targets with [`SLICE`] policies each.
fn snapshot(targets: usize) -> Snapshot {
    let mut text = String::new();
    for (target, number) in (0..targets).flat_map(|target| (0..SLICE).map(move |number| (target, number))) {
        let (effect, condition) = match number {
            0 => ("permit", "context.http.s1 == \"users\" && context.base.credential == \"entra\"".to_owned()),
            _ => ("forbid", format!("context.http.path like \"/v1.0/*/private{number}/*\"")),
        };
        writeln!(
            text,
            "@id(\"p{target}-{number}\") {effect} (principal, action in Action::\"http:read\", \
             resource == Target::\"t{target}\") when {{ {condition} }};"
        )
        .expect("it is a string");
    }
    let source = Source { name: "policy.d/bench.cedar".into(), text };
    Snapshot::load(settings(targets), vec![source], 1).expect("the policies are sound")
}

fn deciding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide, 10 policies in the slice");
    for (targets, of) in [(20, "of 200"), (1000, "of 10,000")] {
        // Not made where another benchmark is asked for.
        let snapshot = LazyCell::new(move || snapshot(targets));
        let asker =
            Asker { workload: "crm".parse().expect("a name"), classes: Vec::new(), initiator: 1000, loginuid: None };
        let principal = Principal {
            id: format!("{TENANT}/{OBJECT}").parse().expect("an id"),
            kind: PrincipalKind::ServicePrincipal,
            client: None,
            groups: Some(Vec::new()),
            roles: Vec::new(),
            authentic: Authentic::Issuer,
            bound: Bound::IssuedHere,
        };
        let host: Host = "t0.example".parse().expect("a host");
        let path = CanonicalPath::parse("/v1.0/users/42").expect("a path");
        let settings = settings(targets);
        let question = Question {
            asker: &asker,
            principal: Some(&principal),
            target: settings.targets.iter().next().expect("there is a target"),
            operation: Operation::Http(HttpRequest {
                method: "GET",
                host: &host,
                port: 443,
                tls: true,
                path: &path,
                query: None,
                credential: Credential::Entra,
                websocket: false,
            }),
            digest: None,
            using: None,
        };
        let (grants, now) = (Grants::default(), SystemClock.now());
        group.bench_function(of, |bencher| {
            let verdict = decide(&snapshot, &question, &grants, now);
            assert!(matches!(verdict, interceptor::policy::Decision::Allow(_)), "{verdict:?}");
            bencher.iter(|| black_box(decide(&snapshot, &question, &grants, now)));
        });
    }
    group.finish();
}

fn intent(launch: LaunchId, session: SessionId) -> Event {
    let what = What::OperationDecided {
        operation: OperationId::new(),
        session: Some(session),
        launch,
        workload: "crm".parse().expect("a name"),
        target: Some("graph".parse().expect("a name")),
        action: "http:GET".into(),
        summary: "GET /v1.0/users/42".into(),
        verdict: Verdict::Allow,
        code: None,
        basis: Box::new(Basis { generation: 1, policies: vec!["users".into()], ..Basis::default() }),
        initiator: Some(1000),
        credential: Some(Credential::Entra),
        identity: Some(Box::new(Identity {
            principal: format!("{TENANT}/{OBJECT}").parse().expect("an id"),
            kind: PrincipalKind::ServicePrincipal,
            client: Some(OBJECT.parse().expect("an id")),
            authentic: Authentic::Issuer,
            bound: Bound::IssuedHere,
            token: "ab".repeat(32).parse().expect("a digest"),
            uti: Some("uti-1".into()),
        })),
        approval: None,
    };
    Event { at: SystemClock.now(), what }
}

fn record_settings() -> Settings {
    let mut text = String::from("[record]\nbacklog = \"8GiB\"\nbacklog_age = \"1h\"\nsegment = \"512MiB\"\n");
    text += "[[workload]]\nname = \"crm\"\n";
    Settings::parse("/etc/interceptor/config.toml", &text).expect("the configuration is sound")
}

fn open(folder: &Path) -> Record {
    Record::open(folder, &record_settings().record, Arc::new(SystemClock)).expect("the record opens")
}

/// What a small request and its answer are.
fn content() -> Content {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let body = format!("{{\"id\":\"{OBJECT}\",\"displayName\":\"Adele Vance\",\"mail\":\"adele@contoso.example\"}}");
    let request = Message {
        start: "GET /v1.0/users/42 HTTP/1.1".into(),
        headers: vec![
            field("host", "graph.microsoft.com"),
            field("authorization", "[secret]"),
            field("user-agent", "crm-mcp/1.4"),
            field("accept", "application/json"),
        ],
        ..Message::default()
    };
    let response = Message {
        start: "HTTP/1.1 200 OK".into(),
        headers: vec![
            field("content-type", "application/json"),
            field("content-length", &body.len().to_string()),
            field("request-id", OBJECT),
            field("date", "Wed, 25 Nov 2026 09:00:00 GMT"),
        ],
        bytes: body.len() as u64,
        body: body.into_bytes(),
        ..Message::default()
    };
    Content { request, response: Some(response) }
}

/// The writer runs beside it as it does in the daemon; so few are appended at once that it never holds them up.
fn appending(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let record = open(folder.path());
    let journal = record.journal("worker-0").expect("a journal");
    let (launch, session) = (LaunchId::new(), SessionId::new());
    let (key, content) = (record.keys().new_session(session).expect("a key"), content());
    let mut group = criterion.benchmark_group("record");
    group.sample_size(20);
    // CPU time: on a machine that does something else besides, a write may wait for it.
    group.bench_function("append an intent (CPU)", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            let mut left = iterations;
            while left > 0 {
                let events: Vec<Event> = (0..left.min(1_000)).map(|_| intent(launch, session)).collect();
                left -= events.len() as u64;
                let before = cpu();
                for event in &events {
                    let _recorded = black_box(journal.append(event).expect("it is recorded"));
                }
                spent += cpu() - before;
            }
            spent
        });
    });
    group.bench_function("seal a payload, append it and an outcome (CPU)", |bencher| {
        bencher.iter_custom(|iterations| {
            let before = cpu();
            for _ in 0..iterations {
                finish(&journal, &key, OperationId::new(), &content);
            }
            cpu() - before
        });
    });
    group.finish();
}

/// Records how an operation ended, with what is kept of it.
fn finish(journal: &Journal, key: &SessionKey, operation: OperationId, content: &Content) {
    let sealed = key.seal(operation, content).expect("it is sealed");
    let what = What::OperationFinished {
        operation,
        outcome: "done".into(),
        policies: Vec::new(),
        status: Some(200),
        request: Payload::default(),
        response: Payload { bytes: 95, digest: Some("cd".repeat(32)) },
        masked: std::iter::once(("$.mail".to_owned(), 1)).collect(),
        spent: None,
        service_request: Some(OBJECT.into()),
        kept: Some(sealed.kept()),
    };
    journal.append_with((key, &sealed), &Event { at: SystemClock.now(), what }).expect("it is kept");
}

/// A journal with so many operations, each an intent, and an outcome with a payload, in a folder that a record can be
/// opened in.
fn fill(folder: &Path) {
    let filled = tempfile::tempdir().expect("a folder");
    let record = open(filled.path());
    let journal = record.journal("worker-0").expect("a journal");
    let (launch, content) = (LaunchId::new(), content());
    let append = |what: What| drop(journal.append(&Event { at: SystemClock.now(), what }).expect("it is recorded"));
    let mut sessions = Vec::new();
    for _ in 0..64 {
        let session = SessionId::new();
        append(What::SessionOpened {
            session,
            launch,
            workload: "crm".parse().expect("a name"),
            process: None,
            original: "198.18.0.1:443".parse().expect("an address"),
            host: Some("graph.microsoft.com".parse().expect("a host")),
            target: Some("graph".parse().expect("a name")),
        });
        sessions.push((session, record.keys().new_session(session).expect("a key")));
    }
    let mut under_way = Vec::new();
    for number in 0..INGESTED as usize {
        let (session, key) = &sessions[number % sessions.len()];
        let mut event = intent(launch, *session);
        let What::OperationDecided { operation, summary, .. } = &mut event.what else {
            unreachable!("it is an intent")
        };
        *summary = format!("GET /v1.0/users/{number}");
        under_way.push((*operation, key));
        append(event.what);
        // As many as there are connections have no outcome yet.
        if number >= sessions.len() {
            let (operation, key) = under_way.remove(0);
            finish(&journal, key, operation, &content);
        }
    }
    fs::create_dir_all(folder.join("journal")).expect("a folder");
    for file in fs::read_dir(filled.path().join("journal")).expect("a folder") {
        let path = file.expect("a file").path();
        // The writer deletes its own name of it.
        fs::hard_link(&path, folder.join("journal").join(path.file_name().expect("a name"))).expect("a link");
    }
}

/// The CPU time that this thread has taken.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("the usage");
    let time = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_usec() * 1_000).expect("less than a second"))
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// From the journal into the database, as the writer does it; a record that is opened does it before it is open, in the
/// same thread.
fn ingesting(criterion: &mut Criterion) {
    let filled = tempfile::tempdir().expect("a folder");
    fill(filled.path());
    let mut group = criterion.benchmark_group("record");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    group.bench_function("ingest an operation (CPU)", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            // An iteration is one operation; no fewer than all of them are moved.
            let rounds = iterations.div_ceil(u64::from(INGESTED));
            for _ in 0..rounds {
                let folder = tempfile::tempdir().expect("a folder");
                fs::create_dir(folder.path().join("journal")).expect("a folder");
                for file in fs::read_dir(filled.path().join("journal")).expect("a folder") {
                    let path = file.expect("a file").path();
                    let to = folder.path().join("journal").join(path.file_name().expect("a name"));
                    fs::copy(&path, to).expect("a copy");
                }
                let before = cpu();
                let record = open(folder.path());
                spent += cpu() - before;
                drop(record);
            }
            spent.mul_f64(iterations as f64 / (rounds * u64::from(INGESTED)) as f64)
        });
    });
    group.finish();
}

fn minting(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::open(&folder.path().join("ca"), Arc::new(SystemClock)).expect("the authority opens");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut number = 0_u64;
    criterion.bench_function("mint a leaf", |bencher| {
        bencher.iter(|| {
            number += 1;
            // Another name each time: nothing comes from the cache.
            let host: Host = format!("h{number}.example").parse().expect("a host");
            black_box(runtime.block_on(authority.server_config(&host, Some(b"h2"))).expect("a leaf"))
        });
    });
}

/// A connection of this process: what /proc says of it is read, and that it is in the workload's cgroup. The look-up of
/// its origin in the kernel's map isn't in it.
fn attributing(criterion: &mut Criterion) {
    let cgroup = fs::read_to_string("/proc/self/cgroup").expect("our cgroup");
    let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::")).expect("a cgroup of version 2");
    let workload = Arc::new(Workload {
        id: LaunchId::new(),
        settings: Arc::clone(&settings(0).workloads[0]),
        initiator: 1000,
        loginuid: None,
        uid: 1000,
        init: std::process::id(),
        cgroup: Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/')),
        folder: "/var/lib/interceptor/launches/x".into(),
    });
    let own = std::process::id();
    let origin = Origin { pid: own, tid: own, uid: 1000, comm: "bench".into() };
    let (original, peer) =
        ("192.0.2.7:443".parse().expect("an address"), "192.0.2.2:40000".parse().expect("an address"));
    criterion.bench_function("attribute a connection", |bencher| {
        bencher.iter(|| black_box(attribute(&workload, Some(origin.clone()), original, peer)));
    });
}

criterion_group!(benches, deciding, appending, ingesting, attributing, minting);
criterion_main!(benches);
