use std::cell::{Cell, RefCell};

use jiff::SignedDuration;
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::*;
use crate::identity::fixture::{CLIENT, OBJECT, TENANT, now};
use crate::identity::provenance::Issued;
use crate::policy::{Authentic, Bound, PrincipalKind};

fn groups(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Somebody whose token tells these groups, if any.
fn who(told: Option<Vec<String>>) -> Identified {
    let principal = Principal {
        id: format!("{TENANT}/{OBJECT}").parse().unwrap(),
        kind: PrincipalKind::User,
        client: Some(CLIENT.parse().unwrap()),
        groups: told,
        roles: vec!["reads".into()],
        authentic: Authentic::Issuer,
        bound: Bound::IssuedHere,
    };
    let token = "ab".repeat(32).parse().unwrap();
    let until = now() + SignedDuration::from_hours(1);
    Identified { principal: Arc::new(principal), token, uti: None, until, seen: 0, membership: None }
}

/// The token that came after `place` others, and tells these groups.
fn newest(place: u64, told: Option<Vec<String>>) -> Newest {
    let issued = Issued {
        workload: "crm".parse().unwrap(),
        principal: format!("{TENANT}/{OBJECT}").parse().unwrap(),
        client: Some(CLIENT.parse().unwrap()),
        audiences: vec!["https://graph.microsoft.com".into()],
        kind: PrincipalKind::User,
        groups: told,
        roles: vec!["reads".into()],
        uti: None,
        expiry: now() + SignedDuration::from_hours(1),
        bound: Bound::IssuedHere,
        authentic: Authentic::Issuer,
    };
    Newest { issued: Arc::new(issued), place }
}

fn looked_up(names: &[&str], seen: u64) -> LookedUp {
    let until = now() + SignedDuration::try_from(LIFE).unwrap();
    LookedUp { groups: groups(names).unwrap(), until, seen }
}

/// Somebody whose groups were looked up when five tokens had been issued.
fn member(names: &[&str]) -> Identified {
    let mut who = who(None);
    assert!(who.regroup(Some(looked_up(names, 5))));
    who
}

fn left(who: &Identified) -> Option<Duration> {
    who.membership.map(|membership| membership.left(now()))
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_token_says_of_groups_counts_and_what_it_leaves_out_is_looked_up_again() {
    let (both, one) = (groups(&["a", "b"]), groups(&["a"]));
    // Told by both.
    let mut told = who(both.clone());
    assert!(!told.renew(&newest(3, both.clone())));
    assert!(told.renew(&newest(4, one.clone())));
    assert_eq!((&told.principal.groups, left(&told)), (&one, None));
    // Not told any more: of too many groups, or of none at all.
    assert!(!told.renew(&newest(5, None)));
    assert_eq!((&told.principal.groups, left(&told)), (&one, Some(Duration::ZERO)));
    assert!(!told.regroup(Some(looked_up(&["a"], 6))));
    assert_eq!(left(&told), Some(LIFE));
    // Looked up: an older token, or the one that it was, says nothing new.
    let mut member = member(&["a", "b"]);
    assert!(!member.renew(&newest(4, None)));
    assert_eq!(left(&member), Some(LIFE));
    assert!(!member.renew(&newest(5, None)));
    assert_eq!(left(&member), Some(Duration::ZERO));
    // One that came while that was looked up.
    assert!(!member.renew(&newest(6, None)));
    assert!(!member.regroup(Some(looked_up(&["a", "b"], 6))));
    assert_eq!(left(&member), Some(Duration::ZERO));
    assert!(member.regroup(Some(looked_up(&["a"], 7))));
    assert_eq!((&member.principal.groups, left(&member)), (&one, Some(LIFE)));
    // Told again.
    assert!(member.renew(&newest(7, both.clone())));
    assert_eq!((&member.principal.groups, left(&member)), (&both, None));
    // Nobody asked for them, so far.
    let mut unknown = who(None);
    assert!(!unknown.renew(&newest(5, None)));
    assert_eq!((&unknown.principal.groups, left(&unknown)), (&None, None));
}

/// Looks up again with these answers, each of which takes a second; gives the code, after how many seconds it came, and for
/// how many tokens was asked.
async fn look(who: &mut Identified, answers: &[Option<LookedUp>]) -> (&'static str, u64, Vec<u64>) {
    let (start, mut again) = (Instant::now(), Again::default());
    let (answers, asked) = (RefCell::new(answers.to_vec()), RefCell::new(Vec::new()));
    let at = || now() + SignedDuration::try_from(start.elapsed()).unwrap();
    let ask = |_principal: Arc<Principal>, wanted: u64| {
        asked.borrow_mut().push(wanted);
        let answer = answers.borrow_mut().remove(0);
        async move {
            sleep(Duration::from_secs(1)).await;
            answer
        }
    };
    let code = again.look(Some(who), at, ask).await;
    (code, start.elapsed().as_secs(), asked.take())
}

#[tokio::test(start_paused = true)]
async fn groups_are_looked_up_again_when_the_answer_is_too_old_and_at_once_for_a_newer_token() {
    let later = |names: &[&str]| LookedUp { until: now() + SignedDuration::from_mins(8), ..looked_up(names, 5) };
    let looks = async {
        let mut who = member(&["a", "b"]);
        let same = look(&mut who, &[Some(later(&["a", "b"])), Some(later(&["a"]))]).await;
        assert_eq!(same, ("groups-changed", 8 * 60 + 1, vec![0, 0]));
        // What can't be looked up isn't known any more.
        let lost = look(&mut member(&["a"]), &[None]).await;
        assert_eq!(lost, ("groups-unknown", 5 * 60 + 1, vec![0]));
        let mut who = member(&["a"]);
        who.renew(&newest(9, None));
        let newer = look(&mut who, &[Some(looked_up(&[], 10))]).await;
        assert_eq!(newer, ("groups-changed", 1, vec![10]));
    };
    LocalSet::new().run_until(looks).await;
}

/// What isn't believed any more counts while it is looked up: not for as long as Graph likes.
#[tokio::test(start_paused = true)]
async fn groups_that_cant_be_looked_up_in_time_are_unknown() {
    let looks = async {
        let start = Instant::now();
        let mut who = member(&["a"]);
        who.renew(&newest(9, None));
        let (mut again, ask) = (Again::default(), |_principal: Arc<Principal>, _wanted: u64| pending());
        let ended = timeout(LIFE, again.look(Some(&mut who), now, ask)).await;
        assert_eq!((ended, start.elapsed().as_secs()), (Ok("groups-unknown"), PATIENCE.as_secs()));
        assert_eq!((&who.principal.groups, left(&who)), (&None, None));
    };
    LocalSet::new().run_until(looks).await;
}

/// However often something else happens meanwhile.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_makes_no_groups_last() {
    let looks = async {
        let (start, mut who, mut again) = (Instant::now(), member(&["a"]), Again::default());
        let yesterday = || now() - SignedDuration::from_hours(24);
        let ask = |_principal: Arc<Principal>, _wanted: u64| async { Some(looked_up(&[], 5)) };
        while start.elapsed() < LIFE * 2 {
            let turn = timeout(Duration::from_mins(2), again.look(Some(&mut who), yesterday, ask)).await;
            if turn == Ok("groups-changed") {
                break;
            }
        }
        assert_eq!(start.elapsed().as_secs(), LIFE.as_secs());
    };
    LocalSet::new().run_until(looks).await;
}

#[tokio::test(start_paused = true)]
async fn groups_are_due_when_they_arent_believed_any_more_or_a_newer_token_came() {
    let mut who = member(&["a"]);
    assert_eq!(who.due(now()), None);
    assert_eq!(who.due(now() + SignedDuration::try_from(LIFE).unwrap()), Some(0));
    who.renew(&newest(9, None));
    assert_eq!(who.due(now()), Some(10));
    who.regroup(Some(looked_up(&["a"], 10)));
    assert_eq!(who.due(now()), None);
    // What nobody looked up, or a token tells, isn't looked up again.
    who.regroup(None);
    assert_eq!(who.due(now()), None);
}

/// A workload that gets itself new tokens all the time can't keep a look-up from ending.
#[tokio::test(start_paused = true)]
async fn a_look_up_goes_on_while_newer_tokens_come() {
    let looks = async {
        let (mut who, mut again, asked) = (member(&["a"]), Again::default(), Cell::new(0));
        let ask = |_principal: Arc<Principal>, _wanted: u64| {
            asked.set(asked.get() + 1);
            async {
                sleep(Duration::from_secs(1)).await;
                Some(looked_up(&[], 6))
            }
        };
        for place in 5..14 {
            who.renew(&newest(place, None));
            let ended = timeout(Duration::from_millis(100), again.look(Some(&mut who), now, ask)).await;
            assert!(ended.is_err(), "it takes a second");
        }
        let ended = timeout(Duration::from_millis(200), again.look(Some(&mut who), now, ask)).await;
        assert_eq!((ended, asked.get()), (Ok("groups-changed"), 1));
        assert_eq!(left(&who), Some(Duration::ZERO), "it was asked before the last of them came");
    };
    LocalSet::new().run_until(looks).await;
}

#[tokio::test(start_paused = true)]
async fn groups_that_a_token_tells_are_never_looked_up() {
    let looks = async {
        let asked = Cell::new(false);
        let ask = |_principal: Arc<Principal>, _wanted: u64| {
            asked.set(true);
            async { None }
        };
        let mut told = who(groups(&["a"]));
        for who in [None, Some(&mut told)] {
            let ended = timeout(LIFE * 3, Again::default().look(who, now, ask)).await;
            assert!(ended.is_err() && !asked.get());
        }
    };
    LocalSet::new().run_until(looks).await;
}
