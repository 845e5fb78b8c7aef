use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use jiff::Timestamp;

use super::super::deliver::Delivering;
use super::super::notice::tests::{emergency, requested};
use super::*;
use crate::clock::SystemClock;
use crate::identity::FetchError;

/// Success, or a status with what `Retry-After` says.
type Said = Result<(), (u16, Option<u64>)>;

/// A receiver that answers as it is told, and notes when it was asked for what.
#[derive(Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Said>>>,
    tries: Arc<Mutex<Vec<(Instant, String)>>>,
    /// How long each answer takes.
    slow: Duration,
}

impl Deliver for Scripted {
    fn deliver<'a>(&'a self, notice: &'a Notice, _now: Timestamp) -> Delivering<'a> {
        Box::pin(async move {
            self.tries.lock().unwrap().push((Instant::now(), notice.id.to_string()));
            tokio::time::sleep(self.slow).await;
            match self.answers.lock().unwrap().pop_front() {
                None => Err(FetchError::Unreachable("nobody is there".into()).into()),
                Some(Ok(())) => Ok("200 OK".into()),
                Some(Err((status, after))) => Err(Undelivered::Answered {
                    status: StatusCode::from_u16(status).unwrap(),
                    after: after.map(Duration::from_secs),
                    said: "secret".into(),
                }),
            }
        })
    }
}

impl Scripted {
    fn answering(answers: &[Said]) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.iter().copied().collect())), ..Self::default() }
    }

    /// Seconds between the tries so far.
    fn pauses(&self) -> Vec<u64> {
        let tries = self.tries.lock().unwrap();
        tries.windows(2).map(|two| (two[1].0 - two[0].0).as_secs()).collect()
    }

    fn tries(&self) -> usize {
        self.tries.lock().unwrap().len()
    }
}

struct Bench {
    channel: Arc<Channel>,
    reported: Arc<Mutex<Vec<What>>>,
}

fn bench(way: &Scripted) -> Bench {
    let setting = Setting { on: Occasion::ALL.to_vec(), groups: None, way: Box::new(way.clone()) };
    let channel = Arc::new(Channel::new("hook".parse().unwrap(), setting));
    let reported = Arc::new(Mutex::new(Vec::new()));
    let book = Arc::clone(&reported);
    let report: Report = Arc::new(move |what| book.lock().unwrap().push(what));
    tokio::spawn(Arc::clone(&channel).run(Arc::new(SystemClock), report));
    Bench { channel, reported }
}

/// Lets the paused time pass, in steps in which tasks get their turn.
async fn pass(seconds: u64) {
    for _ in 0..seconds * 2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_tried_again_with_longer_pauses_and_then_given_up() {
    let way = Scripted::default();
    let Bench { channel, reported } = bench(&way);
    let notice = Arc::new(requested("x"));
    channel.put(&notice);
    pass(1).await;
    assert_eq!(way.tries(), 1);
    assert_eq!(channel.doing(), (1, Some("couldn't reach the server: nobody is there".into())));
    pass(14 * 60).await;
    let pauses = way.pauses();
    assert_eq!(pauses.len(), TRIES as usize - 1, "{pauses:?}");
    for (pause, whole) in pauses.iter().zip([5, 15, 45, 135, 405]) {
        assert!((whole * 4 / 5..=whole * 6 / 5 + 1).contains(pause), "{pauses:?}");
    }
    let ids: Vec<String> = way.tries.lock().unwrap().iter().map(|(_, id)| id.clone()).collect();
    assert!(ids.iter().all(|id| *id == notice.id.to_string()), "a receiver couldn't drop the second: {ids:?}");
    let reported = reported.lock().unwrap();
    assert!(
        matches!(&reported[..], [What::NotificationFailed { tries: 6, occasion, about, message, .. }]
            if occasion == "approval-requested" && *about == notice.about && *message == notice.id),
        "{reported:?}"
    );
    assert_eq!(channel.doing().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_it_and_what_would_come_to_the_same_is_not_tried_again() {
    let way =
        Scripted::answering(&[Err((500, None)), Ok(()), Err((400, None)), Err((302, None)), Err((429, None)), Ok(())]);
    let Bench { channel, reported } = bench(&way);
    channel.put(&Arc::new(requested("x")));
    pass(60).await;
    assert_eq!((way.tries(), channel.doing()), (2, (0, None)));
    for (tries, failures) in [(3, 1), (4, 2)] {
        channel.put(&Arc::new(requested("x")));
        pass(60).await;
        assert_eq!((way.tries(), reported.lock().unwrap().len()), (tries, failures));
    }
    let said = format!("{:?}", reported.lock().unwrap());
    assert!(said.contains("400 Bad Request") && !said.contains("secret"), "{said}");
    channel.put(&Arc::new(requested("x")));
    pass(60).await;
    assert_eq!((way.tries(), channel.doing(), reported.lock().unwrap().len()), (6, (0, None), 2));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_wants_to_be_left_alone_is() {
    let way = Scripted::answering(&[Err((429, Some(120))), Ok(()), Ok(()), Err((503, Some(3600))), Ok(())]);
    let Bench { channel, reported } = bench(&way);
    channel.put(&Arc::new(requested("x")));
    pass(5).await;
    channel.put(&Arc::new(requested("y")));
    pass(100).await;
    assert_eq!((way.tries(), channel.doing().0), (1, 2), "also by what comes later");
    pass(20).await;
    assert_eq!((way.tries(), channel.doing().0), (3, 0));
    // For longer than it is worth telling.
    channel.put(&Arc::new(requested("x")));
    pass(5).await;
    assert_eq!((way.tries(), reported.lock().unwrap().len()), (4, 1));
    channel.put(&Arc::new(requested("y")));
    pass(14 * 60).await;
    assert_eq!(way.tries(), 4);
    pass(2 * 60).await;
    assert_eq!((way.tries(), channel.doing()), (5, (0, None)), "but not for ever");
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_the_oldest_is_dropped() {
    let way = Scripted { slow: Duration::from_secs(9), ..Scripted::default() };
    let Bench { channel, .. } = bench(&way);
    let first = Arc::new(requested("first"));
    channel.put(&first);
    pass(1).await;
    let later: Vec<_> = (0..MOST + 50).map(|_| Arc::new(requested("x"))).collect();
    for notice in &later {
        tokio::time::advance(Duration::from_millis(1)).await;
        channel.put(notice);
    }
    assert_eq!(channel.doing().0, MOST);
    let waiting: Vec<_> = channel.state().queue.waiting.iter().map(|one| one.notice.id).collect();
    assert!(later[50..].iter().all(|notice| waiting.contains(&notice.id)), "the latest are kept");
    pass(9).await;
    assert!(!channel.state().queue.waiting.iter().any(|one| one.notice.id == first.id), "it is the oldest");
    assert!(channel.doing().0 <= MOST);
}

/// Lets what is reported beside the runtime be reported.
async fn reported(book: &Mutex<Vec<What>>, count: usize) -> Vec<(String, u32, String)> {
    for _ in 0..2000 {
        if book.lock().unwrap().len() >= count {
            break;
        }
        pass(1).await;
    }
    let failed = |what: &What| match what {
        What::NotificationFailed { about, tries, reason, .. } => (about.clone(), *tries, reason.clone()),
        other => panic!("{other:?}"),
    };
    book.lock().unwrap().iter().map(failed).collect()
}

/// A flood of questions pushes no emergency out; what it does push out is recorded.
#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_reported_and_an_emergency_is_dropped_last() {
    // Longer than it is worth telling: the first isn't tried again.
    let way = Scripted { slow: LIFE + Duration::from_secs(100), ..Scripted::default() };
    let Bench { channel, reported: book } = bench(&way);
    channel.put(&Arc::new(requested("under way")));
    pass(1).await;
    let urgent = Arc::new(emergency());
    channel.put(&urgent);
    for _ in 0..2 * MOST + 50 {
        channel.put(&Arc::new(requested("x")));
    }
    assert!(channel.state().queue.waiting.iter().any(|one| one.notice.id == urgent.id), "it was pushed out");
    // Once the first one is given up, the others have their turn.
    let failed = reported(&book, MOST + 1).await;
    assert_eq!(failed.len(), MOST + 1);
    let dropped: Vec<_> = failed.iter().filter(|(.., reason)| reason.starts_with(TOO_MANY)).collect();
    assert!(dropped.iter().all(|(about, tries, _)| about.starts_with("apr_") && *tries == 0), "{dropped:?}");
    // All but the emergency and those that wait were dropped; what nobody remembers is counted.
    let uncounted = 2 * MOST + 50 + 1 - MOST - MOST;
    let last = dropped.last().unwrap().2.as_str();
    assert_eq!((dropped.len(), last), (MOST, format!("{TOO_MANY}; so it was with {uncounted} others").as_str()));
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_a_channel_that_is_gone_is_reported() {
    let Bench { channel, reported: book } = bench(&Scripted::default());
    channel.put(&Arc::new(requested("x")));
    pass(1).await;
    channel.close();
    assert_eq!(reported(&book, 1).await.first().map(|one| (one.1, one.2.as_str())), Some((1, GONE)));
    pass(1).await;
    assert_eq!(Arc::strong_count(&channel), 1, "its task has ended");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_closed_ends_and_one_that_is_changed_goes_on_with_what_waits() {
    let dead = Scripted::default();
    let Bench { channel, .. } = bench(&dead);
    channel.put(&Arc::new(requested("x")));
    pass(1).await;
    let alive = Scripted::answering(&[Ok(())]);
    channel.change(Setting { on: Occasion::ALL.to_vec(), groups: None, way: Box::new(alive.clone()) });
    pass(10).await;
    assert_eq!((dead.tries(), alive.tries(), channel.doing()), (1, 1, (0, None)));
    channel.put(&Arc::new(requested("x")));
    pass(1).await;
    assert_eq!(channel.doing().0, 1);
    channel.close();
    pass(60).await;
    assert_eq!((alive.tries(), channel.doing().0), (2, 0));
    assert_eq!(Arc::strong_count(&channel), 1, "its task has ended");
}

#[tokio::test(start_paused = true)]
async fn who_puts_something_in_never_waits() {
    let way = Scripted { slow: Duration::from_secs(3600), ..Scripted::default() };
    let Bench { channel, .. } = bench(&way);
    let (began, count) = (Instant::now(), AtomicUsize::new(0));
    for _ in 0..1000 {
        channel.put(&Arc::new(requested("x")));
        count.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!((began.elapsed(), count.into_inner()), (Duration::ZERO, 1000));
}
