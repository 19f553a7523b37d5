//! Processor time between the moment measuring starts and the moment everything is stored.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::procstat::{Watched, thread_cpu_seconds};
use crate::report::round;

/// Processor seconds at the moment measuring starts.
pub(crate) struct Baseline {
    server: Vec<(String, f64)>,
    generator: f64,
}

/// Processor seconds since then: the server's until everything was stored, the generator's until
/// the last answer. The generator is the calling thread, which does all the sending.
pub(crate) struct Used {
    pub(crate) server: Vec<(String, f64)>,
    pub(crate) generator: f64,
}

impl Used {
    pub(crate) async fn begin(watched: Watched, at: Instant) -> Baseline {
        tokio::time::sleep_until(at.into()).await;
        Baseline { server: watched.cpu_seconds(), generator: thread_cpu_seconds() }
    }

    pub(crate) fn since(before: &Baseline, watched: &Watched, generator: f64) -> Self {
        let after = watched.cpu_seconds();
        let server = after.into_iter().zip(&before.server).map(|((name, now), (_, then))| (name, now - then));
        Self { server: server.collect(), generator: generator - before.generator }
    }

    pub(crate) fn server_total(&self) -> f64 {
        self.server.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// Figures by name, scaled and rounded.
pub(crate) fn pairs(values: &[(String, f64)], scale: f64) -> Value {
    Value::Object(
        values
            .iter()
            .map(|(name, value)| (name.clone(), json!(round(value * scale, 2))))
            .collect::<Map<_, _>>(),
    )
}
