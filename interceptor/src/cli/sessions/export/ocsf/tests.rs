use super::*;
use crate::cli::sessions::tests::story;
use crate::record::Link;

fn link() -> Link {
    let link = Link {
        seq: 7,
        previous: "11".repeat(32),
        hash: "cf5dcb5d7e2e7ef3d7f7d6a1b8c2f0a4".repeat(2),
        body: r#"{"at":"2026-11-23T09:15:38.5Z","event":"operation.decided"}"#.into(),
    };
    assert!(!link.holds(), "only the test's");
    link
}

fn placed() -> Placed {
    Placed { link: link(), chain: "5e".repeat(32) }
}

fn with(change: impl FnOnce(&mut Operation)) -> Value {
    let mut story = story();
    change(&mut story.operations[0]);
    event(Some(&story.session), &story.operations[0], &placed(), "host-1")
}

#[test]
fn a_denied_request_is_an_http_event_of_a_control_that_blocked() {
    let event = with(|_| {});
    for (field, expected) in [
        ("/class_uid", json!(4002)),
        ("/category_uid", json!(4)),
        ("/activity_id", json!(2)),
        ("/type_uid", json!(400_202)),
        ("/time", json!(1_795_425_338_500_i64)),
        ("/severity_id", json!(2)),
        ("/status_id", json!(2)),
        ("/status_code", json!("denied-by-policy")),
        ("/action_id", json!(2)),
        ("/disposition_id", json!(2)),
        ("/metadata/version", json!("1.9.0")),
        ("/metadata/sequence", json!(7)),
        ("/metadata/uid", json!("5e5e5e5e5e5e5e5e-7")),
        ("/metadata/original_event_uid", json!("op_01kgz0000000000000000000cc")),
        ("/device/hostname", json!("host-1")),
        ("/device/type_id", json!(0)),
        ("/metadata/product/name", json!("Interceptor")),
        ("/metadata/profiles", json!(["host", "security_control", "record_integrity"])),
        ("/actor/process/pid", json!(7)),
        ("/actor/process/file/path", json!("/usr/bin/crm")),
        ("/actor/user/uid", json!("11111111-2222-4333-8444-555555555555")),
        ("/actor/user/org/uid", json!("72f988bf-86f1-41af-91ab-2d7cd011db47")),
        ("/actor/user/name", json!("crm-bot")),
        ("/actor/user/type_id", json!(1)),
        ("/src_endpoint/name", json!("crm")),
        ("/dst_endpoint/hostname", json!("graph.microsoft.com")),
        ("/dst_endpoint/ip", json!("198.18.0.1")),
        ("/dst_endpoint/port", json!(443)),
        ("/dst_endpoint/svc_name", json!("graph")),
        ("/policy/name", json!("no-deletes")),
        ("/http_request/http_method", json!("DELETE")),
        ("/http_request/url/hostname", json!("graph.microsoft.com")),
        ("/http_response/code", json!(403)),
        ("/attestation_list/0/uid", json!("7")),
        ("/attestation_list/0/chain_uid", json!(placed().chain)),
        ("/attestation_list/0/prev_event/uid", json!("5e5e5e5e5e5e5e5e-6")),
        ("/attestation_list/0/fingerprint/value", json!(link().hash)),
        ("/attestation_list/0/fingerprint/algorithm_id", json!(99)),
        ("/attestation_list/0/prev_event/fingerprint/value", json!(link().previous)),
        ("/raw_data", json!(link().body)),
        ("/unmapped/initiator_uid", json!(1000)),
    ] {
        assert_eq!(event.pointer(field), Some(&expected), "{field} of {event:#}");
    }
    assert!(!event.to_string().contains("null"), "the schema has no null: {event}");
}

#[test]
fn each_action_has_its_class_and_what_is_allowed_says_so() {
    for (action, summary, class, activity) in [
        ("http:GET", "GET /", 4002, 3),
        ("http:other", "PURGE /", 4002, 99),
        ("http:websocket", "GET /socket", 4002, 99),
        ("connect", "connect to graph.microsoft.com port 443", 4001, 1),
        ("dns:resolve", "look up graph.microsoft.com AAAA", 4003, 1),
        ("token:request", "a token for graph", 6003, 99),
    ] {
        let event = with(|operation| {
            (operation.action, operation.summary) = (action.into(), summary.into());
            (operation.verdict, operation.code, operation.status) = ("allow".into(), None, Some(200));
            operation.outcome = Some("done".into());
        });
        let number = |field: &str| event.pointer(field).and_then(Value::as_u64).expect("a number");
        assert_eq!((number("/class_uid"), number("/activity_id")), (class, activity), "{action}");
        assert_eq!(number("/type_uid"), class * 100 + activity);
        assert_eq!((number("/category_uid"), number("/status_id")), (class / 1000, 1), "{action}");
        assert_eq!((number("/action_id"), number("/disposition_id"), number("/severity_id")), (1, 1, 1));
        match class {
            4003 => assert_eq!(event["query"], json!({ "hostname": "graph.microsoft.com", "type": "AAAA" })),
            6003 => assert_eq!(event["api"]["operation"], "token:request"),
            _ => {}
        }
    }
    let refused = with(|operation| operation.action = "connect".into());
    assert_eq!(refused["activity_id"], 5);
}

#[test]
fn what_failed_upstream_is_a_failure_and_what_goes_on_is_unknown() {
    let status = |outcome: Option<&str>, status| {
        let event = with(|operation| {
            (operation.verdict, operation.status) = ("allow".into(), status);
            operation.outcome = outcome.map(Into::into);
        });
        event["status_id"].clone()
    };
    assert_eq!(status(None, None), 0);
    assert_eq!(status(Some("done"), Some(204)), 1);
    assert_eq!(status(Some("done"), Some(500)), 2);
    assert_eq!(status(Some("upstream-unreachable"), None), 2);
}

#[test]
fn the_first_event_of_a_chain_has_none_before_it() {
    let story = story();
    let first = Placed { link: Link { seq: 1, ..link() }, ..placed() };
    let event = event(Some(&story.session), &story.operations[0], &first, "");
    assert_eq!(event.pointer("/attestation_list/0/prev_event"), None);
}

/// The `uid` by which the event after it names it is the one that it has itself.
#[test]
fn an_event_is_known_by_one_id_to_itself_and_to_the_one_behind_it() {
    let story = story();
    let own = with(|_| {});
    let behind = Placed { link: Link { seq: 8, ..link() }, ..placed() };
    let behind = event(Some(&story.session), &story.operations[0], &behind, "host-1");
    assert_eq!(behind.pointer("/attestation_list/0/prev_event/uid"), own.pointer("/metadata/uid"));
    assert_eq!(behind.pointer("/attestation_list/0/chain_uid"), own.pointer("/attestation_list/0/chain_uid"));
}

#[test]
fn a_look_up_belongs_to_no_session_and_says_so() {
    let mut story = story();
    let operation = &mut story.operations[0];
    (operation.session, operation.identity, operation.status) = (None, None, None);
    (operation.action, operation.summary) = ("dns:resolve".into(), "look up graph.microsoft.com A".into());
    let event = event(None, &story.operations[0], &placed(), "host-1");
    assert_eq!((&event["class_uid"], &event["query"]["hostname"]), (&json!(4003), &json!("graph.microsoft.com")));
    for unknown in ["/actor", "/dst_endpoint", "/metadata/correlation_uid"] {
        assert_eq!(event.pointer(unknown), None, "{event:#}");
    }
    assert_eq!(event["src_endpoint"]["name"], "crm");
    assert!(!event.to_string().contains("null"), "the schema has no null: {event}");
}
