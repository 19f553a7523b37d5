//! The kind of a span, when several attributes may name it.

use agentlens_domain::spans::SpanKind;

use super::field::Field;
use super::raw::RawValue;
use super::reading::Reading;

/// The kind from the best rule, otherwise from the keys that are present, otherwise [`SpanKind::Other`].
pub(super) fn kind<'a, V: RawValue + 'a>(reading: &Reading<'a, V>, has_failed: bool) -> SpanKind {
    if let Some(kind) = reading.kind() {
        return if kind == SpanKind::Llm && !has_failed && opens_a_stream(reading) {
            SpanKind::Chain
        } else {
            kind
        };
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

/// Whether a span is only the request of a streamed call, and another span has the answer.
fn opens_a_stream<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> bool {
    const OF_AN_ANSWER: [Field; 8] = [
        Field::InputTokens,
        Field::OutputTokens,
        Field::UsageObject,
        Field::ResponseId,
        Field::OutputMessages,
        Field::FinishReasons,
        Field::ErrorType,
        Field::ErrorMessage,
    ];
    reading.opens_streams() && OF_AN_ANSWER.iter().all(|field| reading.get(*field).is_none())
}
