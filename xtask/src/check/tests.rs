use super::source::Source;
use super::{layers, shape, threats, wording};

fn messages(path: &str, text: &str) -> Vec<String> {
    let source = Source::new(path.into(), text.into());
    let mut found = shape(&source);
    found.extend(wording(&source));
    found.extend(layers::check(&[source]));
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_file_passes() {
    let text = "//! Doc.\nuse crate::ids::LaunchId;\nfn f() {}\n#[cfg(test)]\nmod tests;\n";
    assert_eq!(messages("interceptor/src/who.rs", text), Vec::<String>::new());
}

#[test]
fn a_layer_above_is_found_however_it_is_written() {
    for text in [
        "//! D.\nuse crate::pipeline::Walk;",
        "//! D.\nfn f() { crate::pipeline::walk() }",
        "//! D.\nuse crate::{ids::{self, LaunchId}, pipeline::Walk};",
        "//! D.\nuse crate::{\n    pipeline,\n};",
        "//! D.\nuse super::pipeline;",
    ] {
        let found = messages("interceptor/src/policy.rs", text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].ends_with("`policy` uses `pipeline`, which stands above it"), "{found:?}");
    }
    let deep = messages("interceptor/src/policy/path.rs", "//! D.\nuse super::super::pipeline;\nuse super::Basis;");
    assert_eq!(deep, ["interceptor/src/policy/path.rs:2: `policy` uses `pipeline`, which stands above it"]);
}

#[test]
fn comments_literals_and_other_crates_are_not_uses() {
    let text = "//! Not crate::pipeline.\n/* crate::pipeline /* nested */ unsafe */\n\
        const A: &str = \"crate::pipeline \\\" unsafe\";\nconst B: &str = r#\"unsafe \" crate::pipeline\"#;\n\
        const C: char = '\"';\nfn f<'a>(a: &'a str) -> &'a str { a }\nmacro_rules! m { () => { $crate::pipeline::x } }\n";
    assert_eq!(messages("interceptor/src/policy.rs", text), Vec::<String>::new());
}

#[test]
fn two_modules_that_use_each_other_are_found() {
    let sources = [
        Source::new("interceptor/src/who.rs".into(), "use crate::bpf::Kernel;".into()),
        Source::new("interceptor/src/bpf/pins.rs".into(), "\nuse crate::who::Process;".into()),
    ];
    let found: Vec<_> = layers::check(&sources).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["interceptor/src/bpf/pins.rs:2: `bpf` and `who` use each other: one must stand below"]);
}

#[test]
fn pure_modules_have_no_io_and_unknown_modules_no_layer() {
    let found =
        messages("interceptor/src/policy.rs", "//! D.\nuse std::fs;\nfn f() { tokio::spawn(g()) }\nstruct Tokio;");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(messages("interceptor/src/transport.rs", "//! D.\nuse tokio::net;").is_empty());
    assert!(messages("interceptor/src/gadget.rs", "//! D.\n")[0].contains("has no layer"));
}

#[test]
fn shape_and_wording() {
    let long = format!("//! D.\n{}", "\n".repeat(500));
    assert!(messages("xtask/src/a.rs", &long)[0].contains("501 lines"));
    assert!(messages("interceptor/src/who/tests.rs", &long).is_empty());
    assert!(messages("xtask/src/a.rs", "fn f() {}")[0].contains("module doc"));
    assert!(messages("xtask/src/util.rs", "//! D.")[0].contains("says nothing"));
    assert!(messages("xtask/src/a.rs", "//! D.\nunsafe fn f() {}")[0].starts_with("xtask/src/a.rs:2: `unsafe`"));
    assert!(messages("interceptor/src/bpf/a.rs", "//! D.\nunsafe fn f() {}").is_empty());
    assert!(messages("xtask/src/a.rs", "//! D.\nmod tests {\n}")[0].contains("beside"));
    let unfinished = format!("//! D.\n// {}: later", concat!("TO", "DO"));
    assert!(messages("xtask/src/a.rs", &unfinished)[0].contains("finish it"));
}

#[test]
fn a_threat_names_a_test_that_exists() {
    let sources = [
        Source::new("tests/tests/steering.rs".into(), "//! D.\n#[test]\nfn all_are_steered() {}".into()),
        Source::new("interceptor/src/policy/decide/tests.rs".into(), "fn errors_deny() {}".into()),
    ];
    let good = "| a | b | `steering::all_are_steered`, `policy::decide::tests::errors_deny` |\n`Identity::\"none\"`";
    assert_eq!(threats::missing(good, &sources), Vec::new());
    for bad in ["`steering::some_are_steered`", "`takeover::all_are_steered`", "`policy::load::tests::errors_deny`"] {
        let found = threats::missing(&format!("# T\n{bad}"), &sources);
        assert_eq!(found.iter().map(|one| one.line).collect::<Vec<_>>(), [2], "{bad}");
    }
}
