use super::*;

#[test]
fn the_tree_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn every_verb_of_the_command_line_is_there() {
    for line in [
        "daemon --config /c",
        "status --json",
        "status --socket /s",
        "doctor",
        "workloads list --json",
        "ca show",
        "config check",
        "config schema",
        "completions bash",
        "--socket /s --config /c status",
    ] {
        let words = std::iter::once("interceptor").chain(line.split(' '));
        assert!(Arguments::try_parse_from(words).is_ok(), "{line}");
    }
}

#[test]
fn wrong_usage_is_told_apart_from_help() {
    let error = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap_err();
    assert!(error("interceptor").use_stderr());
    assert!(error("interceptor nonsense").use_stderr());
    assert!(error("interceptor status extra").use_stderr());
    assert!(error("interceptor workloads").use_stderr());
    assert!(!error("interceptor --help").use_stderr());
    assert!(!error("interceptor --version").use_stderr());
}

#[test]
fn every_verb_is_documented() {
    fn verbs(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name());
            if verb.has_subcommands() { verbs(verb, &path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    verbs(&Arguments::command(), "interceptor", &mut found);
    assert!(found.len() > 8);
    let documentation = include_str!("../../../docs/cli.md");
    for verb in found {
        assert!(documentation.contains(&format!("`{verb}")), "`{verb}` isn't in docs/cli.md");
    }
}
