//! The main job, told as it happens: an ordinary MCP client, an ordinary MCP server, an API, and Interceptor between
//! them. Exit status 0 only if every outcome was the expected one and nothing is left behind. `--keep` leaves it running
//! until Ctrl-C. What is done is in [`story`], with what in [`scene`], how it is printed in [`page`].

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::entra::Entra;
use interceptor_tests::graph::Graph;
use page::Page;
use tokio::signal::unix::{Signal, SignalKind, signal};

mod client;
mod page;
mod scene;
mod story;

fn main() -> ExitCode {
    let page = Page::open();
    match run(&page) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            page.failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(page: &Page) -> Result<()> {
    let keep = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [option] if option == "--keep" => true,
        [option, ..] => bail!("`{option}` isn't an option: the only one is --keep"),
    };
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo makes namespaces and loads eBPF, which needs root: run it with sudo");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // From here on Ctrl-C doesn't end the process: the story is dropped, and with it all that it started.
        let mut ends = Ends::watch()?;
        // Set once the whole story went as expected and only waits to be ended.
        let told_well = Arc::new(AtomicBool::new(false));
        let mut telling = tokio::spawn(tell(page.clone(), keep, Arc::clone(&told_well)));
        tokio::select! {
            told = &mut telling => told.context("the demo broke off")?,
            () = ends.wait() => {
                page.note("stopping, and removing everything …");
                telling.abort();
                match telling.await {
                    Err(stopped) if stopped.is_cancelled() && told_well.load(Ordering::Relaxed) => page.verdict(0),
                    Err(stopped) if stopped.is_cancelled() => bail!("stopped before all had gone as expected; nothing is left behind"),
                    other => other.context("it couldn't be ended in order")?,
                }
            }
        }
    })
}

async fn tell(page: Page, keep: bool, told_well: Arc<AtomicBool>) -> Result<()> {
    page.title();
    let (graph, entra) = (Graph::start(&[scene::TICKETS])?, Entra::start(&[])?);
    let vault = scene::vault()?;
    let daemon = tokio::task::block_in_place(|| Daemon::start(&scene::order(&graph, &entra, vault.path())))?;
    let mut story = story::Story::begin(page.clone(), (graph, entra, vault), daemon).await?;
    let wrong = story.tell().await?;
    if keep {
        told_well.store(wrong == 0, Ordering::Relaxed);
        story.stay().await;
    }
    story.end().await?;
    page.verdict(wrong)
}

/// The signals that end the demo.
struct Ends([Signal; 3]);

impl Ends {
    fn watch() -> Result<Self> {
        let watch = |kind| signal(kind).context("can't watch for signals");
        Ok(Self([watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?, watch(SignalKind::hangup())?]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
