use std::path::{Path, PathBuf};

use super::super::fixture::{settings, snapshot};
use super::super::{Snapshot, Source};

/// The broken files: each `NAME.cedar` has its faults, one a line, in `NAME.expected` beside it. With INTERCEPTOR_BLESS
/// set they are written instead of compared.
fn broken() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy/load/broken");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cedar"));
    files.sort();
    files
}

#[test]
fn broken_files_give_every_fault_with_its_place() {
    let files = broken();
    assert!(files.len() >= 25);
    let mut wrong = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let Err(errors) = Snapshot::load(settings(), vec![Source { name: name.clone(), text }], 1) else {
            panic!("{name} was accepted");
        };
        let found: String = errors.faults().iter().map(|fault| format!("{fault}\n")).collect();
        let expected = path.with_extension("expected");
        if std::env::var_os("INTERCEPTOR_BLESS").is_some() {
            std::fs::write(&expected, &found).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(found);
        }
        // What is shown to people underlines it, and carries on one line what a log needs.
        assert!(errors.render(false, 120).contains(&name));
        assert!(!errors.to_string().contains('\n'), "{errors}");
    }
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.concat());
}

#[test]
fn faults_are_found_in_all_files_at_once() {
    let file = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    let sources = vec![
        file(
            "policy.d/a.cedar",
            "permit(principal, action, resource);\npermit(principal, action, resource) when { 1 };",
        ),
        file("policy.d/b.cedar", "permit(principal, action, resource);\n\nforbid(principal action, resource);"),
        file("policy.d/c.cedar", "@id(\"x\") permit(principal, action, resource == Target::\"nope\");"),
    ];
    let errors = Snapshot::load(settings(), sources, 1).unwrap_err();
    let places: Vec<_> = errors.faults().iter().map(super::PolicyFault::place).collect();
    assert_eq!(places, [("policy.d/a.cedar", 2, 44), ("policy.d/b.cedar", 3, 18), ("policy.d/c.cedar", 1, 48)]);
    assert!(errors.to_string().ends_with(" (and 2 more)"), "{errors}");
}

#[test]
fn policies_are_named_by_id_or_place() {
    let snapshot = snapshot(
        "// one\n@id(\"a\")\npermit(principal, action, resource);\n\n// two\n@reason(\"r\")\nforbid(principal, action, resource);",
    );
    assert_eq!(snapshot.policies(), ["a", "test.cedar:6"]);
}

#[test]
fn the_digest_covers_names_and_texts() {
    let load = |name: &str, text: &str| {
        let source = Source { name: name.into(), text: text.into() };
        Snapshot::load(settings(), vec![source], 1).unwrap().digest().to_owned()
    };
    let one = load("a", "// x");
    assert_eq!(one.len(), 64);
    assert_eq!(one, load("a", "// x"));
    assert_ne!(one, load("a", "// y"));
    assert_ne!(one, load("a/", "/ x".replace("/ x", "// x").as_str()));
}

#[test]
fn the_examples_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policy.d");
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        sources.push(Source { name: path.display().to_string(), text: std::fs::read_to_string(&path).unwrap() });
    }
    assert!(!sources.is_empty());
    let errors = Snapshot::load(settings(), sources, 1).err().map(|errors| errors.render(false, 120));
    assert_eq!(errors, None);
}

/// Every fenced `cedar` block of the documentation, together.
#[test]
fn the_documentation_loads() {
    let docs = include_str!("../../../../docs/policy.md");
    let sources: Vec<_> = docs
        .split("```cedar\n")
        .skip(1)
        .enumerate()
        .map(|(at, rest)| Source {
            name: format!("docs/policy.md/{at}.cedar"),
            text: rest.split("```").next().unwrap().to_owned(),
        })
        .collect();
    assert!(sources.len() >= 4);
    let errors = Snapshot::load(settings(), sources, 1).err().map(|errors| errors.render(false, 120));
    assert_eq!(errors, None);
}
