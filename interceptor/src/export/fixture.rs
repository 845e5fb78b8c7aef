//! A receiver for tests: TLS on loopback under a certificate of its own, which takes posts or syslog and answers as it is
//! told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::Dialing;
use crate::config::{BatchFormat, ExportSettings, SinkSettings, Upstream};
use crate::transport::dial::Dialer;
use crate::transport::trust::Roots;

/// What a connection does.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// The HTTP status and body.
    Http(u16, &'static str),
    /// Ends the connection without a word, before anything was read.
    Gone,
    /// Reads all and ends the connection: syslog.
    End,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Got {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// A receiver that gives these answers, one for each connection, and then the last one again and again.
    pub(crate) fn start(answers: &[Answer]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(
            folder.path().join("ca.pem"),
            pem::encode(&pem::Pem::new("CERTIFICATE", made.cert.der().to_vec())),
        )
        .expect("the root");
        let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .expect("a configuration");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        listener.set_nonblocking(true).expect("it doesn't block");
        let address = listener.local_addr().expect("an address");
        let (got, answers) = (Arc::default(), Arc::new(Mutex::new(answers.iter().cloned().collect())));
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&got), Arc::clone(&answers));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, folder, got, answers, stop: Some(stop), thread: Some(thread) }
    }

    /// Its root.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What it got so far.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// From now on it answers so.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.answers.lock().unwrap() = VecDeque::from([answer]);
    }

    /// The settings of a sink that posts here.
    pub(crate) fn http(&self, format: BatchFormat) -> ExportSettings {
        let url = format!("https://localhost:{}/in?source=interceptor", self.address.port());
        self.sink(SinkSettings::Http { url, format, bearer: None })
    }

    /// The settings of a sink that is verified against its root.
    pub(crate) fn sink(&self, sink: SinkSettings) -> ExportSettings {
        ExportSettings { name: "siem".parse().unwrap(), sink, ca: Some(self.ca()) }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// Dials as upstreams are dialled, by which no receiver here is trusted.
pub(crate) fn dialing() -> Dialing {
    let upstream = Upstream {
        resolve: [("localhost".parse().unwrap(), "127.0.0.1:0".parse().unwrap())].into(),
        ..Upstream::default()
    };
    let dialer = Dialer::with_roots(&upstream, &Roots::load(&upstream).unwrap()).unwrap();
    let dialer = Arc::new(dialer);
    Arc::new(move || Arc::clone(&dialer))
}

async fn serve(
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    while let Ok((socket, _)) = listener.accept().await {
        let answer = {
            let mut answers = answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
        };
        let Ok(mut stream) = tls.accept(socket).await else { continue };
        let mut all = Vec::new();
        let mut part = [0; 4096];
        match answer.expect("an answer") {
            Answer::Gone => {}
            Answer::End => {
                let read = stream.read_to_end(&mut all).await;
                if read.is_ok() {
                    got.lock().unwrap().push(Got { head: String::new(), body: all });
                }
                let _ended = stream.shutdown().await;
            }
            Answer::Http(status, body) => {
                let (head, rest) = loop {
                    if let Some(at) = all.windows(4).position(|four| four == b"\r\n\r\n") {
                        break (String::from_utf8_lossy(&all[..at]).into_owned(), at + 4);
                    }
                    match stream.read(&mut part).await {
                        Ok(read) if read > 0 => all.extend_from_slice(&part[..read]),
                        _ => return,
                    }
                };
                let length = head.to_ascii_lowercase().lines().find_map(|line| {
                    line.strip_prefix("content-length: ").and_then(|length| length.parse::<usize>().ok())
                });
                while all.len() - rest < length.unwrap_or(0) {
                    match stream.read(&mut part).await {
                        Ok(read) if read > 0 => all.extend_from_slice(&part[..read]),
                        _ => return,
                    }
                }
                let body_got = all[rest..].to_vec();
                got.lock().unwrap().push(Got { head, body: body_got });
                let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _told = stream.write_all(answer.as_bytes()).await;
                let _ended = stream.shutdown().await;
            }
        }
    }
}
