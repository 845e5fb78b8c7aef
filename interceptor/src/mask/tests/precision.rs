//! The built-in detectors on texts that are something (`positives.txt`: the detector, then the text) and on texts that only
//! look so (`negatives.txt`).

use super::*;
use crate::config::Rules;

/// What each built-in detector finds in the text, alone.
fn found(rules: &Rules, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rule in rules.iter() {
        let detectors = Detectors::new(vec![Arc::clone(rule)]).unwrap();
        let active = Active::new(Arc::new(detectors), vec![Some(Strategy::Redact)]);
        let mut scratch = detector::Scratch::default();
        active.find(text.as_bytes(), &Default::default(), &mut scratch);
        found.extend(scratch.hits.iter().map(|hit| format!("{}: {}", rule.id, &text[hit.start..hit.end])));
    }
    found
}

#[test]
fn the_built_in_rules_hold_their_own_examples() {
    let outcome = examples::run(&Rules::builtin().unwrap()).unwrap();
    assert_eq!(outcome.failures, []);
    assert!(outcome.rules >= 20 && outcome.examples >= 80, "{outcome:?}");
}

#[test]
fn no_detector_takes_ids_hashes_versions_dates_and_order_numbers() {
    let rules = Rules::builtin().unwrap();
    let active: Vec<_> = rules
        .iter()
        .map(|rule| {
            let detectors = Detectors::new(vec![Arc::clone(rule)]).unwrap();
            (rule.id.clone(), Active::new(Arc::new(detectors), vec![Some(Strategy::Redact)]))
        })
        .collect();
    let mut scratch = detector::Scratch::default();
    let mut wrong = Vec::new();
    let mut count = 0;
    for text in include_str!("negatives.txt").lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        for (id, active) in &active {
            active.find(text.as_bytes(), &Default::default(), &mut scratch);
            wrong.extend(scratch.hits.iter().map(|hit| format!("{id}: {} in {text}", &text[hit.start..hit.end])));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 500, "{count}");
}

#[test]
fn every_positive_is_found_whole() {
    let rules = Rules::builtin().unwrap();
    let mut missed = Vec::new();
    let mut count = 0;
    for line in include_str!("positives.txt").lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        let (id, text) = line.split_once('\t').unwrap();
        let text = text.replace("\\n", "\n");
        // What is to be found stands between guillemets.
        let (before, rest) = text.split_once('«').unwrap();
        let (value, after) = rest.split_once('»').unwrap();
        let text = format!("{before}{value}{after}");
        let wanted = format!("{id}: {value}");
        if rules.named(id).next().is_none() || !found(&rules, &text).contains(&wanted) {
            missed.push(format!("{wanted} in {text}: {:?}", found(&rules, &text)));
        }
        count += 1;
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert!(count >= 300, "{count}");
}

#[test]
fn each_word_by_which_a_key_is_known_stands_in_a_positive() {
    // Who looks for keys in repositories takes anything that begins so for a real one.
    const UNWRITTEN: [&str; 2] = ["sk_live_", "rk_live_"];
    let positives: Vec<(&str, String)> = include_str!("positives.txt")
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(id, text)| (id, text.replace(['«', '»'], "").to_ascii_lowercase()))
        .collect();
    let rules = Rules::builtin().unwrap();
    let mut missing = Vec::new();
    for rule in rules.named("api-key") {
        for word in rule.keywords.iter().filter(|word| !UNWRITTEN.contains(&&***word)) {
            if !positives.iter().any(|(id, text)| **id == *rule.id && text.contains(&**word)) {
                missing.push(format!("{}: {word}", rule.id));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join(", "));
}
