//! Telling people that they are asked, and what came of it: by signed webhooks, chats, or a command (`[[notify]]`). Nothing
//! waits for it and nothing is decided by it: what is told is in the record already, and what can't be told is tried again
//! for a while and then recorded as that. Not here: who may answer (`approve`), how a connection is dialled (`transport`).

mod body;
mod channel;
mod command;
mod deliver;
mod notice;
mod post;
mod sign;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::{Identities, NotifySettings, NotifyWay, Settings};
use crate::ids::ChannelName;
use crate::policy::Grant;
use crate::record::event::{ApprovalRequest, What};
use crate::transport::dial::Dialer;
use crate::transport::fetch::Fetcher;
use crate::transport::trust::{Roots, TrustError};
use channel::{Channel, Setting};
use command::Hook;
use deliver::Deliver;
use notice::{Memory, Notice};
use post::Post;

pub use channel::Report;
pub use deliver::Undelivered;

/// Why channels can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The roots of a receiver can't be used.
    #[error("the roots of the channel `{name}` can't be used: {source}")]
    Roots {
        /// The channel.
        name: ChannelName,
        /// What is wrong.
        source: TrustError,
    },
}

/// How a channel is doing, for `status` and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelState {
    /// Its name.
    pub name: ChannelName,
    /// How many notifications wait.
    pub waiting: usize,
    /// Why the last try failed; none if it didn't.
    pub failing: Option<String>,
}

/// Channels that are ready, and not in force yet.
pub struct Prepared {
    channels: Vec<(ChannelName, Setting)>,
    identities: Identities,
}

/// Tells people. Its channels are tasks of the runtime that it was made on.
pub struct Notifier {
    state: Mutex<State>,
    dialing: Arc<dyn Fn() -> Arc<Dialer> + Send + Sync>,
    clock: Arc<dyn Clock>,
    report: Report,
    runtime: Handle,
}

struct State {
    memory: Memory,
    identities: Identities,
    channels: Vec<Arc<Channel>>,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

impl Notifier {
    /// One without channels. `dialing` gives the dialler of the moment, `report` takes down what nobody was told.
    pub fn new(
        dialing: Arc<dyn Fn() -> Arc<Dialer> + Send + Sync>,
        clock: Arc<dyn Clock>,
        report: Report,
        runtime: Handle,
    ) -> Self {
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let state = State { memory: Memory::new(host), identities: Identities::default(), channels: Vec::new() };
        Self { state: Mutex::new(state), dialing, clock, report, runtime }
    }

    /// Makes the channels of `settings` ready; `dialer` is the one that comes into force with them.
    ///
    /// # Errors
    /// When a receiver's roots can't be read.
    pub fn prepare(&self, settings: &Settings, dialer: &Dialer) -> Result<Prepared, NotifyError> {
        let ready = |channel: &NotifySettings| {
            let way: Box<dyn Deliver> = match &channel.way {
                NotifyWay::Command { words, uid, gid } => Box::new(Hook::new(words.clone(), *uid, *gid)),
                NotifyWay::Post { form, place, secret, ca } => {
                    let fetcher = match ca {
                        None => {
                            let dialing = Arc::clone(&self.dialing);
                            Fetcher::new(move || dialing())
                        }
                        Some(ca) => {
                            let failed = |source| NotifyError::Roots { name: channel.name.clone(), source };
                            let roots = Roots::only(ca).map_err(failed)?;
                            let own = Arc::new(dialer.verifying(&roots).map_err(failed)?);
                            Fetcher::new(move || Arc::clone(&own))
                        }
                    };
                    Box::new(Post { fetcher, form: *form, place: place.clone(), secret: secret.clone() })
                }
            };
            Ok((channel.name.clone(), Setting { on: channel.on.clone(), groups: channel.groups.clone(), way }))
        };
        let channels = settings.notify.iter().map(ready).collect::<Result<_, NotifyError>>()?;
        Ok(Prepared { channels, identities: settings.identities.clone() })
    }

    /// Brings channels into force. One that keeps its name keeps what waits.
    pub fn apply(&self, prepared: Prepared) {
        let mut state = self.state();
        state.identities = prepared.identities;
        let mut before = std::mem::take(&mut state.channels);
        for (name, setting) in prepared.channels {
            let channel = match before.iter().position(|channel| channel.name == name) {
                Some(at) => {
                    let channel = before.swap_remove(at);
                    channel.change(setting);
                    channel
                }
                None => {
                    let channel = Arc::new(Channel::new(name, setting));
                    self.runtime.spawn(Arc::clone(&channel).run(Arc::clone(&self.clock), Arc::clone(&self.report)));
                    channel
                }
            };
            state.channels.push(channel);
        }
        before.iter().for_each(|channel| channel.close());
    }

    /// Tells of an event that is in the record, where anybody is told of such. Never waits.
    pub fn recorded(&self, at: Timestamp, what: &What) {
        let mut state = self.state();
        let State { memory, identities, channels } = &mut *state;
        let Some(notice) = memory.notice(at, what, identities) else { return };
        let notice = Arc::new(notice);
        channels.iter().for_each(|channel| channel.put(&notice));
    }

    /// Remembers what an earlier daemon asked about, for what is told of it later.
    pub fn remember(&self, request: &ApprovalRequest) {
        self.state().memory.approval(request);
    }

    /// Remembers a grant of an earlier daemon.
    pub fn remember_grant(&self, grant: &Grant) {
        self.state().memory.grant(grant);
    }

    /// How the channels are doing, in the order of the configuration.
    pub fn states(&self) -> Vec<ChannelState> {
        let state = |channel: &Arc<Channel>| {
            let (waiting, failing) = channel.doing();
            ChannelState { name: channel.name.clone(), waiting, failing }
        };
        self.state().channels.iter().map(state).collect()
    }

    /// Tells one channel that this is a test, once and at once, and gives what its receiver said; none if there is no
    /// such channel. Blocks for as long as a try may take: not for a task of the runtime.
    pub fn test(&self, name: &str) -> Option<Result<String, Undelivered>> {
        let (channel, notice) = {
            let state = self.state();
            let channel = state.channels.iter().find(|channel| channel.name.as_str() == name).map(Arc::clone)?;
            (channel, Notice::test(name, state.memory.host(), self.clock.now()))
        };
        Some(self.runtime.block_on(channel.attempt(&notice, &*self.clock)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
