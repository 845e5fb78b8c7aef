//! A client inside a workload, driven byte by byte from the test: the other end of the program `wire`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::Daemon;

/// How long an answer may take; a test that waits for longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// `command` of somebody who logged in as `loginuid` and acts as `uid` now, as `sudo` does it: begun by root, which may say
/// as whom a process logged in (loginuid, proc(5)).
pub fn logged_in(command: &Command, loginuid: u32, uid: u32) -> Command {
    const SCRIPT: &str =
        r#"echo "$0" > /proc/self/loginuid && exec setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}""#;
    let mut all = Command::new("bash");
    all.args(["-c", SCRIPT, &loginuid.to_string(), &uid.to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => all.env(name, value),
            None => all.env_remove(name),
        };
    }
    all
}

/// One connection of a workload.
pub struct Wire {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    came: Vec<u8>,
    told: Told,
    telling: Option<JoinHandle<()>>,
}

/// The lines of a program's standard error, and when each came.
type Told = Arc<Mutex<Vec<(Instant, String)>>>;

/// A response, or the head of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The status line and the header section, as they came.
    pub head: String,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
    /// The trailer section, as it came.
    pub trailers: String,
}

impl Answer {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It isn't.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {self:?}"))
    }

    /// The `code` of a problem document; empty if it isn't one.
    pub fn code(&self) -> String {
        self.json().ok().and_then(|json| json["code"].as_str().map(str::to_owned)).unwrap_or_default()
    }
}

impl Wire {
    /// Connects to `host`:`port` from inside the daemon's workload `crm`; `how` as the program `wire` says.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn open(daemon: &Daemon, host: &str, port: u16, how: &str) -> Result<Self> {
        let program = daemon.binary("wire");
        let program = program.to_str().context("a path in UTF-8")?;
        Self::start(daemon, &[program, host, &port.to_string(), how])
    }

    /// As [`Wire::tls`], but the name is only looked up yet: the connection is made when a line is sent.
    ///
    /// # Errors
    /// The program can't be started, or doesn't find the name.
    pub fn tls_later(daemon: &Daemon) -> Result<Self> {
        const SCRIPT: &str = r#"ip=$(getent ahostsv4 "$1" | head -n 1 | cut -d' ' -f1); echo "$ip"; read -r go; exec "$0" "$ip" 443 "tls=$1""#;
        let program = daemon.binary("wire");
        let program = program.to_str().context("a path in UTF-8")?;
        let mut wire = Self::start(daemon, &["/bin/sh", "-c", SCRIPT, program, "graph.microsoft.com"])?;
        wire.until("\n")?;
        Ok(wire)
    }

    /// As [`Wire::tls`], in a workload that goes on for a second after its client: what became of the connection is then
    /// told by the connection, not by the workload's end.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn tls_of_a_workload_that_stays(daemon: &Daemon) -> Result<Self> {
        let program = daemon.binary("wire");
        let program = program.to_str().context("a path in UTF-8")?;
        Self::start(daemon, &["/bin/sh", "-c", r#""$0" "$1" 443 tls; exec sleep 1"#, program, "graph.microsoft.com"])
    }

    /// As [`Wire::tls`], in a workload that also serves at its port `port` what the program `probe` does.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn tls_of_a_server(daemon: &Daemon, port: u16) -> Result<Self> {
        const SCRIPT: &str = r#""$1" serve "$2" & exec "$0" graph.microsoft.com 443 tls"#;
        let (wire, probe) = (daemon.binary("wire"), daemon.binary("probe"));
        let (wire, probe) = wire.to_str().zip(probe.to_str()).context("paths in UTF-8")?;
        Self::start(daemon, &["/bin/sh", "-c", SCRIPT, wire, probe, &port.to_string()])
    }

    /// As [`Wire::tls`], launched by `uid`, from `/`; with `loginuid`, by who logged in as that, as `sudo` does it.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn tls_by(daemon: &Daemon, uid: u32, loginuid: Option<u32>) -> Result<Self> {
        let program = daemon.binary("wire");
        let program = program.to_str().context("a path in UTF-8")?;
        let mut run = daemon.run(&[program, "graph.microsoft.com", "443", "tls"]);
        match loginuid {
            Some(login) => run = logged_in(&run, login, uid),
            None => _ = run.uid(uid).gid(uid),
        }
        run.current_dir("/");
        Self::begin(run)
    }

    /// As [`Wire::tls`], in another workload that the unprivileged user may launch.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn tls_in(daemon: &Daemon, workload: &str) -> Result<Self> {
        let mut run = daemon.as_user(&daemon.binary("interceptor"));
        run.arg("run").arg("--socket").arg(daemon.socket()).args(["--workload", workload, "--"]);
        run.arg(daemon.binary("wire")).args(["graph.microsoft.com", "443", "tls"]);
        Self::begin(run)
    }

    fn start(daemon: &Daemon, command: &[&str]) -> Result<Self> {
        Self::begin(daemon.run(command))
    }

    fn begin(mut run: Command) -> Result<Self> {
        let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let mut from = child.stdout.take().context("its output")?;
        // Two pieces at most are read ahead, so that a test that doesn't read is a client that doesn't.
        let (to, output) = sync_channel(2);
        std::thread::spawn(move || {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(count) = from.read(&mut bytes)
                && count > 0
                && to.send(bytes[..count].to_vec()).is_ok()
            {}
        });
        let errors = BufReader::new(child.stderr.take().context("its errors")?);
        let told = Told::default();
        let lines = Arc::clone(&told);
        let telling = std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), line));
            }
        });
        Ok(Self { child, input, output, came: Vec::new(), told, telling: Some(telling) })
    }

    /// As [`Wire::open`] in TLS to `graph.microsoft.com`.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn tls(daemon: &Daemon) -> Result<Self> {
        Self::open(daemon, "graph.microsoft.com", 443, "tls")
    }

    /// Sends.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let input = self.input.as_mut().context("the sending side is closed")?;
        input.write_all(bytes.as_ref())?;
        Ok(input.flush()?)
    }

    /// Sends a request of this method and path to graph.microsoft.com, without a body, and gives the answer.
    ///
    /// # Errors
    /// There is none.
    pub fn ask(&mut self, method: &str, path: &str) -> Result<Answer> {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n"))?;
        if method == "HEAD" { self.head() } else { self.answer() }
    }

    /// Whether the connection has ended, as far as that is known yet. What came is thrown away.
    pub fn is_over(&mut self) -> bool {
        while self.output.try_recv().is_ok() {}
        self.has_told("end: ") || !matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether the client has told of something that begins so.
    fn has_told(&self, what: &str) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().any(|(_, line)| line.starts_with(what))
    }

    /// Says that nothing more is sent.
    pub fn half_close(&mut self) {
        self.input = None;
    }

    /// As [`Wire::half_close`], and waits until the connection's other side has been told so.
    ///
    /// # Errors
    /// The client doesn't get to it.
    pub fn hang_up(&mut self) -> Result<()> {
        self.half_close();
        let deadline = Instant::now() + PATIENCE;
        while !self.has_told("closed") {
            ensure!(Instant::now() < deadline, "the client doesn't close");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Reads on. False at the end.
    fn more(&mut self) -> Result<bool> {
        match self.output.recv_timeout(PATIENCE) {
            Ok(bytes) => {
                self.came.extend(bytes);
                Ok(true)
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Ok(false),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                bail!("nothing came within {PATIENCE:?} after: {}", self.text())
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.came[..self.came.len().min(2_000)]).into_owned()
    }

    /// Reads up to and with `end`.
    ///
    /// # Errors
    /// It didn't come.
    pub fn until(&mut self, end: &str) -> Result<String> {
        loop {
            if let Some(at) = self.came.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.came.split_off(at + end.len());
                let came = std::mem::replace(&mut self.came, rest);
                return Ok(String::from_utf8_lossy(&came).into_owned());
            }
            if !self.more()? {
                let text = self.text();
                bail!("the connection ended ({}) after: {text}", self.ended()?.0);
            }
        }
    }

    fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.came.len() < count {
            ensure!(self.more()?, "the connection ended after {} of {count} bytes", self.came.len());
        }
        let rest = self.came.split_off(count);
        Ok(std::mem::replace(&mut self.came, rest))
    }

    /// Reads a head only: the answer to HEAD, or one whose body is read apart.
    ///
    /// # Errors
    /// None came.
    pub fn head(&mut self) -> Result<Answer> {
        let head = self.until("\r\n\r\n")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no status line: {head}"))?;
        Ok(Answer { status, head, body: Vec::new(), trailers: String::new() })
    }

    /// Reads one chunk of a chunked body; empty at its end.
    ///
    /// # Errors
    /// None came.
    pub fn chunk(&mut self) -> Result<Vec<u8>> {
        let line = self.until("\r\n")?;
        let size = usize::from_str_radix(line.trim(), 16).with_context(|| format!("no chunk size: {line}"))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let chunk = self.exactly(size)?;
        ensure!(self.exactly(2)? == b"\r\n", "no end of a chunk");
        Ok(chunk)
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// None came, or it was cut off.
    pub fn answer(&mut self) -> Result<Answer> {
        let mut answer = self.head()?;
        if matches!(answer.status, 100..200 | 204 | 304) {
            return Ok(answer);
        }
        if let Some(length) = answer.header("content-length").map(str::parse).transpose()? {
            answer.body = self.exactly(length)?;
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    break;
                }
                answer.body.extend(chunk);
            }
            loop {
                let line = self.until("\r\n")?;
                if line == "\r\n" {
                    break;
                }
                answer.trailers.push_str(&line);
            }
        } else {
            while self.more()? {}
            answer.body = std::mem::take(&mut self.came);
        }
        Ok(answer)
    }

    /// Counts and digests `count` bytes as they come, without keeping them.
    ///
    /// # Errors
    /// Fewer came.
    pub fn digest(&mut self, count: usize) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let mut left = count;
        while left > 0 {
            if self.came.is_empty() {
                ensure!(self.more()?, "the connection ended with {left} bytes to come");
            }
            let take = left.min(self.came.len());
            hasher.update(&self.came[..take]);
            self.came.drain(..take);
            left -= take;
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Everything that still comes, and how it ended: `eof`, `cut` (no close_notify), `reset`, or an error's text.
    ///
    /// # Errors
    /// It doesn't end.
    pub fn rest(self) -> Result<(Vec<u8>, String)> {
        let (came, end, _) = self.rest_and_when()?;
        Ok((came, end))
    }

    /// The same, and when the client saw that end: before it ended itself, with its workload.
    ///
    /// # Errors
    /// As [`Wire::rest`].
    pub fn rest_and_when(mut self) -> Result<(Vec<u8>, String, Instant)> {
        while self.more()? {}
        let (end, at) = self.ended()?;
        Ok((std::mem::take(&mut self.came), end, at))
    }

    /// How it ended, and when, once nothing more comes.
    fn ended(&mut self) -> Result<(String, Instant)> {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the client doesn't end");
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(telling) = self.telling.take() {
            // A panic on its thread has been printed there.
            let _ = telling.join();
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let end = told.iter().rev().find_map(|(at, line)| Some((line.strip_prefix("end: ")?.to_owned(), *at)));
        Ok(end.unwrap_or_else(|| (format!("no end told: {told:?}"), Instant::now())))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.input = None;
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
