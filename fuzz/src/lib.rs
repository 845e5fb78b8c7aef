//! What the targets for masks share: plans, and masking a body as a whole and in pieces, which must come out alike.

use std::sync::{Arc, LazyLock};

use interceptor::config::Settings;
use interceptor::mask::{Masker, Masks, Places, Plan, Withheld};

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

/// Masks the pieces of a body: what went out, and how many values were masked and where, or why it ended there.
fn mask<'a>(
    plan: &Arc<Plan>,
    content_type: &str,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<u8>, Result<(u64, Places), Withheld>) {
    let mut out = Vec::new();
    let count = masked(plan, content_type, pieces, &mut out);
    (out, count)
}

fn masked<'a>(
    plan: &Arc<Plan>,
    content_type: &str,
    pieces: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<(u64, Places), Withheld> {
    let mut masker = Masker::new(Arc::clone(plan), Some(content_type), [7; 32])?;
    for piece in pieces {
        masker.push(piece, out)?;
    }
    masker.finish(out)?;
    let count = masker.counts().map(|(_, count)| count).sum();
    Ok((count, masker.take_places()))
}

/// Masks a body as a whole, holds that against the same in pieces, and that nothing changed where nothing was masked.
pub fn check(plan: &Arc<Plan>, content_type: &str, body: &[u8], cut: u8) -> Outcome {
    let (out, whole) = mask(plan, content_type, [body].into_iter());
    let (in_pieces, pieces) = mask(plan, content_type, body.chunks(usize::from(cut) + 1));
    match (&whole, &pieces) {
        (Ok(_), Ok(_)) => assert_eq!((&out, &whole), (&in_pieces, &pieces), "cut by {cut}"),
        // How much of it was passed before that depends on the cuts, but not what.
        (Err(_), Err(_)) => {
            assert!(out.starts_with(&in_pieces) || in_pieces.starts_with(&out), "{out:?}, cut by {cut} {in_pieces:?}");
        }
        (whole, pieces) => panic!("as a whole {whole:?}, cut by {cut} {pieces:?}"),
    }
    if let Ok((0, places)) = &whole {
        assert_eq!((&out[..], places), (body, &Places::default()), "nothing was masked");
    }
    whole.map(|(count, _)| (out, count))
}
