//! One span: its arrivals, and the facts read from all of them. The order of arrival does not matter.

use std::borrow::Cow;
use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::{Arrival, ArrivalSource, Links, Shown};

/// Arrivals that a span reads facts from. If there are more, the weakest are only stored as events.
pub const MAX_ARRIVALS: usize = 64;

/// Different arrivals that a span accepts. Further ones count as duplicates.
pub const MAX_VERSIONS: usize = 1_000;

/// One arrival with the event that it became.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredArrival {
    /// The event's id.
    pub event_id: String,
    /// The environment of the API key that sent it.
    pub environment: String,
    /// Its facts.
    pub arrival: Arrival,
}

/// A stored span: its arrivals, strongest first, and its last shown and counted values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// The event that represents the span in lists: the first arrival of the span itself, otherwise its first log record.
    first_event_id: String,
    arrivals: Vec<StoredArrival>,
    /// Digests of arrivals that are stored as events and no longer used.
    passed: Vec<[u8; 8]>,
    /// Shown and counted values; the default until it is resolved.
    pub shown: Shown,
    /// Its links to the rest of its trace when it was last resolved; absent for a new span.
    pub(super) links: Option<Links>,
}

impl Span {
    /// A span with one arrival.
    pub fn of(arrival: StoredArrival) -> Self {
        Self {
            first_event_id: arrival.event_id.clone(),
            arrivals: vec![arrival],
            passed: Vec::new(),
            shown: Shown::default(),
            links: None,
        }
    }

    /// The event that represents the span in lists. A span that arrives after a log record replaces it here, because only the
    /// span has the event type to show.
    pub fn first_event_id(&self) -> &str {
        &self.first_event_id
    }

    /// Its id; absent only while nothing has arrived.
    pub(super) fn id(&self) -> Option<&str> {
        self.arrivals.first().map(|stored| stored.arrival.span_id.as_str())
    }

    /// The arrivals, strongest first: spans before log records, then by length, by time and by digest.
    pub fn arrivals(&self) -> &[StoredArrival] {
        &self.arrivals
    }

    /// Whether the same arrival came before, or the span already has as many as it accepts.
    pub fn has(&self, arrival: &Arrival) -> bool {
        self.arrivals.iter().any(|known| known.arrival.digest == arrival.digest)
            || self.passed.contains(&arrival.digest)
            || (self.arrivals.len() + self.passed.len() >= MAX_VERSIONS && !self.still_takes(arrival))
    }

    /// Whether it accepts an arrival although it is full. Many log records must not prevent the span itself from being stored.
    fn still_takes(&self, arrival: &Arrival) -> bool {
        let is_log = |stored: &StoredArrival| stored.arrival.source == ArrivalSource::Log;
        arrival.source == ArrivalSource::Span && self.arrivals.last().is_some_and(is_log)
    }

    /// The number of its events: all arrivals, including those that are no longer used.
    pub fn event_count(&self) -> i64 {
        i64::try_from(self.arrivals.len() + self.passed.len()).unwrap_or(i64::MAX)
    }

    /// Adds a new arrival.
    pub fn add(&mut self, arrival: StoredArrival) {
        let is_span = |stored: &StoredArrival| stored.arrival.source == ArrivalSource::Span;
        if is_span(&arrival) && !self.arrivals.iter().any(is_span) {
            self.first_event_id.clone_from(&arrival.event_id);
        }
        let at = self.arrivals.partition_point(|known| strength(&known.arrival) < strength(&arrival.arrival));
        self.arrivals.insert(at, arrival);
        let passed = self.arrivals.drain(MAX_ARRIVALS.min(self.arrivals.len())..);
        self.passed.extend(passed.map(|stored| stored.arrival.digest));
    }

    /// The facts of all arrivals: each one from the strongest arrival that has it.
    pub fn facts(&self) -> Cow<'_, Arrival> {
        let mut all = self.arrivals.iter().map(|stored| &stored.arrival);
        let Some(first) = all.next() else { return Cow::Owned(Arrival::default()) };
        let mut facts = Cow::Borrowed(first);
        for arrival in all {
            fill(facts.to_mut(), arrival);
        }
        facts
    }

    /// The environment: the client's own name for it, or that of the API key that sent the strongest arrival.
    pub fn environment(&self) -> &str {
        let named = self.arrivals.iter().find_map(|stored| stored.arrival.environment.as_deref());
        named.or_else(|| self.arrivals.first().map(|stored| stored.environment.as_str())).unwrap_or("")
    }
}

/// The sort key of an arrival; a smaller one is stronger.
fn strength(arrival: &Arrival) -> impl Ord + use<> {
    let duration_us = arrival.end_us.saturating_sub(arrival.start_us);
    Reverse((arrival.source, duration_us, arrival.end_us, arrival.digest))
}

fn fill(facts: &mut Arrival, weaker: &Arrival) {
    // A log record has a single instant, so it must not change the span's start or end.
    if weaker.source == ArrivalSource::Span {
        facts.start_us = facts.start_us.min(weaker.start_us);
        facts.end_us = facts.end_us.max(weaker.end_us);
    }
    facts.is_error |= weaker.is_error;
    facts.is_cache_hit |= weaker.is_cache_hit;
    facts.is_of_library |= weaker.is_of_library;
    macro_rules! fill {
        ($($field:ident),+) => { $(if facts.$field.is_none() { facts.$field.clone_from(&weaker.$field); })+ };
    }
    fill!(
        parent_span_id,
        span_name,
        kind,
        session,
        agent_id,
        agent_name,
        service,
        user_id,
        environment,
        provider,
        model,
        response_id,
        usage,
        service_tier,
        reported_cost_nanos,
        tool_name,
        call_id,
        first_token_us
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spans::SpanKind;

    fn stored(digest: u8, end_us: i64, source: ArrivalSource, model: Option<&str>) -> StoredArrival {
        let arrival = Arrival {
            source,
            digest: [digest; 8],
            end_us,
            model: model.map(str::to_owned),
            kind: (source == ArrivalSource::Span).then_some(SpanKind::Llm),
            ..Arrival::default()
        };
        StoredArrival { event_id: String::new(), environment: "production".to_owned(), arrival }
    }

    proptest! {
        #[test]
        fn a_span_does_not_depend_on_the_order_of_its_arrivals(
            parts in prop::collection::vec((0_i64..4, any::<bool>(), prop::option::of("[a-c]")), 1..9),
            seed in any::<u64>(),
        ) {
            let arrivals: Vec<StoredArrival> = parts.iter().enumerate().map(|(index, (end, is_span, model))| {
                let source = if *is_span { ArrivalSource::Span } else { ArrivalSource::Log };
                stored(index as u8, *end, source, model.as_deref())
            }).collect();
            let build = |order: &[usize]| {
                let mut span = Span::of(arrivals[order[0]].clone());
                order[1..].iter().for_each(|index| span.add(arrivals[*index].clone()));
                span
            };
            let ordered: Vec<usize> = (0..arrivals.len()).collect();
            let mut shuffled = ordered.clone();
            shuffled.sort_by_key(|index| seed.rotate_left(*index as u32 * 7) ^ *index as u64);
            prop_assert_eq!(build(&ordered), build(&shuffled));
            let (ordered, shuffled) = (build(&ordered), build(&shuffled));
            prop_assert_eq!(ordered.facts(), shuffled.facts());
        }
    }

    #[test]
    fn a_repeat_of_what_is_no_longer_looked_at_is_known() {
        let all: Vec<StoredArrival> =
            (0..100).map(|at| stored(at, i64::from(at), ArrivalSource::Log, None)).collect();
        let mut forwards = Span::of(all[0].clone());
        all[1..].iter().for_each(|arrival| forwards.add(arrival.clone()));
        let mut backwards = Span::of(all[99].clone());
        all[..99].iter().rev().for_each(|arrival| backwards.add(arrival.clone()));
        assert_eq!(forwards.arrivals(), backwards.arrivals());
        assert_eq!((forwards.event_count(), forwards.arrivals().len()), (100, MAX_ARRIVALS));
        assert!(all.iter().all(|arrival| forwards.has(&arrival.arrival)));
    }

    #[test]
    fn log_records_do_not_keep_the_span_itself_out() {
        let mut span = Span::of(stored(0, 0, ArrivalSource::Log, None));
        for number in 1..2 * MAX_VERSIONS as u64 {
            let mut log = stored(0, 0, ArrivalSource::Log, None);
            log.arrival.digest = number.to_be_bytes();
            if !span.has(&log.arrival) {
                span.add(log);
            }
        }
        assert_eq!(span.event_count(), MAX_VERSIONS as i64);
        let itself = stored(255, 900, ArrivalSource::Span, None);
        assert!(!span.has(&itself.arrival));
        span.add(itself);
        assert_eq!((span.facts().kind, span.event_count()), (Some(SpanKind::Llm), MAX_VERSIONS as i64 + 1));
    }

    #[test]
    fn a_log_record_fills_what_the_span_leaves_out() {
        let mut span = Span::of(stored(1, 0, ArrivalSource::Log, Some("from-log")));
        span.add(stored(2, 900, ArrivalSource::Span, None));
        let facts = span.facts();
        assert_eq!(
            (facts.model.as_deref(), facts.kind, facts.end_us),
            (Some("from-log"), Some(SpanKind::Llm), 900)
        );
        assert!(span.has(&stored(1, 5, ArrivalSource::Log, None).arrival));
    }
}
