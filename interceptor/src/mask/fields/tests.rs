use super::super::tests::{KEY, mask, masked, plan};
use super::super::{Masker, Withheld};

const CSV: &str = "text/csv";

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
