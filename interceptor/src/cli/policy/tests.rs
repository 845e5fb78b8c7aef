use std::process::ExitCode;

use clap::Parser;

use super::{Command, execute, load, plain, what_if};

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

const CONFIG: &str = r#"
[[workload]]
name = "crm"
match = { uid = 1000 }
[[target]]
name = "graph"
hosts = ["graph.microsoft.com"]
protocol = "http"
"#;

fn folder(policy: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policy.d")).unwrap();
    std::fs::write(folder.path().join("config.toml"), CONFIG).unwrap();
    std::fs::write(folder.path().join("policy.d/a.cedar"), policy).unwrap();
    folder
}

#[test]
fn check_tells_good_from_broken_without_a_daemon() {
    let nowhere = std::path::Path::new("/nonexistent/control.sock");
    for (policy, status) in [
        ("permit(principal, action, resource == Target::\"graph\");", ExitCode::SUCCESS),
        // It is warned of, and no error.
        ("@confirm(\"sure?\") permit(principal, action == Action::\"connect\", resource);", ExitCode::SUCCESS),
        ("permit(principal, action, resource == Target::\"nope\");", ExitCode::FAILURE),
        ("permit(principal action, resource);", ExitCode::FAILURE),
    ] {
        let folder = folder(policy);
        let config = folder.path().join("config.toml");
        for dir in [None, Some(folder.path().join("policy.d"))] {
            assert_eq!(execute(Command::Check { dir }, &config, nowhere), status, "{policy}");
        }
    }
    assert_eq!(execute(Command::Reload, nowhere, nowhere), ExitCode::FAILURE);
}

#[test]
fn what_if_decides_on_the_files() {
    let folder = folder(
        "@id(\"people\") permit(principal, action in Action::\"http:read\", resource == Target::\"graph\")\n\
         when { context.http.s0 == \"users\" };",
    );
    let config = folder.path().join("config.toml");
    for (words, verdict) in [
        ("--method GET --path /users", "allow"),
        ("--method GET --path /users?$top=5", "allow"),
        ("--method GET --path /groups", "deny"),
        ("--method DELETE --path /users", "deny"),
        ("--host evil.example --method GET --path /users", "deny"),
        ("--resolve", "deny"),
        ("", "deny"),
    ] {
        let line = format!("x explain --workload crm --target graph {words}");
        let Command::Explain(explain) = Line::parse_from(line.split_whitespace()).command else { panic!("explain") };
        let told = what_if(&explain, &config).unwrap();
        assert_eq!(told.verdict, verdict, "{words}");
        assert_eq!(told.near.len(), usize::from(words.contains("/groups")), "{words}");
    }
    let line = "x explain --workload crm --target graph --method GET --path /a/../users";
    let Command::Explain(explain) = Line::parse_from(line.split(' ')).command else { panic!("explain") };
    assert!(what_if(&explain, &config).unwrap_err().to_string().contains("dots only"));
    assert!(load(&config, None).is_ok());
}

#[test]
fn explain_wants_an_operation_or_a_question() {
    for bad in [
        "explain",
        "explain --workload crm",
        "explain --target graph",
        "explain nope",
        "explain --workload crm --target graph --method GET",
        "explain --workload crm --target graph --path /",
    ] {
        assert!(Line::try_parse_from(std::iter::once("x").chain(bad.split(' '))).is_err(), "{bad}");
    }
}

#[test]
fn what_reaches_a_terminal_is_escaped() {
    assert_eq!(plain("a\u{1b}[2Jb\n\u{9b}c"), "a\\u{1b}[2Jb\n\\u{9b}c");
}
