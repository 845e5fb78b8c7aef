//! A client under load: it asks for one URL after another on several connections until its input ends, and tells how it
//! went whenever a line comes in. `load HOST TASKS`; each path is asked for once: `/v1.0/users/load-TASK-NUMBER`.
//!
//! A line `count` is answered with how many requests were answered so far; `connect ADDRESS:PORT` with `ok` or the
//! error's number.

use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Client;

/// How long a task rests after a failure: a daemon that is down refuses at once.
const REST: Duration = Duration::from_millis(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().ok_or("which host?")?;
    let tasks: u32 = arguments.next().ok_or("how many tasks?")?.parse()?;
    let answered = Arc::new(AtomicU64::new(0));
    for task in 0..tasks {
        // A client of its own has connections of its own.
        let client = Client::builder().timeout(Duration::from_secs(5)).build()?;
        tokio::spawn(ask(client, host.clone(), task, Arc::clone(&answered)));
    }
    tokio::task::spawn_blocking(move || tell(&host, &answered)).await??;
    Ok(())
}

async fn ask(client: Client, host: String, task: u32, answered: Arc<AtomicU64>) {
    for number in 0_u64.. {
        let answer = client.get(format!("https://{host}/v1.0/users/load-{task}-{number}")).send().await;
        let whole = match answer {
            Ok(answer) => answer.bytes().await.is_ok(),
            Err(_refused_or_cut) => false,
        };
        if whole {
            answered.fetch_add(1, Ordering::Relaxed);
        } else {
            tokio::time::sleep(REST).await;
        }
    }
}

fn tell(host: &str, answered: &AtomicU64) -> io::Result<()> {
    // Looked up while somebody answers.
    let looked_up: Vec<SocketAddr> = (host, 443).to_socket_addrs()?.collect();
    for line in io::stdin().lock().lines() {
        let said = match line?.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["count"] => answered.load(Ordering::Relaxed).to_string(),
            ["connect", "host"] => looked_up.iter().map(connect).collect::<Vec<_>>().join(" "),
            ["connect", address] => address.parse().as_ref().map_or("no address".into(), connect),
            other => format!("unknown: {other:?}"),
        };
        writeln!(io::stdout(), "{said}")?;
    }
    Ok(())
}

fn connect(address: &SocketAddr) -> String {
    match TcpStream::connect_timeout(address, Duration::from_secs(2)) {
        Ok(_) => "ok".into(),
        Err(error) => error.raw_os_error().map_or_else(|| error.to_string(), |number| number.to_string()),
    }
}
