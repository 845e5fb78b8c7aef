use super::*;

#[test]
fn every_rule_compiles_for_both_machines_and_has_a_reason() {
    for arch in [TargetArch::x86_64, TargetArch::aarch64] {
        let compiled = seccompiler::compile_from_json(RULES.as_bytes(), arch).unwrap();
        assert!(compiled.values().all(|program| program.len() < 4096));
    }
    let rules: serde_json::Value = serde_json::from_str(RULES).unwrap();
    for (group, filter) in rules.as_object().unwrap() {
        for rule in filter["filter"].as_array().unwrap() {
            let reason = rule["comment"].as_str().unwrap_or_default();
            assert!(reason.len() > 9, "{group}: {rule} has no reason");
        }
    }
}

#[test]
fn the_groups_are_loaded_in_their_order() {
    let rules: serde_json::Value = serde_json::from_str(RULES).unwrap();
    let numbers: Vec<_> = rules.as_object().unwrap().keys().map(|name| name.split(' ').next().unwrap()).collect();
    assert_eq!(numbers, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(compile().unwrap().len(), 7);
}
