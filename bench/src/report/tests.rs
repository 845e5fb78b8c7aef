use super::*;

fn run(rates: &[(usize, &str, f64)]) -> Run {
    let sample = |&(round, peer, rate): &(usize, &str, f64)| Sample {
        round,
        cell: "http1-64".into(),
        peer: peer.into(),
        figures: [("rate".to_owned(), rate)].into(),
        fault: None,
    };
    Run {
        machine: Machine::here(),
        settings: String::new(),
        missing: Vec::new(),
        samples: rates.iter().map(sample).collect(),
    }
}

#[test]
fn a_ratio_is_taken_within_its_round() {
    // The machine was half as fast in the second round.
    let run = run(&[
        (0, "direct", 100.0),
        (0, "nginx", 40.0),
        (0, "interceptor", 30.0),
        (1, "direct", 50.0),
        (1, "nginx", 20.0),
        (1, "interceptor", 15.0),
    ]);
    let lines = run.lines(&CELLS[0]);
    let ours = lines.iter().find(|line| line.peer == Peer::Ours).unwrap();
    assert!((ours.of_direct.unwrap() - 0.3).abs() < 1e-9);
    assert!((ours.of_best.unwrap() - 0.75).abs() < 1e-9);
    assert_eq!(ours.of_limit, None, "nobody measured the limit");
    assert!((ours.rate - 22.5).abs() < 1e-9);
}

#[test]
fn a_median_is_the_middle() {
    assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    assert_eq!(median(Vec::new()), None);
}

#[test]
fn the_chart_has_everybody() {
    let chart = chart::draw(&run(&[(0, "direct", 100.0), (0, "nginx", 40.0), (0, "interceptor", 30.0)]));
    assert!(chart.starts_with("<svg") && chart.trim_end().ends_with("</svg>"));
    assert!(chart.contains("nginx") && chart.contains("interceptor"));
}
