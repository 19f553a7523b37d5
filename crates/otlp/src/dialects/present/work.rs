//! The input and output of a tool, a retriever or an embedding.

use agentlens_domain::spans::SpanKind;
use serde_json::{Map, Value as Json, json};

use super::super::field::Field;
use super::super::raw::RawValue;
use super::conversation::read;
use super::merged::Merged;
use super::values::{as_text, first};
use super::{families, parts};

/// A tool's arguments.
pub(super) fn arguments(merged: &Merged) -> Option<Json> {
    read(merged, Field::Arguments).map(called_with)
}

/// The arguments of a decorated function, which Python clients send as `{"args": [...], "kwargs": {...}}`.
fn called_with(value: Json) -> Json {
    let Some(object) = value.as_object() else { return value };
    let is_call = object.contains_key("kwargs") || object.contains_key("args");
    if !is_call || object.keys().any(|key| key != "args" && key != "kwargs") {
        return value;
    }
    let named = object.get("kwargs").filter(|named| named.as_object().is_some_and(|named| !named.is_empty()));
    let listed = object.get("args").and_then(Json::as_array);
    match (named, listed.map(Vec::as_slice)) {
        (Some(named), None | Some([])) => named.clone(),
        (None, Some([one])) => one.clone(),
        (None, Some(listed)) => json!(listed),
        _ => value,
    }
}

/// A tool's result.
pub(super) fn result(merged: &Merged) -> Option<Json> {
    let value = read(merged, Field::Result)?;
    // LangChain sends the message that goes back to the model.
    let message = value.as_object().and_then(|object| {
        let inner = first(object, &["data", "kwargs"]).and_then(Json::as_object).unwrap_or(object);
        inner.contains_key("tool_call_id").then_some(inner)
    });
    Some(message.and_then(|message| message.get("content").cloned()).unwrap_or(value))
}

/// A tool's error message: the text of its result.
pub(super) fn failure(merged: &Merged) -> Option<String> {
    let result = result(merged)?;
    let content = result.as_object().and_then(|object| first(object, &["content", "error", "message"]));
    let parts = parts::of_content(content.unwrap_or(&result));
    let texts: Vec<&str> = parts.iter().filter_map(parts::text_in).collect();
    Some(texts.join("\n")).filter(|text| !text.is_empty())
}

/// A span's input, as its client sent it.
pub(super) fn input(merged: &Merged) -> Option<Json> {
    read(merged, Field::Input).map(called_with)
}

/// The embedded texts, as their client sent them: a string for one, a list for several.
pub(super) fn embedded(merged: &Merged) -> Option<Json> {
    let value = input(merged)?;
    let texts = value.as_array().map(|texts| texts.iter().map(RawValue::structure).collect::<Vec<_>>());
    match texts.as_deref() {
        Some([one]) => Some(one.clone()),
        Some(texts) => Some(json!(texts)),
        None => Some(value),
    }
}

/// A span's output.
pub(super) fn output(merged: &Merged) -> Option<Json> {
    read(merged, Field::Output)
}

/// The query of a retriever.
pub(super) fn query(merged: &Merged) -> Option<String> {
    let value = called_with(read(merged, Field::Query)?);
    let inner = value.as_object().and_then(|object| first(object, &["query", "question", "input", "text"]));
    Some(as_text(inner.unwrap_or(&value)))
}

/// The documents that were found or ranked: objects with id, content, score and metadata.
pub(super) fn documents(merged: &Merged) -> Option<Vec<Json>> {
    let families = ["retrieval.documents.", "reranker.output_documents.", "reranker.input_documents."];
    let found = families.iter().find_map(|family| families::items(&merged.attributes, family));
    let found = found.or_else(|| match read(merged, Field::Documents)? {
        Json::Array(documents) => Some(documents),
        Json::Object(object) => match first(&object, &["documents", "results", "matches"])? {
            Json::Array(documents) => Some(documents.clone()),
            _ => None,
        },
        _ => None,
    })?;
    Some(found.iter().map(|item| document(item.get("document").unwrap_or(item))).collect())
}

/// One document. Its metadata may be JSON in a string.
fn document(value: &Json) -> Json {
    let mut document = value.clone();
    if let Some(metadata) = document.get_mut("metadata") {
        *metadata = metadata.structure();
    }
    document
}

/// The number and length of the vectors, and the embedded texts.
pub(super) fn embeddings(merged: &Merged) -> (Map<String, Json>, Vec<String>) {
    let items = families::items(&merged.attributes, "embedding.embeddings.").unwrap_or_default();
    let items: Vec<&Json> = items.iter().map(|item| item.get("embedding").unwrap_or(item)).collect();
    let texts = items.iter().filter_map(|item| item.get("text")?.as_str().map(str::to_owned)).collect();
    let vectors: Vec<Json> =
        items.iter().filter_map(|item| item.get("vector")).map(RawValue::structure).collect();
    let vectors = if vectors.is_empty() { answered_vectors(merged) } else { vectors };
    let answer = read(merged, Field::Output).unwrap_or(Json::Null);
    let stated = |key: &str| answer.get(key).filter(|value| value.is_number()).cloned();
    let count = [vectors.len(), items.len()].into_iter().find(|count| *count > 0).map(|count| json!(count));
    let length = vectors.first().and_then(Json::as_array).map(|vector| json!(vector.len()));
    let members = [
        ("count", count.or_else(|| stated("count"))),
        ("dimension", read(merged, Field::EmbeddingDimension).or(length).or_else(|| stated("dimensions"))),
    ];
    let members = members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    (members.collect(), texts)
}

/// The vectors, from attributes of their own or from the provider's answer.
fn answered_vectors(merged: &Merged) -> Vec<Json> {
    match read(merged, Field::Vectors) {
        Some(Json::Array(vectors)) if vectors.first().is_some_and(Json::is_number) => {
            return vec![Json::Array(vectors)];
        }
        Some(Json::Array(vectors)) => return vectors.iter().map(RawValue::structure).collect(),
        _ => {}
    }
    let answer = read(merged, Field::Output).unwrap_or(Json::Null);
    let data = answer.get("data").and_then(Json::as_array);
    data.map(|data| data.iter().filter_map(|item| item.get("embedding").cloned()).collect())
        .unwrap_or_default()
}

/// Whether to show raw input and output in addition to the facts that were read from them.
pub(super) fn shows_raw(kind: Option<SpanKind>) -> bool {
    let read_elsewhere =
        [SpanKind::Llm, SpanKind::Tool, SpanKind::Embedding, SpanKind::Retriever, SpanKind::Rerank];
    kind.is_some_and(|kind| !read_elsewhere.contains(&kind))
}
