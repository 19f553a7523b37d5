//! The kind of a span, when several attributes may name it.

use agentlens_domain::spans::SpanKind;

use super::field::Field;
use super::raw::RawValue;
use super::reading::Reading;
use super::table::table;

/// The kind from the best rule, otherwise from the keys that are present, otherwise [`SpanKind::Other`].
pub(super) fn kind<'a, V: RawValue + 'a>(reading: &Reading<'a, V>, name: &str, has_failed: bool) -> SpanKind {
    if let Some(kind) = reading.kind() {
        let is_no_call =
            || (!has_failed && opens_a_stream(reading)) || only_prepares_a_request(reading, name);
        return if kind == SpanKind::Llm && is_no_call() { SpanKind::Chain } else { kind };
    }
    let hints = reading.hints();
    let speaks = [
        Field::InputTokens,
        Field::OutputTokens,
        Field::UsageObject,
        Field::InputMessages,
        Field::OutputMessages,
    ]
    .into_iter()
    .any(|field| reading.get(field).is_some());
    match hints {
        _ if hints.tool => SpanKind::Tool,
        _ if hints.llm && speaks => SpanKind::Llm,
        _ if hints.retriever => SpanKind::Retriever,
        _ if hints.http => SpanKind::Http,
        _ => SpanKind::Other,
    }
}

/// Fields of which each answer of a model has one.
const OF_AN_ANSWER: [Field; 6] = [
    Field::InputTokens,
    Field::OutputTokens,
    Field::UsageObject,
    Field::ResponseId,
    Field::OutputMessages,
    Field::FinishReasons,
];

/// Whether a span is only the request of a streamed call, and another span has the answer.
fn opens_a_stream<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> bool {
    let has_none = |fields: &[Field]| fields.iter().all(|field| reading.get(*field).is_none());
    reading.opens_streams() && has_none(&OF_AN_ANSWER) && has_none(&[Field::ErrorType, Field::ErrorMessage])
}

/// Whether a span is only the preparation of a request, and another span has the request and the answer.
fn only_prepares_a_request<'a, V: RawValue + 'a>(reading: &Reading<'a, V>, name: &str) -> bool {
    table().prepares_a_request(name) && OF_AN_ANSWER.iter().all(|field| reading.get(*field).is_none())
}
