//! Adopted workloads: processes in cgroups and network namespaces that others made.

#[path = "adopted/bounds.rs"]
mod bounds;
#[path = "adopted/containers.rs"]
mod containers;
#[path = "adopted/corners.rs"]
mod corners;
#[path = "adopted/daemon.rs"]
mod daemon;
#[path = "adopted/ledger.rs"]
mod ledger;
#[path = "adopted/levels.rs"]
mod levels;
#[path = "adopted/moments.rs"]
mod moments;
#[path = "adopted/passed_on.rs"]
mod passed_on;
#[path = "adopted/reload.rs"]
mod reload;
#[path = "adopted/restarts.rs"]
mod restarts;
#[path = "adopted/room.rs"]
mod room;
#[path = "adopted/steering.rs"]
mod steering;
#[path = "adopted/still.rs"]
mod still;
#[path = "adopted/strays.rs"]
mod strays;
#[path = "adopted/survey.rs"]
mod survey;
#[path = "adopted/systemd.rs"]
mod systemd;
#[path = "adopted/told.rs"]
mod told;
