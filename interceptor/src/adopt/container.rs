//! What Docker and Podman say of a container that is a cgroup: its labels and its image. Read from their own files, which
//! are root's; a container that isn't found there is nobody's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

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

const DOCKER: &str = "/var/lib/docker/containers";
const PODMAN: &str = "/var/lib/containers/storage/overlay-containers/containers.json";

/// The container that this cgroup is.
pub(super) fn find(path: &str) -> Option<Container> {
    let id = id_in(path)?;
    let docker = || docker(&fs::read(Path::new(DOCKER).join(id).join("config.v2.json")).ok()?);
    docker().or_else(|| podman(&fs::read(PODMAN).ok()?, id))
}

/// The container's id in the last part of a path: 64 hexadecimal digits.
fn id_in(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit('-').next()?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// Docker's own file of a container.
fn docker(bytes: &[u8]) -> Option<Container> {
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
    let file: File = serde_json::from_slice(bytes).ok()?;
    Some(Container { labels: file.config.labels.unwrap_or_default(), image: file.image })
}

/// Podman's list of containers; the labels are in its metadata, as text.
fn podman(bytes: &[u8], id: &str) -> Option<Container> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        image: Option<String>,
        #[serde(default)]
        metadata: String,
    }
    #[derive(Deserialize, Default)]
    struct Metadata {
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }
    let entries: Vec<Entry> = serde_json::from_slice(bytes).ok()?;
    let entry = entries.into_iter().find(|entry| entry.id == id)?;
    let metadata: Metadata = serde_json::from_str(&entry.metadata).unwrap_or_default();
    let image = entry.image.map(|image| format!("sha256:{image}"));
    Some(Container { labels: metadata.labels, image })
}

#[cfg(test)]
mod tests;
