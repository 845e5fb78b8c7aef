use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const LIFE: Duration = Duration::from_secs(5);

/// Counts how often it is asked.
#[derive(Default)]
struct Asked(AtomicU32);

impl Asked {
    async fn answer(&self, fails: bool) -> Result<u32, u32> {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if fails { Err(count) } else { Ok(count) }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_serves_for_its_time_and_no_longer() {
    let (fresh, asked) = (Fresh::new(10, LIFE), Asked::default());
    for (wait, expected) in [(0, 1), (4_900, 1), (100, 2), (6_000, 3)] {
        tokio::time::advance(Duration::from_millis(wait)).await;
        assert_eq!(fresh.get_or_ask(&"a", asked.answer(false)).await, Ok(expected), "after {wait} ms");
    }
    assert_eq!(fresh.get(&"a"), Some(3));
    tokio::time::advance(LIFE).await;
    assert_eq!(fresh.get(&"a"), None);
    fresh.put("a", 7);
    assert_eq!(fresh.get_or_ask(&"a", asked.answer(false)).await, Ok(7));
    fresh.remove_if(&"a", |answer| *answer != 7);
    assert_eq!(fresh.get(&"a"), Some(7));
    fresh.remove_if(&"a", |answer| *answer == 7);
    let ask = fresh.get_or_ask(&"a", asked.answer(false));
    let forget = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        fresh.remove_if(&"a", |_| true);
        // What is being asked for stays, and whoever comes now has a share in it.
        fresh.get_or_ask(&"a", asked.answer(false)).await
    };
    assert_eq!(tokio::join!(ask, forget), (Ok(4), Ok(4)));
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_at_once_share_one_answer_and_an_error_as_well() {
    let (fresh, asked) = (Fresh::new(10, LIFE), Asked::default());
    for (fails, expected) in [(true, Err(Arc::new(1))), (true, Err(Arc::new(2))), (false, Ok(3)), (false, Ok(3))] {
        let ask = || fresh.get_or_ask(&"a", asked.answer(fails));
        let (one, other, third) = tokio::join!(ask(), ask(), ask());
        assert_eq!((&one, &other, &third), (&expected, &expected, &expected));
    }
    assert_eq!(fresh.get_or_ask(&"b", asked.answer(false)).await, Ok(4), "another key is asked for by itself");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_question_to_the_next() {
    let (fresh, asked) = (Fresh::new(10, LIFE), Asked::default());
    let impatient = tokio::time::timeout(Duration::from_millis(50), fresh.get_or_ask(&"a", asked.answer(false)));
    let (gone, patient) = tokio::join!(impatient, fresh.get_or_ask(&"a", asked.answer(false)));
    assert!(gone.is_err());
    assert_eq!(patient, Ok(2));
}
