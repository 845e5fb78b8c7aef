use interceptor_common::{Fate, Kind};

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use tempfile::TempDir;

use super::{Connects, Entered, Had, Recorded, adopted, last, settled};
use crate::bpf::BpfError;
use crate::bpf::adopt::Tally;
use crate::ids::LaunchId;
use crate::launch::Refused;
use crate::record::event::{Counts, Handled, Ledger};
use crate::transport::taken::{Taken, Ticket};

fn tally(kind: Kind, fate: Fate, count: u64) -> Tally {
    Tally { workload: 1, kind: kind as u32, fate: fate as u32, count }
}

#[test]
fn what_got_an_answer_from_somebody_else_is_unexplained() {
    let tallies = [
        tally(Kind::Tcp, Fate::Steered, 13),
        tally(Kind::Tcp, Fate::Established, 10),
        tally(Kind::Tcp, Fate::Arrived, 6),
        tally(Kind::Tcp, Fate::Lost, 1),
        tally(Kind::Tcp, Fate::Failed, 2),
        tally(Kind::Tcp, Fate::Refused, 4),
    ];
    let had = Had { taken: 6, ..Had::default() };
    let tcp = adopted(&tallies, 1, had)["tcp"];
    let expected = Counts { attempted: 16, mediated: 6, refused: 6, dropped: 1, allowed: 0, unexplained: 2 };
    assert_eq!(tcp, expected);
    assert_eq!(adopted(&tallies, 3, had)["tcp"].unexplained, 0);
}

#[test]
fn what_is_mediated_is_what_the_proxy_kept_and_not_what_the_kernel_says_of_it() {
    let tallies = [tally(Kind::Tcp, Fate::Established, 10), tally(Kind::Tcp, Fate::Arrived, 10)];
    let expected = Counts { attempted: 10, mediated: 5, refused: 2, dropped: 3, ..Counts::default() };
    assert_eq!(adopted(&tallies, 0, Had { taken: 7, reset: 2, ..Had::default() })["tcp"], expected);
}

#[test]
fn what_never_happened_is_not_listed() {
    let kinds =
        adopted(&[tally(Kind::Udp, Fate::Refused, 3), tally(Kind::Packet, Fate::Dropped, 2)], 0, Had::default());
    assert_eq!(kinds.keys().collect::<Vec<_>>(), ["packet", "udp"]);
    assert_eq!(kinds["udp"], Counts { attempted: 3, refused: 3, ..Counts::default() });
    assert_eq!(kinds["packet"], Counts { attempted: 2, dropped: 2, ..Counts::default() });
    assert!(adopted(&[], 0, Had::default()).is_empty());
}

#[test]
fn a_launched_workloads_own_loopback_is_allowed() {
    let connects = |taken| {
        let had = Had { taken, ..Had::default() };
        Connects { established: 5, failed: 2, allowed: 7, had, ..Connects::default() }.kinds()["tcp"]
    };
    let expected = Counts { attempted: 14, mediated: 5, refused: 2, allowed: 7, ..Counts::default() };
    assert_eq!(connects(5), expected);
    assert_eq!(connects(4).unexplained, 1);
    assert_eq!(connects(6).unexplained, 0);
}

#[test]
fn what_was_reset_is_refused_and_what_a_dead_daemon_had_not_taken_is_dropped() {
    let had = Had { taken: 6, reset: 2, lost: 3, asked: 0 };
    let tcp = Connects { established: 10, failed: 1, had, ..Connects::default() }.kinds()["tcp"];
    let expected = Counts { attempted: 11, mediated: 4, refused: 3, dropped: 3, allowed: 0, unexplained: 1 };
    assert_eq!(tcp, expected);
}

#[test]
fn questions_are_those_that_the_resolver_had() {
    let tallies = [tally(Kind::Dns, Fate::Steered, 5), tally(Kind::Dns, Fate::Refused, 1)];
    let asked = |asked| adopted(&tallies, 0, Had { asked, ..Had::default() })["dns"];
    assert_eq!(asked(3), Counts { attempted: 6, mediated: 3, refused: 1, dropped: 2, ..Counts::default() });
    assert_eq!(asked(8), Counts { attempted: 9, mediated: 8, refused: 1, ..Counts::default() });
    let had = Had { asked: 4, ..Had::default() };
    let dns = Connects { had, ..Connects::default() }.kinds()["dns"];
    assert_eq!(dns, Counts { attempted: 4, mediated: 4, ..Counts::default() });
}

#[test]
fn unix_sockets_that_a_rule_allows_are_counted_beside_the_others() {
    let expected = Counts { attempted: 5, refused: 3, allowed: 2, ..Counts::default() };
    let tallies = [tally(Kind::Unix, Fate::Refused, 3), tally(Kind::Unix, Fate::Allowed, 2)];
    assert_eq!(adopted(&tallies, 0, Had::default())["unix"], expected);
    assert_eq!(Connects { unix: [3, 2], ..Connects::default() }.kinds()["unix"], expected);
}

#[test]
fn what_a_launched_workload_sends_besides_tcp_is_counted_as_what_became_of_it() {
    let kinds =
        Connects { udp: [4, 3], unheard: 2, had: Had { asked: 5, ..Had::default() }, ..Connects::default() }.kinds();
    assert_eq!(kinds.keys().collect::<Vec<_>>(), ["dns", "udp"]);
    assert_eq!(kinds["udp"], Counts { attempted: 7, refused: 4, allowed: 3, ..Counts::default() });
    assert_eq!(kinds["dns"], Counts { attempted: 7, mediated: 5, refused: 2, ..Counts::default() });
    let kinds = Connects { raw: 1, packets: 2, ..Connects::default() }.kinds();
    assert_eq!(kinds.keys().collect::<Vec<_>>(), ["packet", "raw"]);
    assert_eq!(kinds["raw"], Counts { attempted: 1, allowed: 1, ..Counts::default() });
    assert_eq!(kinds["packet"], Counts { attempted: 2, allowed: 2, ..Counts::default() });
    let refused = Refused { raw: 3, packet: 4, other: 5 };
    let kinds = Connects { raw: 1, refused, ..Connects::default() }.kinds();
    assert_eq!(kinds.keys().collect::<Vec<_>>(), ["other", "packet", "raw"]);
    assert_eq!(kinds["raw"], Counts { attempted: 4, refused: 3, allowed: 1, ..Counts::default() });
    assert_eq!(kinds["packet"], Counts { attempted: 4, refused: 4, ..Counts::default() });
    assert_eq!(kinds["other"], Counts { attempted: 5, refused: 5, ..Counts::default() });
}

#[test]
fn what_leaves_the_namespace_of_a_launched_workload_is_unexplained() {
    let kinds = Connects {
        established: 4,
        udp: [4, 3],
        unheard: 2,
        raw: 1,
        packets: 2,
        left: [5, 6, 7],
        had: Had { taken: 3, asked: 1, ..Had::default() },
        ..Connects::default()
    }
    .kinds();
    let expected = Counts { attempted: 12, refused: 4, allowed: 3, unexplained: 5, ..Counts::default() };
    assert_eq!(kinds["udp"], expected);
    let expected = Counts { attempted: 9, mediated: 1, refused: 2, unexplained: 6, ..Counts::default() };
    assert_eq!(kinds["dns"], expected);
    assert_eq!(kinds["packet"], Counts { attempted: 9, allowed: 2, unexplained: 7, ..Counts::default() });
    assert_eq!(kinds["raw"], Counts { attempted: 1, allowed: 1, ..Counts::default() });
    let ledger = Ledger { kinds, ..ledger(LaunchId::new(), 0) };
    // What a restart makes of connections is told by theirs alone.
    assert_eq!((ledger.unexplained(), ledger.unexplained_connections()), (19, 1));
}

fn ledger(launch: LaunchId, unexplained: u64) -> Ledger {
    let counts = Counts { attempted: 9, unexplained, ..Counts::default() };
    Ledger { launch, workload: "crm".parse().unwrap(), kinds: [("tcp".to_owned(), counts)].into(), handled: None }
}

#[test]
fn what_is_in_between_at_one_look_is_not_unexplained() {
    let launch = LaunchId::new();
    let looks = Cell::new(0);
    let found = settled(|| {
        looks.set(looks.get() + 1);
        Ok(ledger(launch, if looks.get() == 2 { 1 } else { 4 }))
    });
    assert_eq!(found.unwrap(), ledger(launch, 1));
}

#[test]
fn counts_that_cant_be_read_are_not_nothing() {
    let failed = || BpfError::Io { what: "reading".into(), source: io::Error::other("no") };
    assert!(settled(|| Err(failed())).is_err());
}

#[test]
fn only_what_changed_is_recorded() {
    let recorded = Recorded::default();
    let launch = LaunchId::new();
    assert!(recorded.is_new(&ledger(launch, 0)));
    assert!(!recorded.is_new(&ledger(launch, 0)));
    assert!(recorded.is_new(&ledger(launch, 1)));
    recorded.forget(launch);
    assert!(recorded.is_new(&ledger(launch, 1)));
}

fn handled(at: &str, unrecorded: u64, last: bool) -> Option<Handled> {
    Some(Handled { at: at.parse().unwrap(), unrecorded, unsure: 0, last })
}

#[test]
fn a_later_look_is_no_news_and_that_it_was_the_last_is() {
    let recorded = Recorded::default();
    let launch = LaunchId::new();
    let at = |at, unrecorded, last| Ledger { handled: handled(at, unrecorded, last), ..ledger(launch, 0) };
    assert!(recorded.is_new(&at("2026-03-01T10:00:00Z", 0, false)));
    assert!(!recorded.is_new(&at("2026-03-01T10:01:00Z", 0, false)));
    assert!(recorded.is_new(&at("2026-03-01T10:02:00Z", 1, false)));
    assert!(recorded.is_new(&at("2026-03-01T10:03:00Z", 1, true)));
}

/// The numbers of a workload that is new, in a folder of its own.
fn begun() -> (TempDir, Arc<Taken>) {
    let folder = tempfile::tempdir().unwrap();
    Taken::begin(folder.path());
    let taken = Taken::open(folder.path());
    (folder, Arc::new(taken))
}

/// Counts of so many connections, beside what the proxy says of the record.
fn entered(taken: &Taken, mediated: u64, last: bool) -> Ledger {
    let entered = Entered::at("2026-03-01T10:00:00Z".parse().unwrap(), taken, last);
    let counts = Counts { attempted: mediated, mediated, ..Counts::default() };
    entered.ledger(LaunchId::new(), "crm".parse().unwrap(), [("tcp".to_owned(), counts)].into())
}

#[test]
fn what_is_not_known_to_be_in_the_record_is_unsure() {
    let (_folder, taken) = begun();
    let ticket = || Ticket::new(Some(Arc::clone(&taken)));
    ticket().recorded();
    ticket().recorded();
    drop(ticket());
    let handled = entered(&taken, 5, true).handled.unwrap();
    assert_eq!((handled.unrecorded, handled.unsure, handled.last), (1, 2, true));
    assert_eq!(entered(&taken, 3, false).handled.unwrap().unsure, 0);
}

#[test]
fn counts_that_began_anew_say_nothing_of_the_record() {
    let (folder, taken) = begun();
    assert!(entered(&taken, 1, true).handled.is_some());
    std::fs::remove_file(folder.path().join("taken")).unwrap();
    let anew = Taken::open(folder.path());
    let ledger = entered(&anew, 1, true);
    assert_eq!((ledger.mediated(), ledger.handled), (1, None));
}

#[test]
fn the_last_counts_wait_for_what_is_on_its_way_into_the_record() {
    let (_folder, taken) = begun();
    taken.take();
    let ticket = Cell::new(Some(Ticket::new(Some(Arc::clone(&taken)))));
    let looks = Cell::new(0);
    let found = last(&taken, || {
        looks.set(looks.get() + 1);
        let ledger = entered(&taken, 1, true);
        // A worker comes to it when it has been counted.
        if let Some(ticket) = ticket.take() {
            ticket.recorded();
        }
        Ok(ledger)
    });
    assert_eq!((found.unwrap().handled.unwrap().unsure, looks.get()), (0, 2));
}
