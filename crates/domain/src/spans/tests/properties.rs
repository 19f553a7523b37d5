//! Properties of every forest: the order of arrival does not matter, nothing is counted twice, nothing is lost.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A random span. Every span reports a different power of two as its tokens, so that a sum shows which spans it is made of.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    pub(crate) trace: u8,
    pub(crate) parent: Option<u8>,
    pub(crate) kind: usize,
    pub(crate) provider: Option<u8>,
    pub(crate) has_tokens: bool,
    pub(crate) response: Option<u8>,
    pub(crate) claim: Option<(u8, u8)>,
    pub(crate) agent: Option<u8>,
    pub(crate) user: Option<u8>,
    pub(crate) start: i64,
    pub(crate) is_error: bool,
    /// Whether it is a failed call of a library, or one around such a call.
    pub(crate) failed_call: u8,
    /// How it arrives: as a whole, in two parts, in two parts with a log record, or only as a log record.
    pub(crate) parts: u8,
}

pub(crate) fn random() -> impl Strategy<Value = Random> {
    let place = (0_u8..4, prop::option::weighted(0.8, 0_u8..40));
    let what = (0_usize..20, prop::option::of(0_u8..2), prop::bool::weighted(0.7), prop::option::of(0_u8..5));
    let id = || prop::option::weighted(0.1, 0_u8..3);
    let whose = (prop::option::weighted(0.1, (0_u8..3, 0_u8..3)), id(), id());
    let rest = (0_i64..30, prop::bool::weighted(0.1), 0_u8..4, 0_u8..8);
    (place, what, whose, rest).prop_map(|(place, what, whose, rest)| Random {
        trace: place.0,
        parent: place.1,
        kind: what.0,
        provider: what.1,
        has_tokens: what.2,
        response: what.3,
        claim: whose.0,
        agent: whose.1,
        user: whose.2,
        start: rest.0,
        is_error: rest.1,
        parts: rest.2,
        failed_call: rest.3,
    })
}

impl Random {
    /// Its arrivals.
    fn arrivals(&self, id: u8) -> Vec<Arrival> {
        let kind = SpanKind::EVERY.get(self.kind).copied().unwrap_or(SpanKind::Llm);
        let mut whole = span(id, self.parent, kind).in_trace(self.trace).of(None);
        whole = whole.at(self.start, self.start + i64::from(id % 7));
        whole.provider = self.provider.map(|provider| format!("p{provider}"));
        whole.usage = self.has_tokens.then(|| Usage { input: 1 << id, ..Usage::default() });
        whole.response_id = self.response.map(|response| format!("r{response}"));
        whole.session = self.claim.map(|(rank, id)| SessionClaim { rank, id: format!("s{id}") });
        whole.agent_id = self.agent.map(|agent| format!("a{agent}"));
        whole.agent_name = self.agent.map(|agent| format!("Agent {agent} of {id}"));
        whole.user_id = self.user.map(|user| format!("u{user}"));
        whole.is_error = self.is_error;
        whole.model = self.provider.map(|_| "m".to_owned());
        whole.digest[2] = 1;
        if self.failed_call < 3 {
            // Of the same few parents, so that some of them are siblings.
            whole.parent_span_id = self.parent.map(|parent| span_id(parent / 10));
            (whole.kind, whole.provider, whole.model) =
                (Some(SpanKind::Llm), Some("p0".to_owned()), Some("m".to_owned()));
            (whole.usage, whole.response_id, whole.is_error) = (
                None,
                self.response.filter(|_| id.is_multiple_of(8)).map(|response| format!("r{response}")),
                true,
            );
            whole.is_of_library = self.failed_call == 0;
            let duration_us = if whole.is_of_library { 1 } else { i64::from(id % 20) };
            whole.end_us = whole.start_us + duration_us;
        }
        let begun = Arrival {
            usage: None,
            response_id: None,
            end_us: whole.start_us,
            digest: [self.trace, id, 2, 0, 0, 0, 0, 0],
            ..whole.clone()
        };
        let log = Arrival {
            source: ArrivalSource::Log,
            kind: None,
            parent_span_id: None,
            digest: [self.trace, id, 3, 0, 0, 0, 0, 0],
            ..whole.clone().at(self.start + 40, self.start + 40)
        };
        match self.parts {
            0 => vec![whole],
            1 => vec![begun, whole],
            2 => vec![begun, log, Arrival { response_id: None, ..whole }],
            _ => vec![log],
        }
    }
}

type ById<T> = BTreeMap<(String, String), T>;

fn outcome(forest: &Forest) -> (ById<Shown>, BTreeMap<String, TraceShown>) {
    let spans = forest.spans().map(|(trace, span)| {
        ((trace.trace_id.clone(), span.arrivals()[0].arrival.span_id.clone()), span.shown.clone())
    });
    let traces = forest.traces.iter().map(|trace| (trace.trace_id.clone(), trace.shown.clone()));
    (spans.collect(), traces.collect())
}

pub(crate) fn arrivals(spans: &[Random]) -> Vec<Arrival> {
    spans.iter().enumerate().flat_map(|(id, random)| random.arrivals(u8::try_from(id).unwrap())).collect()
}

/// For each span, the spans that may report the same tokens: its ancestors, its descendants, and those that name the same answer.
fn related(forest: &Forest) -> Vec<BTreeSet<usize>> {
    let facts: Vec<_> = forest.spans().map(|(_, span)| span.facts().into_owned()).collect();
    let parent = |of: usize| {
        let id = facts[of].parent_span_id.as_ref()?;
        facts.iter().position(|other| &other.span_id == id && other.trace_id == facts[of].trace_id)
    };
    let mut related: Vec<BTreeSet<usize>> = (0..facts.len()).map(|at| BTreeSet::from([at])).collect();
    for at in 0..facts.len() {
        let mut above = at;
        for _ in 0..facts.len() {
            let Some(next) = parent(above) else { break };
            related[at].insert(next);
            related[next].insert(at);
            above = next;
        }
        let twins = facts.iter().enumerate().filter(|(_, other)| {
            facts[at].response_id.is_some() && other.response_id == facts[at].response_id
        });
        related[at].extend(twins.map(|(other, _)| other));
    }
    related
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_order_of_arrival_does_not_matter(
        spans in prop::collection::vec(random(), 1..40),
        order in prop::collection::vec(any::<u32>(), 120),
        cut in 0_usize..120,
    ) {
        let ordered = arrivals(&spans);
        let mut shuffled: Vec<(u32, Arrival)> = order.into_iter().zip(ordered.iter().cloned()).collect();
        shuffled.sort_by_key(|(place, _)| *place);
        let shuffled: Vec<Arrival> = shuffled.into_iter().map(|(_, arrival)| arrival).collect();
        // Duplicates change nothing.
        let repeated = shuffled.iter().chain(&ordered).cloned();
        let whole = outcome(&resolved(ordered.clone()));
        prop_assert_eq!(&whole, &outcome(&resolved(repeated)));
        // An intermediate result has no effect on the final one.
        let mut forest = join(shuffled[..cut.min(shuffled.len())].iter().cloned());
        resolve(&mut forest, PriceTable::embedded());
        let between = outcome(&forest).0;
        let mut forest = join(shuffled);
        for trace in &mut forest.traces {
            for span in &mut trace.spans {
                let id = (trace.trace_id.clone(), span.arrivals()[0].arrival.span_id.clone());
                span.shown = between.get(&id).cloned().unwrap_or_default();
            }
        }
        resolve(&mut forest, PriceTable::embedded());
        prop_assert_eq!(&whole, &outcome(&forest));
    }

    #[test]
    fn nothing_is_counted_twice_and_nothing_is_lost(spans in prop::collection::vec(random(), 1..40)) {
        let forest = resolved(arrivals(&spans));
        let named: Vec<i64> = forest
            .spans()
            .map(|(_, span)| span.facts().usage.map_or(0, |usage| usage.input))
            .collect();
        let counted: Vec<i64> = forest.spans().map(|(_, span)| span.shown.counted.usage.input).collect();
        let mut seen = 0_i64;
        for figure in counted.iter().copied().filter(|figure| *figure != 0) {
            prop_assert!(figure.count_ones() == 1 && named.contains(&figure) && seen & figure == 0);
            seen |= figure;
        }
        let related = related(&forest);
        for (at, figure) in named.iter().enumerate().filter(|(_, figure)| **figure != 0) {
            // A span two steps away may be counted instead: the wrapper of a call whose duplicate represents it.
            let near = related[at].iter().flat_map(|near| related[*near].iter()).copied();
            let near: BTreeSet<usize> = near.flat_map(|near| related[near].iter().copied()).collect();
            let counts = seen & figure != 0 || near.iter().any(|near| seen & named[*near] != 0);
            prop_assert!(counts, "the figure of span {at} is lost");
        }
    }

    #[test]
    fn the_sums_of_the_roots_are_the_sums_of_all(spans in prop::collection::vec(random(), 1..40)) {
        let forest = resolved(arrivals(&spans));
        let shown = outcome(&forest).0;
        let mut roots = Subtree::default();
        let mut children: ById<i64> = BTreeMap::new();
        for ((trace, _), span) in &shown {
            match (&span.part_of, &span.parent_span_id) {
                (Some(whole), _) => prop_assert!(shown[whole].part_of.is_none()),
                (None, None) => roots.add(span.subtree),
                (None, Some(parent)) => *children.entry((trace.clone(), parent.clone())).or_default() += 1,
            }
        }
        for (id, span) in &shown {
            prop_assert_eq!(span.children, children.get(id).copied().unwrap_or(0));
            prop_assert!(span.part_of.is_none() || span.children == 0);
            prop_assert!(span.parts.iter().all(|part| shown[part].part_of.as_ref() == Some(id)));
        }
        prop_assert_eq!(roots.input_tokens, forest.all_input());
        prop_assert_eq!(roots.errors, forest.sum(|counted| counted.errors));
        prop_assert_eq!(roots.cost_nanos, forest.sum(|counted| counted.cost_nanos));
        let placed = shown.values().filter(|span| span.part_of.is_none()).count();
        prop_assert_eq!(roots.spans, i64::try_from(placed).unwrap());
    }

    /// Calls with known tokens, each reported in the way of one of the client libraries.
    #[test]
    fn every_way_of_reporting_a_call_counts_it_once(
        calls in prop::collection::vec((0_u8..12, 0_u8..4), 1..9),
        order in prop::collection::vec(any::<u32>(), 120),
    ) {
        let mut reported: Vec<Arrival> = Vec::new();
        let total = calls.len() as i64 * 100;
        reported.push(span(200, None, SpanKind::Agent).tokens(total));
        let in_step = calls.iter().filter(|(_, above)| [1, 2].contains(above)).count() as i64 * 100;
        let step = span(201, Some(200), SpanKind::Step);
        reported.push(if in_step > 0 { step.tokens(in_step) } else { step });
        for (number, (way, above)) in calls.iter().enumerate() {
            let first = u8::try_from(number).unwrap() * 5;
            let above = [200, 201, 201, 200][usize::from(*above)];
            report(*way, first, above, &mut reported);
        }
        let mut shuffled: Vec<(u32, Arrival)> = order.into_iter().zip(reported).collect();
        shuffled.sort_by_key(|(place, _)| *place);
        let forest = resolved(shuffled.into_iter().map(|(_, arrival)| arrival));
        prop_assert_eq!(forest.all_input(), total);
        prop_assert_eq!(forest.calls(), i64::try_from(calls.len()).unwrap());
        prop_assert_eq!(forest.shown(200).subtree.input_tokens, total);
        prop_assert_eq!(forest.sum(|counted| counted.errors), 0);
        prop_assert!(forest.spans().all(|(_, span)| span.shown.counted.session_id == trace_id(1)));
    }
}

fn report(way: u8, first: u8, above: u8, reported: &mut Vec<Arrival>) {
    let answer = format!("answer-{first}");
    let call = |id: u8, parent: u8| llm(first + id, Some(parent));
    let inner = |id: u8, outer: u8| call(id, first + outer);
    let elsewhere = |id: u8| llm(first + id, None).in_trace(100 + first).answers(&answer);
    match way {
        0 => reported.push(call(0, above).tokens(100)),
        1 => reported.extend([call(0, above).tokens(100), inner(1, 0).tokens(100)]),
        2 => reported.extend([call(0, above).tokens(100), inner(1, 0), inner(2, 1)]),
        3 => reported.extend([
            call(0, above),
            span(first + 1, Some(first), SpanKind::Chain).tokens(100),
            inner(2, 1).of(None).tokens(100),
        ]),
        4 => reported.extend([call(0, above).tokens(99).answers(&answer), elsewhere(1).tokens(100)]),
        5 => reported.extend([
            call(0, above).of(None).tokens(100).answers(&answer),
            inner(1, 0).tokens(100).answers(&answer),
            elsewhere(2).of(None).tokens(100),
        ]),
        6 => reported
            .extend([call(0, above).tokens(100), span(first + 1, Some(first), SpanKind::Http).tokens(100)]),
        7 => reported.extend([
            call(0, above).tokens(100).answers(&answer),
            call(1, above).answers(&answer),
            elsewhere(2).costs(5),
        ]),
        8 => reported.extend([
            call(0, above).answers(&answer),
            span(first + 1, None, SpanKind::Workflow).in_trace(100 + first).tokens(100),
            Arrival { parent_span_id: Some(span_id(first + 1)), ..elsewhere(2).tokens(100) },
        ]),
        9 => reported.extend([
            call(0, above).tokens(100),
            inner(1, 0).of(None).answers(&answer),
            elsewhere(2).tokens(100),
        ]),
        10 => reported.extend([
            call(0, above).of_model("m").tokens(100).answers(&answer),
            call(1, above).of_model("m").tokens(100).of_library(),
        ]),
        _ => reported.extend([
            call(0, above).tokens(100).answers(&answer),
            inner(1, 0).tokens(100),
            elsewhere(2).tokens(100),
            llm(first + 3, Some(first + 2)).in_trace(100 + first).tokens(100),
        ]),
    }
}
