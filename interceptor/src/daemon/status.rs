//! What the daemon says of itself: whether it serves, and what stands in the way.

use super::gauges::exported;
use super::host::Shared;
use crate::control::protocol::{Cause, Exported, Launched, Serving, Status};
use crate::identity::keys::Freshness;

mod record;

/// How long events may wait for a sink before `status` says so.
const EXPORT_MS: u64 = 5 * 60 * 1_000;

impl Shared {
    pub(super) fn status(&self) -> Status {
        let world = self.loader.world();
        let mut causes = Vec::new();
        let mut cause = |code: &str, message: String, next: &str| {
            causes.push(Cause { code: code.into(), message, next: next.into() });
        };
        let (health, now) = (self.record.health(), self.pipeline.clock.now());
        let sealed = world.snapshot.why_sealed();
        if let Some(why) = sealed {
            cause(
                "policy-sealed",
                format!("no policy is in force, so everything is denied: {why}"),
                "mend the policies, then `interceptor policy reload`",
            );
        }
        let bounds = &world.snapshot.settings.record;
        let kept = record::causes(&health, self.record.lacks_reserve(), bounds, now);
        for record::Told { code, message, next } in kept.told {
            cause(code, message, next);
        }
        for (issuer, freshness) in self.pipeline.judge.freshness() {
            let age = match freshness {
                Freshness::Fresh => continue,
                Freshness::Degraded => "weren't refreshed for a day",
                Freshness::Refused => "can't be had, so its tokens are refused",
            };
            cause(
                "issuer-keys-old",
                format!("the keys of `{issuer}` {age}"),
                "see that this host reaches the issuer; the daemon's log says what fails",
            );
        }
        let refused = self.loader.refused();
        if let Some(why) = &refused {
            cause(
                "reload-refused",
                format!("the last load was refused, the one before is in force: {why}"),
                "mend it, then `interceptor policy reload`",
            );
        }
        let exports: Vec<Exported> =
            self.exporter.states().into_iter().map(|sink| exported(sink, health.seq, now)).collect();
        for Exported { name, behind, error, age_ms, .. } in &exports {
            let told = match (error, age_ms) {
                (Some(error), _) => format!("the record can't be sent to `{name}`: {error}"),
                (None, Some(age)) if *age > EXPORT_MS => format!("`{name}` is {} s behind the record", age / 1_000),
                _ => continue,
            };
            let next =
                "see that this host reaches the sink, and the sink's log; what it doesn't have waits in the record";
            cause("export-failing", format!("{told}; {behind} events wait"), next);
        }
        for channel in self.notifier.states() {
            let Some(error) = channel.failing else { continue };
            let waiting = channel.waiting;
            cause(
                "notify-failing",
                format!("nobody is told by `{}`: {error}; {waiting} notifications wait", channel.name),
                "mend it, then `interceptor notify test NAME`; who is asked finds it in `interceptor approvals list` as well",
            );
        }
        for (code, message, next) in self.emergencies().causes(self.record.reader().ok().as_ref()) {
            cause(code, message, next);
        }
        let ledgers = self.launches.ledger(|_| true).unwrap_or_else(|error| {
            cause(
                "ledger-unreadable",
                format!("what the kernel counted can't be read: {error}"),
                "see the daemon's log and `interceptor doctor`",
            );
            Vec::new()
        });
        for ledger in ledgers {
            let unexplained = ledger.unexplained();
            if unexplained > 0 {
                let message =
                    format!("{unexplained} connections or datagrams of `{}` got past the proxy", ledger.workload);
                cause(
                    "ledger-unexplained",
                    message,
                    "end the workload, then see `interceptor ledger` and `interceptor doctor`",
                );
            }
        }
        for why in self.launches.adoptions().trouble() {
            cause("not-adopted", why, "mend it, then `interceptor policy reload`; the daemon's log says what fails");
        }
        for (workload, unit, cgroup) in self.launches.adoptions().misplaced() {
            cause(
                "workload-misplaced",
                format!("`{workload}` adopts the unit {unit}, which is at `{cgroup}`, where it isn't looked for"),
                "`interceptor adopt --unit` for it and a restart, or name its cgroup in the `match`",
            );
        }
        for (workload, trouble) in self.launches.stuck() {
            cause(
                "hooks-gone",
                format!("`{workload}` stands still: {trouble}"),
                "mend what the message names; it goes on within a second of that",
            );
        }
        for hole in self.launches.kernel_holes() {
            cause("containment", hole.to_owned(), "see `interceptor doctor`");
        }
        let serving = match (sealed.is_some() || kept.denies, causes.is_empty()) {
            (true, _) => Serving::No,
            (false, false) => Serving::Degraded,
            (false, true) => Serving::Yes,
        };
        let workloads = self.launches.list();
        causes.extend(self.remarks(&workloads));
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Status {
            serving,
            causes,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: self.started,
            generation: world.snapshot.generation,
            policies: sealed.is_none().then(|| world.snapshot.digest().to_owned()),
            workloads: count(workloads.len()),
            connections: count(self.pipeline.registry.len()),
            exports,
        }
    }

    /// What somebody should know though all is served as it should be: what a workload could do past us.
    fn remarks(&self, workloads: &[Launched]) -> Vec<Cause> {
        // They were told of all at once.
        let of_kernel = self.launches.kernel_holes();
        let holes = workloads.iter().flat_map(|one| one.holes.iter().map(move |hole| (one, hole)));
        let holes = holes.filter(|(_, hole)| !of_kernel.contains(&hole.as_str())).map(|(one, hole)| {
            let (what, mend) = hole.split_once("; ").unwrap_or((hole, "see `interceptor workloads list`"));
            Cause {
                code: "containment".into(),
                message: format!("`{}` is {}: {what}", one.workload, one.containment),
                next: mend.into(),
            }
        });
        let others = self.launches.rewriters();
        let others = (!others.is_empty()).then(|| Cause {
            code: "other-programs".into(),
            message: format!("programs of others rewrite connects on this host: {}", others.join(", ")),
            next: "see `interceptor doctor`".into(),
        });
        holes.chain(others).collect()
    }
}
