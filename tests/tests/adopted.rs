//! Adopted workloads: processes in cgroups and network namespaces that others made.

#[path = "adopted/containers.rs"]
mod containers;
#[path = "adopted/daemon.rs"]
mod daemon;
#[path = "adopted/ledger.rs"]
mod ledger;
#[path = "adopted/moments.rs"]
mod moments;
#[path = "adopted/steering.rs"]
mod steering;
#[path = "adopted/survey.rs"]
mod survey;
#[path = "adopted/systemd.rs"]
mod systemd;
