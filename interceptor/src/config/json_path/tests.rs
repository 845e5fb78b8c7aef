use super::*;

fn error(text: &str) -> String {
    text.parse::<JsonPath>().expect_err(text).to_string()
}

fn steps(text: &str) -> Vec<Segment> {
    let path: JsonPath = text.parse().unwrap();
    assert_eq!(path.as_str(), text);
    path.segments().to_vec()
}

fn step(descendant: bool, selectors: impl Into<Box<[Selector]>>) -> Segment {
    Segment { descendant, selectors: selectors.into() }
}

#[test]
fn paths_are_read_as_the_rfc_says() {
    let name = |name: &str| Selector::Name(name.into());
    assert_eq!(steps("$"), []);
    assert_eq!(steps("$.value[*].mail").len(), 3);
    assert_eq!(steps("$..mail"), [step(true, [name("mail")])]);
    assert_eq!(steps("$..*"), [step(true, [Selector::Wildcard])]);
    assert_eq!(steps("$.größe"), [step(false, [name("größe")])]);
    assert_eq!(steps("$['a-b', \"c\\\"d\", 'e\\u00e9\\ud83d\\ude00']")[0].selectors[1], name("c\"d"));
    assert_eq!(steps("$['\\ud83d\\ude00']"), [step(false, [name("😀")])]);
    assert_eq!(steps("$..[0, 2]"), [step(true, [Selector::Index(0), Selector::Index(2)])]);
    let slice = |start, end, step| Selector::Slice { start, end, step };
    assert_eq!(steps("$[1:5:2]"), [step(false, [slice(1, Some(5), 2)])]);
    assert_eq!(steps("$[:]"), [step(false, [slice(0, None, 1)])]);
    assert_eq!(steps("$ [ 3 : ] .a"), [step(false, [slice(3, None, 1)]), step(false, [name("a")])]);
}

#[test]
fn filters_compare_one_member_with_a_literal() {
    let filter = |text: &str| match steps(text).remove(0).selectors[0].clone() {
        Selector::Filter(filter) => filter,
        other => panic!("{other:?}"),
    };
    let kind: Box<[Box<str>]> = ["kind".into()].into();
    let person = Filter { path: kind, value: Literal::Text("person".into()) };
    for text in ["$[?@.kind=='person']", "$[?(@['kind'] == \"person\")]", "$[? 'person' == @.kind ].mail"] {
        assert_eq!(filter(text), person, "{text}");
    }
    assert_eq!(filter("$[?@.a.b==-1.5e2]").value, Literal::Number(-150.0));
    assert_eq!(filter("$[?@==null]"), Filter { path: [].into(), value: Literal::Null });
    assert_eq!(filter("$[?@.ok==true]").value, Literal::Bool(true));
}

#[test]
fn what_cant_be_followed_is_refused_with_the_place() {
    for (text, why) in [
        ("value", "it starts with `$`, at character 1"),
        ("$value", "`.`, `..` or `[` is expected, at character 2"),
        ("$.", "a name is expected"),
        ("$.a-b", "`.`, `..` or `[` is expected, at character 4"),
        ("$[-1]", "can't be told while it streams by, at character 3"),
        ("$[::-1]", "can't be told while it streams by, at character 5"),
        ("$[::0]", "a step of 0 selects nothing"),
        ("$[01]", "an index is a whole number"),
        ("$[4294967296]", "an index is a whole number"),
        ("$['a", "the quote isn't closed"),
        ("$['\\x']", "there is no such escape"),
        ("$['\\ud83d']", "half a surrogate pair"),
        ("$[]", "a name in quotes, an index"),
        ("$[?@.a]", "a filter compares with `==`"),
        ("$[?@.a<1]", "a filter compares with `==`"),
        ("$[?@[0]==1]", "a text in quotes"),
        ("$[?length(@)==1]", "a text in quotes, a number"),
        ("$[?@.a==1", "`,` or `]` is expected"),
    ] {
        let told = error(text);
        assert!(told.contains(why), "{text}: {told}");
        assert!(told.starts_with(&format!("`{text}`")), "{told}");
    }
    assert!(error(&format!("${}", ".a".repeat(33))).contains("more than 32 steps"));
}
