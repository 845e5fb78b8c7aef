//! What Docker and Podman say of a container that is a cgroup: its labels and its image. Read from their own files, which
//! are root's; a container that isn't found there is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use serde::Deserialize;

/// How long Podman may have its database locked.
const PATIENCE: Duration = Duration::from_millis(20);

/// As many images are remembered.
const IMAGES: usize = 1_024;

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Container {
    labels: BTreeMap<String, String>,
    /// The digest of its image.
    pub(super) image: Option<String>,
}

impl Container {
    /// Whether it has a label: `key=value`, or `key` whatever its value.
    pub(super) fn has(&self, label: &str) -> bool {
        match label.split_once('=') {
            Some((key, value)) => self.labels.get(key).is_some_and(|found| found == value),
            None => self.labels.contains_key(label),
        }
    }
}

/// Where the engines keep what they know, and what was found there.
#[derive(Debug, Clone)]
pub struct Engines {
    docker: PathBuf,
    podman: PathBuf,
    /// Of the containers that are there, by id. Neither labels nor image of a container ever change.
    found: Arc<Mutex<BTreeMap<String, Container>>>,
    /// Images of containers that are adopted by their cgroups, by id.
    images: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Engines {
    /// The engines that keep their data in these folders: Docker's `data-root`, Podman's `graphroot`.
    pub fn new(docker: PathBuf, podman: PathBuf) -> Self {
        Self { docker, podman, found: Arc::default(), images: Arc::default() }
    }

    /// The containers that these cgroups are, as far as an engine knows them.
    ///
    /// # Errors
    /// Of each of which that can't be read now, why: nothing follows of it from that.
    pub(super) fn find_all(&self, paths: &[&str]) -> Vec<io::Result<Option<Container>>> {
        let mut podman_writes = None;
        let find = |path: &&str| {
            if let Some(known) = self.known(path) {
                return Ok(Some(known));
            }
            let of_podman = matches!(engine_and_id(path), Some((Engine::Podman, _)));
            // A database that is locked was waited for already.
            if let Some(why) = podman_writes.as_ref().filter(|_| of_podman) {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, String::clone(why)));
            }
            self.find(path).inspect_err(|error| {
                if of_podman && error.kind() == io::ErrorKind::WouldBlock {
                    podman_writes = Some(error.to_string());
                }
            })
        };
        paths.iter().map(find).collect()
    }

    /// What was found before.
    fn known(&self, path: &str) -> Option<Container> {
        let (_, id) = engine_and_id(path)?;
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The container that this cgroup is, if an engine knows it.
    ///
    /// # Errors
    /// What the engine knows can't be read now, so nothing follows from it.
    pub(super) fn find(&self, path: &str) -> io::Result<Option<Container>> {
        let Some((engine, id)) = engine_and_id(path) else { return Ok(None) };
        if let Some(known) = self.known(path) {
            return Ok(Some(known));
        }
        let read = match engine {
            Engine::Docker => docker(&self.docker.join("containers").join(id).join("config.v2.json")),
            Engine::Podman => podman(&self.podman.join("db.sql"), id),
        };
        let found = read.map_err(|error| {
            io::Error::new(error.kind(), format!("what {engine:?} knows of the container {id} can't be read: {error}"))
        })?;
        if let Some(found) = &found {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), found.clone());
        }
        Ok(found)
    }

    /// The digest of the image of the container that this cgroup is, also of one of a unit that Quadlet made, as far as an engine
    /// knows it and it can be read.
    pub(super) fn image(&self, path: &str) -> Option<String> {
        let path = path.replace("/libpod-payload-", "/libpod-");
        let (_, id) = engine_and_id(&path)?;
        let images = || self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = images().get(id) {
            return Some(known.clone());
        }
        let image = self.find(&path).ok().flatten()?.image?;
        let mut images = images();
        if images.len() >= IMAGES {
            images.clear();
        }
        images.insert(id.to_owned(), image.clone());
        Some(image)
    }

    /// Forgets all but the containers that these cgroups are.
    pub(super) fn keep<'a>(&self, paths: impl Iterator<Item = &'a str>) {
        let there: BTreeSet<&str> = paths.filter_map(engine_and_id).map(|(_, id)| id).collect();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| there.contains(id.as_str()));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Docker,
    Podman,
}

/// Whose container a cgroup is, and the container's id: 64 hexadecimal digits. What watches over one of Podman's (conmon) has
/// a cgroup beside it, which is none.
fn engine_and_id(path: &str) -> Option<(Engine, &str)> {
    let name = path.rsplit('/').next()?;
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (engine, id) = match name.split_once('-') {
        Some(("docker", id)) => (Engine::Docker, id),
        Some(("libpod", id)) => (Engine::Podman, id),
        Some(_) => return None,
        None => (Engine::Docker, name),
    };
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some((engine, id))
}

/// Docker's own file of a container, which it puts in place as a whole.
fn docker(file: &Path) -> io::Result<Option<Container>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct File {
        config: Config,
        image: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        labels: Option<BTreeMap<String, String>>,
    }
    let text = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let file: File = serde_json::from_slice(&text)?;
    Ok(Some(Container { labels: file.config.labels.unwrap_or_default(), image: file.image }))
}

/// What Podman's database has of a container: the configuration that it was made with, as JSON (libpod's `ContainerConfig`).
fn podman(database: &Path, id: &str) -> io::Result<Option<Container>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        labels: BTreeMap<String, String>,
        #[serde(rename = "rootfsImageID", default)]
        image: String,
    }
    if !database.try_exists()? {
        return Ok(None);
    }
    let row = || -> rusqlite::Result<Option<String>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(database, flags)?;
        database.busy_timeout(PATIENCE)?;
        let text = "SELECT JSON FROM ContainerConfig WHERE ID = ?1";
        database.query_row(text, [id], |row| row.get(0)).optional()
    };
    let Some(text) = row().map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => io::Error::new(io::ErrorKind::WouldBlock, error),
        _ => io::Error::other(error),
    })?
    else {
        return Ok(None);
    };
    let config: Config = serde_json::from_str(&text)?;
    let image = (!config.image.is_empty()).then(|| format!("sha256:{}", config.image));
    Ok(Some(Container { labels: config.labels, image }))
}

#[cfg(test)]
mod tests;
