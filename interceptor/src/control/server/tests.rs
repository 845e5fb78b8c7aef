//! The whole walk over a real socket, with a daemon that notes what it was asked.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as Stream;

use serde_json::json;

use super::*;
use crate::control::client::{self, ClientError};
use crate::control::protocol::Run;
use crate::control::{SocketError, bind};

#[derive(Default)]
struct Notes {
    asked: Mutex<Vec<(String, bool, usize)>>,
    refused: Mutex<Vec<(String, String)>>,
}

impl Host for Notes {
    fn answer(&self, caller: Caller, request: Request, descriptors: Vec<OwnedFd>) -> Answering<'_> {
        self.asked.lock().unwrap().push((request.name().into(), caller.operator, descriptors.len()));
        Box::pin(async move {
            match request {
                Request::Status => Answer::done(json!({ "uid": caller.peer.uid })),
                Request::Run(_) => {
                    Answer { descriptor: descriptors.into_iter().next(), ..Answer::done(json!({ "channel": true })) }
                }
                Request::PolicyShow => Answer::done(json!("x".repeat(wire::FRAME))),
                _ => Answer::refused("not-here", "nothing here", "look elsewhere"),
            }
        })
    }

    fn governs(&self, _cgroup: &Path) -> bool {
        false
    }

    fn roles(&self) -> Control {
        Control::default()
    }

    fn refused(&self, _peer: &Peer, request: &str, code: &str) {
        self.refused.lock().unwrap().push((request.into(), code.into()));
    }
}

struct Served {
    folder: tempfile::TempDir,
    notes: Arc<Notes>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn start(workloads: &str) -> Served {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let listener = bind(&folder.path().join("control.sock"), 0o666, None).unwrap();
        let notes = Arc::new(Notes::default());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (host, workloads) = (notes.clone(), PathBuf::from(workloads));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, workloads, host, async { drop(stopped.await) })).unwrap();
        });
        Served { folder, notes, stop: Some(stop), thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn code(result: Result<serde_json::Value, ClientError>) -> String {
    match result {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_answered() {
    let served = Served::start("/no/such/cgroup");
    let value = client::call(&served.socket(), &Request::Status).unwrap();
    assert_eq!(value["uid"], nix::unistd::geteuid().as_raw());
    assert_eq!(served.notes.asked.lock().unwrap()[0], ("status".into(), nix::unistd::geteuid().is_root(), 0));
}

#[test]
fn from_inside_a_workload_everything_is_refused_and_noted() {
    let served = Served::start("/");
    for request in [Request::Status, Request::PolicyReload] {
        let error = client::call(&served.socket(), &request).unwrap_err();
        assert!(error.to_string().contains("governed process"), "{error}");
    }
    // Also one that is larger than the socket's buffer, and is refused before it can be sent.
    let run = Run { workload: None, user: None, tty: None, argv: vec![vec![b'a'; 1 << 20]], env: vec![] };
    assert_eq!(code(client::call(&served.socket(), &Request::Run(run))), "inside-workload");
    assert!(served.notes.asked.lock().unwrap().is_empty());
    assert_eq!(served.notes.refused.lock().unwrap()[..], vec![("any".to_owned(), "inside-workload".to_owned()); 3]);
}

#[test]
fn a_run_brings_three_descriptors_and_gets_one() {
    let served = Served::start("/no/such/cgroup");
    let (reader, writer) = std::io::pipe().unwrap();
    let run = Request::Run(Run { workload: None, user: None, tty: None, argv: vec![b"true".to_vec()], env: vec![] });
    let (value, descriptors) =
        client::call_with(&served.socket(), &run, &[writer.as_fd(), writer.as_fd(), writer.as_fd()]).unwrap();
    assert_eq!((value, descriptors.len()), (json!({ "channel": true }), 1));
    drop((writer, descriptors));
    assert_eq!(std::io::Read::read(&mut { reader }, &mut [0]).unwrap(), 0, "the daemon closed what it got");
    let two = client::call_with(&served.socket(), &run, &[std::io::stdin().as_fd(), std::io::stdin().as_fd()]);
    assert_eq!(code(two.map(|(value, _)| value)), "bad-request");
    let none = client::call_with(&served.socket(), &Request::Status, &[std::io::stdin().as_fd()]);
    assert_eq!(code(none.map(|(value, _)| value)), "bad-request");
}

#[test]
fn what_is_no_request_is_refused() {
    let served = Served::start("/no/such/cgroup");
    for bytes in [&b"{}"[..], b"nonsense", br#"{"request":"sessions-list"}"#, br#"{"request":"launch"}"#, b""] {
        let stream = Stream::connect(served.socket()).unwrap();
        wire::send(&stream, bytes, &[]).unwrap();
        let (payload, _) = wire::receive(&stream, 0).unwrap();
        let response: Response = serde_json::from_slice(&payload).unwrap();
        assert!(matches!(response, Response::Refused { code, .. } if code == "bad-request"));
    }
    let mut stream = Stream::connect(served.socket()).unwrap();
    stream.write_all(&[0xff; 8]).unwrap();
    assert!(String::from_utf8(wire::receive(&stream, 0).unwrap().0).unwrap().contains("too long"));
    assert!(served.notes.asked.lock().unwrap().is_empty());
}

#[test]
fn an_answer_that_is_too_large_is_said_to_be() {
    let served = Served::start("/no/such/cgroup");
    if nix::unistd::geteuid().is_root() {
        assert_eq!(code(client::call(&served.socket(), &Request::PolicyShow)), "answer-too-large");
    }
}

#[test]
fn others_may_run_and_see_the_status_only_and_hold_few_connections() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let served = Served::start("/no/such/cgroup");
    let script = r#"
import json, os, socket, struct, sys
os.setgroups([]); os.setgid(61234); os.setuid(61234)
def connect():
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); return s
def ask(s, request):
    data = json.dumps(request).encode(); s.sendall(struct.pack(">I", len(data)) + data)
def answer(s):
    return json.loads(s.makefile("rb").read()[4:])
for request in sys.argv[2:]:
    s = connect(); ask(s, {"request": request}); print(answer(s).get("refused", {}).get("code", "done"))
held = [connect() for _ in range(16)]
print(answer(connect())["refused"]["code"])
held.pop().close()
import time
# Its end is seen a moment later.
for _ in range(100):
    s = connect(); ask(s, {"request": "status"}); said = answer(s)
    if "done" in said: break
    time.sleep(0.02)
print("done" if "done" in said else "refused")
"#;
    let verbs = ["status", "workloads", "policy-reload", "policy-show", "sessions-verify"];
    let output =
        std::process::Command::new("python3").arg("-c").arg(script).arg(served.socket()).args(verbs).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = printed.lines().collect();
    let no = "not-an-operator";
    assert_eq!(lines, ["done", no, no, no, no, "busy", "done"], "{}", String::from_utf8_lossy(&output.stderr));
    let refused = served.notes.refused.lock().unwrap();
    assert_eq!(refused[0], ("workloads".to_owned(), no.to_owned()));
    assert_eq!(refused.len(), 4);
}

#[test]
fn a_silent_peer_is_given_up() {
    let served = Served::start("/no/such/cgroup");
    let stream = Stream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    let (payload, _) = wire::receive(&stream, 0).unwrap();
    assert!(String::from_utf8(payload).unwrap().contains("no request within"));
}

#[test]
fn a_socket_is_replaced_only_when_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/control.sock");
    let first = bind(&path, 0o666, None).unwrap();
    assert!(matches!(bind(&path, 0o666, None), Err(SocketError::Answered(_))));
    drop(first);
    let _second = bind(&path, 0o600, None).unwrap();
    let found = std::fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o755);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(bind(&file, 0o666, None), Err(SocketError::NotASocket(_))));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn nobody_there_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    for _ in 0..2 {
        let error = client::call(&path, &Request::Status).unwrap_err();
        assert!(matches!(error, ClientError::NotRunning(_)));
        assert!(error.to_string().contains("start it (`interceptor daemon` as root)"), "{error}");
        drop(bind(&path, 0o666, None).unwrap());
    }
}

#[test]
fn one_user_with_many_uids_leaves_room_for_operators() {
    let seats = Arc::new(Seats::default());
    let mut taken: Vec<_> =
        (0..100_u32).flat_map(|uid| (0..PER_USER).map_while(|_| seats.take(uid)).collect::<Vec<_>>()).collect();
    assert!(taken.len() == ALL_USERS && taken.len() < CONNECTIONS);
    assert!(seats.take(1_000).is_none());
    taken.pop();
    assert!(seats.take(1_000).is_some());
}
