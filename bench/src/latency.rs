//! Latencies in microseconds, kept in a histogram of three significant digits.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::report::round;

pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Histogram::new(3)?))
    }

    pub(crate) fn record(&mut self, elapsed: Duration) {
        // `saturating_record` would clamp instead of letting the histogram grow.
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        if self.0.record(micros).is_err() {
            self.0.saturating_record(micros);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        let micros = self.0.value_at_quantile(quantile) as f64;
        round(micros / 1000.0, 3)
    }

    pub(crate) fn summary(&self) -> Value {
        json!({
            "p50_ms": self.quantile_ms(0.50),
            "p95_ms": self.quantile_ms(0.95),
            "p99_ms": self.quantile_ms(0.99),
            "max_ms": self.quantile_ms(1.0),
            "samples": self.0.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_latency_is_kept_as_it_is() -> Result<()> {
        let mut latencies = Latencies::new()?;
        latencies.record(Duration::from_millis(1));
        latencies.record(Duration::from_secs(40));
        let mut all = Latencies::new()?;
        all.merge(&latencies)?;
        assert!((all.quantile_ms(1.0) - 40_000.0).abs() < 40.0);
        Ok(())
    }
}
