//! The environment of a workload: the caller's, without what points at services that it can't reach, and with what makes
//! its TLS libraries trust the bundle. MCP SDKs hand a server almost no variables, so nothing is left to inheritance.

use std::path::Path;

use super::LaunchError;
use super::user::RunAs;

/// Where the bundle is inside.
pub(super) const BUNDLE: &str = "/run/interceptor/certs/ca-bundle.pem";
/// Where our own authority is inside.
pub(super) const AUTHORITY: &str = "/run/interceptor/authority.pem";
/// The directory of the bundle.
pub(super) const CERTIFICATES: &str = "/run/interceptor/certs";

/// The variables that name what to trust, and who reads them.
const TRUST: [(&str, &str, &str); 14] = [
    ("SSL_CERT_FILE", BUNDLE, "OpenSSL, Go, rustls-native-certs, httpx, .NET"),
    ("SSL_CERT_DIR", CERTIFICATES, ".NET, which reads every file of it"),
    ("REQUESTS_CA_BUNDLE", BUNDLE, "Python's requests"),
    ("CURL_CA_BUNDLE", BUNDLE, "curl, requests"),
    ("GIT_SSL_CAINFO", BUNDLE, "git"),
    ("PIP_CERT", BUNDLE, "pip"),
    ("UV_SYSTEM_CERTS", "true", "uv, which then reads SSL_CERT_FILE"),
    ("UV_NATIVE_TLS", "true", "uv before that name"),
    ("NPM_CONFIG_CAFILE", BUNDLE, "npm"),
    ("CARGO_HTTP_CAINFO", BUNDLE, "cargo"),
    ("AWS_CA_BUNDLE", BUNDLE, "AWS SDKs"),
    ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", BUNDLE, "gRPC"),
    ("NODE_EXTRA_CA_CERTS", AUTHORITY, "Node, in addition to its own roots"),
    ("DENO_CERT", AUTHORITY, "Deno, in addition to its own roots"),
];

/// Variables that are dropped, in lower case, and why. Proxies are compared in any case: both spellings are read.
const DROPPED: [(&str, &str); 16] = [
    ("http_proxy", "nothing but the workload's own network is there"),
    ("https_proxy", "as above"),
    ("ftp_proxy", "as above"),
    ("all_proxy", "as above"),
    ("no_proxy", "as above"),
    ("npm_config_proxy", "as above"),
    ("npm_config_https_proxy", "as above"),
    ("npm_config_http_proxy", "as above"),
    ("npm_config_noproxy", "as above"),
    ("ssh_auth_sock", "the agent's socket isn't there"),
    ("gpg_agent_info", "as above"),
    ("dbus_session_bus_address", "the bus isn't there"),
    ("wayland_display", "the display isn't there"),
    ("display", "as above"),
    ("docker_host", "the daemon can't be reached"),
    ("container_host", "as above"),
];

/// The environment inside, `NAME=value`.
///
/// # Errors
/// [`LaunchError::Command`] for an entry that isn't one: without `=` or a name, or with a NUL.
pub(super) fn compose(caller: &[Vec<u8>], run_as: &RunAs) -> Result<Vec<Vec<u8>>, LaunchError> {
    let mut own: Vec<(String, Vec<u8>)> =
        TRUST.iter().map(|(name, value, _)| ((*name).into(), value.as_bytes().to_vec())).collect();
    own.push(("XDG_RUNTIME_DIR".into(), runtime_folder(run_as.uid).into_bytes()));
    if let Some((name, shell)) = &run_as.switched {
        own.push(("USER".into(), name.clone().into_bytes()));
        own.push(("LOGNAME".into(), name.clone().into_bytes()));
        own.push(("SHELL".into(), bytes(shell)));
        own.extend(run_as.home.as_ref().map(|home| ("HOME".into(), bytes(home))));
    }
    let mut env = Vec::with_capacity(caller.len() + own.len());
    for entry in caller {
        let name = name_of(entry)?;
        let dropped = DROPPED.iter().any(|(dropped, _)| name.eq_ignore_ascii_case(dropped.as_bytes()));
        if !dropped && !own.iter().any(|(ours, _)| name == ours.as_bytes()) {
            env.push(entry.clone());
        }
    }
    env.extend(own.into_iter().map(|(name, value)| [name.as_bytes(), b"=", &value].concat()));
    Ok(env)
}

/// The value of a variable.
pub(super) fn value<'a>(env: &'a [Vec<u8>], name: &str) -> Option<&'a [u8]> {
    env.iter().find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The user's runtime folder inside (XDG base directory specification).
pub(super) fn runtime_folder(uid: u32) -> String {
    format!("/run/user/{uid}")
}

fn name_of(entry: &[u8]) -> Result<&[u8], LaunchError> {
    // A name may begin with `=` on no system of ours.
    match entry.iter().position(|&byte| byte == b'=') {
        Some(end) if end > 0 && !entry.contains(&0) => Ok(&entry[..end]),
        _ => Err(LaunchError::Command {
            message: format!("`{}` isn't an environment entry", String::from_utf8_lossy(entry).escape_debug()),
            next: "pass entries of the form NAME=value",
        }),
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

#[cfg(test)]
mod tests;
