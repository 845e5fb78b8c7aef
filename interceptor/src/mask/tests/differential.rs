//! Against a straightforward implementation: the document as a tree, each path walked over it as RFC 9535 says.

use proptest::prelude::*;
use proptest::strategy::Strategy;
use serde_json::Value;

use super::*;
use crate::config::{Filter, JsonPath, Literal, Selector};

/// A document, with names and values that the paths below are about.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 4.0)),
        "[a-c\"\\\\\u{e9}\u{1f600}\n /]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("[abc\u{e9}]{1,2}", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

const PATHS: &[&str] = &[
    "$",
    "$.a",
    "$.*",
    "$..a",
    "$..*",
    "$.a.b",
    "$..a..b",
    "$[0]",
    "$[1:]",
    "$[::2]",
    "$..[1]",
    "$..[0:3:2].a",
    "$.a[*].b",
    "$['é']",
    "$..['a','b'][0]",
    "$[?@.a==1]",
    "$..[?@.b=='a'].a",
    "$[?@.a==null]",
    "$..[?@=='a']",
    "$.*.*",
    "$..a.*.b",
    "$[?@.a.b==true]",
    "$..aa",
    "$.b[0].a",
];

pub(super) fn paths() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(PATHS), 1..4)
}

/// Whether the value at this place is selected by the path; by definition, from the end of the path backwards.
fn selects(path: &JsonPath, root: &Value, place: &[Step]) -> bool {
    fn walk(segments: &[crate::config::Segment], value: &Value, place: &[Step]) -> bool {
        let Some((segment, later)) = segments.split_first() else { return place.is_empty() };
        let Some((step, deeper)) = place.split_first() else { return false };
        let child = step.child(value);
        (segment.selectors.iter().any(|selector| chooses(selector, step, child)) && walk(later, child, deeper))
            || (segment.descendant && walk(segments, child, deeper))
    }
    walk(path.segments(), root, place)
}

fn chooses(selector: &Selector, step: &Step, child: &Value) -> bool {
    match (selector, step) {
        (Selector::Name(name), Step::Member(member)) => **name == **member,
        (Selector::Wildcard, _) => true,
        (Selector::Index(index), Step::Element(element)) => *index as usize == *element,
        (Selector::Slice { start, end, step }, Step::Element(element)) => {
            let (start, step) = (*start as usize, *step as usize);
            (start..end.map_or(usize::MAX, |end| end as usize)).contains(element) && (element - start) % step == 0
        }
        (Selector::Filter(filter), _) => passes(filter, child),
        _ => false,
    }
}

fn passes(filter: &Filter, value: &Value) -> bool {
    let found = filter.path.iter().try_fold(value, |value, name| value.as_object()?.get(&**name));
    found.is_some_and(|found| match &filter.value {
        Literal::Text(text) => found.as_str() == Some(text),
        Literal::Number(number) => found.as_f64() == Some(*number),
        Literal::Bool(truth) => found.as_bool() == Some(*truth),
        Literal::Null => found.is_null(),
    })
}

#[derive(Debug, Clone)]
enum Step {
    Member(String),
    Element(usize),
}

impl Step {
    fn child<'a>(&self, value: &'a Value) -> &'a Value {
        match self {
            Step::Member(name) => &value[name],
            Step::Element(index) => &value[*index],
        }
    }
}

/// The document with all that is selected redacted or, with `drop`, left out.
fn reference(paths: &[JsonPath], root: &Value, drop: bool) -> Value {
    fn walk(
        paths: &[JsonPath],
        root: &Value,
        value: &Value,
        place: &mut Vec<Step>,
        masked: bool,
        drop: bool,
    ) -> Option<Value> {
        let masked = masked || paths.iter().any(|path| selects(path, root, place));
        if masked && drop {
            return place.is_empty().then_some(Value::Null);
        }
        Some(match value {
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .filter_map(|(name, value)| {
                        place.push(Step::Member(name.clone()));
                        let fresh = walk(paths, root, value, place, masked, drop);
                        place.pop();
                        fresh.map(|fresh| (name.clone(), fresh))
                    })
                    .collect(),
            ),
            Value::Array(elements) => Value::Array(
                elements
                    .iter()
                    .enumerate()
                    .filter_map(|(index, value)| {
                        place.push(Step::Element(index));
                        let fresh = walk(paths, root, value, place, masked, drop);
                        place.pop();
                        fresh
                    })
                    .collect(),
            ),
            Value::String(_) if masked => "[redacted]".into(),
            Value::Number(_) | Value::Bool(_) if masked => Value::Null,
            other => other.clone(),
        })
    }
    walk(paths, root, root, &mut Vec::new(), false, drop).unwrap_or_default()
}

/// Without paths, which keep texts back, and with some.
static ANY: std::sync::LazyLock<[Arc<Plan>; 2]> = std::sync::LazyLock::new(|| {
    ["", "json = [\"$..a\"]\n"].map(|paths| {
        let rest = "detect = [\"email\", \"phone\", \"secret\"]\nstrategy = \"drop\"";
        plan(&format!("[[mask]]\nname = \"m\"\n{paths}{rest}"))
    })
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_stream_says_what_the_tree_says(document in document(), texts in paths(), drop: bool, pretty: bool, cut in 1_usize..40) {
        let strategy = if drop { "drop" } else { "redact" };
        let plan = plan(&format!("[[mask]]\nname = \"m\"\njson = {texts:?}\nstrategy = {strategy:?}"));
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let out = mask(&plan, "application/json", text.as_bytes().chunks(cut)).unwrap();
        let paths: Vec<JsonPath> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let actual: Value = serde_json::from_slice(&out).map_err(|error| {
            TestCaseError::fail(format!("{error}: {}", String::from_utf8_lossy(&out)))
        })?;
        prop_assert_eq!(actual, reference(&paths, &document, drop), "{} under {:?}", text, texts);
    }

    /// Nothing panics, nothing depends on the cuts, and what is passed as JSON is JSON.
    #[test]
    fn any_bytes_come_out_the_same_however_they_are_cut(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(prop::sample::select(&b"{}[],:\"\\u0040a@b.cde12+-e \n\r&=;%"[..]), 0..200),
            document().prop_map(|document| serde_json::to_vec(&document).unwrap()),
            "(data|id|event|)(: ?|:)[{\\[\"a@.]{0,5}(\r\n|\n|\r){0,3}(data: \\{\"a\":\"b@example.com\"\\}\n\n)?".prop_map(String::into_bytes),
        ],
        kind in prop::sample::select(&["application/json", "application/x-ndjson", "text/plain", "text/html", "text/csv",
            "application/x-www-form-urlencoded", "text/event-stream"][..]),
        paths: bool,
        cut in 1_usize..50,
    ) {
        let plan = &ANY[usize::from(paths)];
        let whole = mask(plan, kind, [&body[..]]);
        prop_assert_eq!(&mask(plan, kind, body.chunks(cut)), &whole);
        prop_assert_eq!(&mask(plan, kind, body.chunks(1)), &whole);
        if let Ok(out) = &whole && kind == "application/json" && !body.is_empty() && std::str::from_utf8(&body).is_ok() {
            let read: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(out);
            let before: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(&body);
            prop_assert!(read.is_ok() || before.is_err(), "{}", String::from_utf8_lossy(out));
        }
    }
}
