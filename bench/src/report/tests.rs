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
fn a_stage_is_told_by_what_it_costs_more() {
    let mut run = run(&[]);
    for (name, workers, writer) in [("least", 5.0, 1.0), ("identity", 6.5, 1.25)] {
        let figures = [("rate", 100.0), ("p50_us", 40.0), ("workers_cpu", workers), ("writer_cpu", writer)];
        let figures = figures.map(|(name, value)| (name.to_owned(), value)).into();
        let (cell, peer) = ("stages/http1-64".to_owned(), name.to_owned());
        run.samples.push(Sample { round: 0, cell, peer, figures, fault: None });
    }
    let section = stages::section(&run);
    let lines = &section.tables[0].lines;
    assert_eq!((lines[0][5].as_str(), lines[1][5].as_str()), ("", "+1.75"));
}

#[test]
fn growth_is_told_by_its_top() {
    let mut run = run(&[]);
    for (round, name, cpu) in [(0, "10000", 1.2), (0, "0", 1.0), (1, "0", 2.0), (1, "10000", 2.4)] {
        let figures = [("workers_cpu".to_owned(), cpu)].into();
        let (cell, peer) = ("growth/connections/http1-1".to_owned(), name.to_owned());
        run.samples.push(Sample { round, cell, peer, figures, fault: None });
    }
    let section = growth::section(&run);
    assert!(section.notes[0].starts_with("10,000 against 0") && section.notes[0].contains("×1.20"));
    assert!(section.notes[0].contains("misses"), "more than a tenth");
    assert!(section.drawing.unwrap().svg.contains("10000"));
}

#[test]
fn a_section_is_replaced_and_the_others_stay() {
    let begin = "text\n<!-- From here on `cargo xtask bench --docs` writes. -->\n";
    let text = document::merged(begin, &[("growth", "old growth".into()), ("cells", "old cells".into())]).unwrap();
    let text = document::merged(&text, &[("cells", "new cells".into()), ("stages", "stages".into())]).unwrap();
    let after = "\n<!-- cells -->\n\nnew cells\n\n<!-- stages -->\n\nstages\n\n<!-- growth -->\n\nold growth\n";
    assert_eq!(text, format!("{begin}{after}"));
    assert_eq!(document::merged("no mark", &[]), None);
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
