//! An upstream that does what a script says, also what no server should: each connection is a thread that runs it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How long a peer may be silent in the midst of a request.
const PATIENCE: Duration = Duration::from_secs(30);

/// The upstream; takes no more connections once it is dropped.
pub struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    came: Mutex<Vec<u8>>,
    connections: AtomicU64,
    stopped: AtomicBool,
}

/// A connection, as the script sees it.
pub struct Peer {
    stream: Box<StreamOwned<ServerConnection, TcpStream>>,
    shared: Arc<Shared>,
    /// Which connection it is, from 1.
    pub number: u64,
}

impl Scripted {
    /// Starts it on a free port of 127.0.0.1, with these TLS settings.
    ///
    /// # Errors
    /// There is no port or thread to be had.
    pub fn start(
        tls: Arc<ServerConfig>,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("scripted".into()).spawn(move || {
            for stream in listener.incoming() {
                if theirs.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (tls, script, shared) = (Arc::clone(&tls), Arc::clone(&script), Arc::clone(&theirs));
                // A client that breaks off ends the script, and that is all.
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || serve(stream, tls, shared, &*script));
            }
        })?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every byte that came, of all connections.
    pub fn came(&self) -> Vec<u8> {
        self.shared.came.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections came.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // The listener waits for one more.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            // A panic on its thread has been printed there.
            let _ = thread.join();
        }
    }
}

fn serve(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    script: &dyn Fn(&mut Peer) -> io::Result<()>,
) -> io::Result<()> {
    let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut peer = Peer { stream: Box::new(StreamOwned::new(connection, stream)), shared, number };
    script(&mut peer)
}

impl Peer {
    /// Reads a request with the body that its `Content-Length` announces.
    ///
    /// # Errors
    /// The client is gone.
    pub fn request(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte()?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        for _ in 0..length.unwrap_or(0) {
            self.byte()?;
        }
        Ok(head)
    }

    /// Reads one byte.
    ///
    /// # Errors
    /// The client is gone.
    pub fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        self.shared.came.lock().unwrap_or_else(PoisonError::into_inner).push(byte[0]);
        Ok(byte[0])
    }

    /// Sends.
    ///
    /// # Errors
    /// The client is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Closes in order, as TLS wants it.
    ///
    /// # Errors
    /// The client is gone.
    pub fn close(&mut self) -> io::Result<()> {
        self.stream.conn.send_close_notify();
        self.stream.flush()?;
        self.stream.sock.shutdown(Shutdown::Write)
    }
}
