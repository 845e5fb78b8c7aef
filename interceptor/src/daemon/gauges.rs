//! What is measured when somebody asks for the metrics.

use std::sync::Arc;

use jiff::Timestamp;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::control::protocol::Exported;
use crate::export::{Exporter, SinkState};
use crate::notify::Notifier;
use crate::pipeline::Pipeline;
use crate::record::Record;

/// Installs the recorder of the process's metrics.
pub(super) fn install() -> std::io::Result<PrometheusHandle> {
    PrometheusBuilder::new().install_recorder().map_err(std::io::Error::other)
}

/// What is measured when somebody asks for the metrics.
#[derive(Clone)]
pub(super) struct Gauges {
    record: Arc<Record>,
    pipeline: Arc<Pipeline>,
    exporter: Arc<Exporter>,
    notifier: Arc<Notifier>,
}

impl Gauges {
    pub(super) fn new(
        record: &Arc<Record>,
        pipeline: &Arc<Pipeline>,
        exporter: &Arc<Exporter>,
        notifier: &Arc<Notifier>,
    ) -> Self {
        Self {
            record: Arc::clone(record),
            pipeline: Arc::clone(pipeline),
            exporter: Arc::clone(exporter),
            notifier: Arc::clone(notifier),
        }
    }

    /// Sets the gauges to what is.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(super) fn look(&self) {
        let health = self.record.health();
        let generation = self.pipeline.worlds.borrow().snapshot.generation;
        metrics::gauge!("interceptor_sessions").set(self.pipeline.registry.len() as f64);
        metrics::gauge!("interceptor_record_lag_seconds").set(health.lag_ms as f64 / 1_000.0);
        metrics::gauge!("interceptor_record_backlog_bytes").set(health.backlog as f64);
        metrics::gauge!("interceptor_record_events").set(health.seq as f64);
        metrics::gauge!("interceptor_record_writable").set(if health.failed.is_none() { 1.0 } else { 0.0 });
        metrics::gauge!("interceptor_policy_generation").set(generation as f64);
        let now = self.pipeline.clock.now();
        if let Some(age) = health.unanchored_for(now) {
            metrics::gauge!("interceptor_record_unanchored_seconds").set(age.as_millis().max(0) as f64 / 1_000.0);
        }
        for sink in self.exporter.states() {
            let Exported { name, behind, age_ms, .. } = exported(sink, health.seq, now);
            metrics::gauge!("interceptor_export_lag_events", "sink" => name.clone()).set(behind as f64);
            metrics::gauge!("interceptor_export_lag_seconds", "sink" => name).set(age_ms.unwrap_or(0) as f64 / 1_000.0);
        }
        for channel in self.notifier.states() {
            let name = channel.name.to_string();
            metrics::gauge!("interceptor_notifications_waiting", "channel" => name).set(channel.waiting as f64);
        }
    }
}

/// How far a sink is behind a record whose last event is `last`.
pub(super) fn exported(sink: SinkState, last: u64, now: Timestamp) -> Exported {
    let age = sink.waiting_since.map(|since| now.as_millisecond() - since.as_millisecond());
    Exported {
        name: sink.name,
        kind: sink.kind.into(),
        seq: sink.seq,
        behind: last.saturating_sub(sink.seq),
        age_ms: age.map(|age| age.max(0).unsigned_abs()),
        error: sink.failing,
    }
}
