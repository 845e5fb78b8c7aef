use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use http::StatusCode;

use super::super::deliver::Again;
use super::super::notice::tests::requested;
use super::*;
use crate::export::fixture::{Answer, Receiver, dialing};
use crate::transport::trust::Roots;

fn now() -> Timestamp {
    "2026-11-25T09:00:00Z".parse().unwrap()
}

fn url(receiver: &Receiver) -> String {
    format!("https://localhost:{}/hook?key=in-the-url", receiver.address.port())
}

fn file(receiver: &Receiver, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = receiver.ca().with_file_name(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// What posts here, verified by the receiver's own root.
fn post(receiver: &Receiver, form: Form, place: Place, secret: Option<PathBuf>) -> Post {
    let dialer = std::sync::Arc::new(dialing()().verifying(&Roots::only(&receiver.ca()).unwrap()).unwrap());
    Post { fetcher: Fetcher::new(move || std::sync::Arc::clone(&dialer)), form, place, secret }
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";

#[tokio::test]
async fn a_webhook_is_posted_and_signed_anew_at_each_try() {
    let receiver = Receiver::start(&[Answer::Http(503, "no"), Answer::Http(200, "thank\nyou")]);
    let secret = file(&receiver, "secret", SECRET, 0o600);
    let hook = post(&receiver, Form::Webhook, Place::Url(url(&receiver)), Some(secret));
    let notice = requested("x");
    hook.deliver(&notice, now()).await.unwrap_err();
    let later = now() + jiff::SignedDuration::from_secs(60);
    assert_eq!(hook.deliver(&notice, later).await.unwrap(), "200 OK: thank\\u{a}you");
    for (got, at) in receiver.got().iter().zip([now(), later]) {
        assert!(got.head.starts_with("POST /hook?key=in-the-url HTTP/1.1\r\n"), "{}", got.head);
        let of = |name: &str| {
            let lines = got.head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next().unwrap()
        };
        assert_eq!((of("content-type"), of("webhook-id")), ("application/json".into(), notice.id.to_string()));
        assert_eq!(of("webhook-timestamp"), at.as_second().to_string());
        let id = notice.id.to_string();
        let signed = sign::signature(SECRET.as_bytes(), &id, at.as_second(), &got.body).unwrap();
        assert_eq!(of("webhook-signature"), signed);
    }
}

#[tokio::test]
async fn chats_get_their_form_unsigned_at_the_url_of_a_file() {
    let receiver = Receiver::start(&[Answer::Http(202, "")]);
    let place = Place::File(file(&receiver, "url", &format!("{}\n", url(&receiver)), 0o600));
    let teams = post(&receiver, Form::Teams, place, None);
    assert_eq!(teams.deliver(&requested("x"), now()).await.unwrap(), "202 Accepted");
    let got = receiver.got().pop().unwrap();
    assert!(!got.head.to_ascii_lowercase().contains("webhook-signature"), "{}", got.head);
    assert!(String::from_utf8(got.body).unwrap().contains("AdaptiveCard"));
}

#[tokio::test]
async fn what_cant_be_signed_or_placed_isnt_sent_and_nothing_secret_is_told() {
    let receiver = Receiver::start(&[Answer::Http(200, "")]);
    let bad = [
        (Place::Url(url(&receiver)), Some(file(&receiver, "open", SECRET, 0o644))),
        (Place::Url(url(&receiver)), Some(file(&receiver, "short", "whsec_c2hvcnQ=", 0o600))),
        (Place::Url(url(&receiver)), Some(receiver.ca().with_file_name("nowhere"))),
        (Place::File(file(&receiver, "clear", "http://localhost/in-the-url", 0o600)), None),
        (Place::File(file(&receiver, "open-url", &url(&receiver), 0o644)), None),
    ];
    for (place, secret) in bad {
        let error = post(&receiver, Form::Webhook, place, secret).deliver(&requested("x"), now()).await.unwrap_err();
        assert_eq!(error.again(), Again::After(None), "operators mend it: {error}");
        for part in ["in-the-url", "MfKQ9r8", "c2hvcnQ"] {
            assert!(!error.in_full().contains(part), "{error}");
        }
    }
    // Not by whom its root doesn't vouch for.
    let other = Receiver::start(&[Answer::Http(200, "")]);
    let hook = post(&other, Form::Slack, Place::Url(url(&receiver)), None);
    let error = hook.deliver(&requested("x"), now()).await.unwrap_err();
    assert!(matches!(error, Undelivered::Unreachable(_)) && !error.in_full().contains("in-the-url"), "{error}");
    assert!(receiver.got().is_empty() && other.got().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let receiver = Receiver::start(&[Answer::Http(307, "")]);
    let hook = post(&receiver, Form::Slack, Place::Url(url(&receiver)), None);
    let error = hook.deliver(&requested("x"), now()).await.unwrap_err();
    assert_eq!((error.again(), receiver.got().len()), (Again::Never, 1));
}

#[test]
fn the_answer_says_whether_and_when_it_is_tried_again() {
    let answer = |status: u16, after: &str| {
        let answer = Response::builder().status(status).header("retry-after", after);
        let answer = answer.body(Bytes::from_static(b"because")).unwrap();
        match judge(&answer, now()) {
            Ok(_) => None,
            Err(error) => {
                assert_eq!(
                    error.to_string(),
                    format!("the receiver answered with {}", StatusCode::from_u16(status).unwrap())
                );
                assert!(error.in_full().ends_with(": because"), "{}", error.in_full());
                Some(error.again())
            }
        }
    };
    let after = |seconds| Some(Again::After(Some(Duration::from_secs(seconds))));
    for (status, said, again) in [
        (200, "5", None),
        (204, "5", None),
        (429, "120", after(120)),
        (503, "Wed, 25 Nov 2026 09:01:30 GMT", after(90)),
        (503, "Wed, 25 Nov 2026 08:00:00 GMT", after(0)),
        (500, "soon", Some(Again::After(None))),
        (408, "-1", Some(Again::After(None))),
        (301, "5", Some(Again::Never)),
        (400, "5", Some(Again::Never)),
        (404, "5", Some(Again::Never)),
        (410, "5", Some(Again::Never)),
    ] {
        assert_eq!(answer(status, said), again, "{status} {said}");
    }
}
