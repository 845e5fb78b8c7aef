use super::super::tests::{KEY, mask, masked, plan};
use super::super::window::WINDOW;
use super::super::{Masker, Withheld, query};

const CSV: &str = "text/csv";
const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn rows_whose_first_one_names_no_masked_column_are_withheld_under_paths() {
    for detect in ["", "detect = [\"email\"]"] {
        let plan = plan(&format!("[[mask]]\nname = \"m\"\njson = [\"$..mail\", \"$..phone\"]\n{detect}"));
        for (kind, body) in [
            (CSV, "Ada,+44 20 7946 0958\nBob,1\n"),
            (CSV, "\nname,mail\nAda,x\n"),
            (CSV, "Our people\nname,mail\nAda,x\n"),
            (CSV, "sep=;\nname;mail\nAda;x\n"),
            (CSV, "name|mail\nAda|x\n"),
            (CSV, "name,note\nAda,x\n"),
            (CSV, "\"a\nb\",c\nAda,x\n"),
            (CSV, "Ada,+44 20 7946 0958"),
            ("text/tab-separated-values", "name,mail\nAda,x\n"),
        ] {
            let withheld = Err(Withheld::NoColumn);
            assert_eq!(mask(&plan, kind, [body.as_bytes()]), withheld, "{body}");
            assert_eq!(mask(&plan, kind, body.as_bytes().chunks(1)), withheld, "{body}, byte by byte");
        }
        let quote = Err(Withheld::Invalid("a quote in the name of a column"));
        assert_eq!(mask(&plan, CSV, [&b"phone, \"mail\"\n1,x\n"[..]]), quote);
    }
}

#[test]
fn nothing_of_a_first_row_is_passed_before_it_is_known() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    let mut masker = Masker::new(plan, Some(CSV), KEY).unwrap();
    let mut out = Vec::new();
    masker.push(b"\"Ada\n", &mut out).unwrap();
    masker.push(b"Lovelace\",1", &mut out).unwrap();
    assert_eq!(masker.push(b"\n", &mut out), Err(Withheld::NoColumn));
    assert_eq!(out, b"");
}

#[test]
fn columns_are_named_behind_a_mark_and_in_quotes_and_without_paths_need_not_be() {
    let by_name = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    for (body, expected) in [
        ("\u{feff}\"mail\",name\r\nx,Ada\r\n", "\u{feff}\"mail\",name\r\n[redacted],Ada\r\n"),
        ("\"a\nb\",mail\n1,x\n", "\"a\nb\",mail\n1,[redacted]\n"),
        ("name;\"mail\"", "name;\"mail\""),
        ("", ""),
    ] {
        assert_eq!(masked(&by_name, CSV, body), expected);
        let cut = mask(&by_name, CSV, body.as_bytes().chunks(1)).unwrap();
        assert_eq!(String::from_utf8(cut).unwrap(), expected, "byte by byte");
    }
    let by_detectors = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    assert_eq!(
        masked(&by_detectors, CSV, "Our \"people\"\nAda,ada@contoso.example\n"),
        "Our \"people\"\nAda,[redacted:email]\n"
    );
}

#[test]
fn forms_are_masked_by_the_words_in_their_names_and_through_documents_in_their_values() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\", \"$..größe\"]");
    let long = format!("a={}&mail=ada", "x".repeat(1000));
    let long_masked = long.replace("ada", "%5Bredacted%5D");
    for (body, expected) in [
        ("user[mail]=ada&x=1", "user[mail]=%5Bredacted%5D&x=1"),
        ("user%5Bmail%5D%5B0%5D=ada", "user%5Bmail%5D%5B0%5D=%5Bredacted%5D"),
        ("a.mail=ada&mails=x&mail", "a.mail=%5Bredacted%5D&mails=x&mail"),
        ("x=1&gr%C3%B6%C3%9Fe=2", "x=1&gr%C3%B6%C3%9Fe=%5Bredacted%5D"),
        ("payload=%7B%22mail%22%3A%22ada%22%7D", "payload=%7B%22mail%22%3A%22%5Bredacted%5D%22%7D"),
        ("p=+%0A[{\"mail\":\"ada\"}]&q={ok}&r={", "p=+%0A[{\"mail\":\"%5Bredacted%5D\"}]&q={ok}&r={"),
        ("p=%22%7B%5C%22mail%5C%22:7%7D%22", "p=%22%7B%5C%22mail%5C%22:null%7D%22"),
        (long.as_str(), long_masked.as_str()),
        ("", ""),
    ] {
        assert_eq!(masked(&plan, FORM, body), expected);
        let cut = mask(&plan, FORM, body.as_bytes().chunks(1)).unwrap();
        assert_eq!(String::from_utf8(cut).unwrap(), expected, "byte by byte");
    }
}

#[test]
fn a_form_without_a_masked_field_is_withheld_under_paths_and_a_query_isnt() {
    let by_name = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    let by_detectors = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    let quote = Withheld::Invalid("a quote in the name of a field");
    let large = format!("x={}&mail=ada", "a".repeat(300_000));
    for (body, withheld) in [
        ("{\"mail\":\"ada\"}", quote.clone()),
        ("{\"x\":1,\"y\":\"a=b\"}&mail=x", quote.clone()),
        ("mail: ada", Withheld::NoColumn),
        ("a=1&b=2", Withheld::NoColumn),
        ("p={\"x\":1}", Withheld::NoColumn),
        ("gr%F6%DFe=1", Withheld::Invalid("a name that isn't in UTF-8")),
        (large.as_str(), Withheld::NoColumn),
    ] {
        assert_eq!(mask(&by_name, FORM, [body.as_bytes()]), Err(withheld.clone()), "{body}");
        assert_eq!(mask(&by_name, FORM, body.as_bytes().chunks(1)), Err(withheld), "{body}, byte by byte");
        assert_eq!(masked(&by_detectors, FORM, body), body);
    }
    assert_eq!(query(&by_name, &KEY, b"a=1&b=2"), Ok(b"a=1&b=2".to_vec()));
    let filter = query(&by_name, &KEY, b"filter[mail]=ada&where={\"mail\":\"ada\"}").unwrap();
    assert_eq!(String::from_utf8(filter).unwrap(), "filter[mail]=%5Bredacted%5D&where={\"mail\":\"%5Bredacted%5D\"}");
    assert_eq!(query(&by_name, &KEY, b"{\"mail\":\"ada\"}"), Err(quote));
}

#[test]
fn a_first_row_is_judged_by_its_length_whatever_comes_with_it() {
    let plan = plan("[[mask]]\nname = \"m\"\njson = [\"$..mail\"]");
    for (length, is_taken) in [(WINDOW, true), (WINDOW + 1, false), (2 * WINDOW, false)] {
        let body = format!("mail,{}\nada,1\n", "x,".repeat(length / 2).get(..length - 5).unwrap());
        let whole = mask(&plan, CSV, [body.as_bytes()]);
        assert_eq!(whole.is_ok(), is_taken, "{length}");
        assert_eq!(mask(&plan, CSV, body.as_bytes().chunks(999)), whole, "{length}, in pieces");
    }
}

#[test]
fn a_column_in_another_charset_is_withheld_under_paths() {
    let body = b"gr\xf6\xdfe,mail\n1,x\n";
    let by_name = plan("[[mask]]\nname = \"m\"\njson = [\"$..größe\", \"$..mail\"]");
    assert_eq!(mask(&by_name, CSV, [&body[..]]), Err(Withheld::Invalid("a name that isn't in UTF-8")));
    let by_detectors = plan("[[mask]]\nname = \"m\"\ndetect = [\"email\"]");
    assert_eq!(mask(&by_detectors, CSV, [&body[..]]), Ok(body.to_vec()));
}
