//! What both ends of a WebSocket are told when it is cut: why, in a Close frame, wherever that can be put between two frames
//! (RFC 6455 sections 5.5.1 and 7.4).

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::scripted::{Peer, Scripted};
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};

use super::fixture::{ALL, reload};
use super::websocket::{SOCKETS, SUMMARY, begin_with, opened};

const JUST_IN_TIME: &str = r#"
permit (principal, action in Action::"reach", resource);
@id("jit")
permit (principal, action == Action::"http:websocket", resource == Target::"graph") when { context.base.granted };
"#;

/// First bytes of whole frames.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

const KEY: [u8; 4] = [0x11, 0x80, 0xFF, 0x05];

/// A frame of a server's, of 125 bytes at most.
fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8][..], payload].concat()
}

/// A frame of a client's.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let masked: Vec<u8> = payload.iter().zip(KEY.into_iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    [&[first, 0x80 | payload.len() as u8][..], &KEY, &masked].concat()
}

/// What a Close frame with this status and reason holds.
fn closing(status: u16, reason: &str) -> Vec<u8> {
    [&status.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// Takes a client's frame off the beginning, if it is there in full and masked; gives its first byte and its payload.
fn take(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [first, second, rest @ ..] = bytes.as_slice() else { return None };
    let (first, length) = (*first, usize::from(second.checked_sub(0x80)?));
    let (key, rest) = rest.split_at_checked(4)?;
    let payload = rest.get(..length)?.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    *bytes = rest[length..].to_vec();
    Some((first, payload))
}

/// A server that gives back each frame, in capitals. `half` makes it begin one that it doesn't end, `bye` close; once it is
/// told to close it does.
fn serve(peer: &mut Peer) -> io::Result<()> {
    let mut came = Vec::new();
    loop {
        let (first, payload) = loop {
            came.push(peer.byte()?);
            if let Some(frame) = take(&mut came) {
                break frame;
            }
        };
        match (first, payload.as_slice()) {
            (CLOSE, _) => return peer.close(),
            (_, b"half") => peer.send([&[TEXT, 100][..], b"HALF"].concat())?,
            (_, b"bye") => peer.send(plain(CLOSE, &closing(1000, "BYE")))?,
            (_, text) => peer.send(plain(TEXT, &text.to_ascii_uppercase()))?,
        }
    }
}

/// Opens a WebSocket, says `words`, each in a frame, and waits until each has come back.
fn open(daemon: &Daemon, words: &[&str]) -> Result<Wire> {
    let mut wire = opened(daemon, "/chat")?;
    for word in words {
        wire.send(masked(TEXT, word.as_bytes()))?;
        wire.until(&word.to_ascii_uppercase())?;
    }
    Ok(wire)
}

fn kill(daemon: &Daemon) -> Result<()> {
    let sessions = daemon.json(&["sessions", "list"])?;
    daemon.ask(&["sessions", "kill", sessions[0]["session"].as_str().context("a session")?])?;
    Ok(())
}

/// Whole frames, each with its first byte and its payload, and what followed.
type Heard = (Vec<(u8, Vec<u8>)>, Vec<u8>);

/// The frames that came to the server, once there are `count` of them.
fn heard(upstream: &Scripted, count: usize) -> Result<Heard> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut came = upstream.came();
        let head = came.windows(4).position(|window| window == b"\r\n\r\n").context("a head")?;
        came.drain(..head + 4);
        let mut frames = Vec::new();
        while let Some(frame) = take(&mut came) {
            frames.push(frame);
        }
        if frames.len() >= count {
            return Ok((frames, came));
        }
        ensure!(Instant::now() < deadline, "the server heard {frames:?} and {came:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn outcome(daemon: &Daemon, code: &str) -> Result<()> {
    let cut = recorded::wait_for(&daemon.database(), 0, |one| one.summary == SUMMARY && one.outcome.is_some())?;
    ensure!(cut.outcome == Some((code.into(), Some(101))), "{cut:?}");
    Ok(())
}

#[test]
fn both_ends_of_a_websocket_are_told_why_it_is_cut() -> Result<()> {
    require_root!(Ok(()));
    for (code, policy) in
        [("policy-changed", SOCKETS), ("max-session", SOCKETS), ("killed", SOCKETS), ("grant-ended", JUST_IN_TIME)]
    {
        let (upstream, daemon) = begin_with(policy, serve)?;
        let mut grant = String::new();
        if code == "grant-ended" {
            let said = daemon.ask(&["grants", "issue", "--workload", "crm", "--target", "graph", "--for", "30m"])?;
            grant = said.split(':').next().context("an id")?.to_owned();
        }
        let mut wire = open(&daemon, &["abc"])?;
        let start = Instant::now();
        match code {
            "policy-changed" => reload(&daemon, ALL)?,
            "max-session" => reload(&daemon, &format!("@max_session(\"1s\")\n{}", SOCKETS.trim()))?,
            "killed" => kill(&daemon)?,
            _ => drop(daemon.ask(&["grants", "revoke", &grant])?),
        }
        let limit = if code == "max-session" { start + Duration::from_secs(1) } else { Instant::now() };
        wire.until(code).with_context(|| format!("the client isn't told `{code}`"))?;
        ensure!(limit.elapsed() < Duration::from_secs(1), "{code} took {:?}", limit.elapsed());
        let (more, end) = wire.rest()?;
        ensure!(more.is_empty() && end == "eof", "{code} ended with {end}: {more:?}");
        let expected = [(TEXT, b"abc".to_vec()), (CLOSE, closing(1008, code))];
        let (frames, more) = heard(&upstream, 2)?;
        ensure!(frames == expected && more.is_empty(), "{code}: the server heard {frames:?} and {more:?}");
        outcome(&daemon, code)?;
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn a_client_gets_one_close_frame_that_isnt_masked() -> Result<()> {
    require_root!(Ok(()));
    let (_upstream, daemon) = begin_with(SOCKETS, serve)?;
    let wire = open(&daemon, &["abc"])?;
    kill(&daemon)?;
    let (came, end) = wire.rest()?;
    ensure!(came == plain(CLOSE, &closing(1008, "killed")) && end == "eof", "{end}: {came:?}");
    outcome(&daemon, "killed")?;
    daemon.finish()
}

#[test]
fn a_stopping_daemon_says_that_it_goes_away() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, mut daemon) = begin_with(SOCKETS, serve)?;
    let wire = open(&daemon, &["abc"])?;
    ensure!(daemon.stop()?.success(), "it failed");
    let (came, end) = wire.rest()?;
    ensure!(came == plain(CLOSE, &closing(1001, "daemon-stopped")) && end == "eof", "{end}: {came:?}");
    let (frames, _) = heard(&upstream, 2)?;
    ensure!(frames[1] == (CLOSE, closing(1001, "daemon-stopped")), "{frames:?}");
    outcome(&daemon, "daemon-stopped")?;
    daemon.finish()
}

/// Each direction by itself: in half a frame a Close frame would be taken for the rest of it.
#[test]
fn a_websocket_that_is_cut_in_a_frame_is_reset() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, daemon) = begin_with(SOCKETS, serve)?;
    let wire = open(&daemon, &["half"])?;
    kill(&daemon)?;
    let (came, end) = wire.rest()?;
    ensure!(came.is_empty() && end == "reset", "{end}: {came:?}");
    let (frames, _) = heard(&upstream, 2)?;
    ensure!(frames[1] == (CLOSE, closing(1008, "killed")), "{frames:?}");
    outcome(&daemon, "killed")?;
    daemon.finish()?;

    let (upstream, daemon) = begin_with(SOCKETS, serve)?;
    let mut wire = open(&daemon, &["abc"])?;
    let half = &masked(TEXT, b"half")[..8];
    wire.send(half)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while heard(&upstream, 1)?.1 != half {
        ensure!(Instant::now() < deadline, "half a frame isn't passed on");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(&daemon)?;
    let (came, end) = wire.rest()?;
    ensure!(came == plain(CLOSE, &closing(1008, "killed")) && end == "eof", "{end}: {came:?}");
    let (frames, more) = heard(&upstream, 1)?;
    ensure!(frames.len() == 1 && more == half, "{frames:?} and {more:?}");
    outcome(&daemon, "killed")?;
    daemon.finish()
}

#[test]
fn after_a_servers_close_frame_none_is_added() -> Result<()> {
    require_root!(Ok(()));
    let (upstream, daemon) = begin_with(SOCKETS, serve)?;
    let wire = open(&daemon, &["bye"])?;
    kill(&daemon)?;
    let (came, end) = wire.rest()?;
    ensure!(came.is_empty() && end == "eof", "{end}: {came:?}");
    let (frames, _) = heard(&upstream, 2)?;
    ensure!(frames[1] == (CLOSE, closing(1008, "killed")), "{frames:?}");
    outcome(&daemon, "killed")?;
    daemon.finish()
}
