//! What ends an operation that no one of the stages refused.

use crate::error::{Blame, Fault};

pub(in crate::pipeline) fn cut_off(code: &'static str) -> Fault {
    let told = match code {
        "policy-changed" => "policy changed, and no longer permits this",
        "grant-ended" => "what let this through has ended, or was revoked",
        "break-glass-ended" => "the emergency that let this through is over",
        "groups-changed" => "its principal isn't in the group or role that permits this any more",
        "groups-unknown" => "policy asks for the groups of its principal, and they can't be known any more",
        "token-expired" => "the token that this came with has expired",
        "token-ended" => "the token that this came with was ended",
        "max-session" => "the connection reached the longest time that policy allows it",
        _ => "the connection was ended by the operator of this host",
    };
    Fault { code, blame: Blame::Policy, told: told.into(), next: "open a new connection, which is decided anew" }
}

pub(in crate::pipeline) fn client_gone() -> Fault {
    Fault { code: "client-gone", blame: Blame::Client, told: "the client went away".into(), next: "send it again" }
}

pub(in crate::pipeline) fn busy() -> Fault {
    Fault {
        code: "too-many-operations",
        blame: Blame::Interceptor,
        told: "this workload has as many operations under way as it may (`limits.operations`)".into(),
        next: "wait for one to end, then try again",
    }
}

pub(in crate::pipeline) fn nothing_decoded() -> Fault {
    Fault {
        code: "internal",
        blame: Blame::Interceptor,
        told: "the request could not be forwarded".into(),
        next: "try again, or ask the operator of this host",
    }
}
