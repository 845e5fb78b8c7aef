//! A server with one single-threaded runtime per core: connections go round the threads in turn, and stay where they are.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::rc::Rc;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::LocalSet;

/// How many connections may wait for a thread.
const WAITING: usize = 1024;

/// Listens on a free port of 127.0.0.1, prints it, and serves until it is killed. `make` is called once on each thread.
pub(crate) fn serve<S, F>(threads: usize, make: impl Fn() -> S + Clone + Send + 'static) -> Result<()>
where
    S: Fn(TcpStream) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("can't listen")?;
    let mut queues = Vec::new();
    for number in 0..threads.max(1) {
        let (queue, connections) = channel(WAITING);
        queues.push(queue);
        let make = make.clone();
        std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || work(connections, &make))?;
    }
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    io::stdout().flush()?;
    for queue in queues.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        queue.blocking_send(stream).context("a thread has ended")?;
    }
    Ok(())
}

fn work<S, F>(mut connections: Receiver<std::net::TcpStream>, make: &impl Fn() -> S) -> Result<()>
where
    S: Fn(TcpStream) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = Rc::new(make());
    LocalSet::new().block_on(&runtime, async move {
        while let Some(stream) = connections.recv().await {
            let serve = Rc::clone(&serve);
            tokio::task::spawn_local(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    serve(stream).await;
                }
            });
        }
    });
    Ok(())
}
