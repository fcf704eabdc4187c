//! Metrics in Prometheus' form.

use crate::process;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// Buckets of every histogram of seconds: 50 µs to 10 s.
const SECONDS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    2.0, 5.0, 10.0,
];

static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();

/// The metrics of this process.
#[derive(Debug, Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// Starts to record; once per process, later calls return the same.
    pub fn install() -> Self {
        let handle = INSTALLED.get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .expect("the list of buckets is not empty");
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // Another recorder was installed by somebody else: then ours shows nothing.
            if metrics::set_global_recorder(recorder).is_ok() {
                crate::catalogue::describe();
            }
            handle
        });
        Self(handle.clone())
    }

    /// Everything, in Prometheus' text form.
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render() + &process::render()
    }

    /// Keeps histograms from growing while nobody asks.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }
}
