//! How long payloads of classes of workloads are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Resolver, ms, units};
use crate::config::WorkloadSettings;
use crate::config::raw::At;
use crate::ids::WorkloadName;

impl Resolver<'_> {
    /// How long payloads of workloads are kept whose classes say it.
    pub(super) fn keep_of(
        &mut self,
        raw: &BTreeMap<At<String>, At<String>>,
        workloads: &[Arc<WorkloadSettings>],
    ) -> BTreeMap<WorkloadName, Duration> {
        let mut keep: BTreeMap<WorkloadName, Duration> = BTreeMap::new();
        for (class, at) in raw {
            let time = self.duration(Some(at), "", ms(3_600_000)..=36_500 * units::DAY);
            let of: Vec<_> = workloads.iter().filter(|workload| workload.classes.contains(class.value())).collect();
            if of.is_empty() {
                let message = format!("no workload has the class `{}`", class.value());
                self.wrong(class.span(), message, "a class that a `[[workload]]` lists");
            }
            for workload in of {
                let least = keep.entry(workload.name.clone()).or_insert(time);
                *least = time.min(*least);
            }
        }
        keep
    }
}
