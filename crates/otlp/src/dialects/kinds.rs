//! What a span is about, where more than one thing may say so.

use agentlens_domain::spans::SpanKind;

use super::field::Field;
use super::raw::RawValue;
use super::reading::Reading;

/// The kind: of the best rule, else by what is there. A span that nothing tells of is [`SpanKind::Other`].
pub(super) fn kind<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> SpanKind {
    if let Some(kind) = reading.kind() {
        return kind;
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
