//! Keeps what became of the last requests of OpenTelemetry clients, without slowing any of them.
//!
//! One request a second and key is kept, and beyond that those which show something: a refusal, an attribute that was not
//! seen unmapped before. Writing begins when the answer is known and nobody waits for it; when too many are being written
//! or a key shows something too often, the rest is not kept.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use agentlens_domain::ids::{KeyId, OrgId};
use agentlens_otlp::dialects::ClientReport;
use agentlens_store::{IngestRequestRow, Workspace};

use crate::keys::Principal;

/// Reasons of refusals that are kept of a request.
pub const MAX_REASONS: usize = 5;
/// Different unmapped attributes that are kept of a request.
const MAX_UNMAPPED: usize = 100;
/// Client libraries that are kept of a request.
const MAX_CLIENTS: usize = 20;
/// Bytes of a client's name, of its version, of a user agent and of a reason.
const MAX_TEXT_BYTES: usize = 256;
/// How often an ordinary request of a key is kept.
const INTERVAL_US: i64 = 1_000_000;
/// Requests of a key that are kept in such an interval whatever they show.
const MAX_PER_INTERVAL: u32 = 10;
/// Requests that are written at the same time.
const MAX_WRITING: usize = 16;
/// Keys whose last requests are remembered, and unmapped attributes of one key.
const MAX_REMEMBERED: usize = 4_096;

/// What a request showed, beside its counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The client libraries that sent it.
    pub clients: Vec<ClientReport>,
    /// The first reasons of refusals; of a request that was refused as a whole, why.
    pub reasons: Vec<String>,
    /// Attributes and fields that were kept in another form than they were sent in.
    pub repaired: u64,
    /// Whether the request was refused as a whole.
    pub failed: bool,
}

/// One request that was answered.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its id in the server's log.
    pub request_id: String,
    /// When it came, microseconds UTC.
    pub received_us: i64,
    /// `traces`, `logs` or `metrics`.
    pub signal: &'static str,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
    /// How many items it held.
    pub items: usize,
    /// How many of these were refused.
    pub refused: usize,
    /// What it showed.
    pub report: Report,
}

/// Decides what is kept, and writes it.
pub struct Recorder {
    tasks: TaskTracker,
    writing: Arc<Semaphore>,
    keys: Mutex<FxHashMap<(OrgId, KeyId), Memory>>,
}

/// What is remembered of a key.
#[derive(Default)]
struct Memory {
    /// When the current interval began.
    since_us: i64,
    /// What was kept in it.
    kept: u32,
    /// Digests of the unmapped attributes that were seen.
    unmapped: FxHashSet<u64>,
}

impl Recorder {
    /// A recorder whose writes run on `tasks`, which are awaited at shutdown.
    pub fn new(tasks: TaskTracker) -> Self {
        Self { tasks, writing: Arc::new(Semaphore::new(MAX_WRITING)), keys: Mutex::default() }
    }

    /// Keeps a request if it is worth it.
    pub fn note(&self, workspace: &Workspace, principal: &Principal, observed: Observed) {
        if !self.is_kept(principal, &observed) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.writing).try_acquire_owned() else { return };
        let (workspace, row) = (workspace.clone(), row_of(principal, observed));
        self.tasks.spawn(async move {
            if let Err(error) = workspace.ingest_requests().insert(&row).await {
                tracing::warn!(request.id = row.request_id, error = %error, "what became of a request can't be kept");
            }
            drop(permit);
        });
    }

    fn is_kept(&self, principal: &Principal, observed: &Observed) -> bool {
        let mut keys = self.keys.lock();
        if keys.len() >= MAX_REMEMBERED {
            keys.clear();
        }
        let memory = keys.entry((principal.org.clone(), principal.key_id.clone())).or_default();
        memory.is_kept(observed)
    }
}

impl Memory {
    fn is_kept(&mut self, observed: &Observed) -> bool {
        let mut shows = observed.refused > 0 || observed.report.failed;
        for client in &observed.report.clients {
            for key in client.unmapped.keys() {
                shows |= self.is_new(&client.name, key);
            }
        }
        if (observed.received_us - self.since_us).abs() >= INTERVAL_US {
            (self.since_us, self.kept) = (observed.received_us, 1);
            return true;
        }
        self.kept += u32::from(shows);
        shows && self.kept <= MAX_PER_INTERVAL
    }

    fn is_new(&mut self, client: &str, key: &str) -> bool {
        let mut hasher = FxHasher::default();
        (client, key).hash(&mut hasher);
        let digest = hasher.finish();
        // Whoever makes up new names all the time shows nothing new by it.
        self.unmapped.len() < MAX_REMEMBERED && self.unmapped.insert(digest)
    }
}

impl Report {
    /// What the clients of a request sent, within the limits of what is kept.
    pub fn of(clients: Vec<ClientReport>, reasons: Vec<String>, repaired: u64) -> Self {
        let mut left = MAX_UNMAPPED;
        let clients = clients.into_iter().take(MAX_CLIENTS).map(|client| {
            let unmapped: BTreeMap<String, u32> = client.unmapped.into_iter().take(left).collect();
            left -= unmapped.len();
            ClientReport {
                name: cut(client.name),
                version: cut(client.version),
                items: client.items,
                unmapped,
            }
        });
        let clients = clients.collect();
        Self { clients, reasons: reasons.into_iter().map(cut).collect(), repaired, failed: false }
    }

    /// A request of which nothing could be read.
    pub fn of_failure(reason: &str) -> Self {
        Self { reasons: vec![cut(reason.to_owned())], failed: true, ..Self::default() }
    }
}

fn row_of(principal: &Principal, observed: Observed) -> IngestRequestRow {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    IngestRequestRow {
        request_id: observed.request_id,
        key_id: principal.key_id.as_str().to_owned(),
        received_us: observed.received_us,
        signal: observed.signal.to_owned(),
        user_agent: observed.user_agent.map(cut),
        item_count: count(observed.items),
        refused_count: count(observed.refused),
        report: serde_json::to_string(&observed.report).unwrap_or_default(),
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(received_us: i64, refused: usize, unmapped: &[&str]) -> Observed {
        let unmapped = unmapped.iter().map(|key| ((*key).to_owned(), 1)).collect();
        let client = ClientReport { name: "lib".to_owned(), unmapped, ..ClientReport::default() };
        Observed {
            request_id: String::new(),
            received_us,
            signal: "traces",
            user_agent: None,
            items: 1,
            refused,
            report: Report::of(vec![client], Vec::new(), 0),
        }
    }

    #[test]
    fn one_a_second_is_kept_and_what_shows_something() {
        let mut memory = Memory::default();
        let now_us = 1_767_323_045_678_000;
        assert!(memory.is_kept(&observed(now_us, 0, &[])));
        assert!(!memory.is_kept(&observed(now_us + 1, 0, &[])));
        assert!(memory.is_kept(&observed(now_us + 2, 0, &["a"])));
        assert!(!memory.is_kept(&observed(now_us + 3, 0, &["a"])));
        assert!(memory.is_kept(&observed(now_us + 4, 1, &["a"])));
        assert!(memory.is_kept(&observed(now_us + INTERVAL_US, 0, &["a"])));
        let kept = (0..100).filter(|number| memory.is_kept(&observed(now_us + INTERVAL_US + number, 1, &[])));
        assert_eq!(kept.count(), MAX_PER_INTERVAL as usize - 1);
    }

    #[test]
    fn what_is_kept_of_a_request_is_bounded() {
        let client = |number: usize| ClientReport {
            name: format!("{number}{}", "x".repeat(1000)),
            unmapped: (0..30).map(|key| (format!("k{key}"), 1)).collect(),
            ..ClientReport::default()
        };
        let report = Report::of((0..50).map(client).collect(), vec!["é".repeat(500)], 0);
        assert_eq!(report.clients.len(), MAX_CLIENTS);
        assert_eq!(report.clients.iter().map(|client| client.unmapped.len()).sum::<usize>(), MAX_UNMAPPED);
        assert!(report.clients.iter().all(|client| client.name.len() == MAX_TEXT_BYTES));
        assert_eq!(report.reasons[0].len(), MAX_TEXT_BYTES);
    }
}
