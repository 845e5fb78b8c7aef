//! A refusal as Entra words it: an OAuth error with an AADSTS number, a trace id and a correlation id.

use http::StatusCode;
use serde_json::{Value, json};

use super::state::{guid, now};

/// Why there is no token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// OAuth's `error` (RFC 6749 section 5.2, RFC 8628 section 3.5, and Entra's own).
    pub(super) error: &'static str,
    /// The AADSTS number.
    pub(super) number: u32,
    pub(super) text: String,
}

impl Refusal {
    /// 400.
    pub(super) fn new(error: &'static str, number: u32, text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, number, text: text.into() }
    }

    /// 401: the client didn't prove who it is.
    pub(super) fn client(number: u32, text: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, ..Self::new("invalid_client", number, text) }
    }

    /// 500: the fixture's own fault.
    pub(super) fn broken(error: &anyhow::Error) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { status, ..Self::new("server_error", 90_033, error.to_string()) }
    }

    /// The answer's body.
    pub(super) fn body(&self, correlation: Option<&str>) -> Value {
        let trace = guid();
        let correlation = correlation.map_or_else(guid, str::to_owned);
        let time = now().to_string();
        let time = format!("{}Z", time.get(..19).unwrap_or(&time).replace('T', " "));
        let description = format!(
            "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}",
            self.number, self.text
        );
        json!({
            "error": self.error,
            "error_description": description,
            "error_codes": [self.number],
            "timestamp": time,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.number),
        })
    }
}
