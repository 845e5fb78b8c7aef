use interceptor_common::{Fate, Kind};

use super::{Connects, adopted};
use crate::bpf::adopt::Tally;
use crate::record::event::Counts;

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
    let tcp = adopted(&tallies, 1)["tcp"];
    let expected = Counts { attempted: 16, mediated: 6, refused: 6, dropped: 1, allowed: 0, unexplained: 2 };
    assert_eq!(tcp, expected);
    assert_eq!(adopted(&tallies, 3)["tcp"].unexplained, 0);
}

#[test]
fn what_never_happened_is_not_listed() {
    let kinds = adopted(&[tally(Kind::Udp, Fate::Refused, 3), tally(Kind::Packet, Fate::Dropped, 2)], 0);
    assert_eq!(kinds.keys().collect::<Vec<_>>(), ["packet", "udp"]);
    assert_eq!(kinds["udp"], Counts { attempted: 3, refused: 3, ..Counts::default() });
    assert_eq!(kinds["packet"], Counts { attempted: 2, dropped: 2, ..Counts::default() });
    assert!(adopted(&[], 0).is_empty());
}

#[test]
fn a_launched_workloads_own_loopback_is_allowed() {
    let connects = Connects { established: 5, failed: 2, allowed: 7, taken: 5 };
    let expected = Counts { attempted: 14, mediated: 5, refused: 2, allowed: 7, ..Counts::default() };
    assert_eq!(connects.kinds()["tcp"], expected);
    assert_eq!(Connects { taken: 4, ..connects }.kinds()["tcp"].unexplained, 1);
    assert_eq!(Connects { taken: 6, ..connects }.kinds()["tcp"].unexplained, 0);
}
