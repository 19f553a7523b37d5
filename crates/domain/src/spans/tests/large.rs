//! Traces of 100,000 spans, in shapes that would be slow if anything walked up or down once per span, and so deep that recursion
//! would overflow the stack.

use std::time::{Duration, Instant};

use super::*;

const SPANS: u32 = 100_000;
/// Far more than an unoptimised build needs on a busy machine, and far less than a quadratic walk would take.
const LIMIT: Duration = Duration::from_secs(20);

fn forest(make: impl Fn(u32) -> Arrival) -> Forest {
    let span = |number: u32| {
        let arrival = Arrival {
            trace_id: trace_id(1),
            span_id: format!("{number:016x}"),
            start_us: i64::from(number),
            end_us: i64::from(SPANS),
            source: ArrivalSource::Span,
            digest: u64::from(number).to_be_bytes(),
            ..make(number)
        };
        Span::of(StoredArrival { event_id: String::new(), environment: String::new(), arrival })
    };
    let trace = Trace { trace_id: trace_id(1), spans: (0..SPANS).map(span).collect(), ..Trace::default() };
    let mut forest = Forest { traces: vec![trace], ..Forest::default() };
    let begin = Instant::now();
    resolve(&mut forest, PriceTable::embedded());
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    forest
}

fn kind(kind: SpanKind) -> Arrival {
    Arrival { kind: Some(kind), usage: Some(Usage { input: 1, ..Usage::default() }), ..Arrival::default() }
}

fn under(parent: u32, arrival: Arrival) -> Arrival {
    Arrival { parent_span_id: Some(format!("{parent:016x}")), ..arrival }
}

fn chain(make: impl Fn(u32) -> Arrival) -> Forest {
    forest(|number| if number == 0 { make(0) } else { under(number - 1, make(number)) })
}

fn root(forest: &Forest) -> &Shown {
    &forest.traces[0].spans[0].shown
}

#[test]
fn a_chain_of_steps() {
    let forest = chain(|number| if number + 1 == SPANS { kind(SpanKind::Llm) } else { kind(SpanKind::Step) });
    assert_eq!((root(&forest).subtree.spans, root(&forest).subtree.input_tokens), (i64::from(SPANS), 1));
}

#[test]
fn a_chain_of_wrappers() {
    let forest = chain(|_| kind(SpanKind::Llm));
    assert_eq!((root(&forest).subtree.spans, root(&forest).subtree.input_tokens), (1, 1));
    assert_eq!(root(&forest).parts.len(), SPANS as usize - 1);
}

#[test]
fn a_chain_of_calls_of_which_many_name_one_answer() {
    let forest = chain(|number| match number % 2 {
        0 => Arrival { response_id: Some(format!("chatcmpl-{:09}", number / 16)), ..kind(SpanKind::Llm) },
        _ => Arrival { usage: None, ..kind(SpanKind::Agent) },
    });
    assert_eq!(root(&forest).subtree.input_tokens, i64::from(SPANS.div_ceil(16)));
}

#[test]
fn a_chain_of_parts_of_another_span() {
    // Providers alternate, so no call wraps another; each call duplicates one of its provider elsewhere in the trace.
    let forest = forest(|number| {
        let provider = Some(["a", "b", "c"][number as usize % 3].to_owned());
        let response_id = Some(format!("chatcmpl-{:09}", number / 12));
        let call = Arrival { provider, response_id, ..kind(SpanKind::Llm) };
        if number < 4 { call } else { under(number - 1, call) }
    });
    assert_eq!(forest.all_input(), 3 * i64::from(SPANS.div_ceil(12)));
}

#[test]
fn a_star() {
    let forest = forest(|number| match number {
        0 => kind(SpanKind::Agent),
        _ => under(0, kind(SpanKind::Llm)),
    });
    assert_eq!(root(&forest).subtree.input_tokens, i64::from(SPANS) - 1);
    assert_eq!(root(&forest).children, i64::from(SPANS) - 1);
}

#[test]
fn one_ring() {
    let forest = forest(|number| under((number + 1) % SPANS, kind(SpanKind::Step)));
    assert_eq!((root(&forest).subtree.spans, root(&forest).subtree.input_tokens), (i64::from(SPANS), 1));
}
