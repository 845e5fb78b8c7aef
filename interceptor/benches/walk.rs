//! What a request pays on its way, piece by piece: `cargo bench --bench walk`. The whole walk is measured by
//! `cargo xtask bench`.

#![expect(clippy::expect_used, reason = "a benchmark that can't go on ends")]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use interceptor::clock::{Clock, SystemClock};
use interceptor::config::{Host, Settings};
use interceptor::ids::{LaunchId, OperationId, SessionId};
use interceptor::policy::{
    Asker, Authentic, Basis, Bound, CanonicalPath, Credential, Grants, HttpRequest, Operation, Principal,
    PrincipalKind, Question, Snapshot, Source, decide,
};
use interceptor::record::event::{Identity, Verdict, What};
use interceptor::record::{Event, Record};
use interceptor::transport::authority::Authority;

const TENANT: &str = "7c3e5b1a-0d64-4f2e-9a18-5be0c1d2f301";
const OBJECT: &str = "3a9b7c10-52de-4f81-a6c4-7e08d1f3b522";
/// How many policies a question is answered from.
const SLICE: usize = 10;

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
        let snapshot = snapshot(targets);
        let target = snapshot.settings.targets.iter().next().expect("there is a target").clone();
        let asker = Asker { workload: "crm".parse().expect("a name"), classes: Vec::new(), initiator: 1000 };
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
        let question = Question {
            asker: &asker,
            principal: Some(&principal),
            target: &target,
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
        let verdict = decide(&snapshot, &question, &grants, now);
        assert!(matches!(verdict, interceptor::policy::Decision::Allow(_)), "{verdict:?}");
        group.bench_function(of, |bencher| bencher.iter(|| black_box(decide(&snapshot, &question, &grants, now))));
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

/// The writer runs beside it as it does in the daemon; so few are appended at once that it never holds them up.
fn appending(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = String::from("[record]\nbacklog = \"8GiB\"\nbacklog_age = \"1h\"\n");
    text += "[[workload]]\nname = \"crm\"\n";
    let settings = Settings::parse("/etc/interceptor/config.toml", &text).expect("the configuration is sound");
    let record = Record::open(folder.path(), &settings.record, Arc::new(SystemClock)).expect("the record opens");
    let journal = record.journal("worker-0").expect("a journal");
    let (launch, session) = (LaunchId::new(), SessionId::new());
    let mut group = criterion.benchmark_group("record");
    group.sample_size(20);
    group.bench_function("append an intent", |bencher| {
        bencher.iter_batched(
            || intent(launch, session),
            |event| black_box(journal.append(&event).expect("it is recorded")),
            BatchSize::SmallInput,
        );
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

criterion_group!(benches, deciding, appending, minting);
criterion_main!(benches);
