//! One pass over the attributes of a span. Each key is looked up once, and each field keeps its best value.

use std::borrow::Cow;

use agentlens_domain::spans::SpanKind;

use super::field::Field;
use super::raw::RawValue;
use super::table::{Table, Target, table};

/// What was found, by field.
pub(super) struct Reading<'a, V> {
    fields: [Option<(u8, &'a V)>; Field::EVERY.len()],
    kind: Option<(u8, SpanKind)>,
    session: Option<((u8, u8), &'a V)>,
    hints: Hints,
    scope: &'a str,
    has_exclusive_input: bool,
}

/// Kinds that are suggested by the presence of a key.
#[derive(Default, Clone, Copy)]
pub(super) struct Hints {
    /// The span has keys of a tool.
    pub(super) tool: bool,
    /// The span has keys of a model.
    pub(super) llm: bool,
    /// The span has keys of a retriever.
    pub(super) retriever: bool,
    /// The span has keys of an HTTP request.
    pub(super) http: bool,
}

impl<'a, V: RawValue + 'a> Reading<'a, V> {
    /// Reads all attributes and calls `unmapped` with each key that nothing reads.
    pub(super) fn of(
        attributes: impl Iterator<Item = (&'a str, &'a V)>,
        mut unmapped: impl FnMut(&'a str),
    ) -> Self {
        let table = table();
        let mut reading = Self {
            fields: [None; Field::EVERY.len()],
            kind: None,
            session: None,
            hints: Hints::default(),
            scope: "",
            has_exclusive_input: false,
        };
        for (key, value) in attributes {
            let targets = table.targets(key);
            if targets.is_empty() && !table.is_known(key) {
                unmapped(key);
            }
            if !value.is_blank() {
                for target in targets {
                    reading.take(table, *target, value);
                }
            }
        }
        reading
    }

    /// The reading, with the name of the instrumentation scope.
    pub(super) fn in_scope(self, scope: &'a str) -> Self {
        Self { scope, ..self }
    }

    /// The reading, with whether the client's input excludes cached tokens.
    pub(super) fn with_exclusive_input(self, is_so: bool) -> Self {
        Self { has_exclusive_input: is_so, ..self }
    }

    /// Whether the client's input excludes cached tokens.
    pub(super) fn has_exclusive_input(&self, provider: &str) -> bool {
        self.has_exclusive_input || table().has_exclusive_input(self.scope, provider)
    }

    /// Whether the client has one span for the request of a streamed call and another for its answer.
    pub(super) fn opens_streams(&self) -> bool {
        table().opens_streams(self.scope)
    }

    /// Whether a model provider's own library made the span.
    pub(super) fn is_of_library(&self) -> bool {
        table().is_library(self.scope)
    }

    fn take(&mut self, table: &Table, target: Target, value: &'a V) {
        match target {
            Target::Field(field, rank) => replace_if_better(&mut self.fields[field as usize], rank, value),
            Target::Session(rank, place) => replace_if_better(&mut self.session, (rank, place), value),
            Target::Kind(rank) => {
                let kind = value.text().and_then(|word| table.kind(rank, &word));
                if let Some(kind) = kind {
                    replace_if_better(&mut self.kind, rank, kind);
                }
            }
            Target::Presence(SpanKind::Tool) => self.hints.tool = true,
            Target::Presence(SpanKind::Llm) => self.hints.llm = true,
            Target::Presence(SpanKind::Retriever) => self.hints.retriever = true,
            Target::Presence(SpanKind::Http) => self.hints.http = true,
            Target::Presence(_) => {}
        }
    }

    /// The best value of a field.
    #[inline]
    pub(super) fn get(&self, field: Field) -> Option<&'a V> {
        self.fields[field as usize].map(|(_, value)| value)
    }

    /// A field's text.
    pub(super) fn text(&self, field: Field) -> Option<Cow<'a, str>> {
        self.get(field)?.text()
    }

    /// A field's number.
    pub(super) fn number(&self, field: Field) -> Option<f64> {
        self.get(field)?.number()
    }

    /// The kind that the best rule names.
    pub(super) fn kind(&self) -> Option<SpanKind> {
        self.kind.map(|(_, kind)| kind)
    }

    /// Whether the name of an agent's span is the agent's name, by the rule that named the kind.
    pub(super) fn agents_name_spans(&self) -> bool {
        self.kind.is_some_and(|(rank, _)| table().agents_name_spans(rank))
    }

    /// The session's name and the priority of its key.
    pub(super) fn session(&self) -> Option<(u8, Cow<'a, str>)> {
        let ((rank, _), value) = self.session?;
        Some((rank, value.text()?))
    }

    /// The kinds that are suggested by the presence of keys.
    pub(super) fn hints(&self) -> Hints {
        self.hints
    }
}

/// The last value of a repeated key wins.
#[inline]
fn replace_if_better<R: Ord, T>(slot: &mut Option<(R, T)>, rank: R, value: T) {
    if slot.as_ref().is_none_or(|(best, _)| rank <= *best) {
        *slot = Some((rank, value));
    }
}
