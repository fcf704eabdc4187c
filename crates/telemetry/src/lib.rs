//! What every Isotherm process shows of itself: logs, metrics, health, build information.

mod build_info;
mod catalogue;
mod cpu;
mod http;
mod logs;
mod metrics;
mod process;
mod service_manager;

pub use build_info::{BuildInfo, build_info};
pub use cpu::{CpuMeter, cpu_capacity};
pub use http::{Health, serve_http};
pub use logs::{LogFormat, init_logs};
pub use metrics::MetricsHandle;
pub use process::{FileLimit, raise_file_limit};
pub use service_manager::notify_service_manager;
