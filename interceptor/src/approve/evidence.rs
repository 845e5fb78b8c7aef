//! The evidence of an answer: the digest that the `nonce` of an ID token has to be so that the token signs it, and the
//! check of what is recorded, which needs nothing but the events (`docs/approvals.md`).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::identity::keys::KeySet;
use crate::identity::{Expected, Issuer, Token, TokenError, verify};
use crate::ids::PrincipalId;
use crate::policy::Width;
use crate::record::approval::Recorded;
use crate::record::event::{ApprovalAnswer, Event, Evidence, What};

/// The first line of what is digested: for one answer, and for those to a list of questions.
const DOMAIN: &str = "interceptor approval answer v1";
const LIST_DOMAIN: &str = "interceptor approval answers v1";

/// What somebody says, as far as it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    /// Yes or no.
    pub yes: bool,
    /// How wide the yes is; none with a no.
    pub width: Option<Width>,
    /// What they say to it.
    pub note: Option<&'a str>,
}

/// The `nonce` that stands for an answer: SHA-256, in base64url without padding, of five lines (domain, salt, `yes` or `no`,
/// the width or `-`, the SHA-256 of the note in hex or `-`) and of the body of the event `approval.requested` as it was
/// recorded.
pub fn nonce(requested: &str, salt: &str, said: Said<'_>) -> String {
    digested(&format!("{DOMAIN}\n{salt}\n{}{requested}", said.lines()))
}

/// The `nonce` that stands for the same answer to each of a list of questions: as [`nonce`] with another domain, and instead
/// of the body a line with the [`fingerprint`] of each, in their order.
pub fn nonce_of_list(list: &[String], salt: &str, said: Said<'_>) -> String {
    let list: String = list.iter().map(|one| format!("{one}\n")).collect();
    digested(&format!("{LIST_DOMAIN}\n{salt}\n{}{list}", said.lines()))
}

/// The SHA-256 of the body of an event `approval.requested`, in lower-case hex.
pub fn fingerprint(requested: &str) -> String {
    hex(digest(&SHA256, requested.as_bytes()).as_ref())
}

fn digested(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

impl Said<'_> {
    /// Three lines: yes or no, how wide, the note.
    fn lines(&self) -> String {
        let yes = if self.yes { "yes" } else { "no" };
        let width = self.width.map_or_else(|| "-".to_owned(), |width| width.to_string());
        let note = self.note.map_or_else(|| "-".to_owned(), fingerprint);
        format!("{yes}\n{width}\n{note}\n")
    }
}

/// What the evidence of one answer comes to. Its JSON is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// When it was answered.
    pub at: Timestamp,
    /// Who, as the record has it.
    pub person: Option<PrincipalId>,
    /// By this uid.
    pub uid: u32,
    /// Whether it was a yes.
    pub yes: bool,
    /// How wide.
    pub width: Option<Width>,
    /// What was found.
    pub verdict: Verdict,
    /// What is wrong; none if nothing is.
    pub flaw: Option<String>,
    /// Who issued the ID token.
    pub issuer: Option<String>,
    /// Whom it is for: the application.
    pub audience: Option<String>,
    /// The name of the key that signed it.
    pub kid: Option<String>,
}

/// What the evidence of an answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The person signed this very answer.
    Signed,
    /// The person had signed in, for no answer in particular.
    SignedIn,
    /// There is none.
    None,
    /// It doesn't hold.
    Broken,
}

/// Why recorded events can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// An event isn't what it must be.
    #[error("event `{0}` can't be read; run `interceptor sessions verify`")]
    Event(&'static str),
}

/// Checks the evidence of each answer to an approval, in order. With `known`, keys that the issuer is known to have
/// published, a key that isn't among them is a flaw.
///
/// # Errors
/// An event can't be read.
pub fn check(recorded: &Recorded, known: Option<&KeySet>) -> Result<Vec<Finding>, Unreadable> {
    let read = |body: &str, kind| serde_json::from_str::<Event>(body).map_err(|_malformed| Unreadable::Event(kind));
    if !matches!(read(&recorded.requested, "approval.requested")?.what, What::ApprovalRequested(_)) {
        return Err(Unreadable::Event("approval.requested"));
    }
    recorded.answered.iter().map(|body| finding(recorded, read(body, "approval.answered")?, known)).collect()
}

fn finding(recorded: &Recorded, event: Event, known: Option<&KeySet>) -> Result<Finding, Unreadable> {
    let What::ApprovalAnswered(answer) = event.what else { return Err(Unreadable::Event("approval.answered")) };
    let ApprovalAnswer { yes, person, uid, width, note, evidence, .. } = *answer;
    let mut finding = Finding {
        at: event.at,
        person,
        uid,
        yes,
        width,
        verdict: Verdict::None,
        flaw: None,
        issuer: None,
        audience: None,
        kid: None,
    };
    let Some(evidence) = evidence else { return Ok(finding) };
    let said = Said { yes, width, note: note.as_deref() };
    match holds(recorded, &evidence, said, &mut finding, known) {
        Ok(()) if evidence.bound => finding.verdict = Verdict::Signed,
        Ok(()) => finding.verdict = Verdict::SignedIn,
        Err(flaw) => {
            finding.verdict = Verdict::Broken;
            finding.flaw = Some(flaw);
        }
    }
    Ok(finding)
}

/// Whether the token was signed by the recorded key for this person at that time, and for this answer where it says so.
fn holds(
    recorded: &Recorded,
    evidence: &Evidence,
    said: Said<'_>,
    finding: &mut Finding,
    known: Option<&KeySet>,
) -> Result<(), String> {
    let told = |error: TokenError| error.to_string();
    let token = Token::parse(&evidence.id_token).map_err(told)?;
    let claims = token.claims();
    let (tenant, object) = claims.object().map_err(told)?;
    finding.issuer.clone_from(&claims.iss);
    finding.audience = claims.aud.first().cloned();
    finding.kid = token.kid().map(str::to_owned);
    if finding.person != Some(PrincipalId::entra(tenant, object)) {
        return Err("the ID token names somebody else than the record".into());
    }
    let issuer = claims.iss.clone().unwrap_or_default();
    // Version 2's issuers end in the tenant and `v2.0`, those of version 1 in the tenant.
    if issuer.trim_end_matches("/v2.0").trim_end_matches('/').rsplit('/').next() != Some(&*tenant.to_string()) {
        return Err(told(TokenError::Tenant));
    }
    let set = json!({ "keys": [evidence.jwk] }).to_string();
    let keys = KeySet::parse(set.as_bytes(), "jwk").map_err(|_unusable| "the recorded key can't be used".to_owned())?;
    let expected = Expected { issuer: &Issuer::Oidc(issuer), audiences: &claims.aud, ps256: false };
    // Who is signed in for hours answers with a token that had its time when it was issued.
    let when = if evidence.bound { finding.at } else { claims.iat.unwrap_or(finding.at) };
    verify(&token, &keys, &expected, when).map_err(told)?;
    let kid = token.kid().unwrap_or_default();
    if let Some(known) = known {
        let published = known.find(kid).map(|key| key.jwk(kid));
        let own: Option<Value> = keys.find(kid).map(|key| key.jwk(kid));
        if published.is_none() || published != own {
            return Err("the key isn't one of those that the issuer is known to have published".into());
        }
    }
    let is_listed = || evidence.list.contains(&fingerprint(&recorded.requested));
    let due = |salt: &str| match evidence.list.as_slice() {
        [] => Some(nonce(&recorded.requested, salt, said)),
        list => is_listed().then(|| nonce_of_list(list, salt, said)),
    };
    match (evidence.bound, &evidence.salt) {
        (true, Some(salt)) if due(salt).is_some_and(|due| claims.nonce.as_deref() == Some(&*due)) => Ok(()),
        (true, _) => Err("the ID token was issued for another answer, or another question".into()),
        (false, _) => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
