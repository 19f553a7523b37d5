//! Adding spans to stored traces gives the same result as resolving everything at once, for every split and order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::properties::{Random, arrivals, random};
use super::*;
use crate::spans::{
    Kept, MAX_CALL_SPANS, MAX_LEVELS, MAX_WIDE_CHANGES, Needs, Region, StoredSpan, WIDE_CHANGE_SPANS,
};

/// A store in memory that counts how many spans were loaded and written.
#[derive(Default)]
struct Stored {
    traces: BTreeMap<String, (i64, TraceShown, Kept)>,
    spans: BTreeMap<(i64, String), Span>,
    loaded: usize,
    written: usize,
}

impl Stored {
    /// Applies arrivals that come together.
    fn apply(&mut self, arrivals: Vec<Arrival>) {
        let mut region = Region::default();
        arrivals.iter().for_each(|arrival| region.announce(arrival));
        loop {
            let needs = region.needs_to_join();
            if needs.is_empty() {
                break;
            }
            self.load(&needs, &mut region);
        }
        for arrival in arrivals {
            let (event_id, environment) = (String::new(), "production".to_owned());
            region.join(StoredArrival { event_id, environment, arrival });
        }
        loop {
            let needs = region.needs(PriceTable::embedded());
            if needs.is_empty() {
                break;
            }
            self.load(&needs, &mut region);
        }
        self.write(region);
    }

    fn load(&mut self, needs: &Needs, region: &mut Region) {
        for trace in &needs.traces {
            region.take_trace(trace.clone(), self.traces.get(trace).cloned());
        }
        let is_needed = |(number, id): &(i64, String), span: &Span| {
            let shown = (*number, span.shown.parent_span_id.clone().unwrap_or_default());
            let named = (*number, span.facts().parent_span_id.clone().unwrap_or_default());
            needs.wholes.contains(number)
                || needs.spans.contains(&(*number, id.clone()))
                || needs.children.contains(&shown)
                || needs.children.contains(&named)
        };
        let spans: Vec<StoredSpan> = self
            .spans
            .iter()
            .filter(|(key, span)| is_needed(key, span))
            .map(|(key, span)| StoredSpan { trace_number: key.0, span: span.clone(), is_authentic: true })
            .collect();
        self.loaded += spans.len();
        region.take_spans(spans);
        for answer in &needs.answers {
            let named = self.spans.values().filter(|span| span.facts().response_id.as_ref() == Some(answer));
            let ids = named.map(|span| (span.facts().trace_id.clone(), span.facts().span_id.clone()));
            region.take_answer(answer, ids.take(MAX_SAME_ANSWER + 1).collect());
        }
    }

    fn write(&mut self, region: Region) {
        let changes = region.into_changes();
        let mut numbers = Vec::new();
        for trace in changes.traces {
            let number = trace.number.unwrap_or(self.traces.len() as i64 + 1);
            numbers.push(number);
            self.traces.insert(trace.trace_id, (number, trace.shown, trace.kept));
        }
        self.written += changes.spans.len();
        for changed in changes.spans {
            let key = (numbers[changed.trace], changed.span.facts().span_id.clone());
            let before = self.spans.insert(key, changed.span);
            assert_eq!(before.map(|span| span.shown), changed.before);
        }
    }

    fn clone_shown(&self) -> BTreeMap<(i64, String), Shown> {
        self.spans.iter().map(|(key, span)| (key.clone(), span.shown.clone())).collect()
    }

    /// Compares the stored result with resolving all arrivals at once.
    fn check(&self, arrivals: &[Arrival]) {
        let whole = resolved(arrivals.iter().cloned());
        assert_eq!(whole.traces.len(), self.traces.len());
        for trace in &whole.traces {
            let (number, shown, kept) = &self.traces[&trace.trace_id];
            assert_eq!(shown, &trace.shown, "{}", trace.trace_id);
            for span in &trace.spans {
                let stored = &self.spans[&(*number, span.facts().span_id.clone())];
                assert_eq!(stored.arrivals(), span.arrivals());
                assert_eq!(stored.shown, span.shown, "{} {}", trace.trace_id, span.facts().span_id);
                assert_eq!(stored.links, span.links, "{} {}", trace.trace_id, span.facts().span_id);
            }
            // Which of several spans that duplicate another trace's calls is kept depends on the order.
            let mut kept = kept.clone();
            // Not all names of other agents are kept.
            kept.agent_names.clone_from(&trace.kept.agent_names);
            kept.lacks_agent_names = trace.kept.lacks_agent_names;
            if let (Some(follow), Some(whole)) = (&mut kept.follow, &trace.kept.follow) {
                follow.span_id.clone_from(&whole.span_id);
            }
            assert_eq!(&kept, &trace.kept, "{}", trace.trace_id);
        }
    }
}

fn check_splits(spans: &[Random], order: Vec<u32>, sizes: Vec<usize>) {
    let mut shuffled: Vec<(u32, Arrival)> = order.into_iter().zip(arrivals(spans)).collect();
    shuffled.sort_by_key(|(place, _)| *place);
    let mut left: Vec<Arrival> = shuffled.into_iter().map(|(_, arrival)| arrival).collect();
    let (mut stored, mut came) = (Stored::default(), Vec::new());
    for size in sizes.into_iter().cycle() {
        if left.is_empty() {
            break;
        }
        let batch = left.split_off(left.len().saturating_sub(size));
        came.extend(batch.iter().cloned());
        stored.apply(batch);
        stored.check(&came);
    }
    // Duplicates change nothing.
    stored.apply(came.clone());
    stored.check(&came);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Traces that rarely change as a whole, so that most of their spans are not loaded.
    #[test]
    fn adding_to_calm_traces_comes_to_the_same(
        spans in prop::collection::vec(random(), 10..60),
        order in prop::collection::vec(any::<u32>(), 180),
        sizes in prop::collection::vec(1_usize..6, 1..20),
        named in 0_usize..60,
    ) {
        let calm = spans.into_iter().enumerate().map(|(at, span)| {
            let (trace, is_named) = (span.trace / 2, at == named);
            let claim = span.claim.filter(|_| is_named);
            let (agent, user) = (span.agent.filter(|_| at % 5 == 0), span.user.filter(|_| is_named));
            Random { trace, claim, agent, user, ..span }
        });
        check_splits(&calm.collect::<Vec<_>>(), order, sizes);
    }

    #[test]
    fn adding_comes_to_the_same_as_resolving_all(
        spans in prop::collection::vec(random(), 1..40),
        order in prop::collection::vec(any::<u32>(), 120),
        sizes in prop::collection::vec(1_usize..12, 1..20),
    ) {
        check_splits(&spans, order, sizes);
    }
}

/// An agent's run in one trace: a root, turns below it, and in each turn model and tool calls.
fn run(turns: u32, root_comes_last: bool) -> Vec<Vec<Arrival>> {
    let id = |number: u32| format!("{number:016x}");
    let made = |number: u32, parent: Option<u32>, kind: SpanKind| Arrival {
        agent_id: (kind != SpanKind::Tool).then(|| "agent".to_owned()),
        agent_name: Some("Agent".to_owned()),
        span_id: id(number),
        parent_span_id: parent.map(id),
        start_us: i64::from(number),
        end_us: 1_000_000,
        digest: u64::from(number).to_be_bytes(),
        ..span(0, None, kind)
    };
    let tokens = Some(Usage { input: 1, ..Usage::default() });
    let root = Arrival { agent_id: Some("root".to_owned()), ..made(1, None, SpanKind::Agent) };
    let mut batches: Vec<Vec<Arrival>> = (0..turns)
        .map(|turn| {
            let first = turn * 10 + 10;
            let call = Arrival { usage: tokens, ..made(first + 1, Some(first), SpanKind::Llm) };
            let inner = Arrival { usage: tokens, ..made(first + 2, Some(first + 1), SpanKind::Llm) };
            let tool = made(first + 3, Some(first), SpanKind::Tool);
            vec![inner, call, tool, made(first, Some(1), SpanKind::Step)]
        })
        .collect();
    batches.insert(if root_comes_last { batches.len() } else { 0 }, vec![root]);
    batches
}

#[test]
fn a_small_request_costs_the_same_at_the_end_of_a_long_trace() {
    for root_comes_last in [false, true] {
        let (mut stored, mut came) = (Stored::default(), Vec::new());
        let batches = run(600, root_comes_last);
        let last = batches.len() - 1;
        for (at, batch) in batches.into_iter().enumerate() {
            came.extend(batch.iter().cloned());
            let (loaded, written) = (stored.loaded, stored.written);
            stored.apply(batch);
            let (loaded, written) = (stored.loaded - loaded, stored.written - written);
            if at < last || !root_comes_last {
                assert!(loaded <= 2 && written <= 5, "{at}: {loaded} loaded, {written} written");
            } else {
                // The turns were roots and become its children; the spans below them don't change.
                assert_eq!((loaded, written), (600, 601));
            }
        }
        stored.check(&came);
        let total: i64 = stored.spans.values().map(|span| span.shown.counted.usage.input).sum();
        assert_eq!(total, 600);
    }
}

/// Each trace duplicates the last call of the previous one.
#[test]
fn a_chain_of_traces_costs_the_same_at_its_end() {
    for is_backwards in [false, true] {
        let mut stored = Stored::default();
        for number in 0..600_u32 {
            let at = i64::from(if is_backwards { 600 - number } else { number });
            let call = |id: u8, answer: u32| Arrival {
                trace_id: format!("{number:032x}"),
                digest: [id, 0, 0, 0, (number >> 8) as u8, number as u8, 0, 0],
                response_id: Some(format!("chatcmpl-the-answer-{answer:06}")),
                ..llm(id, None).at(at * 1000 + i64::from(id), at * 1000 + 10)
            };
            let loaded = stored.loaded;
            stored.apply(vec![call(1, number), call(2, number + 1)]);
            let loaded = stored.loaded - loaded;
            assert!(loaded <= 100, "{number}: {loaded} loaded");
        }
    }
}

#[test]
fn a_trace_that_changes_as_a_whole_again_and_again_no_longer_does() {
    let id = |number: u32| format!("{number:016x}");
    let child = |number: u32| Arrival {
        span_id: id(number),
        digest: u64::from(number).to_be_bytes(),
        ..span(0, Some(1), SpanKind::Step).at(1_000_000 - i64::from(number), 2_000_000)
    };
    let mut stored = Stored::default();
    let size = u32::try_from(WIDE_CHANGE_SPANS).unwrap() + 10;
    stored.apply(vec![span(1, None, SpanKind::Agent)]);
    stored.apply((2..size).map(child).collect());
    for change in 0..MAX_WIDE_CHANGES + 8 {
        // Each starts before the others, so its session name wins.
        let named = child(size + change).claims(0, &format!("session-{change}"));
        let loaded = stored.loaded;
        stored.apply(vec![named]);
        assert_eq!(stored.loaded - loaded < 10, change >= MAX_WIDE_CHANGES, "{change}");
        let (_, shown, _) = &stored.traces[&trace_id(1)];
        assert!(stored.spans.values().all(|span| span.shown.counted.session_id == shown.session_id));
    }
    let root = &stored.spans[&(1, span_id(1))].shown;
    assert_eq!(root.subtree.spans, i64::try_from(stored.spans.len()).unwrap());
}

#[test]
fn spans_far_above_stay_as_they_are() {
    let id = |number: u32| format!("{number:016x}");
    let link = |number: u32| Arrival {
        span_id: id(number),
        parent_span_id: (number > 0).then(|| id(number - 1)),
        digest: u64::from(number).to_be_bytes(),
        agent_id: (number == 0).then(|| "agent".to_owned()),
        usage: Some(Usage { input: 1, ..Usage::default() }),
        ..span(0, None, SpanKind::Step)
    };
    let depth = MAX_LEVELS + 20;
    let mut stored = Stored::default();
    stored.apply((0..depth).map(link).collect());
    let before = stored.clone_shown();
    let loaded = stored.loaded;
    stored.apply(vec![link(depth), Arrival { kind: Some(SpanKind::Llm), ..link(depth + 1) }]);
    assert!(stored.loaded - loaded <= MAX_LEVELS as usize + 1);
    let changed = |number: u32| {
        let (before, now) = (&before[&(1, id(number))], &stored.spans[&(1, id(number))].shown);
        assert_eq!(
            (&before.parent_span_id, &now.counted.agent_id),
            (&now.parent_span_id, &"agent".to_owned())
        );
        now.subtree.spans - before.subtree.spans
    };
    assert_eq!((changed(0), changed(10), changed(100), changed(depth - 1)), (0, 0, 2, 2));
    assert_eq!(stored.spans.values().map(|span| span.shown.counted.usage.input).sum::<i64>(), 1);
}

#[test]
fn a_call_that_is_too_large_to_be_loaded_counts_every_token_once() {
    let id = |number: i64| format!("{number:016x}");
    let inside = |number: i64| Arrival {
        span_id: id(number),
        digest: number.to_be_bytes(),
        usage: (number % 2 == 0).then(|| Usage { input: 1, ..Usage::default() }),
        ..llm(0, Some(1)).at(number, 2_000_000)
    };
    let outer = llm(1, None).tokens(MAX_CALL_SPANS).at(0, 2_000_000);
    let (mut stored, mut size) = (Stored::default(), MAX_CALL_SPANS + 10);
    stored.apply([outer].into_iter().chain((2..size).map(inside)).collect());
    for _ in 0..5 {
        let loaded = stored.loaded;
        stored.apply(vec![inside(size)]);
        assert!(stored.loaded - loaded < 10);
        size += 1;
    }
    let total: i64 = stored.spans.values().map(|span| span.shown.counted.usage.input).sum();
    assert_eq!(total, (2..size).filter(|number| number % 2 == 0).count() as i64);
    assert!(stored.spans.values().all(|span| span.shown.part_of.is_none()));
}
