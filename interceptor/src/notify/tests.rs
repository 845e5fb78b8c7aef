use super::notice::tests::request;
use super::*;
use crate::clock::SystemClock;
use crate::config::{Form, Occasion, Place};
use crate::export::fixture::{Answer, Receiver, dialing};

fn notifier() -> Notifier {
    Notifier::new(dialing(), Arc::new(SystemClock), Arc::new(|_| {}), Handle::current())
}

fn channel(receiver: &Receiver, name: &str, on: &[Occasion]) -> NotifySettings {
    let place = Place::Url(format!("https://localhost:{}/{name}", receiver.address.port()));
    let way = NotifyWay::Post { form: Form::Slack, place, secret: None, ca: Some(receiver.ca()) };
    NotifySettings { name: name.parse().unwrap(), way, on: on.to_vec(), groups: None }
}

fn load(notifier: &Notifier, channels: Vec<NotifySettings>) -> Result<(), NotifyError> {
    let settings = Settings { notify: channels, ..Settings::parse("/etc/interceptor/config.toml", "").unwrap() };
    notifier.apply(notifier.prepare(&settings, &dialing()())?);
    Ok(())
}

/// The paths that were posted to, once there are as many.
async fn told(receiver: &Receiver, count: usize) -> Vec<String> {
    for _ in 0..2_000 {
        if receiver.got().len() >= count {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let path = |head: &str| head.split(' ').nth(1).unwrap().to_owned();
    receiver.got().iter().map(|got| path(&got.head)).collect()
}

#[tokio::test]
async fn channels_are_told_of_what_they_are_for_and_a_load_brings_others_into_force() {
    let receiver = Receiver::start(&[Answer::Http(200, "ok")]);
    let notifier = Arc::new(notifier());
    let asked = What::ApprovalRequested(Box::new(request("x")));
    // Nobody is told by nobody, and it is no error.
    notifier.recorded(SystemClock.now(), &asked);
    load(&notifier, vec![channel(&receiver, "a", Occasion::ALL), channel(&receiver, "b", &[Occasion::GrantEnded])])
        .unwrap();
    notifier.recorded(SystemClock.now(), &asked);
    assert_eq!(told(&receiver, 1).await, ["/a"]);
    load(&notifier, vec![channel(&receiver, "b", Occasion::ALL)]).unwrap();
    let closed = What::ApprovalClosed { approval: request("x").approval, outcome: "expired".into() };
    notifier.recorded(SystemClock.now(), &closed);
    assert_eq!(told(&receiver, 2).await, ["/a", "/b"]);
    let body = String::from_utf8(receiver.got().pop().unwrap().body).unwrap();
    assert!(body.contains("Approval expired: http:POST on graph for crm"), "{body}");
    let names: Vec<_> = notifier.states().into_iter().map(|state| (state.name.to_string(), state.failing)).collect();
    assert_eq!(names, [("b".to_owned(), None)]);

    // A test goes to one channel, whatever that is told of, and is tried once.
    let asking = Arc::clone(&notifier);
    let said = tokio::task::spawn_blocking(move || (asking.test("b"), asking.test("a").is_none())).await.unwrap();
    assert_eq!((said.0.unwrap().unwrap(), said.1), ("200 OK: ok".into(), true));
    receiver.answer(Answer::Http(500, "no"));
    let asking = Arc::clone(&notifier);
    let said = tokio::task::spawn_blocking(move || asking.test("b")).await.unwrap().unwrap().unwrap_err();
    assert!(said.in_full().contains("500 Internal Server Error: no"), "{}", said.in_full());
    assert_eq!(told(&receiver, 4).await.len(), 4);
    let failing = notifier.states().pop().unwrap().failing;
    assert_eq!(failing.as_deref(), Some("the receiver answered with 500 Internal Server Error"));
}

#[tokio::test]
async fn roots_that_cant_be_read_leave_the_channels_before_in_force() {
    let receiver = Receiver::start(&[Answer::Http(200, "ok")]);
    let notifier = notifier();
    load(&notifier, vec![channel(&receiver, "a", Occasion::ALL)]).unwrap();
    std::fs::write(receiver.ca(), "nothing").unwrap();
    let error = load(&notifier, vec![channel(&receiver, "b", Occasion::ALL)]).unwrap_err();
    assert!(error.to_string().contains("channel `b`"), "{error}");
    assert_eq!(notifier.states()[0].name.as_str(), "a");
}
