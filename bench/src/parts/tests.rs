use super::*;

fn of(pairs: &[(&str, f64)]) -> Figures {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn what_a_request_costs_is_divided_by_samples() {
    let [first, second] = [PARTS[0].name, PARTS[1].name];
    let counts: Counts = [
        (Threads::Workers, [(first, 75), (second, 25)].into()),
        (Threads::Others, [(first, 50)].into()),
        (Threads::Writer, [(first, FEWEST - 1)].into()),
    ]
    .into();
    let whole = of(&[("workers_cpu", 4.0), ("writer_cpu", 2.0), ("requests", 10.0), ("rows", 10.0)]);
    let sampled = of(&[("workers_cpu", 9.0), ("requests", 5.0), ("rows", 5.0)]);
    let find = |threads, is_bulk| figures(threads, (&whole, &sampled), &counts, is_bulk);
    let workers = find(Threads::Workers, false).unwrap();
    assert_eq!([workers[WHOLE], workers[first], workers[second]], [40.0, 30.0, 10.0], "perf's own time counts");
    assert_eq!(workers["requests"], 15.0);
    assert_eq!(find(Threads::Workers, true).unwrap()[first], 3000.0);
    assert_eq!(find(Threads::Others, false).unwrap()[WHOLE], 20.0);
    assert!(find(Threads::Writer, false).is_none(), "too little was seen of it");
}
