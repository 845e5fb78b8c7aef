use super::*;

#[test]
fn a_name_may_hold_anything() {
    let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 9 0 0";
    assert_eq!(seconds(stat).unwrap(), ("a) b (c", 2.0));
    assert!(seconds("7 nothing").is_err());
    assert!(seconds("7 (a) S 1").is_err());
}

#[test]
fn this_process_is_seen() {
    let own = [std::process::id()];
    let cpu = Cpu::of(&own).unwrap();
    assert!(cpu.all >= 0.0 && !cpu.threads.is_empty());
    assert!(resident(&own).unwrap() > 100);
    assert!(family(own[0]).contains(&own[0]));
}

#[test]
fn time_on_a_core_is_in_nanoseconds() {
    assert_eq!(on_cpu("worker-0 (7, #threads: 1)\nse.sum_exec_runtime      :     1500.000000\n"), Some(1.5));
    assert_eq!(on_cpu(""), None);
}
