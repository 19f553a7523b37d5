//! The rules of ownership one by one. [`properties`] tests what holds for every forest, and [`large`] the time that large traces
//! take.

mod incremental;
mod large;
pub(crate) mod properties;

use super::*;
use crate::cost::{CostSource, PriceTable, ServiceTier};

const MINUTE_US: i64 = 60_000_000;

/// A span of trace 1 that starts at `id` and ends at 1000.
fn span(id: u8, parent: Option<u8>, kind: SpanKind) -> Arrival {
    Arrival {
        trace_id: trace_id(1),
        span_id: span_id(id),
        parent_span_id: parent.map(span_id),
        source: ArrivalSource::Span,
        digest: [1, id, 0, 0, 0, 0, 0, 0],
        kind: Some(kind),
        start_us: i64::from(id),
        end_us: 1000,
        ..Arrival::default()
    }
}

fn llm(id: u8, parent: Option<u8>) -> Arrival {
    Arrival { provider: Some("openai".to_owned()), ..span(id, parent, SpanKind::Llm) }
}

fn trace_id(id: u8) -> String {
    format!("{id:032x}")
}

fn span_id(id: u8) -> String {
    format!("{id:016x}")
}

impl Arrival {
    fn tokens(mut self, input: i64) -> Self {
        self.usage = Some(Usage { input, output: 1, ..Usage::default() });
        self
    }

    fn costs(mut self, nanos: i64) -> Self {
        self.reported_cost_nanos = Some(nanos);
        self
    }

    fn in_trace(mut self, trace: u8) -> Self {
        self.trace_id = trace_id(trace);
        self.digest[0] = trace;
        self
    }

    fn answers(mut self, response: &str) -> Self {
        self.response_id = Some(response.to_owned());
        self
    }

    fn of(mut self, provider: Option<&str>) -> Self {
        self.provider = provider.map(str::to_owned);
        self
    }

    fn claims(mut self, rank: u8, session: &str) -> Self {
        self.session = Some(SessionClaim { rank, id: session.to_owned() });
        self
    }

    fn at(mut self, start_us: i64, end_us: i64) -> Self {
        (self.start_us, self.end_us) = (start_us, end_us);
        self
    }

    fn of_model(mut self, model: &str) -> Self {
        self.model = Some(model.to_owned());
        self
    }

    fn of_library(mut self) -> Self {
        self.is_of_library = true;
        self
    }

    fn fails(mut self) -> Self {
        self.is_error = true;
        self
    }
}

/// Adds arrivals in their order, as the store does, without resolving them.
fn join(arrivals: impl IntoIterator<Item = Arrival>) -> Forest {
    let mut forest = Forest::default();
    for arrival in arrivals {
        let place = forest.traces.iter().position(|trace| trace.trace_id == arrival.trace_id);
        let place = place.unwrap_or_else(|| {
            forest.traces.push(Trace { trace_id: arrival.trace_id.clone(), ..Trace::default() });
            forest.traces.len() - 1
        });
        let spans = &mut forest.traces[place].spans;
        let known = spans.iter_mut().find(|span| span.arrivals()[0].arrival.span_id == arrival.span_id);
        let stored = StoredArrival { event_id: String::new(), environment: "production".to_owned(), arrival };
        match known {
            Some(span) if span.has(&stored.arrival) => {}
            Some(span) => span.add(stored),
            None => spans.push(Span::of(stored)),
        }
    }
    forest
}

fn resolved(arrivals: impl IntoIterator<Item = Arrival>) -> Forest {
    let mut forest = join(arrivals);
    resolve(&mut forest, PriceTable::embedded());
    forest
}

impl Forest {
    fn spans(&self) -> impl Iterator<Item = (&Trace, &Span)> {
        self.traces.iter().flat_map(|trace| trace.spans.iter().map(move |span| (trace, span)))
    }

    fn shown_in(&self, trace: u8, id: u8) -> &Shown {
        let is_it = |(_, span): &(&Trace, &Span)| {
            let arrival = &span.arrivals()[0].arrival;
            arrival.trace_id == trace_id(trace) && arrival.span_id == span_id(id)
        };
        &self.spans().find(is_it).unwrap().1.shown
    }

    fn shown(&self, id: u8) -> &Shown {
        self.shown_in(1, id)
    }

    /// The input tokens counted for spans of trace 1, by id.
    fn input(&self, ids: &[u8]) -> Vec<i64> {
        ids.iter().map(|id| self.shown(*id).counted.usage.input).collect()
    }

    fn sum(&self, of: impl Fn(&Contribution) -> i64) -> i64 {
        self.spans().map(|(_, span)| of(&span.shown.counted)).sum()
    }

    fn all_input(&self) -> i64 {
        self.sum(|counted| counted.usage.input)
    }

    fn calls(&self) -> i64 {
        self.sum(|counted| counted.llm_calls)
    }

    fn session(&self, trace: u8) -> &str {
        let trace = self.traces.iter().find(|known| known.trace_id == trace_id(trace)).unwrap();
        &trace.shown.session_id
    }
}

#[test]
fn the_inner_of_two_spans_of_one_call_owns_it() {
    let forest = resolved([llm(1, None).tokens(10), llm(2, Some(1)).tokens(10)]);
    assert_eq!(forest.input(&[1, 2]), [0, 10]);
    assert_eq!((forest.calls(), forest.sum(|counted| counted.errors)), (1, 0));
    assert_eq!(forest.shown(2).part_of, Some((trace_id(1), span_id(1))));
    let outer = forest.shown(1);
    assert_eq!((outer.children, outer.subtree.spans, outer.subtree.input_tokens), (0, 1, 10));
    assert_eq!((outer.own.usage.input, outer.parts.len()), (10, 1));
    // A step between them changes nothing.
    let forest =
        resolved([llm(1, None).tokens(10), span(2, Some(1), SpanKind::Step), llm(3, Some(2)).tokens(10)]);
    assert_eq!((forest.input(&[1, 3]), forest.calls()), (vec![0, 10], 1));
    assert_eq!(forest.shown(3).part_of, Some((trace_id(1), span_id(1))));
}

#[test]
fn two_calls_inside_one_are_two() {
    let forest = resolved([llm(1, None).tokens(30), llm(2, Some(1)).tokens(10), llm(3, Some(1)).tokens(20)]);
    assert_eq!((forest.input(&[1, 2, 3]), forest.calls()), (vec![0, 10, 20], 2));
    let outer = forest.shown(1);
    assert_eq!((outer.children, outer.subtree.spans, outer.subtree.input_tokens), (2, 3, 30));
    assert_eq!(forest.shown(2).part_of, None);
}

#[test]
fn an_inner_call_that_reports_less_is_part_of_the_outer() {
    let forest = resolved([llm(1, None).tokens(10), llm(2, Some(1)), llm(3, Some(1))]);
    assert_eq!((forest.input(&[1, 2, 3]), forest.calls()), (vec![10, 0, 0], 1));
    assert_eq!(forest.shown(3).part_of, Some((trace_id(1), span_id(1))));
    // However deeply they are nested.
    let forest = resolved([llm(1, None).tokens(10), llm(2, Some(1)), llm(3, Some(2)), llm(4, Some(3))]);
    assert_eq!((forest.input(&[1, 2, 3, 4]), forest.calls()), (vec![10, 0, 0, 0], 1));
    let forest = resolved([llm(1, None), llm(2, Some(1)), llm(3, Some(2)).tokens(10)]);
    assert_eq!((forest.input(&[1, 2, 3]), forest.calls()), (vec![0, 0, 10], 1));
    assert_eq!(forest.shown(3).part_of, Some((trace_id(1), span_id(1))));
}

#[test]
fn tokens_outrank_a_cost() {
    // Inside: the inner one's cost, the outer one's tokens.
    let forest = resolved([llm(1, None).tokens(10), llm(2, Some(1)).costs(7)]);
    assert_eq!((forest.input(&[1, 2]), forest.calls()), (vec![10, 0], 1));
    assert_eq!(forest.shown(1).counted.cost_nanos, 7);
    // Outside: the other way round.
    let forest = resolved([llm(1, None).costs(7), llm(2, Some(1)).tokens(10)]);
    assert_eq!((forest.input(&[1, 2]), forest.calls()), (vec![0, 10], 1));
    assert_eq!((forest.shown(2).counted.cost_nanos, forest.sum(|counted| counted.cost_nanos)), (7, 7));
    // A duplicate that started later and reports only a cost.
    let forest =
        resolved([llm(1, None).tokens(10).answers("r"), llm(2, None).costs(7).answers("r").in_trace(2)]);
    assert_eq!((forest.all_input(), forest.sum(|counted| counted.cost_nanos)), (10, 7));
}

#[test]
fn an_error_of_one_call_counts_once() {
    let forest = resolved([llm(1, None).fails(), llm(2, Some(1)).fails()]);
    assert_eq!((forest.sum(|counted| counted.errors), forest.calls()), (1, 1));
    assert_eq!(forest.shown(1).subtree.errors, 1);
    // If only the inner span reports the error, the call failed too.
    let forest = resolved([llm(1, None), llm(2, Some(1)).fails()]);
    assert_eq!((forest.sum(|counted| counted.errors), forest.shown(1).counted.errors), (1, 1));
    let forest = resolved([llm(1, None).fails(), llm(2, Some(1)).fails(), llm(3, Some(1)).tokens(4)]);
    assert_eq!((forest.sum(|counted| counted.errors), forest.calls(), forest.all_input()), (2, 2, 4));
}

#[test]
fn another_provider_or_kind_or_time_is_another_call() {
    let other = resolved([llm(1, None).tokens(10), llm(2, Some(1)).of(Some("anthropic")).tokens(20)]);
    assert_eq!((other.input(&[1, 2]), other.calls()), (vec![10, 20], 2));
    assert_eq!(other.shown(2).part_of, None);
    let embedding = resolved([llm(1, None).tokens(10), span(2, Some(1), SpanKind::Embedding).tokens(20)]);
    assert_eq!((embedding.input(&[1, 2]), embedding.calls()), (vec![10, 20], 1));
    let later = resolved([llm(1, None).tokens(10).at(0, 5), llm(2, Some(1)).tokens(20).at(6, 9)]);
    assert_eq!((later.input(&[1, 2]), later.calls()), (vec![10, 20], 2));
    // A span without a provider matches any provider.
    let unnamed = resolved([llm(1, None).tokens(10), llm(2, Some(1)).of(None).tokens(10)]);
    assert_eq!(
        (unnamed.input(&[1, 2]), unnamed.shown(2).counted.provider.as_deref()),
        (vec![0, 10], Some("openai"))
    );
}

#[test]
fn a_tool_or_an_agent_between_separates_two_calls() {
    for kind in [SpanKind::Tool, SpanKind::Agent] {
        let forest = resolved([llm(1, None).tokens(10), span(2, Some(1), kind), llm(3, Some(2)).tokens(20)]);
        assert_eq!((forest.input(&[1, 3]), forest.calls()), (vec![10, 20], 2), "{kind:?}");
        assert_eq!(forest.shown(3).part_of, None);
        assert_eq!(forest.shown(1).subtree.input_tokens, 30);
    }
}

#[test]
fn a_sum_counts_only_while_nothing_below_owns_anything() {
    let run = || span(1, None, SpanKind::Agent).tokens(30);
    let alone = resolved([run(), llm(2, Some(1))]);
    assert_eq!((alone.input(&[1, 2]), alone.calls()), (vec![30, 0], 1));
    let partly = resolved([run(), llm(2, Some(1)).tokens(10), llm(3, Some(1))]);
    assert_eq!(partly.input(&[1, 2, 3]), [0, 10, 0]);
    // Of nested sums, the innermost counts.
    let step = |id| span(id, Some(1), SpanKind::Step);
    let nested = resolved([run(), step(2).tokens(10), step(3).tokens(20), llm(4, Some(2))]);
    assert_eq!(nested.input(&[1, 2, 3, 4]), [0, 10, 20, 0]);
    let deep =
        resolved([run(), step(2).tokens(30), span(3, Some(2), SpanKind::Chain), llm(4, Some(3)).tokens(9)]);
    assert_eq!(deep.input(&[1, 2, 4]), [0, 0, 9]);
}

#[test]
fn a_sum_inside_a_call_that_reports_tokens_is_ignored() {
    let inside = resolved([llm(1, None).tokens(10), span(2, Some(1), SpanKind::Http).tokens(10)]);
    assert_eq!(inside.input(&[1, 2]), [10, 0]);
    let unnamed = resolved([llm(1, None), span(2, Some(1), SpanKind::Http).tokens(10)]);
    assert_eq!(unnamed.input(&[1, 2]), [0, 10]);
    let wrapped =
        resolved([llm(1, None).tokens(10), llm(2, Some(1)), span(3, Some(2), SpanKind::Chain).tokens(10)]);
    assert_eq!(wrapped.input(&[1, 2, 3]), [10, 0, 0]);
    let agent = resolved([
        llm(1, None).tokens(10),
        span(2, Some(1), SpanKind::Tool),
        span(3, Some(2), SpanKind::Agent).tokens(20),
    ]);
    assert_eq!(agent.input(&[1, 3]), [10, 20]);
}

#[test]
fn embeddings_in_embeddings_are_one() {
    let embed = |id, parent| span(id, parent, SpanKind::Embedding);
    let forest = resolved([embed(1, None).tokens(10), embed(2, Some(1)).tokens(10)]);
    assert_eq!((forest.input(&[1, 2]), forest.calls()), (vec![0, 10], 0));
    assert!(forest.shown(2).part_of.is_some());
    assert_eq!(forest.shown(2).counted.latency_us, None);
}

#[test]
fn spans_that_name_one_answer_are_one_call() {
    let in_one = resolved([
        span(1, None, SpanKind::Workflow),
        llm(2, Some(1)).tokens(10).answers("r"),
        llm(3, Some(1)).tokens(11).answers("r"),
    ]);
    assert_eq!((in_one.input(&[2, 3]), in_one.calls()), (vec![11, 0], 1));
    assert_eq!((in_one.shown(1).children, in_one.shown(1).subtree.input_tokens), (1, 11));
    // Across traces: shown in the trace with more context, with the figures of the span that started last.
    let across = resolved([
        span(1, None, SpanKind::Workflow),
        llm(2, Some(1)).tokens(10).answers("r"),
        llm(3, None).tokens(11).answers("r").in_trace(2),
    ]);
    assert_eq!((across.all_input(), across.calls()), (11, 1));
    assert_eq!(across.shown(2).counted.usage.input, 11);
    assert_eq!(across.shown_in(2, 3).part_of, Some((trace_id(1), span_id(2))));
    assert_eq!(across.session(2), trace_id(1));
    assert_eq!(across.shown_in(2, 3).counted.session_id, trace_id(1));
}

#[test]
fn usage_of_one_duplicate_counts_for_all_others() {
    let elsewhere = |id| llm(id, None).tokens(10).answers("r").in_trace(2);
    // The sum above the duplicate without usage does not count.
    let sum =
        resolved([span(1, None, SpanKind::Agent).tokens(10), llm(2, Some(1)).answers("r"), elsewhere(3)]);
    assert_eq!((sum.input(&[1, 2]), sum.all_input(), sum.calls()), (vec![0, 10], 10, 1));
    // Nor do the tokens of its wrapper.
    let wrapped = resolved([llm(1, None).tokens(10), llm(2, Some(1)).answers("r"), elsewhere(3)]);
    assert_eq!((wrapped.all_input(), wrapped.calls()), (10, 1));
    let named_twice = resolved([llm(1, None).tokens(10).answers("r"), llm(2, Some(1)).answers("r")]);
    assert_eq!((named_twice.input(&[1, 2]), named_twice.calls()), (vec![10, 0], 1));
    // An answer that only the wrapper names belongs to the call inside it.
    let inner = resolved([llm(1, None).answers("r"), llm(2, Some(1)).tokens(10), elsewhere(3)]);
    assert_eq!((inner.all_input(), inner.calls()), (10, 1));
}

#[test]
fn the_same_answer_of_another_provider_or_long_after_is_another() {
    let answer = "chatcmpl-9x8Qm2VtK";
    let call =
        |id, trace, start| llm(id, None).tokens(10).answers(answer).in_trace(trace).at(start, start + 5);
    let far = resolved([call(1, 1, 0), call(2, 2, 10 * MINUTE_US + 1)]);
    assert_eq!((far.all_input(), far.calls(), far.session(2)), (20, 2, trace_id(2).as_str()));
    let near = resolved([call(1, 1, 0), call(2, 2, 10 * MINUTE_US)]);
    assert_eq!((near.all_input(), near.calls()), (10, 1));
    let other = resolved([call(1, 1, 0), call(2, 2, 1).of(Some("anthropic"))]);
    assert_eq!((other.all_input(), other.calls()), (20, 2));
    let unnamed = resolved([call(1, 1, 0), call(2, 2, 1).of(None)]);
    assert_eq!((unnamed.all_input(), unnamed.calls()), (10, 1));
}

#[test]
fn a_short_id_names_one_answer_only_while_its_call_lasts() {
    let call = |id, trace, start| {
        llm(id, None).tokens(10).answers("chatcmpl-417").in_trace(trace).at(start, start + 5)
    };
    let twins = resolved([call(1, 1, 0), call(2, 2, 5)]);
    assert_eq!((twins.all_input(), twins.calls()), (10, 1));
    let reused = resolved([call(1, 1, 0), call(2, 2, 6)]);
    assert_eq!((reused.all_input(), reused.calls()), (20, 2));
}

#[test]
fn an_id_that_many_spans_name_is_no_answer() {
    let calls =
        |count| (1..=count).map(|id| llm(id, None).tokens(10).answers("chatcmpl-constant-id").in_trace(id));
    let few = resolved(calls(16));
    assert_eq!((few.all_input(), few.calls()), (10, 1));
    let many = resolved(calls(17));
    assert_eq!((many.all_input(), many.calls()), (170, 17));
}

#[test]
fn the_span_with_most_context_represents_an_answer() {
    let call = |id, trace| llm(id, None).tokens(10).answers("r").in_trace(trace);
    let anchor = |forest: &Forest| {
        let mut calls = forest.spans().filter(|(_, span)| span.shown.counted.llm_calls == 1);
        let (trace, _) = calls.next().unwrap();
        assert!(calls.next().is_none());
        trace.trace_id.clone()
    };
    let by_start = resolved([call(2, 2), call(1, 1)]);
    assert_eq!(anchor(&by_start), trace_id(1));
    let with_parent = Arrival { parent_span_id: Some(span_id(9)), ..call(2, 2) };
    assert_eq!(anchor(&resolved([with_parent.clone(), call(1, 1)])), trace_id(2));
    let by_session = resolved([with_parent.clone(), call(3, 3).claims(1, "chat")]);
    assert_eq!((anchor(&by_session), by_session.session(2)), (trace_id(3), "chat"));
    // A session named by another span of the trace counts the same.
    let by_root =
        resolved([with_parent, call(3, 3), span(4, None, SpanKind::Agent).in_trace(3).claims(1, "chat")]);
    assert_eq!((anchor(&by_root), by_root.session(2)), (trace_id(3), "chat"));
}

#[test]
fn a_root_whose_parent_never_arrived_ends_the_trace_unless_a_span_starts_later() {
    let end = |arrivals: Vec<Arrival>| {
        let shown = resolved(arrivals).traces.remove(0).shown;
        (shown.ended_us, shown.ended_in_error)
    };
    let orphan = || span(2, Some(1), SpanKind::Agent).at(10, 500).fails();
    assert_eq!(end(vec![orphan()]), (Some(500), true));
    assert_eq!(end(vec![orphan(), llm(3, Some(2)).at(20, 600)]), (Some(500), true));
    assert_eq!(end(vec![orphan(), llm(3, Some(1)).at(600, 700)]), (None, false));
    let log = Arrival { source: ArrivalSource::Log, ..orphan() };
    assert_eq!(end(vec![log]), (None, false));
    assert_eq!(end(vec![orphan(), span(1, None, SpanKind::Http).at(0, 900)]), (Some(900), false));
}

#[test]
fn a_trace_shares_the_session_of_the_trace_that_it_duplicates() {
    let call = |id, trace: u8, response: &str| llm(id, None).tokens(10).answers(response).in_trace(trace);
    let chain = resolved([
        call(1, 1, "a").claims(1, "chat"),
        call(2, 2, "a"),
        Arrival { parent_span_id: Some(span_id(99)), ..call(3, 2, "b") },
        call(4, 3, "b"),
    ]);
    assert_eq!((chain.session(1), chain.session(2), chain.session(3)), ("chat", "chat", "chat"));
    assert_eq!((chain.all_input(), chain.calls()), (20, 2));
    // Two traces that duplicate each other share a session, however many others are resolved with them.
    for others in 0..3 {
        let below =
            |id, trace, response| Arrival { parent_span_id: Some(span_id(99)), ..call(id, trace, response) };
        let mut arrivals = vec![below(1, 1, "a"), call(2, 2, "a"), below(3, 2, "b"), call(4, 1, "b")];
        arrivals.extend((0..others).map(|other| call(5, 3 + other, "none")));
        let ring = resolved(arrivals);
        assert_eq!((ring.session(1), ring.session(2)), (trace_id(1).as_str(), trace_id(1).as_str()));
    }
}

#[test]
fn a_duplicate_is_shown_where_its_anchor_is_shown() {
    // The anchor is itself part of its wrapper. The order of the traces does not matter.
    for (first, second) in [(1, 2), (2, 1)] {
        let forest = resolved([
            llm(1, None).in_trace(first).claims(1, "chat"),
            llm(2, Some(1)).in_trace(first).tokens(10).answers("r"),
            llm(3, None).in_trace(second).tokens(10).answers("r"),
        ]);
        let whole = Some((trace_id(first), span_id(1)));
        assert_eq!(forest.shown_in(first, 2).part_of, whole);
        assert_eq!(forest.shown_in(second, 3).part_of, whole);
        assert_eq!((forest.shown_in(first, 1).parts.len(), forest.all_input()), (2, 10));
    }
}

#[test]
fn crossed_duplicates_stay_in_the_tree() {
    let agent = |id, parent| span(id, Some(parent), SpanKind::Agent);
    let forest = resolved([
        span(1, None, SpanKind::Workflow),
        llm(2, Some(1)).tokens(10).answers("a"),
        agent(3, 2),
        llm(4, Some(3)).tokens(10).answers("b").claims(0, "chat"),
        llm(5, Some(1)).tokens(10).answers("b"),
        agent(6, 5),
        llm(7, Some(6)).tokens(10).answers("a").claims(0, "chat"),
    ]);
    assert_eq!((forest.all_input(), forest.calls()), (20, 2));
    assert_eq!(forest.shown(1).subtree.input_tokens, 20);
    assert_eq!(forest.shown(1).subtree.spans, 5);
}

#[test]
fn an_answer_from_the_clients_cache_costs_nothing() {
    let call = Arrival { model: Some("gpt-4o".to_owned()), ..llm(1, None).tokens(1_000_000) };
    let price = resolved([call.clone()]).shown(1).counted.cost_nanos;
    assert!(price > 0);
    let hit = resolved([Arrival { is_cache_hit: true, ..call.clone() }]);
    let own = hit.shown(1).own;
    assert_eq!(
        (own.cost_nanos, own.saved_cost_nanos, own.cost_source),
        (0, price, Some(CostSource::Computed))
    );
    let batch = resolved([Arrival { service_tier: Some(ServiceTier::Batch), ..call }]);
    assert_eq!(batch.shown(1).counted.cost_nanos, price / 2);
    // A wrapper may know the model of a call, and that the call was part of a batch.
    let wrapper =
        Arrival { model: Some("gpt-4o".to_owned()), service_tier: Some(ServiceTier::Batch), ..llm(1, None) };
    let inner = resolved([wrapper, llm(2, Some(1)).tokens(1_000_000)]);
    let counted = &inner.shown(2).counted;
    assert_eq!((counted.cost_nanos, counted.model.as_deref()), (price / 2, Some("gpt-4o")));
}

#[test]
fn cycles_of_parents_are_cut_at_the_earliest() {
    let ring = resolved([
        llm(3, Some(2)).tokens(1),
        span(1, Some(3), SpanKind::Chain),
        span(2, Some(1), SpanKind::Chain),
    ]);
    assert_eq!((ring.shown(1).parent_span_id.clone(), ring.all_input()), (None, 1));
    assert_eq!((ring.shown(1).subtree.spans, ring.shown(1).subtree.input_tokens), (3, 1));
    let itself = resolved([llm(1, Some(1)).tokens(1)]);
    assert_eq!((itself.shown(1).parent_span_id.clone(), itself.all_input()), (None, 1));
}

#[test]
fn an_agent_is_inherited_from_above() {
    let named = |arrival: Arrival, agent: &str| Arrival { agent_id: Some(agent.to_owned()), ..arrival };
    let serviced = |arrival: Arrival| Arrival { service: Some("service".to_owned()), ..arrival };
    let forest = resolved([
        serviced(span(1, None, SpanKind::Workflow)),
        named(span(2, Some(1), SpanKind::Agent), "planner"),
        llm(3, Some(2)),
        named(span(4, Some(2), SpanKind::Agent), "writer"),
        llm(5, Some(4)),
    ]);
    let agents: Vec<_> = (1..=5).map(|id| forest.shown(id).counted.agent_id.clone()).collect();
    assert_eq!(agents, ["planner", "planner", "planner", "writer", "writer"]);
    assert_eq!(forest.traces[0].shown.agent_id, "planner");
    assert_eq!(resolved([serviced(llm(1, None))]).shown(1).counted.agent_id, "service");
    assert_eq!(resolved([llm(1, None)]).shown(1).counted.agent_id, "unknown");
}

#[test]
fn the_best_session_name_wins_then_the_earliest() {
    let forest = resolved([
        llm(1, None).claims(3, "run"),
        llm(2, Some(1)).claims(1, "b"),
        llm(3, Some(1)).claims(1, "a"),
    ]);
    assert_eq!(forest.session(1), "b");
    assert_eq!(forest.shown(1).counted.session_id, "b");
    assert_eq!(resolved([llm(1, None)]).session(1), trace_id(1));
}

#[test]
fn the_time_range_of_a_trace_only_widens() {
    let log = Arrival { source: ArrivalSource::Log, kind: None, digest: [9; 8], ..llm(2, None).at(50, 50) };
    let call = llm(2, None).at(10, 40);
    let before = resolved([log.clone()]).traces.remove(0).shown;
    assert_eq!((before.start_us, before.end_us, before.ended_us), (50, 50, None));
    for order in [[log.clone(), call.clone()], [call, log]] {
        let forest = resolved(order);
        let shown = &forest.traces[0].shown;
        assert_eq!((shown.start_us, shown.end_us, shown.ended_us), (10, 50, Some(40)));
        assert_eq!(forest.shown(2).counted.latency_us, Some(30));
    }
}

/// Bug: a call of Mistral's or Anthropic's library under an instrumentation has two spans side by side. Those of failed calls, and those
/// of Mistral, name no common answer, so they counted twice.
#[test]
fn a_librarys_own_span_beside_an_instrumentations_is_one_call() {
    let run = span(1, None, SpanKind::Agent).at(0, 1000);
    let call = |id: u8, from: i64, to: i64| llm(id, Some(1)).of_model("m").at(from, to);
    let forest = resolved([
        run.clone(),
        call(2, 10, 100).tokens(300).answers("chatcmpl-aaaaaaaaaaaaaaaa"),
        call(3, 20, 90).tokens(300).of_library(),
        call(4, 200, 300).fails(),
        call(5, 210, 290).fails().of_library(),
    ]);
    assert_eq!((forest.calls(), forest.all_input()), (2, 300));
    assert_eq!(forest.sum(|counted| counted.errors), 1);
    for (part, whole) in [(3, 2), (5, 4)] {
        assert_eq!(forest.shown(part).part_of, Some((trace_id(1), span_id(whole))));
    }
    // Calls at the same time: each span of the library belongs to another one around it.
    let forest = resolved([
        run,
        call(2, 10, 50).fails(),
        call(3, 11, 100).fails(),
        call(4, 12, 45).fails().of_library(),
        call(5, 13, 95).fails().of_library(),
        call(6, 14, 40).fails().of_library(),
    ]);
    assert_eq!((forest.calls(), forest.sum(|counted| counted.errors)), (3, 3));
}

#[test]
fn true_calls_side_by_side_stay_two() {
    let run = span(1, None, SpanKind::Agent).at(0, 1000);
    let call = |id: u8, from: i64, to: i64| llm(id, Some(1)).of_model("m").at(from, to);
    let outer = call(2, 10, 100).fails();
    let inner = call(3, 20, 90).fails().of_library();
    for (why, outer, inner) in [
        ("none is of a library", outer.clone(), call(3, 20, 90).fails()),
        ("both are of a library", outer.clone().of_library(), inner.clone()),
        ("another model", outer.clone().of_model("n"), inner.clone()),
        ("another provider", outer.clone().of(Some("azure")), inner.clone()),
        ("no model", Arrival { model: None, ..outer.clone() }, Arrival { model: None, ..inner.clone() }),
        ("not inside its time", outer.clone(), inner.clone().at(20, 101)),
        ("after it", outer.clone(), inner.clone().at(101, 102)),
        ("only one failed", Arrival { is_error: false, ..outer.clone() }, inner.clone()),
        ("other tokens", call(2, 10, 100).tokens(5), call(3, 20, 90).tokens(6).of_library()),
        ("no tokens", call(2, 10, 100), call(3, 20, 90).of_library()),
        (
            "another answer",
            call(2, 10, 100).tokens(5).answers("a"),
            call(3, 20, 90).tokens(5).answers("b").of_library(),
        ),
        ("another parent", outer.clone(), Arrival { parent_span_id: Some(span_id(9)), ..inner.clone() }),
        ("no parent", Arrival { parent_span_id: None, ..outer }, Arrival { parent_span_id: None, ..inner }),
    ] {
        let forest = resolved([run.clone(), span(9, Some(1), SpanKind::Step), outer, inner]);
        assert_eq!(forest.calls(), 2, "{why}");
    }
}
