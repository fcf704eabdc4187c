//! What every Isotherm process shows of itself: logs, metrics, health, build information.

mod build_info;
mod cpu;
mod http;
mod logs;
mod metrics;
mod process;

pub use build_info::{BuildInfo, build_info};
pub use cpu::{CpuMeter, cpu_capacity};
pub use http::{Health, serve_http};
pub use logs::{LogFormat, init_logs};
pub use metrics::MetricsHandle;
