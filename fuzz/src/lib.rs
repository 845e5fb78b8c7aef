//! What the targets for masks share: plans, and masking a body as a whole and in pieces, which must come out alike.

use std::sync::{Arc, LazyLock};

use interceptor::config::Settings;
use interceptor::mask::{Masker, Masks, Plan, Withheld};

/// Paths of every kind, every detector, every strategy.
const MASKS: &str = r#"
[[mask]]
name = "redact"
json = ["$..mail"]

[[mask]]
name = "drop"
json = ["$..mail", "$.a[1:3]", "$..[?@.kind == 'x'].b", "$.*.c"]
strategy = "drop"

[[mask]]
name = "pseudonym"
detect = ["email", "payment-card", "us-ssn", "iban", "phone", "jwt", "pem", "api-key", "secret"]
strategy = "pseudonym"

[[mask]]
name = "partial"
json = ["$['mail']", "$[?@.kind == 1]"]
detect = ["email", "secret"]
strategy = "partial"

[[mask]]
name = "all"
json = ["$..mail", "$..b[*]"]
detect = ["email", "payment-card", "us-ssn", "iban", "phone", "jwt", "pem", "api-key", "secret"]
"#;

static PLANS: LazyLock<Vec<Arc<Plan>>> = LazyLock::new(|| {
    let settings = Settings::parse("/etc/interceptor/config.toml", MASKS).expect("the masks are sound");
    let masks = Masks::new(&settings.masks).expect("the rules compile");
    let plan = |mask: &Arc<interceptor::config::Mask>| masks.plan(std::slice::from_ref(&mask.name)).map(Arc::new);
    settings.masks.iter().filter_map(plan).collect()
});

/// One of the plans; 0 redacts every `mail`.
pub fn plan(choice: u8) -> &'static Arc<Plan> {
    &PLANS[usize::from(choice) % PLANS.len()]
}

/// What a body became, and how many values were masked.
pub type Outcome = Result<(Vec<u8>, u64), Withheld>;

/// Masks the pieces of a body.
pub fn mask<'a>(plan: &Arc<Plan>, content_type: &str, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut masker = Masker::new(Arc::clone(plan), Some(content_type), [7; 32])?;
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(piece, &mut out)?;
    }
    masker.finish(&mut out)?;
    let count = masker.counts().map(|(_, count)| count).sum();
    Ok((out, count))
}

/// Masks a body as a whole, holds that against the same in pieces, and that nothing changed where nothing was masked.
pub fn check(plan: &Arc<Plan>, content_type: &str, body: &[u8], cut: u8) -> Outcome {
    let whole = mask(plan, content_type, [body].into_iter());
    let pieces = mask(plan, content_type, body.chunks(usize::from(cut) + 1));
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces, "cut by {cut}"),
        (Err(_), Err(_)) => {}
        (whole, pieces) => panic!("as a whole {whole:?}, cut by {cut} {pieces:?}"),
    }
    if let Ok((out, 0)) = &whole {
        assert_eq!(out, body, "nothing was masked");
    }
    whole
}
