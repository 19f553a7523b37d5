//! The greatest memory of a process tree, looked at once a second by a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::procstat::tree_memory_mib;

const PERIOD: Duration = Duration::from_secs(1);

/// Watches until it is asked for the peak.
pub(crate) struct TreePeak {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

impl TreePeak {
    /// Begins to watch; `None` when there is no tree to watch.
    pub(crate) fn watch(roots: &[u32]) -> Option<Self> {
        if roots.is_empty() {
            return None;
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let (roots, over) = (roots.to_vec(), is_over.clone());
        let thread = std::thread::spawn(move || {
            let mut peak: f64 = 0.0;
            loop {
                peak = peak.max(roots.iter().map(|&root| tree_memory_mib(root)).sum());
                if over.load(Ordering::Relaxed) {
                    return peak;
                }
                std::thread::sleep(PERIOD);
            }
        });
        Some(Self { is_over, thread })
    }

    /// In MiB.
    pub(crate) fn end(self) -> f64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(0.0)
    }
}
