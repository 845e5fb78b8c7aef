//! Whole bodies: the golden set (`golden/PROFILE/NAME.TYPE` beside `….out`, which is the masked body, or `….withheld`, which
//! says why there is none), and what has to hold of any body however it is cut.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::coding::{Coding, Decoder, Encoder};
use super::*;
use crate::config::Settings;

mod coded;
mod differential;
mod limits;
mod long;
mod noted;
mod own;
mod precision;
mod written;

pub(super) const KEY: Key = [7; 32];

/// The plan of all masks of a configuration's text.
pub(super) fn plan(config: &str) -> Arc<Plan> {
    let settings = Settings::parse("/etc/interceptor/config.toml", config).unwrap();
    let names: Vec<_> = settings.masks.iter().map(|mask| mask.name.clone()).collect();
    Arc::new(Masks::new(&settings.masks).unwrap().plan(&names).unwrap())
}

/// A body in these content codings.
pub(super) fn encoded(codings: &[Coding], body: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(codings).unwrap();
    let mut out = Vec::new();
    encoder.push(body, false, &mut out).unwrap();
    encoder.finish(&mut out).unwrap();
    out
}

/// What a coded body decodes to.
pub(super) fn decoded(codings: &[Coding], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut give = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let mut decoder = Decoder::new(codings, Default::default()).unwrap();
    decoder.push(body, &mut give).unwrap();
    decoder.finish(&mut give).unwrap();
    out
}

/// The body that came out of the pieces, and the first reason why it was withheld.
pub(super) fn mask<'a>(
    plan: &Arc<Plan>,
    content_type: &str,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, Withheld> {
    let mut out = Vec::new();
    let mut masker = Masker::new(Arc::clone(plan), Some(content_type), KEY)?;
    for piece in pieces {
        masker.push(piece, &mut out)?;
    }
    masker.finish(&mut out)?;
    Ok(out)
}

pub(super) fn masked(plan: &Arc<Plan>, content_type: &str, body: &str) -> String {
    String::from_utf8(mask(plan, content_type, [body.as_bytes()]).unwrap()).unwrap()
}

fn golden() -> PathBuf {
    // The tests may run elsewhere than they were built.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mask/golden")
}

fn content_type(path: &Path) -> Option<&'static str> {
    Some(match path.extension()?.to_str()? {
        "json" => "application/json; charset=utf-8",
        "jsonl" => "application/x-ndjson",
        "txt" => "text/plain",
        "html" => "text/html",
        "xml" => "application/xml",
        "csv" => "text/csv",
        "tsv" => "text/tab-separated-values",
        "form" => "application/x-www-form-urlencoded",
        "sse" => "text/event-stream",
        "yaml" => "application/yaml",
        "js" => "application/javascript",
        "bin" => "application/octet-stream",
        _ => return None,
    })
}

/// A document of the golden set.
pub(super) struct Document {
    pub(super) path: PathBuf,
    pub(super) plan: Arc<Plan>,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

/// The golden set: each document under each mask that it is there for.
pub(super) fn documents() -> Vec<Document> {
    let mut documents = Vec::new();
    for profile in std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        let plan = plan(&std::fs::read_to_string(profile.join("mask.toml")).unwrap());
        for path in std::fs::read_dir(&profile).unwrap().map(|entry| entry.unwrap().path()) {
            let Some(content_type) = content_type(&path) else { continue };
            let body = std::fs::read(&path).unwrap();
            documents.push(Document { path, plan: Arc::clone(&plan), content_type, body });
        }
    }
    documents
}

/// Where a body of this length is cut in two: everywhere, or, if it is long, here and there and about a window's end.
fn cuts(length: usize) -> Vec<usize> {
    if length <= 4096 {
        return (1..length).collect();
    }
    let ends = [1, window::WINDOW - 1, window::WINDOW, window::WINDOW + 1, length - 1];
    ends.into_iter().chain((1..length).step_by(length / 19)).filter(|cut| *cut < length).collect()
}

#[test]
fn the_golden_set_comes_out_as_it_should_however_it_is_cut() {
    let bless = std::env::var_os("INTERCEPTOR_BLESS").is_some();
    let mut bodies = HashSet::new();
    let mut long = 0;
    for Document { path, plan, content_type, body } in documents() {
        let whole = mask(&plan, content_type, [&body[..]]);
        let (expected, actual) = match &whole {
            Ok(out) => (path.with_added_extension("out"), out.clone()),
            Err(withheld) => (path.with_added_extension("withheld"), format!("{withheld}\n").into_bytes()),
        };
        if bless {
            std::fs::write(&expected, &actual).unwrap();
        }
        let wanted = std::fs::read(&expected).unwrap_or_else(|error| panic!("{}: {error}", expected.display()));
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(shown(&actual), shown(&wanted), "{}", path.display());
        assert_eq!(actual, wanted, "{}", path.display());
        for cut in cuts(body.len()) {
            let (first, second) = body.split_at(cut);
            assert_eq!(mask(&plan, content_type, [first, second]), whole, "{} cut at {cut}", path.display());
        }
        assert_eq!(mask(&plan, content_type, body.chunks(1)), whole, "{} byte by byte", path.display());
        long += usize::from(body.len() > window::WINDOW);
        bodies.insert(body);
    }
    assert!(bodies.len() >= 140, "{} documents", bodies.len());
    assert!(long >= 4, "{long} of them are longer than a window");
}

#[test]
fn what_isnt_masked_comes_out_byte_for_byte() {
    let plan =
        plan("[[mask]]\nname = \"m\"\njson = [\"$..nowhere\"]\ndetect = [\"email\", \"payment-card\", \"secret\"]");
    let odd = "\u{feff} {\"a\" :\t1.0e+10 , \"\\u0061\":-0, \"a\":[ ],\r\n\"big\": 123456789012345678901234567890 ,\"\\/\" : \"\\/\\ud83d\\ude00\" } \n";
    assert_eq!(masked(&plan, "application/json", odd), odd);
    let long = format!("{{\"text\":\"{}\"}}", "lorem ipsum \\\"dolor\\\" ".repeat(20_000));
    assert_eq!(masked(&plan, "application/json", &long), long);
    let plan = super::tests::plan("[[mask]]\nname = \"m\"\ndetect = [\"email\", \"payment-card\", \"secret\"]");
    assert_eq!(masked(&plan, "text/plain", &long), long);
}

#[test]
fn a_text_is_withheld_where_a_mask_names_members_whatever_detectors_there_are() {
    let one = "[[mask]]\nname = \"m\"\njson = [\"$..mail\"]\n";
    let with_detectors = format!("{one}detect = [\"email\"]\n");
    let of_another = format!("{one}[[mask]]\nname = \"n\"\ndetect = [\"api-key\"]\n");
    for masks in [one, with_detectors.as_str(), of_another.as_str()] {
        let plan = plan(masks);
        for kind in ["text/plain", "application/yaml", "application/javascript", "text/html", "application/xml"] {
            assert_eq!(mask(&plan, kind, [&b"mail: ada"[..]]), Err(Withheld::NotJson), "{kind} under {masks}");
        }
        let events = |data: &str| mask(&plan, "text/event-stream", [format!("data: {data}\n\n").as_bytes()]);
        let named = |name: &str, data: &str| {
            mask(&plan, "text/event-stream", [format!("event: {name}\ndata: {data}\n\n").as_bytes()])
        };
        assert!(matches!(events("mail: ada"), Err(Withheld::Invalid(_))), "under {masks}");
        assert_eq!(events("\"mail\""), Ok(b"data: \"mail\"\n\n".to_vec()), "under {masks}");
        assert_eq!(events("[DONE]"), Ok(b"data: [DONE]\n\n".to_vec()), "under {masks}");
        assert_eq!(events("ping"), Ok(b"data: ping\n\n".to_vec()), "under {masks}");
        // Where an MCP server has its client send messages.
        let place = "/messages?session_id=7";
        assert_eq!(named("endpoint", place), Ok(format!("event: endpoint\ndata: {place}\n\n").into_bytes()));
        for (name, data) in [("message", place), ("endpoint", "/messages mail: ada"), ("endpoint", "ada")] {
            assert!(matches!(named(name, data), Err(Withheld::Invalid(_))), "{name}: {data} under {masks}");
        }
        // No text, and no name in it.
        assert_eq!(nameless(&plan, &KEY, b"ada"), Ok(b"ada".to_vec()));
    }
}

#[test]
fn values_in_long_texts_are_found_wherever_they_stand() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\", \"pem\"]");
    for offset in [0, 1, 49_100, 49_150, 49_152, 65_520, 65_535, 65_536, 65_540, 114_680, 200_000] {
        let text = format!(
            "{}ada@example.com {}",
            "word ".repeat(offset / 5) + &"w ".repeat(offset % 5),
            "tail ".repeat(30_000)
        );
        let expected = text.replace("ada@example.com", "[redacted:email]");
        assert_eq!(masked(&plan, "text/plain", &text), expected, "at {offset}");
        let json = format!("[\"{text}\", 1]");
        assert_eq!(masked(&plan, "application/json", &json), format!("[\"{expected}\", 1]"), "at {offset}");
        for size in [1000, 4096, 65_536, 100_000] {
            let pieces = mask(&plan, "application/json", json.as_bytes().chunks(size)).unwrap();
            assert_eq!(pieces, format!("[\"{expected}\", 1]").as_bytes(), "at {offset} by {size}");
        }
    }
}

#[test]
fn a_match_longer_than_a_window_is_withheld() {
    let plan = plan("[[mask]]\nname = \"m\"\ndetect = [\"pem\"]");
    let text = format!("-----BEGIN PRIVATE KEY-----\n{}", "AAAA\n".repeat(40_000));
    let withheld = mask(&plan, "text/plain", [text.as_bytes()]).unwrap_err();
    assert_eq!(withheld, Withheld::TooLarge("a value that a detector found"));
}

#[test]
fn the_counts_say_what_was_masked_and_nothing_of_it() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]\ndetect = [\"email\", \"us-ssn\"]");
    let mut masker = Masker::new(plan, Some("application/json"), KEY).unwrap();
    let body =
        br#"{"mail":"ada@example.com","note":"ask bob@example.com or eve@example.com","x":[{"mail":null,"mail":7}]}"#;
    let mut out = Vec::new();
    masker.push(body, &mut out).unwrap();
    masker.finish(&mut out).unwrap();
    assert_eq!(masker.counts().collect::<Vec<_>>(), [("$..mail", 2), ("email", 2)]);
}

#[test]
fn several_masks_add_up_and_the_stricter_strategy_counts() {
    let plan = plan(
        r#"
        [[mask]]
        name = "a"
        json = ["$.mail"]
        detect = ["email"]
        strategy = "partial"
        headers = ["X-User"]
        [[mask]]
        name = "b"
        json = ["$.mail", "$.phone"]
        detect = ["email"]
        headers = ["x-user", "x-key"]
        strategy = "redact"
        deny_query = ["mail"]
        "#,
    );
    assert_eq!(
        masked(&plan, "application/json", r#"{"mail":"a@example.com","phone":1,"t":"a@example.com"}"#),
        r#"{"mail":"[redacted]","phone":null,"t":"[redacted:email]"}"#
    );
    let name = HeaderName::from_static;
    assert_eq!(plan.header(&KEY, &name("x-user"), b"ada"), HeaderFate::Replace(b"[redacted]".to_vec()));
    assert_eq!(plan.header(&KEY, &name("x-other"), b"ada"), HeaderFate::Keep);
    assert_eq!(plan.denies_query("$filter=mail%20eq%20'a'"), Some("mail"));
}

#[test]
fn what_a_filter_drops_leaves_json_whatever_blanks_stand_around_it() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\", \"$..[?@.kind == 'x'].b\"]\nstrategy = \"drop\"");
    for (body, expected) in [
        ("{ \"mail\" : \"x\" , \"y\" : [1 , 2] }", "{  \"y\" : [1 , 2] }"),
        ("{\"y\":1 , \"mail\":\"x\" , \"z\":2}", "{\"y\":1  , \"z\":2}"),
        ("{\"mail\":\"x\" }", "{ }"),
        ("[{\"kind\":\"x\",\"b\":1 } , {\"b\":2}]", "[{\"kind\":\"x\" } , {\"b\":2}]"),
    ] {
        assert_eq!(masked(&plan, "application/json", body), expected, "{body}");
        let cut = mask(&plan, "application/json", body.as_bytes().chunks(1)).unwrap();
        assert_eq!(String::from_utf8(cut).unwrap(), expected, "{body}, byte by byte");
    }
}

/// The most memory that this process ever had, in KiB; each test has a process of its own.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// 1 GB with INTERCEPTOR_LONG, 64 MB else; prints what it took.
#[test]
fn a_large_document_takes_hardly_more_memory_than_a_small_one() {
    let size: usize = if std::env::var_os("INTERCEPTOR_LONG").is_some() { 1_000_000_000 } else { 64_000_000 };
    let plan = plan(
        "[[mask]]\nname = \"m\"\njson = [\"$..mail\", \"$[*].phone\", \"$[?@.kind == 'x'].name\"]\n\
         detect = [\"email\", \"payment-card\", \"secret\"]",
    );
    let element = r#"{"kind":"x","name":"Ada","mail":"a","phone":"+1 425 555 0100","note":"to bob@contoso.example"},"#;
    let chunk = element.repeat(200);
    let run = |size: usize| {
        let mut masker = Masker::new(Arc::clone(&plan), Some("application/json"), KEY).unwrap();
        let (mut out, mut taken, mut given) = (Vec::new(), 0, 0);
        masker.push(b"[", &mut out).unwrap();
        while taken < size {
            out.clear();
            masker.push(chunk.as_bytes(), &mut out).unwrap();
            taken += chunk.len();
            given += out.len();
        }
        masker.push(b"0]", &mut out).unwrap();
        masker.finish(&mut out).unwrap();
        assert!(given > taken, "what is masked grows here");
    };
    run(1_000_000);
    let before = peak();
    run(size);
    let more = peak() - before;
    println!("{size} bytes took {more} KiB more");
    assert!(more <= 8 * 1024, "{more} KiB more");
}

#[test]
fn a_mask_of_headers_only_lets_any_body_pass() {
    let plan = plan("[[mask]]\nname = \"m\"\nheaders = [\"x-a\"]\nstrategy = \"drop\"");
    assert!(plan.is_blind());
    assert_eq!(plan.header(&KEY, &HeaderName::from_static("x-a"), b"1"), HeaderFate::Remove);
    let mut masker = Masker::new(plan, None, KEY).unwrap();
    let mut out = Vec::new();
    masker.push(b"\xff\x00", &mut out).unwrap();
    masker.finish(&mut out).unwrap();
    assert_eq!(out, b"\xff\x00");
}

#[test]
fn a_name_that_no_mask_has_makes_no_plan() {
    let masks = Masks::new(&[]).unwrap();
    assert!(masks.plan(&["pii".parse().unwrap()]).is_none());
    assert!(masks.plan(&[]).unwrap().is_blind());
}
