//! `attributes.toml`, parsed once into lookups by key.

use std::sync::LazyLock;

use agentlens_domain::spans::SpanKind;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;

use super::field::Field;

/// How much lower the priority of a session's name is on a resource than on a span.
pub(super) const RESOURCE_RANK: u8 = 10;

const FILE: &str = include_str!("attributes.toml");

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the file is part of the program, and a test parses it")]
    let file: File = toml::from_str(FILE).expect("attributes.toml is valid");
    Table::of(file)
});

/// The table that is built into the program.
pub(super) fn table() -> &'static Table {
    &TABLE
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    fields: FxHashMap<Field, Vec<Key>>,
    parameter_names: FxHashMap<String, String>,
    kinds: Vec<KindRule>,
    presence: Presence,
    sessions: Vec<SessionRule>,
    providers: FxHashMap<String, String>,
    models: FxHashMap<String, String>,
    finish_reasons: FxHashMap<String, Vec<String>>,
    events: Events,
    log_calls: Vec<LogCall>,
    log_tokens: Vec<String>,
    log_models: Vec<String>,
    exclusive_input: Vec<ExclusiveInput>,
    stream_openers: Vec<String>,
    request_makers: Vec<String>,
    library_scopes: Vec<String>,
    secrets: Secrets,
    families: Families,
}

/// A log record that is a call of its own: its client sends no spans.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogCall {
    #[serde(rename = "dialect")]
    _dialect: String,
    /// The records' names.
    names: Vec<String>,
    /// The kind of the call.
    pub(super) kind: SpanKind,
    /// An attribute and the value it must have.
    #[serde(default)]
    pub(super) only_if: Option<(String, String)>,
    /// Only a record of a failure is a call. For a success, another record holds more.
    #[serde(default)]
    pub(super) only_if_failed: bool,
    /// Every such record reports a failure.
    #[serde(default)]
    pub(super) is_failure: bool,
    /// Services that send another record of the same call.
    #[serde(default)]
    pub(super) except_services: Vec<String>,
    /// For each attribute, the key that the rest of this file uses for it.
    #[serde(default)]
    pub(super) rename: FxHashMap<String, String>,
    /// Whether its input excludes cached tokens.
    #[serde(default)]
    pub(super) exclusive_input: bool,
}

/// A client whose input excludes cached tokens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExclusiveInput {
    /// Prefix of the instrumentation scope's name.
    scope: String,
    /// The canonical names of the providers; all of them if empty.
    #[serde(default)]
    providers: Vec<String>,
    #[serde(rename = "note", default)]
    _note: String,
}

/// One attribute key. Its client and its peculiarities are comments for readers of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    key: String,
    #[serde(rename = "dialect")]
    _dialect: String,
    #[serde(rename = "note", default)]
    _note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindRule {
    key: String,
    #[serde(rename = "dialect")]
    _dialect: String,
    #[serde(default)]
    agents_name_spans: bool,
    values: FxHashMap<String, SpanKind>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Presence {
    tool: Vec<String>,
    llm: Vec<String>,
    retriever: Vec<String>,
    http: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionRule {
    rank: u8,
    keys: Vec<Key>,
}

/// Names of span events and log records.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Events {
    /// Span events whose time is that of the first token.
    pub(super) first_token: Vec<String>,
    log_beginnings: Vec<String>,
    /// Events that hold one message each, and the role of a message that names none.
    pub(super) messages: FxHashMap<String, String>,
    /// Events that hold an answer.
    pub(super) answers: Vec<String>,
    /// Log records that hold an evaluation.
    pub(super) evaluation: Vec<String>,
    /// Span events and log records that hold an exception.
    pub(super) exception: Vec<String>,
}

impl Events {
    /// Whether a log record of this name is about GenAI.
    pub(super) fn is_genai_log(&self, name: &str) -> bool {
        self.log_beginnings.iter().any(|beginning| name.starts_with(&**beginning))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secrets {
    beginnings: Vec<String>,
    keys: Vec<String>,
    harmless_headers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Families {
    input_messages: Vec<String>,
    output_messages: Vec<String>,
    read: Vec<String>,
    kept: Vec<String>,
    keys: Vec<String>,
}

/// What to do with the value of a key. A lower rank is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The value belongs to a field.
    Field(Field, u8),
    /// The value names the kind, in the words of one rule.
    Kind(u8),
    /// The presence of the key suggests the kind.
    Presence(SpanKind),
    /// The value names the session: the priority, and the key's rank among those of the same priority.
    Session(u8, u8),
}

/// The rules by key.
pub(super) struct Table {
    targets: FxHashMap<String, Vec<Target>>,
    kinds: Vec<KindRule>,
    keys: Vec<Vec<String>>,
    families: FxHashSet<String>,
    /// The length of the longest of them.
    longest_family: usize,
    providers: FxHashMap<String, String>,
    /// Prefixes of models' names with the provider, longest first.
    models: Vec<(String, String)>,
    finish_reasons: FxHashMap<String, String>,
    secrets: Secrets,
    log_calls: Vec<LogCall>,
    log_tokens: Vec<String>,
    log_models: Vec<String>,
    exclusive_input: Vec<ExclusiveInput>,
    stream_openers: Vec<String>,
    request_makers: Vec<String>,
    library_scopes: Vec<String>,
    /// The names under which the request's settings are shown.
    pub(super) parameter_names: FxHashMap<String, String>,
    /// Names of events.
    pub(super) events: Events,
    /// Families of attributes that hold messages sent to the model, best first.
    pub(super) input_families: Vec<String>,
    /// Families of attributes that hold messages from the model, best first.
    pub(super) output_families: Vec<String>,
}

impl Table {
    fn of(file: File) -> Self {
        let targets = targets(&file);
        let mut keys = vec![Vec::new(); Field::EVERY.len()];
        for (field, list) in file.fields {
            keys[field as usize] = list.into_iter().map(|key| key.key).collect();
        }
        let mut families: FxHashSet<String> = FxHashSet::default();
        families.extend(file.families.input_messages.iter().chain(&file.families.output_messages).cloned());
        families.extend(file.families.read);
        families.extend(file.families.kept);
        families.extend(file.families.keys);
        families.extend(file.secrets.beginnings.iter().chain(&file.secrets.keys).cloned());
        families.extend(file.parameter_names.keys().cloned());
        let mut models: Vec<_> = file.models.into_iter().collect();
        models.sort_by(|(left, _), (right, _)| right.len().cmp(&left.len()).then(left.cmp(right)));
        let finish_reasons = file
            .finish_reasons
            .into_iter()
            .flat_map(|(reason, words)| words.into_iter().map(move |word| (word, reason.clone())));
        Self {
            targets,
            finish_reasons: finish_reasons.collect(),
            kinds: file.kinds,
            keys,
            longest_family: families.iter().map(String::len).max().unwrap_or(0),
            families,
            providers: file.providers,
            models,
            secrets: file.secrets,
            log_calls: file.log_calls,
            log_tokens: file.log_tokens,
            log_models: file.log_models,
            exclusive_input: file.exclusive_input,
            stream_openers: file.stream_openers,
            request_makers: file.request_makers,
            library_scopes: file.library_scopes,
            parameter_names: file.parameter_names,
            events: file.events,
            input_families: file.families.input_messages,
            output_families: file.families.output_messages,
        }
    }

    /// What to do with the values of a key.
    #[inline]
    pub(super) fn targets(&self, key: &str) -> &[Target] {
        self.targets.get(key).map_or(&[], Vec::as_slice)
    }

    /// The keys of a field, best first.
    pub(super) fn keys(&self, field: Field) -> &[String] {
        self.keys.get(field as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether a key without targets is known: by itself or as a member of a family.
    pub(super) fn is_known(&self, key: &str) -> bool {
        // No family is longer. A key may be: looking at all its beginnings would take the square of its length.
        let bytes = key.bytes().take(self.longest_family).enumerate();
        let ends = bytes.filter(|(_, byte)| matches!(byte, b'.' | b':'));
        let whole = (key.len() <= self.longest_family).then_some(key);
        ends.map(|(at, _)| &key[..=at]).chain(whole).any(|beginning| self.families.contains(beginning))
    }

    /// The kind that a word means under the rule of that rank.
    pub(super) fn kind(&self, rank: u8, word: &str) -> Option<SpanKind> {
        let word = word.trim_matches(['"', ' ']);
        let word = word.split(' ').next().unwrap_or(word);
        let values = &self.kinds.get(usize::from(rank))?.values;
        if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return values.get(&word.to_ascii_lowercase()).copied();
        }
        values.get(word).copied()
    }

    /// Whether the name of an agent's span is the agent's name, under the rule of that rank.
    pub(super) fn agents_name_spans(&self, rank: u8) -> bool {
        self.kinds.get(usize::from(rank)).is_some_and(|rule| rule.agents_name_spans)
    }

    /// The canonical name of a provider that the price table doesn't know; empty for a name that is not a provider's.
    pub(super) fn provider(&self, lower: &str) -> Option<&str> {
        self.providers.get(lower).map(String::as_str)
    }

    /// The provider by a model's name in lower case.
    pub(super) fn provider_of_model(&self, model: &str) -> Option<&str> {
        let begins = |beginning: &str| {
            model.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
        };
        self.models.iter().find(|(beginning, _)| begins(beginning)).map(|(_, provider)| provider.as_str())
    }

    /// The rules for log records of a name that are calls of their own.
    pub(super) fn log_calls(&self, name: &str) -> impl Iterator<Item = &LogCall> {
        self.log_calls.iter().filter(move |rule| rule.names.iter().any(|known| known == name))
    }

    /// The rule for log records that hold token counts, whatever their names.
    pub(super) fn any_log_call(&self) -> impl Iterator<Item = &LogCall> {
        self.log_calls("*")
    }

    /// Whether an attribute of a log record holds a call's token count.
    pub(super) fn is_log_of_tokens(&self, key: &str) -> bool {
        self.log_tokens.iter().any(|known| known == key)
    }

    /// Whether an attribute of a log record names a call's model.
    pub(super) fn is_log_of_model(&self, key: &str) -> bool {
        self.log_models.iter().any(|known| known == key)
    }

    /// Whether a client's input excludes cached tokens, by its scope's name and the model's provider.
    pub(super) fn has_exclusive_input(&self, scope: &str, provider: &str) -> bool {
        self.exclusive_input.iter().any(|rule| {
            scope.starts_with(&*rule.scope)
                && (rule.providers.is_empty() || rule.providers.iter().any(|known| known == provider))
        })
    }

    /// Whether a client, by its scope's name, has one span for the request of a streamed call and another for its answer.
    pub(super) fn opens_streams(&self, scope: &str) -> bool {
        self.stream_openers.iter().any(|beginning| scope.starts_with(&**beginning))
    }

    /// Whether a model provider's own library made a span, by its scope's name.
    pub(super) fn is_library(&self, scope: &str) -> bool {
        self.library_scopes.iter().any(|beginning| scope.starts_with(&**beginning))
    }

    /// Whether a span of this name only prepares the request of a call that has a span of its own.
    pub(super) fn prepares_a_request(&self, span_name: &str) -> bool {
        self.request_makers.iter().any(|end| span_name.ends_with(&**end))
    }

    /// Why an answer ended, in OpenTelemetry's words.
    pub(super) fn finish_reason(&self, raw: &str) -> String {
        let word = raw.trim().to_ascii_lowercase().replace('-', "_");
        self.finish_reasons.get(&word).cloned().unwrap_or(word)
    }

    /// Whether the value of a key may be a secret.
    #[inline]
    pub(super) fn is_secret(&self, key: &str) -> bool {
        // All of these contain the word, so one search is enough for most keys.
        if !key.contains("header") && !key.contains("metadata") {
            return false;
        }
        let header = self.secrets.beginnings.iter().find_map(|beginning| strip_beginning(key, beginning));
        match header {
            Some(header) => {
                !self.secrets.harmless_headers.iter().any(|name| name.eq_ignore_ascii_case(header))
            }
            None => self.secrets.keys.iter().any(|secret| secret.eq_ignore_ascii_case(key)),
        }
    }
}

fn strip_beginning<'k>(key: &'k str, beginning: &str) -> Option<&'k str> {
    let start = key.get(..beginning.len())?;
    if start.eq_ignore_ascii_case(beginning) { key.get(beginning.len()..) } else { None }
}

fn targets(file: &File) -> FxHashMap<String, Vec<Target>> {
    let mut targets: FxHashMap<String, Vec<Target>> = FxHashMap::default();
    let mut add = |key: &str, target| targets.entry(key.to_owned()).or_default().push(target);
    for (&field, keys) in &file.fields {
        for (rank, key) in keys.iter().enumerate() {
            add(&key.key, Target::Field(field, rank_of(rank)));
        }
    }
    for (rank, rule) in file.kinds.iter().enumerate() {
        add(&rule.key, Target::Kind(rank_of(rank)));
    }
    let presence = &file.presence;
    for (kind, keys) in [
        (SpanKind::Tool, &presence.tool),
        (SpanKind::Llm, &presence.llm),
        (SpanKind::Retriever, &presence.retriever),
        (SpanKind::Http, &presence.http),
    ] {
        for key in keys {
            add(key, Target::Presence(kind));
        }
    }
    for rule in &file.sessions {
        for (place, key) in rule.keys.iter().enumerate() {
            add(&key.key, Target::Session(rule.rank, rank_of(place)));
        }
    }
    targets
}

fn rank_of(position: usize) -> u8 {
    u8::try_from(position).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_every_field_once() {
        let file: File = toml::from_str(FILE).unwrap();
        for field in Field::EVERY {
            let keys = &file.fields[field];
            assert!(!keys.is_empty(), "{field:?}");
            for (index, key) in keys.iter().enumerate() {
                let again = keys[..index].iter().any(|earlier| earlier.key == key.key);
                assert!(!again, "{field:?} names {} twice", key.key);
            }
        }
    }

    #[test]
    fn secrets_are_known_by_their_keys() {
        for (key, is_secret) in [
            ("ai.request.headers.authorization", true),
            ("ai.request.headers.x-api-key", true),
            ("ai.request.headers.user-agent", false),
            ("llm.headers", true),
            ("langsmith.request.headers", true),
            ("http.request.header.Cookie", true),
            ("HTTP.request.header.cookie", true),
            ("http.request.header.content-type", false),
            ("http.response.header.set-cookie", true),
            ("http.response.header.date", false),
            ("langfuse.observation.metadata.header", false),
            ("gen_ai.request.model", false),
        ] {
            assert_eq!(table().is_secret(key), is_secret, "{key}");
        }
    }

    #[test]
    fn kinds_are_read_in_any_spelling() {
        let rank = |key: &str| {
            let kind = table().targets(key).iter().find_map(|target| match target {
                Target::Kind(rank) => Some(*rank),
                _ => None,
            });
            kind.unwrap()
        };
        for (key, word, kind) in [
            ("openinference.span.kind", "LLM", Some(SpanKind::Llm)),
            ("mlflow.spanType", "\"CHAT_MODEL\"", Some(SpanKind::Llm)),
            ("ai.operationId", "ai.generateText.doGenerate my fn", Some(SpanKind::Llm)),
            ("ai.operationId", "ai.generateText", Some(SpanKind::Chain)),
            ("traceloop.span.kind", "unknown", None),
            ("gen_ai.operation.name", "agent_step", Some(SpanKind::Step)),
        ] {
            assert_eq!(table().kind(rank(key), word), kind, "{key} {word}");
        }
    }

    #[test]
    fn families_are_known_by_their_beginning() {
        assert!(table().is_known("llm.input_messages.12.message.contents.0.message_content.text"));
        assert!(table().is_known("genkit:metadata:context"));
        assert!(!table().is_known("my.own.attribute"));
        assert!(!table().is_known(""));
    }

    /// Bug: all beginnings of a key were looked at. One key of 4,000,000 points took minutes.
    #[test]
    fn a_long_key_is_looked_at_once() {
        assert!(!table().is_known(&".".repeat(4_000_000)));
        assert!(table().is_known(&format!("llm.input_messages.{}", ".".repeat(4_000_000))));
    }
}
