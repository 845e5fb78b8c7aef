use cedar_policy::Policy;

use super::{EVERYTHING, Reads};

/// The condition, then what it looks at.
const TABLE: &[(&str, &str)] = &[
    ("true", ""),
    ("principal has x", ""),
    ("context.http.s1 == \"users\"", "http.s1"),
    ("context[\"http\"][\"s1\"] == \"users\"", "http.s1"),
    ("context.http.s1 == context.base.client", "base.client http.s1"),
    ("!(context.http.port > 3 || context.http.port < 2 && context.http.tls)", "http.port http.tls"),
    ("if context.http.tls then context.http.port == 1 else context.base.granted", "base.granted http.port http.tls"),
    ("context.base.classes.contains(context.http.method)", "base.classes http.method"),
    ("[context.http.s0, {a: context.http.s2}.a].contains(\"x\")", "http.s0 http.s2"),
    ("context.http.query.hasTag(context.http.s3)", "http.query http.s3"),
    ("context.http.query.getTag(\"$top\").contains(\"1\")", "http.query"),
    ("context.http.path like \"/v1/*\"", "http.path"),
    ("context.base.now > datetime(\"2099-01-01\").offset(duration(\"1h\"))", "base.now"),
    ("context.base.person in Group::\"x\"", "base.person"),
    ("context has http", ""),
    ("context has http && context.http has s1", "http.s1"),
    ("context has http.s1", "http.s1"),
    ("context.base has person", "base.person"),
    // What is taken whole counts whole.
    ("context.http == {}", "http.*"),
    ("[context.base].contains(context.http.x)", "base.* http.x"),
    ("context == {}", "*"),
    ("[context].isEmpty() && context.http.tls", "* http.tls"),
    ("(if context.http.tls then context else {}) has base", "* http.tls"),
    ("(if context.http.tls then context.http else context.base) has s1", "base.* http.* http.tls"),
];

fn told(reads: &Reads) -> String {
    let mut told: Vec<_> = reads.everything.then(|| "*".to_owned()).into_iter().collect();
    for (record, fields) in &reads.records {
        told.extend(fields.all.then(|| format!("{record}.*")));
        told.extend(fields.named.iter().map(|field| format!("{record}.{field}")));
    }
    told.join(" ")
}

#[test]
fn what_policies_look_at() {
    for (condition, expected) in TABLE {
        for word in ["when", "unless"] {
            let text = format!("permit(principal, action, resource) {word} {{ {condition} }};");
            let reads = Reads::of(&Policy::parse(None, text).unwrap());
            assert_eq!(told(&reads), *expected, "{word} {condition}");
        }
    }
}

#[test]
fn several_conditions_and_several_policies_add_up() {
    let read = |text: &str| Reads::of(&Policy::parse(None, text).unwrap());
    let mut reads =
        read("permit(principal, action, resource) when { context.http.tls } unless { context.base.granted };");
    assert_eq!(told(&reads), "base.granted http.tls");
    reads.merge(&read(
        "forbid(principal, action, resource) when { context.http == {} && context.dns.name like \"a*\" };",
    ));
    assert_eq!(told(&reads), "base.granted dns.name http.* http.tls");
    let seen = [("base", "granted"), ("base", "now"), ("dns", "name"), ("http", "s1"), ("token", "tenant")]
        .map(|(record, field)| reads.view(record).has(field));
    assert_eq!(seen, [true, false, true, true, false]);
    assert!(EVERYTHING.view("token").has("tenant"));
}
