//! Merging the latency sketches of rollup cells.

use agentlens_domain::latency::Latency;

/// The bytes of a stored sketch after a change: what is added, and what is removed. A damaged sketch is left as it is. Readers
/// report it, and the statistics of one cell don't stop the ingest of an org.
pub(crate) fn merged_latency(stored: &[u8], (added, removed): (&Latency, &Latency)) -> Vec<u8> {
    let Some(mut latency) = Latency::decode(stored) else {
        tracing::error!("the latency sketch of a rollup cell can't be read; it is left as it is");
        return stored.to_vec();
    };
    latency.merge(added);
    latency.subtract(removed);
    latency.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_sketch_is_not_taken_for_an_empty_one() {
        let mut one = Latency::default();
        one.add(17);
        let none = Latency::default();
        assert_eq!(merged_latency(&none.encode(), (&one, &none)), one.encode());
        for damaged in [&b"\x01\xff"[..], b"", b"\x09"] {
            assert_eq!(merged_latency(damaged, (&one, &none)), damaged);
        }
    }
}
