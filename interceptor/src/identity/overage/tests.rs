use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::identity::fixture::{CLIENT, OBJECT, TENANT, now};

const GRAPH: &str = "https://graph.microsoft.com";

/// Graph, with its answers in order.
struct Graph {
    answers: Mutex<Vec<Result<Value, FetchError>>>,
    asked: Mutex<Vec<GraphRequest>>,
}

impl Graph {
    fn new(answers: impl IntoIterator<Item = Result<Value, FetchError>>) -> Arc<Self> {
        let answers: Vec<_> = answers.into_iter().collect();
        Arc::new(Graph { answers: Mutex::new(answers.into_iter().rev().collect()), asked: Mutex::default() })
    }
}

impl Directory for Graph {
    fn ask<'a>(
        &'a self,
        tenant: TenantId,
        request: &'a GraphRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>> {
        assert_eq!(tenant.to_string(), TENANT);
        self.asked.lock().unwrap().push(request.clone());
        let answer = self.answers.lock().unwrap().pop().expect("Graph was asked too often");
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer.map(|answer| answer.to_string().into())
        })
    }
}

/// What a directory does that is asked.
#[derive(Debug, Clone, Copy)]
enum Then {
    Answers,
    Fails,
    Hangs,
}

/// Counts how often it is asked, and does always the same, at once.
struct Counting(Mutex<u32>, Then);

impl Counting {
    fn new(then: Then) -> Arc<Self> {
        Arc::new(Self(Mutex::default(), then))
    }

    fn asked(&self) -> u32 {
        *self.0.lock().unwrap()
    }
}

impl Directory for Counting {
    fn ask<'a>(
        &'a self,
        _tenant: TenantId,
        _request: &'a GraphRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>> {
        *self.0.lock().unwrap() += 1;
        let then = self.1;
        Box::pin(async move {
            match then {
                Then::Answers => Ok(Bytes::from(json!({ "value": [] }).to_string())),
                Then::Fails => Err(FetchError::Status(429)),
                Then::Hangs => std::future::pending().await,
            }
        })
    }
}

fn overage(graph: Arc<dyn Directory>) -> Overage {
    Overage::new(GRAPH, graph, Arc::new(ManualClock::at(now())))
}

async fn groups(overage: &Overage) -> Result<Vec<String>, OverageError> {
    asked_for(overage, 0, 0).await
}

/// The groups, asked for when so many tokens had been issued, of which there are `seen` by now.
async fn asked_for(overage: &Overage, wanted: u64, seen: u64) -> Result<Vec<String>, OverageError> {
    let answered = overage.groups((TENANT.parse().unwrap(), OBJECT.parse().unwrap()), (wanted, seen)).await?;
    assert!(answered.seen >= wanted);
    Ok(answered.groups.iter().map(ToString::to_string).collect())
}

#[tokio::test(start_paused = true)]
async fn all_pages_are_read_and_kept_together() {
    let next = format!("{GRAPH}/v1.0/directoryObjects/x?$skiptoken=1");
    let graph = Graph::new([Ok(json!({"value": [OBJECT], "@odata.nextLink": next})), Ok(json!({"value": [CLIENT]}))]);
    let overage = overage(graph.clone());
    let together = tokio::join!(groups(&overage), groups(&overage), groups(&overage));
    let expected = Ok(vec![OBJECT.to_owned(), CLIENT.to_owned()]);
    assert_eq!(together, (expected.clone(), expected.clone(), expected.clone()));
    assert_eq!(groups(&overage).await, expected);
    let asked = graph.asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].url, format!("{GRAPH}/v1.0/directoryObjects/{OBJECT}/getMemberObjects"));
    assert_eq!((asked[0].method, asked[0].body), ("POST", r#"{"securityEnabledOnly":false}"#));
    assert_eq!((asked[1].method, asked[1].url.as_str(), asked[1].body), ("GET", next.as_str(), ""));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_believed_for_five_minutes() {
    let graph = Graph::new([Ok(json!({"value": [OBJECT]})), Ok(json!({"value": []}))]);
    let clock = Arc::new(ManualClock::at(now()));
    let overage = Overage::new(GRAPH, graph, clock.clone());
    assert_eq!(groups(&overage).await, Ok(vec![OBJECT.to_owned()]));
    clock.set(now() + SignedDuration::from_secs(299));
    assert_eq!(groups(&overage).await, Ok(vec![OBJECT.to_owned()]));
    clock.set(now() + SignedDuration::from_secs(300));
    assert_eq!(groups(&overage).await, Ok(vec![]));
}

/// Graph takes a second. What was asked of it before a token came says nothing of that token, and all who ask because of
/// it share the next answer.
#[tokio::test(start_paused = true)]
async fn an_answer_from_before_a_token_doesnt_serve_those_who_ask_because_of_it() {
    let of = |id: &str| Ok(json!({ "value": [id] }));
    let graph = Graph::new([of(OBJECT), of(CLIENT), of(OBJECT)]);
    let overage = overage(graph.clone());
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::join!(asked_for(&overage, 6, 6), asked_for(&overage, 6, 7), asked_for(&overage, 0, 7))
    };
    let (first, (one, other, any)) = tokio::join!(asked_for(&overage, 0, 5), late);
    let (old, new) = (Ok(vec![OBJECT.to_owned()]), Ok(vec![CLIENT.to_owned()]));
    assert_eq!((&first, &any), (&old, &old), "this was on its way");
    assert_eq!((&one, &other), (&new, &new));
    assert_eq!(graph.asked.lock().unwrap().len(), 2);
    assert_eq!((asked_for(&overage, 6, 8).await, groups(&overage).await), (new.clone(), new));
    assert_eq!(asked_for(&overage, 8, 8).await, old);
    assert_eq!(graph.asked.lock().unwrap().len(), 3);
}

/// However often a workload gets itself new tokens.
#[tokio::test(start_paused = true)]
async fn a_principal_is_looked_up_at_most_four_times_a_second() {
    let counting = Counting::new(Then::Answers);
    let overage = overage(counting.clone());
    let storm = async {
        for token in 1..=1000 {
            assert_eq!(asked_for(&overage, token, token).await, Ok(vec![]));
        }
    };
    let _over = tokio::time::timeout(Duration::from_secs(2), storm).await;
    assert!((7..=9).contains(&counting.asked()), "{}", counting.asked());
}

/// Exactly while Graph throttles, or doesn't answer, it isn't asked as often as somebody wants to know.
#[tokio::test(start_paused = true)]
async fn failures_and_what_is_given_up_are_spaced_as_answers_are() {
    for then in [Then::Fails, Then::Hangs] {
        let counting = Counting::new(then);
        let overage = overage(counting.clone());
        let storm = async {
            for _ in 0..1000 {
                let answer = tokio::time::timeout(Duration::from_millis(600), groups(&overage)).await;
                assert!(!matches!(answer, Ok(Ok(_))), "{then:?}");
                let given_up = tokio::time::timeout(Duration::from_millis(10), groups(&overage)).await;
                assert!(!matches!(given_up, Ok(Ok(_))), "{then:?}");
            }
        };
        let _over = tokio::time::timeout(Duration::from_secs(4), storm).await;
        assert!((6..=17).contains(&counting.asked()), "{then:?}: {}", counting.asked());
    }
    // Also those that are given up at once.
    let counting = Counting::new(Then::Hangs);
    let overage = overage(counting.clone());
    for _ in 0..200 {
        let given_up = tokio::time::timeout(Duration::from_millis(10), groups(&overage)).await;
        assert!(given_up.is_err());
    }
    assert!((7..=9).contains(&counting.asked()), "{}", counting.asked());
}

#[tokio::test(start_paused = true)]
async fn what_cant_be_asked_is_unknown_and_asked_again() {
    let failed = || Err(FetchError::Status(403));
    let graph = Graph::new([failed(), failed(), Ok(json!({"value": []}))]);
    let overage = overage(graph);
    let error = groups(&overage).await.unwrap_err();
    assert_eq!((error.clone(), error.code()), (OverageError::Ask(FetchError::Status(403)), "groups-unknown"));
    assert_eq!(groups(&overage).await, Ok(vec![]));
}

/// Graph may be busy for a moment, or the daemon's own token be one that it takes no longer.
#[tokio::test(start_paused = true)]
async fn one_failure_makes_no_groups_unknown() {
    let graph = Graph::new([Err(FetchError::Status(401)), Ok(json!({"value": [OBJECT]}))]);
    assert_eq!(groups(&overage(graph.clone())).await, Ok(vec![OBJECT.to_owned()]));
    assert_eq!(graph.asked.lock().unwrap().len(), 2);
    // What it said isn't asked for again.
    let graph = Graph::new([Ok(json!([]))]);
    assert_eq!(groups(&overage(graph)).await, Err(OverageError::Malformed));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_end_is_given_up() {
    let page = json!({"value": [OBJECT], "@odata.nextLink": format!("{GRAPH}/v1.0/more")});
    let endless = overage(Graph::new(vec![Ok(page); MOST_PAGES]));
    assert_eq!(groups(&endless).await, Err(OverageError::TooMany));
    let half = json!({"value": vec![OBJECT; MOST_GROUPS / 2 + 1], "@odata.nextLink": format!("{GRAPH}/v1.0/more")});
    let crowded = overage(Graph::new(vec![Ok(half); 2]));
    assert_eq!(groups(&crowded).await, Err(OverageError::TooMany));
}

#[test]
fn only_a_list_of_ids_on_graph_itself_is_taken() {
    let next = |url: Value| json!({"value": [], "@odata.nextLink": url});
    let cases = [
        (json!({"value": [OBJECT]}), None),
        (next(json!("https://graph.microsoft.com/v1.0/x")), None),
        (next(Value::Null), None),
        (next(json!("https://graph.microsoft.com.evil/v1.0/x")), Some(OverageError::Elsewhere)),
        (next(json!("https://graph.microsoft.com@evil/x")), Some(OverageError::Elsewhere)),
        (next(json!("http://graph.microsoft.com/v1.0/x")), Some(OverageError::Elsewhere)),
        (next(json!(1)), Some(OverageError::Elsewhere)),
        (json!({"value": ["Sales"]}), Some(OverageError::Malformed)),
        (json!({"value": [1]}), Some(OverageError::Malformed)),
        (json!({"value": OBJECT}), Some(OverageError::Malformed)),
        (json!({}), Some(OverageError::Malformed)),
        (json!([]), Some(OverageError::Malformed)),
    ];
    for (answer, error) in cases {
        assert_eq!(Page::parse(GRAPH, answer.to_string().as_bytes()).err(), error, "{answer}");
    }
}
