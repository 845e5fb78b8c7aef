use super::*;

#[test]
fn durations_are_a_number_and_a_unit() {
    for (text, expected) in [
        ("250ms", Some(Duration::from_millis(250))),
        ("25s", Some(Duration::from_secs(25))),
        ("5m", Some(Duration::from_secs(300))),
        ("2h", Some(Duration::from_secs(7200))),
        ("1d", Some(Duration::from_secs(86400))),
        ("0s", Some(Duration::ZERO)),
        ("", None),
        ("s", None),
        ("25", None),
        ("-1s", None),
        ("1.5s", None),
        ("1 s", None),
        ("1S", None),
        ("99999999999999999999s", None),
        ("18446744073709551615d", None),
    ] {
        assert_eq!(duration(text), expected, "{text}");
    }
}

#[test]
fn sizes_are_binary() {
    for (text, expected) in [
        ("512B", Some(512)),
        ("64KiB", Some(65536)),
        ("64MiB", Some(67_108_864)),
        ("1GiB", Some(1_073_741_824)),
        ("64MB", None),
        ("64", None),
        ("64mib", None),
        ("18446744073709551615GiB", None),
    ] {
        assert_eq!(size(text), expected, "{text}");
    }
}
