use std::os::unix::fs::PermissionsExt;

use super::super::fixture::{Answer, Receiver, dialing};
use super::*;
use crate::record::Link;

const BODY: &str = r#"{"at":"2026-11-25T08:59:58Z","event":"daemon.stopped","reason":"SIGTERM"}"#;

fn item() -> Item {
    Item::Event(Link { seq: 1, previous: "0".repeat(64), hash: "ab".repeat(32), body: BODY.into() })
}

fn sink(settings: &ExportSettings) -> Sink {
    Sink::new(settings, &dialing()).expect("a sink")
}

async fn tried(receiver: &Receiver, settings: SinkSettings) -> Result<(), SinkError> {
    sink(&receiver.sink(settings)).send(&[item()]).await
}

#[tokio::test]
async fn a_batch_is_posted_with_the_bearer_of_the_file() {
    let receiver = Receiver::start(&[Answer::Http(204, "")]);
    let token = receiver.ca().with_file_name("token");
    std::fs::write(&token, "abc.def\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let url = format!("https://localhost:{}/in?a=b", receiver.address.port());
    let way = SinkSettings::Http { url, format: BatchFormat::Lines, bearer: Some(token.clone()) };
    tried(&receiver, way.clone()).await.expect("it is taken");
    let got = receiver.got().pop().expect("a request");
    assert!(got.head.starts_with("POST /in?a=b HTTP/1.1\r\n"), "{}", got.head);
    let head = got.head.to_ascii_lowercase();
    assert!(head.contains("authorization: bearer abc.def"), "{head}");
    assert!(head.contains("content-type: application/x-ndjson") && head.contains("host: localhost:"), "{head}");
    assert_eq!(got.body, batch::objects(&[item()], BatchFormat::Lines));

    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = tried(&receiver, way).await.expect_err("others could read it");
    assert!(matches!(error, SinkError::Secret(_)) && !error.to_string().contains("abc.def"), "{error}");
    assert_eq!(receiver.got().len(), 1, "it isn't sent without its bearer");
}

#[tokio::test]
async fn only_success_is_an_acknowledgement() {
    let receiver = Receiver::start(&[Answer::Http(503, "no")]);
    let settings = receiver.http(BatchFormat::Array);
    let error = sink(&settings).send(&[item()]).await.expect_err("not taken");
    assert!(matches!(error, SinkError::Post(FetchError::Status(503))) && !error.is_too_much(), "{error}");
    receiver.answer(Answer::Http(302, ""));
    assert!(sink(&settings).send(&[item()]).await.is_err(), "elsewhere isn't followed");
    receiver.answer(Answer::Http(413, ""));
    assert!(sink(&settings).send(&[item()]).await.expect_err("not taken").is_too_much());
    receiver.answer(Answer::Http(200, "{}"));
    sink(&settings).send(&[item()]).await.expect("it is taken");
}

#[tokio::test]
async fn who_isn_t_the_sink_gets_nothing() {
    let (receiver, other) = (Receiver::start(&[Answer::Http(200, "")]), Receiver::start(&[Answer::Http(200, "")]));
    let http = receiver.http(BatchFormat::Lines);
    // Neither under the roots of another sink, nor under those of the host.
    for ca in [Some(other.ca()), None] {
        let error = sink(&ExportSettings { ca, ..http.clone() }).send(&[item()]).await.expect_err("it isn't trusted");
        assert!(matches!(error, SinkError::Post(FetchError::Unreachable(_))), "{error}");
    }
    let syslog = SinkSettings::Syslog { host: "localhost".parse().unwrap(), port: other.address.port() };
    let error = tried(&receiver, syslog).await.expect_err("it isn't trusted");
    assert!(matches!(error, SinkError::Dial(DialError::Untrusted { .. })), "{error}");
    assert!(receiver.got().is_empty() && other.got().is_empty());
}

#[tokio::test]
async fn a_log_record_that_is_rejected_is_not_acknowledged() {
    let receiver = Receiver::start(&[Answer::Http(200, r#"{"partialSuccess":{"rejectedLogRecords":"2"}}"#)]);
    let url = format!("https://localhost:{}/v1/logs", receiver.address.port());
    let way = SinkSettings::Otlp { url, bearer: None };
    let error = tried(&receiver, way.clone()).await.expect_err("rejected");
    assert!(matches!(error, SinkError::Rejected(2)), "{error}");
    receiver.answer(Answer::Http(200, r#"{"partialSuccess":{}}"#));
    tried(&receiver, way).await.expect("it is taken");
    assert!(receiver.got()[0].head.starts_with("POST /v1/logs "));
}

#[tokio::test]
async fn syslog_is_acknowledged_by_a_receiver_that_read_to_the_end() {
    let receiver = Receiver::start(&[Answer::End]);
    let way = SinkSettings::Syslog { host: "127.0.0.1".parse().unwrap(), port: receiver.address.port() };
    tried(&receiver, way.clone()).await.expect("it is taken");
    let text = String::from_utf8(receiver.got()[0].body.clone()).unwrap();
    assert!(text.ends_with(BODY) && text.contains("interceptor - daemon.stopped ["), "{text}");
    receiver.answer(Answer::Gone);
    let error = tried(&receiver, way).await.expect_err("nothing was read");
    assert!(matches!(error, SinkError::Broken(_) | SinkError::Ended), "{error}");
}

#[test]
fn a_file_without_roots_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, "nothing").unwrap();
    let sink = SinkSettings::Otlp { url: "https://localhost/v1/logs".into(), bearer: None };
    let settings = ExportSettings { name: "siem".parse().unwrap(), sink, ca: Some(ca) };
    let Err(error) = Sink::new(&settings, &dialing()) else { panic!("it has no roots") };
    assert!(error.to_string().contains("`siem`") && error.to_string().contains("ca.pem"), "{error}");
}
