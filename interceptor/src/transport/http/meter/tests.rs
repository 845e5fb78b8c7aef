use std::future::poll_fn;

use http_body_util::BodyExt;

use super::*;

/// A body that was read already, with what counts it.
fn whole(body: &'static str) -> Metered {
    Metered::new(RequestBody::Whole(Bytes::from_static(body.as_bytes())), Meter::new(metrics::Counter::noop()), None)
}

/// Lets pass pieces of at most so many bytes.
struct AtMost(usize);

impl Overseer for AtMost {
    fn may_pass(&self, length: usize) -> bool {
        length <= self.0
    }

    fn passes(&self, data: &[u8]) {
        assert!(data.len() <= self.0, "{data:?}");
    }

    fn may_follow(&self, _trailers: &HeaderMap) -> bool {
        true
    }
}

#[tokio::test]
async fn what_goes_past_a_bound_doesnt_pass_at_all() {
    for (most, passes) in [(4, true), (3, false)] {
        let mut body = whole("four");
        let meter = body.meter().clone();
        let overseer = Rc::new(AtMost(most));
        let weak = Rc::downgrade(&overseer);
        meter.oversee(weak);
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        assert_eq!(frame.is_some_and(|frame| frame.is_ok()), passes, "{most}");
        assert_eq!(meter.bytes(), if passes { 4 } else { 0 });
        assert_eq!(meter.is_broken(), !passes);
    }
}

#[tokio::test]
async fn a_body_is_counted_and_digested_as_it_passes() {
    let body = whole("four");
    let meter = body.meter().clone();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "four");
    assert_eq!((meter.bytes(), meter.digest()), (4, Some(blake3::hash(b"four").to_hex().to_string())));
    assert!(meter.is_ended() && !meter.is_broken());
}
