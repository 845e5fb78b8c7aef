//! What an issuer or a host endpoint answers to a token request (RFC 6749 section 5).

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::identity::{MAX_DOCUMENT, Secret, json};

/// The longest life that is believed, in seconds: a year. Managed identities' tokens live a day.
const LONGEST_LIFE: i64 = 366 * 24 * 3600;

/// Why an answer isn't understood, and so isn't released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// More than 1 MiB.
    #[error("the token answer has more than 1 MiB")]
    TooLarge,
    /// Not a JSON object, or one that reads in more than one way.
    #[error("the token answer isn't a JSON object that reads in one way")]
    NotAnObject,
    /// A member isn't of its type.
    #[error("the token answer's `{0}` isn't of the form that it must have")]
    Malformed(&'static str),
}

impl AnswerError {
    /// The stable code (docs/identity.md).
    pub fn code(&self) -> &'static str {
        match self {
            AnswerError::TooLarge => "token-answer-too-large",
            AnswerError::NotAnObject => "token-answer-not-json",
            AnswerError::Malformed(_) => "token-answer-malformed",
        }
    }
}

/// When a token ends, as an answer says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiresOn {
    /// At a time (`expires_on`).
    At(Timestamp),
    /// Some seconds after the answer (`expires_in`).
    In(SignedDuration),
}

/// An answer to a token request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The access token, to be digested and read; not to be kept.
    pub access_token: Option<Secret>,
    /// Whether a refresh token came with it.
    pub has_refresh_token: bool,
    /// Whether an ID token came with it.
    pub has_id_token: bool,
    /// `token_type`, in lower case: `bearer`, `pop`, …
    pub token_type: Option<String>,
    /// When the access token ends, if the answer says so.
    pub expires: Option<ExpiresOn>,
    /// The code of an error, such as `invalid_client`; `other` where it is written in another way.
    pub error: Option<String>,
}

impl Answer {
    /// Reads an answer, whatever its status.
    ///
    /// # Errors
    /// What keeps it from being understood; such an answer isn't to be released.
    pub fn parse(body: &[u8]) -> Result<Answer, AnswerError> {
        if body.len() > MAX_DOCUMENT {
            return Err(AnswerError::TooLarge);
        }
        let members = Members(json::object(body).map_err(|_| AnswerError::NotAnObject)?);
        Ok(Answer {
            access_token: members.text("access_token")?.map(|token| Secret::new(token.to_owned())),
            has_refresh_token: members.text("refresh_token")?.is_some(),
            has_id_token: members.text("id_token")?.is_some(),
            token_type: members.word("token_type")?.map(|kind| kind.to_ascii_lowercase()),
            expires: members.expires()?,
            error: members.error(),
        })
    }

    /// When the access token ends, for an answer that came at `now`.
    pub fn expiry(&self, now: Timestamp) -> Option<Timestamp> {
        match self.expires? {
            ExpiresOn::At(at) => Some(at),
            ExpiresOn::In(life) => now.checked_add(life).ok(),
        }
    }
}

struct Members(Map<String, Value>);

impl Members {
    /// A text; `null` and an empty one are as good as none.
    fn text(&self, name: &'static str) -> Result<Option<&str>, AnswerError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(AnswerError::Malformed(name)),
        }
    }

    /// A short text that can be shown and recorded.
    fn word(&self, name: &'static str) -> Result<Option<String>, AnswerError> {
        let text = self.text(name)?;
        if text.is_some_and(|text| text.len() > 128 || !text.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(AnswerError::Malformed(name));
        }
        Ok(text.map(str::to_owned))
    }

    fn error(&self) -> Option<String> {
        self.0.get("error").filter(|error| !error.is_null())?;
        Some(self.word("error").ok().flatten().unwrap_or_else(|| "other".to_owned()))
    }

    /// Seconds, as a number or in a text (host endpoints, Entra's first version).
    fn seconds(&self, name: &'static str) -> Result<Option<i64>, AnswerError> {
        let seconds = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_i64(),
        };
        seconds.filter(|seconds| *seconds >= 0).map(Some).ok_or(AnswerError::Malformed(name))
    }

    fn expires(&self) -> Result<Option<ExpiresOn>, AnswerError> {
        // App Service's first version writes `expires_on` as a date; then it isn't said.
        let at = self.seconds("expires_on").unwrap_or(None).and_then(|seconds| Timestamp::from_second(seconds).ok());
        let life = self.seconds("expires_in")?;
        if life.is_some_and(|life| life > LONGEST_LIFE) {
            return Err(AnswerError::Malformed("expires_in"));
        }
        Ok(at.map(ExpiresOn::At).or(life.map(|life| ExpiresOn::In(SignedDuration::from_secs(life)))))
    }
}
