//! `interceptor login`, `interceptor logout`, and answers that are signed by signing in. The daemon holds what is secret;
//! here a browser is shown the way, and what it brings back is handed on.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::terminal::escape;
use crate::control::client::{self, ClientError};
use crate::control::protocol::{Begin, Begun, Request, Response, Step, ToSign};
use crate::record::approval::Approval;

/// How to sign in.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Sign in at another device, with a code. An answer can't be signed so
    #[arg(long, conflicts_with = "port")]
    device: bool,
    #[command(flatten)]
    browser: Browser,
}

/// Where the browser is.
#[derive(Debug, Clone, clap::Args)]
pub struct Browser {
    /// The port of localhost that the browser is sent back to, as for `ssh -L PORT:localhost:PORT`; default: a free one
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

/// How often it is looked for the browser.
const LOOK: Duration = Duration::from_millis(50);
/// How long a connection may take to send its request, and the most bytes of it.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: usize = 16 * 1024;

/// Why nobody signed in.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon says no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The port can't be had.
    #[error("can't listen on port {port} of 127.0.0.1: {error}; choose another one with `--port`")]
    Port {
        /// Which; 0 for any.
        port: u16,
        /// What the system says.
        error: io::Error,
    },
    /// Nobody came back.
    #[error("nobody signed in within {0} seconds; begin anew")]
    Late(u64),
    /// The terminal is gone.
    #[error("can't print: {0}")]
    Output(#[from] io::Error),
}

/// Signs in for a time.
pub fn login(args: &Args, socket: &Path) -> ExitCode {
    let done = if args.device { device(socket) } else { browse(socket, &args.browser, None) };
    let done = done.and_then(|value| {
        let step = client::decoded(value)?;
        Ok(match step {
            Step::SignedIn { person, groups, until } => {
                let groups = if groups.is_empty() { "none of the `[approvers]`".into() } else { groups.join(", ") };
                format!("signed in as {person} until {}; you answer for {groups}\n", until.strftime("%FT%TZ"))
            }
            other => return Err(ClientError::Garbled(format!("{other:?}")).into()),
        })
    });
    said(done)
}

/// Ends the sign-in.
pub fn logout(socket: &Path) -> ExitCode {
    let done = client::call(socket, &Request::Logout).map_err(Failure::from);
    said(done.map(|value| match value["person"].as_str() {
        Some(person) => format!("signed out; you were {person}\n"),
        None => "you weren't signed in\n".into(),
    }))
}

/// Gives an answer that the person signs by signing in.
///
/// # Errors
/// Why it wasn't given.
pub fn sign(socket: &Path, browser: &Browser, answer: ToSign) -> Result<Approval, Failure> {
    match client::decoded(browse(socket, browser, Some(answer))?)? {
        Step::Answered(approval) => Ok(*approval),
        other => Err(ClientError::Garbled(format!("{other:?}")).into()),
    }
}

/// As [`sign`], for all of a list by one sign-in. Gives what came of each, in their order.
///
/// # Errors
/// Why none was given.
pub fn sign_all(socket: &Path, browser: &Browser, answer: ToSign) -> Result<Vec<Response>, Failure> {
    let count = 1 + answer.others.len();
    match client::decoded(browse(socket, browser, Some(answer))?)? {
        Step::Answered(approval) if count == 1 => Ok(vec![Response::Done(serde_json::json!(approval))]),
        Step::AnsweredAll(given) if given.len() == count => Ok(given),
        other => Err(ClientError::Garbled(format!("{other:?}")).into()),
    }
}

/// Prints what was done, or why it wasn't.
pub(super) fn said(done: Result<String, Failure>) -> ExitCode {
    match done {
        Ok(text) => super::print(text),
        Err(error) => super::fail(escape(&error.to_string())),
    }
}

/// Signs in with a browser on this host, or one whose localhost is forwarded here.
fn browse(socket: &Path, browser: &Browser, answer: Option<ToSign>) -> Result<Value, Failure> {
    let port = browser.port.unwrap_or(0);
    let refused = |error| Failure::Port { port, error };
    // Browsers that try ::1 first find nobody there, and come here.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let port = Some(listener.local_addr().map_err(refused)?.port());
    let begun: Begun = begin(socket, Begin { port, answer })?;
    tell(&format!("open this in a browser on this host, and sign in:\n\n  {}\n\n", begun.url))?;
    open(&begun.url);
    let ends = Instant::now() + Duration::from_secs(begun.within);
    while Instant::now() < ends {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(query) = brought(stream, begun.state.as_deref().unwrap_or_default()) {
                    return Ok(client::call(socket, &Request::LoginEnd { login: begun.login, query: Some(query) })?);
                }
            }
            Err(_nobody) => sleep(LOOK),
        }
    }
    Err(Failure::Late(begun.within))
}

/// Signs in at another device.
fn device(socket: &Path) -> Result<Value, Failure> {
    let begun: Begun = begin(socket, Begin { port: None, answer: None })?;
    let code = begun.user_code.as_deref().unwrap_or_default();
    tell(&format!("open {} on any device, and enter the code {code}\n", begun.url))?;
    let ends = Instant::now() + Duration::from_secs(begun.within);
    let mut wait = begun.wait;
    while Instant::now() < ends {
        sleep(Duration::from_secs(wait));
        let value = client::call(socket, &Request::LoginEnd { login: begun.login.clone(), query: None })?;
        match client::decoded(value.clone())? {
            Step::Wait(seconds) => wait = seconds,
            _ => return Ok(value),
        }
    }
    Err(Failure::Late(begun.within))
}

fn begin(socket: &Path, begin: Begin) -> Result<Begun, Failure> {
    Ok(client::decoded(client::call(socket, &Request::LoginBegin(Box::new(begin)))?)?)
}

/// To stderr: stdout is for what comes of it.
fn tell(text: &str) -> io::Result<()> {
    let mut out = io::stderr().lock();
    // Only line breaks of ours are in it.
    text.split_inclusive('\n').try_for_each(|line| match line.strip_suffix('\n') {
        Some(line) => writeln!(out, "{}", escape(line)),
        None => write!(out, "{}", escape(line)),
    })?;
    out.flush()
}

/// Opens the address where a display is there; root has no business in a browser.
fn open(url: &str) {
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if has_display && !nix::unistd::geteuid().is_root() {
        let null = || Stdio::null();
        // Who has no xdg-open opens the address by hand.
        let _ = Command::new("xdg-open").arg(url).stdin(null()).stdout(null()).stderr(null()).spawn();
    }
}

/// The query of a request that is the browser's with this `state`; others (a favicon, a stranger) are told that nothing is
/// here.
fn brought(mut stream: TcpStream, state: &str) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let ends = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut part = [0; 2048];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MOST && Instant::now() < ends {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => head.extend_from_slice(part.get(..count)?),
        }
    }
    let query = query(&head, state);
    let (status, text) = match query {
        Some(_) => ("200 OK", "Interceptor has it. Close this page, and see in the terminal what came of it."),
        None => ("404 Not Found", "Nothing is here."),
    };
    // The code is in the address: it is neither kept nor sent on.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    query
}

/// The query of a GET of `/` that brings this state.
fn query(head: &[u8], state: &str) -> Option<String> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let path = std::str::from_utf8(line).ok()?.strip_prefix("GET /?")?.strip_suffix(" HTTP/1.1")?;
    let is_ours = form_urlencoded::parse(path.as_bytes()).any(|(name, value)| name == "state" && value == state);
    is_ours.then(|| path.to_owned())
}

#[cfg(test)]
mod tests;
