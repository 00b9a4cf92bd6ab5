//! What the server counts, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use infill_store::{JobStatus, Statistics};

/// Counters of this process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By route and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    pub(crate) connections: Gauge,
    pub(crate) in_progress: Gauge,
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    /// Counts one for as long as the value lives.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(&self.0)
    }

    pub(crate) fn value(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that is counted.
pub(crate) struct Entered<'a>(&'a AtomicUsize);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts an answered request.
    pub(crate) fn count(&self, route: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status)).or_default() += 1;
    }

    /// All of it as text; `sessions` and `calls` are at this moment.
    pub(crate) fn render(&self, statistics: &Statistics, sessions: usize, calls: usize) -> String {
        let mut page = Page(String::new());
        page.head("infill_http_requests_total", "counter", "Answered requests by route and status.");
        for ((route, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            page.line(&format!(
                "infill_http_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}"
            ));
        }
        page.gauge(
            "infill_http_requests_in_progress",
            "Requests not yet answered.",
            self.in_progress.value(),
        );
        page.gauge("infill_http_connections", "Open connections.", self.connections.value());
        page.gauge("infill_sessions", "Open sessions of protocols that have them.", sessions);
        page.gauge("infill_calls_in_progress", "Tool calls at work or waiting for their turn.", calls);
        page.head("infill_jobs", "gauge", "Jobs in the store by status.");
        for (status, jobs) in &statistics.jobs {
            page.line(&format!("infill_jobs{{status=\"{}\"}} {jobs}", status.as_str()));
        }
        let queued = statistics.jobs.iter().find(|(status, _)| *status == JobStatus::Queued);
        let queued = queued.map_or(0, |(_, jobs)| *jobs as usize);
        page.gauge("infill_queue_length", "Jobs that wait for their turn.", queued);
        page.gauge("infill_pictures", "Pictures that the store's jobs made.", statistics.pictures as usize);
        page.head(
            "infill_job_seconds",
            "gauge",
            "Seconds that the store's ended jobs took, waiting not counted.",
        );
        page.line(&format!("infill_job_seconds {}", statistics.seconds));
        page.0
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.head(name, "gauge", help);
        self.line(&format!("{name} {value}"));
    }

    fn line(&mut self, line: &str) {
        // A string takes whatever is written.
        let _ = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_sample_of_a_declared_name() {
        let metrics = Metrics::default();
        metrics.count("/mcp", 200);
        metrics.count("/mcp", 200);
        metrics.count("/mcp", 403);
        let _here = metrics.connections.enter();
        drop(metrics.in_progress.enter());
        let jobs = [
            JobStatus::Queued,
            JobStatus::WarmingUp,
            JobStatus::InProgress,
            JobStatus::Finalizing,
            JobStatus::Success,
            JobStatus::Failure,
            JobStatus::Canceled,
        ];
        let statistics = Statistics { jobs: jobs.map(|status| (status, 3)), pictures: 5, seconds: 1.25 };
        let text = metrics.render(&statistics, 2, 1);
        let mut declared = Vec::new();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                declared.push(kind.split(' ').next().unwrap());
            } else if !line.starts_with("# HELP ") {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let name = sample.split('{').next().unwrap();
                assert!(declared.contains(&name) && value.parse::<f64>().is_ok(), "{line}");
            }
        }
        for line in [
            "infill_http_requests_total{route=\"/mcp\",status=\"200\"} 2",
            "infill_http_requests_total{route=\"/mcp\",status=\"403\"} 1",
            "infill_http_connections 1",
            "infill_http_requests_in_progress 0",
            "infill_jobs{status=\"success\"} 3",
            "infill_queue_length 3",
            "infill_pictures 5",
            "infill_job_seconds 1.25",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
