//! Bringing settings and policies into force as one world: at start, by `policy reload`, and by SIGHUP. What can't be
//! loaded leaves the last good world in force; at start it means no traffic.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::tz::TimeZone;
use tokio::sync::watch;

use super::launches::Launches;
use crate::clock::Clock;
use crate::config::{self, ConfigError, Settings, Trust};
use crate::control::protocol::Reloaded;
use crate::mask::BadRule;
use crate::notify::{Notifier, NotifyError};
use crate::pipeline::{Masking, World};
use crate::policy::{PolicyErrors, Snapshot, Source};
use crate::record::event::What;
use crate::record::{Event, Journal, RecordError};
use crate::transport::dial::Dialer;
use crate::transport::trust::TrustError;
use crate::vault::Vault;

/// How wide faults are drawn; an answer doesn't know its reader's terminal.
const WIDTH: usize = 110;

/// The daemon's own journal, for what isn't a connection's.
#[derive(Clone)]
pub(super) struct OwnJournal {
    journal: Arc<Mutex<Journal>>,
    clock: Arc<dyn Clock>,
}

impl OwnJournal {
    pub(super) fn new(journal: Journal, clock: Arc<dyn Clock>) -> Self {
        Self { journal: Arc::new(Mutex::new(journal)), clock }
    }

    /// Records what must be in the record before it is done.
    ///
    /// # Errors
    /// When it can't be stored: then it isn't to be done.
    pub(super) fn record(&self, what: What) -> Result<(), RecordError> {
        let event = Event { at: self.clock.now(), what };
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).append(&event).map(|_recorded| ())
    }

    /// Records what has happened already; what can't be stored is told to the operator.
    pub(super) fn note(&self, what: What) {
        if let Err(error) = self.record(what) {
            tracing::error!(%error, "an event could not be recorded");
        }
    }

    /// The time.
    pub(super) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }
}

/// Why a world was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("{}", underlined(.0))]
    Config(ConfigError),
    #[error("{}", .0.render(false, WIDTH))]
    Policy(PolicyErrors),
    #[error("upstreams can't be verified: {0}")]
    Trust(TrustError),
    #[error("{0}")]
    Masks(BadRule),
    #[error("{0}")]
    Notify(NotifyError),
    #[error("it can't be recorded: {0}")]
    Record(RecordError),
}

impl LoadError {
    /// The first line of it: place and what was expected.
    fn headline(&self) -> String {
        match self {
            LoadError::Config(error) => match error.mistakes().first() {
                Some(mistake) => mistake.to_string(),
                None => error.to_string(),
            },
            LoadError::Policy(errors) => errors.faults().first().map(ToString::to_string).unwrap_or_default(),
            LoadError::Trust(_) | LoadError::Masks(_) | LoadError::Notify(_) | LoadError::Record(_) => self.to_string(),
        }
    }
}

fn underlined(error: &ConfigError) -> String {
    let theme = miette::GraphicalTheme::unicode_nocolor();
    let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(WIDTH);
    let mut text = String::new();
    match handler.render_report(&mut text, error) {
        Ok(()) => text,
        Err(fmt::Error) => error.to_string(),
    }
}

/// Loads the first world of this start, as generation `generation`. Policies that can't be loaded mean that everything is denied until they are.
///
/// # Errors
/// When upstreams can't be verified, or the load can't be recorded.
pub(super) fn first(
    settings: &Arc<Settings>,
    generation: u64,
    journal: &OwnJournal,
) -> Result<World, super::DaemonError> {
    let vault = Arc::new(Vault::new(&settings.targets));
    let dialer = Arc::new(Dialer::new(&settings.upstream)?.with_vault(Arc::clone(&vault)));
    let masking = Arc::new(Masking::new(settings)?);
    let snapshot = match snapshot(settings, generation) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::error!("the policies were refused, so everything is denied:\n{error}");
            journal.record(What::SnapshotRejected { error: error.headline(), by: None })?;
            Snapshot::sealed(Arc::clone(settings), error.headline(), generation)
        }
    };
    journal.record(loaded(&snapshot, None))?;
    Ok(World { snapshot: Arc::new(snapshot), dialer, vault, masking })
}

fn snapshot(settings: &Arc<Settings>, generation: u64) -> Result<Snapshot, LoadError> {
    let read = |sources: Result<Vec<_>, _>| match sources {
        Ok(sources) => Ok(sources.into_iter().map(|(name, text)| Source { name, text }).collect()),
        Err(error) => Err(LoadError::Config(error)),
    };
    let sources = read(config::policy_sources(&settings.paths.policy, Trust::Daemon))?;
    let break_glass = read(config::break_glass_sources(&settings.paths.break_glass, Trust::Daemon))?;
    let snapshot =
        Snapshot::load_with(Arc::clone(settings), sources, break_glass, generation).map_err(LoadError::Policy)?;
    for warning in snapshot.warnings() {
        tracing::warn!(%warning, "a policy can't do what it says");
    }
    Ok(snapshot.in_zone(TimeZone::system()))
}

fn loaded(snapshot: &Snapshot, by: Option<u32>) -> What {
    What::SnapshotLoaded {
        generation: snapshot.generation,
        digest: snapshot.digest().to_owned(),
        sources: snapshot.sources().iter().map(|source| (source.name.clone(), source.text.clone())).collect(),
        by,
    }
}

/// Loads worlds and brings them into force.
pub(super) struct Loader {
    /// As they were at start: what is read at start only stays so.
    started_with: Arc<Settings>,
    worlds: watch::Sender<Arc<World>>,
    journal: OwnJournal,
    launches: Arc<Launches>,
    notifier: Arc<Notifier>,
    /// Why the last load was refused, if it was. Held for the whole of a load: one at a time.
    refused: Mutex<Option<String>>,
}

impl Loader {
    pub(super) fn new(
        started_with: Arc<Settings>,
        worlds: watch::Sender<Arc<World>>,
        journal: OwnJournal,
        launches: Arc<Launches>,
        notifier: Arc<Notifier>,
    ) -> Self {
        Self { started_with, worlds, journal, launches, notifier, refused: Mutex::default() }
    }

    /// Loads settings and policies, and brings them into force: live connections see it at once. Blocks for
    /// milliseconds.
    ///
    /// # Errors
    /// When the files can't be used; then nothing has changed, and that is recorded.
    pub(super) fn reload(&self, by: Option<u32>) -> Result<Reloaded, LoadError> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.load(by);
        *refused = result.as_ref().err().map(LoadError::headline);
        if let Err(error) = &result {
            self.journal.note(What::SnapshotRejected { error: error.headline(), by });
        }
        result
    }

    /// Why the last load was refused, if it was.
    pub(super) fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records once more what is in force.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(super) fn tell(&self, by: Option<u32>) -> Result<(), RecordError> {
        self.journal.record(loaded(&self.world().snapshot, by))
    }

    /// The world in force.
    pub(super) fn world(&self) -> Arc<World> {
        Arc::clone(&self.worlds.borrow())
    }

    fn load(&self, by: Option<u32>) -> Result<Reloaded, LoadError> {
        let mut settings = Settings::load_trusted(&self.started_with.paths.config).map_err(LoadError::Config)?;
        let restart_needed_for = self.keep_what_started(&mut settings);
        let settings = Arc::new(settings);
        let vault = Arc::new(Vault::new(&settings.targets));
        let dialer = Dialer::new(&settings.upstream).map_err(LoadError::Trust)?;
        let dialer = Arc::new(dialer.with_vault(Arc::clone(&vault)));
        let masking = Arc::new(Masking::new(&settings).map_err(LoadError::Masks)?);
        let channels = self.notifier.prepare(&settings, &dialer).map_err(LoadError::Notify)?;
        let snapshot = Arc::new(snapshot(&settings, self.world().snapshot.generation + 1)?);
        self.journal.record(loaded(&snapshot, by)).map_err(LoadError::Record)?;
        let now = snapshot.in_force();
        let warnings = snapshot.warnings().iter().map(ToString::to_string).collect();
        self.worlds.send_replace(Arc::new(World { snapshot, dialer, vault, masking }));
        let not_adopted = self.launches.follow(&settings).err().map(|error| error.to_string());
        self.notifier.apply(channels);
        Ok(Reloaded { now, restart_needed_for, not_adopted, warnings })
    }

    /// Puts back what only a start can change, and tells what that was.
    fn keep_what_started(&self, settings: &mut Settings) -> Vec<String> {
        let mut changed = Vec::new();
        let mut paths = self.started_with.paths.clone();
        paths.policy.clone_from(&settings.paths.policy);
        paths.break_glass.clone_from(&settings.paths.break_glass);
        if settings.paths != paths {
            changed.push("paths".into());
            settings.paths = paths;
        }
        if settings.cgroup != self.started_with.cgroup {
            changed.push("cgroup".into());
            settings.cgroup.clone_from(&self.started_with.cgroup);
        }
        if settings.exports != self.started_with.exports {
            changed.push("export".into());
            settings.exports.clone_from(&self.started_with.exports);
        }
        if settings.record != self.started_with.record {
            changed.push("record".into());
            settings.record = self.started_with.record.clone();
        }
        changed
    }
}
