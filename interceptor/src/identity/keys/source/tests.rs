use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::identity::FetchError;
use crate::identity::fixture::{Script, jwk, now};

const ISSUER: &str = "https://login.example/t/v2.0";
const DISCOVERY: &str = "https://login.example/t/v2.0/.well-known/openid-configuration";
const KEYS: &str = "https://login.example/t/discovery/v2.0/keys";

struct Bench {
    script: Arc<Script>,
    clock: Arc<ManualClock>,
    source: Arc<KeySource>,
}

impl Bench {
    fn new() -> Self {
        let script = Arc::new(Script::default());
        let clock = Arc::new(ManualClock::at(now()));
        script.answer(DISCOVERY, json!({"issuer": ISSUER, "jwks_uri": KEYS}));
        let source = Arc::new(KeySource::new(KeyAuthority::of(ISSUER), script.clone(), clock.clone()));
        let bench = Bench { script, clock, source };
        bench.publish(&["one"]);
        bench
    }

    fn publish(&self, kids: &[&str]) {
        let keys: Vec<Value> = kids.iter().map(|kid| jwk(0, kid, json!({}))).collect();
        self.script.answer(KEYS, json!({ "keys": keys }));
    }

    /// Whether a token of this key finds it.
    async fn finds(&self, kid: &str) -> bool {
        self.source.keys(kid).await.is_ok_and(|keys| keys.find(kid).is_some())
    }

    fn after(&self, seconds: i64) {
        self.clock.set(now() + SignedDuration::from_secs(seconds));
    }

    fn fetched(&self) -> usize {
        self.script.asked(KEYS)
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_once_and_kept() {
    let bench = Bench::new();
    assert_eq!(bench.source.freshness(), Freshness::Refused);
    for _ in 0..3 {
        assert!(bench.finds("one").await);
    }
    assert_eq!((bench.script.asked(DISCOVERY), bench.fetched()), (1, 1));
    assert_eq!(bench.source.freshness(), Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn those_who_come_at_the_same_time_share_one_flight() {
    let bench = Arc::new(Bench::new());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let bench = bench.clone();
        tasks.spawn(async move { bench.finds("one").await });
    }
    assert_eq!(tasks.join_all().await, [true; 100]);
    assert_eq!(bench.fetched(), 1);
}

#[test]
fn workers_with_runtimes_of_their_own_share_one_source() {
    let bench = Arc::new(Bench::new());
    let worker = |bench: Arc<Bench>| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async { bench.finds("one").await })
        })
    };
    let workers: Vec<_> = (0..4).map(|_| worker(bench.clone())).collect();
    assert!(workers.into_iter().all(|worker| worker.join().unwrap()));
    assert_eq!(bench.fetched(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_is_given_up_leaves_room_for_the_next() {
    let bench = Bench::new();
    let given_up = tokio::time::timeout(Duration::from_millis(500), bench.finds("one")).await;
    assert!(given_up.is_err());
    bench.after(5);
    assert!(bench.finds("one").await);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_is_seen_within_a_minute() {
    let bench = Bench::new();
    assert!(bench.finds("one").await);
    bench.publish(&["one", "two"]);
    bench.after(29);
    assert!(!bench.finds("two").await);
    bench.after(30);
    assert!(bench.finds("two").await);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_unknown_keys_a_second_cause_two_fetches_a_minute() {
    let bench = Bench::new();
    assert!(bench.finds("one").await);
    let before = bench.fetched();
    for second in 0..60 {
        bench.after(second);
        for n in 0..1000 {
            assert!(!bench.finds(&format!("junk-{second}-{n}")).await);
        }
        assert!(bench.finds("one").await, "known keys go on");
    }
    assert!(bench.fetched() - before <= 2, "{}", bench.fetched() - before);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_keys_stay_until_they_are_too_old() {
    let bench = Bench::new();
    assert!(bench.finds("one").await);
    bench.script.fail(KEYS, FetchError::Status(503));
    let hour = 3600;
    for (age, freshness, found) in [
        (24 * hour - 1, Freshness::Fresh, true),
        (24 * hour, Freshness::Degraded, true),
        (72 * hour - 1, Freshness::Degraded, true),
        (72 * hour, Freshness::Refused, false),
    ] {
        bench.after(age);
        assert_eq!(bench.source.freshness(), freshness, "{age}");
        assert_eq!(bench.finds("one").await, found, "{age}");
    }
    assert_eq!(bench.fetched(), 2, "who names a known key doesn't wait for a fetch");
    let error = bench.source.keys("one").await.unwrap_err();
    assert_eq!(error.code(), "issuer-keys-too-old");
    bench.publish(&["one"]);
    bench.after(72 * hour + 60);
    assert!(bench.finds("one").await);
    assert_eq!(bench.source.freshness(), Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn keys_are_refreshed_every_hour_and_after_a_failure_sooner() {
    let bench = Bench::new();
    let keep = tokio::spawn({
        let source = bench.source.clone();
        async move { source.keep_fresh().await }
    });
    for minute in 0..=120 {
        bench.after(minute * 60);
        if minute == 60 {
            bench.script.fail(KEYS, FetchError::Unreachable("refused".into()));
        }
        if minute == 62 {
            bench.publish(&["two"]);
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    keep.abort();
    assert!(bench.source.current().unwrap().0.keys.find("two").is_some());
    let fetched = bench.fetched();
    assert!((4..=7).contains(&fetched), "{fetched} fetches in two hours");
}

#[tokio::test(start_paused = true)]
async fn without_keys_a_failure_is_tried_again_after_seconds() {
    let bench = Bench::new();
    bench.script.fail(DISCOVERY, FetchError::Status(500));
    let error = bench.source.keys("one").await.unwrap_err();
    assert_eq!(error, KeyError::Fetch { url: DISCOVERY.into(), source: FetchError::Status(500) });
    assert_eq!(bench.source.keys("one").await.unwrap_err(), KeyError::Waiting);
    assert_eq!(bench.script.asked(DISCOVERY), 1);
    bench.script.answer(DISCOVERY, json!({"issuer": ISSUER, "jwks_uri": KEYS}));
    bench.after(5);
    assert!(bench.finds("one").await);
}

#[tokio::test(start_paused = true)]
async fn keys_come_only_from_where_the_issuer_may_keep_them() {
    let other = |issuer: &str, keys: &str| json!({"issuer": issuer, "jwks_uri": keys});
    let elsewhere = |url: &str| Err(KeyError::KeysElsewhere(url.into()));
    let cases = [
        (other(ISSUER, KEYS), Ok(KEYS.to_owned())),
        (other(ISSUER, "https://LOGIN.example:443/k"), Ok("https://LOGIN.example:443/k".into())),
        (other(ISSUER, "https://keys.example:8443/k"), Ok("https://keys.example:8443/k".into())),
        (other(ISSUER, "https://keys.example/k"), elsewhere("https://keys.example/k")),
        (other(ISSUER, "http://login.example/k"), elsewhere("http://login.example/k")),
        (other(ISSUER, "https://login.example:444/k"), elsewhere("https://login.example:444/k")),
        (other(ISSUER, "https://login.example:/k"), elsewhere("https://login.example:/k")),
        (other(ISSUER, "https://login.example@evil.example/k"), elsewhere("https://login.example@evil.example/k")),
        (other(ISSUER, "https://evil.example@login.example/k"), elsewhere("https://evil.example@login.example/k")),
        (other(ISSUER, "https://login.example.evil/k"), elsewhere("https://login.example.evil/k")),
        (other(ISSUER, "file:///etc/keys"), elsewhere("file:///etc/keys")),
        (other(ISSUER, "/k"), elsewhere("/k")),
        (other("https://login.example/u/v2.0", KEYS), Err(KeyError::OtherIssuer(ISSUER.into()))),
        (other("https://login.example/t/v2.0/", KEYS), Err(KeyError::OtherIssuer(ISSUER.into()))),
        (json!({"issuer": ISSUER}), Err(KeyError::Malformed(DISCOVERY.into()))),
        (json!([]), Err(KeyError::Malformed(DISCOVERY.into()))),
    ];
    let authority = KeyAuthority { key_hosts: vec!["keys.example:8443".into()], ..KeyAuthority::of(ISSUER) };
    assert_eq!(authority.discovery, DISCOVERY);
    for (document, expected) in cases {
        assert_eq!(authority.keys_url(document.to_string().as_bytes()), expected, "{document}");
    }
}
