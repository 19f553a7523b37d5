//! Counters for `/metrics`. Labels by org are bounded: the first so many orgs have their own, the rest share one.

use std::sync::atomic::AtomicU64;

use axum::http::Method;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rustc_hash::FxHashSet;

use agentlens_ingest::QueueStatus;

/// Orgs that get a label of their own.
const MAX_ORG_LABELS: usize = 200;
/// The label of all others.
const OTHER_ORGS: &str = "other";
/// The label of methods that the API does not know.
const OTHER_METHODS: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OrgLabel {
    org: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OtlpLabel {
    signal: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabel {
    job: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobName {
    job: &'static str,
}

fn job_histogram() -> Histogram {
    Histogram::new([0.01, 0.1, 1.0, 10.0, 60.0, 600.0])
}

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    orgs: Mutex<FxHashSet<String>>,
    accepted: Family<OrgLabel, Counter>,
    refused: Family<OrgLabel, Counter>,
    otlp: Family<OtlpLabel, Counter>,
    requests: Family<RequestLabel, Counter>,
    latency: Family<RouteLabel, Histogram, fn() -> Histogram>,
    queue_batches: Gauge<i64>,
    queue_bytes: Gauge<i64>,
    queue_parked_orgs: Gauge<i64>,
    queue_blocked_orgs: Gauge<i64>,
    dead_letters: Gauge<i64>,
    job_runs: Family<JobLabel, Counter>,
    job_seconds: Family<JobName, Histogram, fn() -> Histogram>,
    job_last_success_s: Family<JobName, Gauge<f64, AtomicU64>>,
    unrecorded_losses: Family<OrgLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

fn latency_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("agentlens");
        let metrics = Self {
            orgs: Mutex::default(),
            accepted: Family::default(),
            refused: Family::default(),
            otlp: Family::default(),
            requests: Family::default(),
            latency: Family::new_with_constructor(latency_histogram),
            queue_batches: Gauge::default(),
            queue_bytes: Gauge::default(),
            queue_parked_orgs: Gauge::default(),
            queue_blocked_orgs: Gauge::default(),
            dead_letters: Gauge::default(),
            job_runs: Family::default(),
            job_seconds: Family::new_with_constructor(job_histogram),
            job_last_success_s: Family::default(),
            unrecorded_losses: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "ingest_accepted_events",
            "Events that were accepted, by org",
            metrics.accepted.clone(),
        );
        registry.register(
            "ingest_refused_events",
            "Events that were refused, by org",
            metrics.refused.clone(),
        );
        registry.register(
            "otlp_items",
            "Spans, log records and metrics that came by OTLP, by outcome",
            metrics.otlp.clone(),
        );
        registry.register("http_requests", "Requests, by method, route and status", metrics.requests.clone());
        registry.register(
            "http_request_seconds",
            "Time to the answer's head, by route",
            metrics.latency.clone(),
        );
        registry.register("queue_batches", "Batches that wait to be applied", metrics.queue_batches.clone());
        registry.register("queue_bytes", "Bytes that wait to be applied", metrics.queue_bytes.clone());
        registry.register(
            "queue_parked_orgs",
            "Orgs whose batches failed and are tried again after a pause",
            metrics.queue_parked_orgs.clone(),
        );
        registry.register(
            "queue_blocked_orgs",
            "Orgs with a message that only a newer version can read",
            metrics.queue_blocked_orgs.clone(),
        );
        registry.register(
            "dead_letters",
            "Batches that this process moved to the dead letters since it started",
            metrics.dead_letters.clone(),
        );
        metrics.register_jobs(&mut registry);
        Self { registry, ..metrics }
    }
}

impl Metrics {
    fn register_jobs(&self, registry: &mut Registry) {
        registry.register("job_runs", "Runs of jobs on this node, by job and outcome", self.job_runs.clone());
        registry.register("job_seconds", "Time of a run, by job", self.job_seconds.clone());
        registry.register(
            "job_last_success_timestamp_seconds",
            "When a run of a job last went well on this node",
            self.job_last_success_s.clone(),
        );
        registry.register(
            "unrecorded_losses",
            "Partitions that were dropped although an org had not recorded what it loses, by org",
            self.unrecorded_losses.clone(),
        );
    }

    fn org_label(&self, org: &str) -> OrgLabel {
        let mut orgs = self.orgs.lock();
        let has_own = orgs.contains(org) || (orgs.len() < MAX_ORG_LABELS && orgs.insert(org.to_owned()));
        OrgLabel { org: if has_own { org.to_owned() } else { OTHER_ORGS.to_owned() } }
    }

    /// Counts the events of one request.
    pub fn count_ingest(&self, org: &str, accepted: usize, refused: usize) {
        let label = self.org_label(org);
        self.accepted.get_or_create(&label).inc_by(accepted as u64);
        if refused > 0 {
            self.refused.get_or_create(&label).inc_by(refused as u64);
        }
    }

    /// Counts the items of one OTLP request.
    pub fn count_otlp(&self, signal: &'static str, accepted: usize, refused: usize) {
        for (outcome, count) in [("accepted", accepted), ("refused", refused)] {
            self.otlp.get_or_create(&OtlpLabel { signal, outcome }).inc_by(count as u64);
        }
    }

    /// Counts one request. `route` is the pattern, never the path.
    pub fn count_request(&self, method: &Method, route: &str, status: u16, seconds: f64) {
        let method = method_label(method);
        self.requests.get_or_create(&RequestLabel { method, route: route.to_owned(), status }).inc();
        self.latency.get_or_create(&RouteLabel { route: route.to_owned() }).observe(seconds);
    }

    /// Counts one run of a job; `now_us` is when it began.
    pub fn count_job(&self, job: &'static str, is_ok: bool, seconds: f64, now_us: i64) {
        let outcome = if is_ok { "ok" } else { "failed" };
        self.job_runs.get_or_create(&JobLabel { job, outcome }).inc();
        self.job_seconds.get_or_create(&JobName { job }).observe(seconds);
        if is_ok {
            self.job_last_success_s.get_or_create(&JobName { job }).set(crate::api::ms(now_us) / 1000.0);
        }
    }

    /// Counts a partition with events of an org that were not recorded.
    pub fn count_unrecorded_loss(&self, org: &str) {
        let label = self.org_label(org);
        self.unrecorded_losses.get_or_create(&label).inc();
    }

    /// All metrics in the text format of OpenMetrics.
    pub fn render(&self, queue: QueueStatus) -> String {
        self.queue_batches.set(i64::try_from(queue.batches).unwrap_or(i64::MAX));
        self.queue_bytes.set(i64::try_from(queue.bytes).unwrap_or(i64::MAX));
        self.queue_parked_orgs.set(i64::try_from(queue.parked_orgs).unwrap_or(i64::MAX));
        self.queue_blocked_orgs.set(i64::try_from(queue.blocked_orgs).unwrap_or(i64::MAX));
        self.dead_letters.set(i64::try_from(queue.buried_batches).unwrap_or(i64::MAX));
        let mut text = String::new();
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// The label of a method. Clients may send any word, so those that the API does not know share one label.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER_METHODS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_by_method_are_bounded() {
        let metrics = Metrics::default();
        for number in 0..500 {
            let method = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
            metrics.count_request(&method, "unmatched", 405, 0.001);
        }
        metrics.count_request(&Method::GET, "unmatched", 404, 0.001);
        let text = metrics.render(QueueStatus::default());
        assert_eq!(text.matches("agentlens_http_requests_total{").count(), 2, "{text}");
        assert!(text.contains("method=\"other\",route=\"unmatched\",status=\"405\"} 500"), "{text}");
    }

    #[test]
    fn labels_by_org_are_bounded() {
        let metrics = Metrics::default();
        for org in 0..MAX_ORG_LABELS + 50 {
            metrics.count_ingest(&format!("o{org}"), 1, 0);
        }
        let text = metrics.render(QueueStatus::default());
        assert_eq!(text.matches("agentlens_ingest_accepted_events_total{").count(), MAX_ORG_LABELS + 1);
        assert!(text.contains("org=\"other\"} 50"));
    }
}
