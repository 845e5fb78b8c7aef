//! Against a straightforward implementation that writes the masked text itself: names that are there twice, escapes,
//! documents in strings, and each strategy, byte for byte. What takes a value's place is the product's own; where it does
//! is what is held here.

use proptest::prelude::*;
use proptest::strategy::Strategy;

use super::*;
use crate::config::Strategy as How;
use crate::config::{Filter, JsonPath, Literal, Segment, Selector};

/// A value, and how it is written.
#[derive(Debug, Clone)]
enum Node {
    /// A number, a truth value or null.
    Scalar(String),
    Text(Spelled),
    Array(Vec<Node>),
    Object(Vec<(Spelled, Node)>),
    /// A string that holds this as a document.
    Document(Box<Node>),
}

#[derive(Debug, Clone)]
struct Spelled {
    text: String,
    /// Whether each character is written as an escape.
    escaped: bool,
}

impl Spelled {
    fn write(&self, out: &mut String) {
        if !self.escaped {
            return quote(&self.text, out);
        }
        out.push('"');
        out.extend(self.text.encode_utf16().map(|unit| format!("\\u{unit:04x}")));
        out.push('"');
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    out.push_str(&text.replace('\\', "\\\\").replace('"', "\\\""));
    out.push('"');
}

fn spelled(pattern: &'static str) -> impl Strategy<Value = Spelled> {
    (pattern, any::<bool>()).prop_map(|(text, escaped)| Spelled { text, escaped })
}

fn leaf() -> BoxedStrategy<Node> {
    prop_oneof![
        prop::sample::select(&["null", "true", "false", "0", "-7", "12.5", "1", "1234567"][..])
            .prop_map(|written| Node::Scalar(written.to_owned())),
        spelled("[a-c\u{e9}\u{1f600} /]{0,3}").prop_map(Node::Text),
        spelled("[a-c]{16,20}").prop_map(Node::Text),
    ]
    .boxed()
}

/// Few names, so that many are there twice.
fn tree(leaf: BoxedStrategy<Node>) -> BoxedStrategy<Node> {
    leaf.prop_recursive(2, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Node::Array),
            prop::collection::vec((spelled("a|b|aa|\u{e9}"), inner), 0..5).prop_map(Node::Object),
        ]
    })
    .boxed()
}

/// Strings that hold such a tree, if it is an object or array, or an array of it.
fn held(tree: BoxedStrategy<Node>) -> BoxedStrategy<Node> {
    tree.prop_map(|node| match node {
        Node::Array(_) | Node::Object(_) => Node::Document(Box::new(node)),
        other => Node::Document(Box::new(Node::Array(vec![other]))),
    })
    .boxed()
}

/// Trees with documents in strings, in which there may be others.
fn document() -> BoxedStrategy<Node> {
    let once = prop_oneof![3 => leaf(), 1 => held(tree(leaf()))].boxed();
    let twice = prop_oneof![3 => leaf(), 1 => held(tree(once))].boxed();
    tree(twice)
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Element(usize),
}

/// From a document's root to a value: each step, and where it leads.
type Place<'a> = Vec<(Step<'a>, &'a Node)>;

/// Whether these segments lead along the place, from its beginning to its end.
fn selects(segments: &[Segment], place: &[(Step<'_>, &Node)]) -> bool {
    let Some((segment, later)) = segments.split_first() else { return place.is_empty() };
    let Some(((step, child), deeper)) = place.split_first() else { return false };
    (segment.selectors.iter().any(|selector| chooses(selector, *step, child)) && selects(later, deeper))
        || (segment.descendant && selects(segments, deeper))
}

fn chooses(selector: &Selector, step: Step<'_>, child: &Node) -> bool {
    match (selector, step) {
        (Selector::Name(name), Step::Member(member)) => **name == *member,
        (Selector::Wildcard, _) => true,
        (Selector::Index(index), Step::Element(element)) => *index as usize == element,
        (Selector::Slice { start, end, step }, Step::Element(element)) => {
            let (start, step) = (*start as usize, *step as usize);
            element >= start && end.is_none_or(|end| element < end as usize) && (element - start).is_multiple_of(step)
        }
        (Selector::Filter(Filter { path, value }), _) => passes(path, value, child),
        _ => false,
    }
}

/// Of a name that is there twice it is enough if one passes. A document in a string is a string here.
fn passes(names: &[Box<str>], literal: &Literal, node: &Node) -> bool {
    match (names.split_first(), node) {
        (Some((first, rest)), Node::Object(members)) => {
            members.iter().any(|(name, member)| *name.text == **first && passes(rest, literal, member))
        }
        (None, Node::Text(text)) => matches!(literal, Literal::Text(wanted) if **wanted == *text.text),
        (None, Node::Scalar(written)) => match literal {
            Literal::Text(_) => false,
            Literal::Number(number) => written.parse::<f64>().is_ok_and(|own| own == *number),
            Literal::Bool(truth) => *written == truth.to_string(),
            Literal::Null => written == "null",
        },
        _ => false,
    }
}

/// Writes documents as they have to come out.
struct Reference<'a> {
    paths: &'a [JsonPath],
    how: How,
}

impl Reference<'_> {
    /// The whole of a document whose root stands at these places.
    fn whole<'n>(&self, root: &'n Node, places: &[Place<'n>]) -> String {
        let mut out = String::new();
        if self.write(root, places, false, &mut out) { out } else { "null".to_owned() }
    }

    /// Appends the value; nothing of it, and false, if it is dropped.
    fn write<'n>(&self, node: &'n Node, places: &[Place<'n>], masked: bool, out: &mut String) -> bool {
        let leads = |path: &JsonPath| places.iter().any(|place| selects(path.segments(), place));
        let masked = masked || self.paths.iter().any(leads);
        if masked && self.how == How::Drop {
            return false;
        }
        match node {
            Node::Scalar(written) if masked && written != "null" => {
                let mut fresh = Vec::new();
                replace::scalar(self.how, &KEY, written.as_bytes(), &mut fresh);
                out.push_str(&String::from_utf8(fresh).unwrap());
            }
            Node::Scalar(written) => out.push_str(written),
            Node::Text(text) if masked => self.replaced(&text.text, out),
            Node::Text(text) => text.write(out),
            Node::Document(root) if masked => self.replaced(&written(root), out),
            Node::Document(root) => {
                // Its members stand where the string does, and in a document of their own.
                let places: Vec<Place<'n>> = places.iter().cloned().chain([Vec::new()]).collect();
                quote(&self.whole(root, &places), out);
            }
            Node::Array(elements) => {
                let mut fresh = Vec::new();
                for (index, element) in elements.iter().enumerate() {
                    let mut text = String::new();
                    if self.write(element, &deeper(places, Step::Element(index), element), masked, &mut text) {
                        fresh.push(text);
                    }
                }
                out.push_str(&format!("[{}]", fresh.join(",")));
            }
            Node::Object(members) => {
                let mut fresh = Vec::new();
                for (name, member) in members {
                    let mut text = String::new();
                    name.write(&mut text);
                    text.push(':');
                    if self.write(member, &deeper(places, Step::Member(&name.text), member), masked, &mut text) {
                        fresh.push(text);
                    }
                }
                out.push_str(&format!("{{{}}}", fresh.join(",")));
            }
        }
        true
    }

    fn replaced(&self, text: &str, out: &mut String) {
        let mut fresh = Vec::new();
        replace::text(self.how, &KEY, None, text.as_bytes(), &mut fresh);
        quote(&String::from_utf8(fresh).unwrap(), out);
    }
}

fn deeper<'n>(places: &[Place<'n>], step: Step<'n>, child: &'n Node) -> Vec<Place<'n>> {
    let mut places = places.to_vec();
    places.iter_mut().for_each(|place| place.push((step, child)));
    places
}

/// The document as it is, unmasked.
fn written(root: &Node) -> String {
    Reference { paths: &[], how: How::Redact }.whole(root, &[])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_stream_writes_what_the_tree_writes(
        document in document(),
        texts in differential::paths(),
        how in prop::sample::select(&[How::Redact, How::Partial, How::Pseudonym, How::Drop][..]),
        cut in 1_usize..40,
    ) {
        let strategy = format!("{how:?}").to_lowercase();
        let plan = plan(&format!("[[mask]]\nname = \"m\"\njson = {texts:?}\nstrategy = {strategy:?}"));
        let paths: Vec<JsonPath> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let text = written(&document);
        let expected = Reference { paths: &paths, how }.whole(&document, &[Vec::new()]);
        let out = mask(&plan, "application/json", text.as_bytes().chunks(cut)).unwrap();
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected, "{} under {:?}", text, texts);
    }
}
