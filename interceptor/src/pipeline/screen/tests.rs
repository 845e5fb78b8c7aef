use http::{Response, StatusCode};

use super::*;
use crate::config::Settings;
use crate::mask::Masks;

const MASK: &str = "[[mask]]\nname = \"m\"\njson = [\"$..mail\"]\nheaders = [\"x-user\"]\n";

pub(in crate::pipeline) fn masked(config: &str) -> Masked {
    let settings = Settings::parse("/etc/interceptor/config.toml", config).unwrap();
    let names: Vec<_> = settings.masks.iter().map(|mask| mask.name.clone()).collect();
    let plan = Arc::new(Masks::new(&settings.masks).unwrap().plan(&names).unwrap());
    Masked { plan, key: [7; 32] }
}

fn head(content_type: &str) -> Parts {
    let response =
        Response::builder().status(StatusCode::OK).header("content-type", content_type).header("x-user", "ada");
    response.body(()).unwrap().into_parts().0
}

#[test]
fn what_isnt_masked_passes_untouched_up_to_its_limit() {
    let mut screen = Screen::new(5, Echo::default(), None);
    let mut parts = head("image/png");
    screen.head(&mut parts, true).unwrap();
    assert!(parts.headers["x-user"] == "ada" && !screen.is_held());
    assert_eq!(screen.take_places(), None, "no mask is at work");
    assert_eq!(screen.data(Bytes::from_static(b"12345")).unwrap(), "12345");
    assert_eq!(screen.data(Bytes::from_static(b"6")).unwrap_err().code, "response-too-large");
    assert_eq!(screen.rest().unwrap(), "");
}

#[test]
fn what_is_masked_is_counted_and_the_rest_comes_once() {
    let mut screen = Screen::new(1000, Echo::default(), Some(masked(MASK)));
    let mut parts = head("application/json");
    screen.head(&mut parts, true).unwrap();
    assert!(parts.headers["x-user"] == "[redacted]" && screen.is_held());
    let body = [
        screen.data(Bytes::from_static(b"{\"mail\":\"ada")).unwrap(),
        screen.data(Bytes::from_static(b"\"}")).unwrap(),
    ];
    let rest = screen.rest().unwrap();
    assert_eq!([&body.concat()[..], &rest].concat(), b"{\"mail\":\"[redacted]\"}");
    assert_eq!(screen.take_counts(), BTreeMap::from([("$..mail".to_owned(), 1)]));
    assert_eq!(screen.rest().unwrap(), "");
    let places: Vec<_> = screen.take_places().unwrap().places.iter().map(|place| place.range()).collect();
    assert_eq!((places.len(), places[0].clone()), (1, 9..19));
    let mut trailers = HeaderMap::from_iter([("x-user".parse().unwrap(), "ada".parse().unwrap())]);
    screen.trailers(&mut trailers);
    assert_eq!(trailers["x-user"], "[redacted]");
}

#[test]
fn what_cant_be_masked_is_withheld() {
    let mut screen = Screen::new(1000, Echo::default(), Some(masked(MASK)));
    screen.head(&mut head("image/png"), true).unwrap();
    assert_eq!(screen.data(Bytes::from_static(b"x")).unwrap_err().code, "response-withheld");
    assert_eq!(screen.take_places(), Some(Places::default()));
    let mut screen = Screen::new(1000, Echo::default(), Some(masked(MASK)));
    screen.head(&mut head("application/json"), true).unwrap();
    let _held = screen.data(Bytes::from_static(b"{\"mail\":")).unwrap();
    assert_eq!(screen.rest().unwrap_err().code, "response-withheld");
}
