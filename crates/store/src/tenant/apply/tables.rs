//! The tables that applying batches writes: every column, declared once for both engines.

use agentlens_domain::apply::{
    AgentDelta, EventRow, LedgerDelta, NumberedSession, OrgContext, Plan, SpanColumns, SpanNumbers, TraceRow,
    UsageDelta,
};
use agentlens_domain::chain::Seal;
use agentlens_domain::rollups::{Cell, CellKey, Measures};
use agentlens_domain::sessions::{SessionKey, SessionState};
use agentlens_domain::spans::{SpanChange, encode_state};

use crate::error::StoreError;
use crate::schema::Dialect;
use crate::table::Rule::{Add, By, Greatest, Keep, Least, Replace, Sketch};
use crate::table::{Columns, Table};
use crate::tenant::{SessionRow, StoredEvent};

/// `events`, whose rows never change. An id that is taken is a fault: ids of ours can't collide, and those of clients were claimed
/// before.
pub(crate) struct EventsTable;

impl<'e> Table<EventRow<'e>> for EventsTable {
    const NAME: &'static str = "events";

    fn key(dialect: Dialect) -> Option<&'static str> {
        match dialect {
            // Whether all rows went in is counted afterwards.
            Dialect::Postgres => Some(""),
            Dialect::Sqlite => None,
        }
    }

    fn declare<'r>(columns: &mut impl Columns<'r, EventRow<'e>>)
    where
        EventRow<'e>: 'r,
    {
        columns.column("position", "bigint", Keep, |row| row.position);
        columns.column("id", "text", Keep, |row| row.event.id.as_str());
        columns.column("workspace_id", "text", Keep, |row| row.batch.workspace_id.as_str());
        columns.column("environment", "text", Keep, |row| row.environment);
        columns.column("session_id", "text", Keep, |row| row.session_id);
        columns.column("session_number", "bigint", Keep, |row| row.session_number);
        columns.column("seq", "bigint", Keep, |row| row.seq);
        columns.column("agent_id", "text", Keep, |row| row.agent_id);
        columns.column("event_type", "text", Keep, |row| row.event.event_type.as_str());
        columns.column("severity", "text", Keep, |row| row.event.severity.as_str());
        columns.column("timestamp", "text", Keep, |row| row.event.timestamp.as_str());
        columns.column("ts_us", "bigint", Keep, |row| row.event.ts_us);
        columns.column("received_us", "bigint", Keep, |row| row.batch.received_us);
        columns.column("expire_day", "integer", Keep, |row| row.expire_day);
        columns.column("name", "text", Keep, |row| row.event.facts.name.as_deref());
        columns.column("provider", "text", Keep, |row| row.event.facts.provider.as_deref());
        columns.column("model", "text", Keep, |row| row.event.facts.model.as_deref());
        columns.column("call_id", "text", Keep, |row| row.event.facts.call_id.as_deref());
        columns.column("user_id", "text", Keep, |row| row.event.facts.user_id.as_deref());
        columns.column("duration_us", "bigint", Keep, |row| row.event.facts.duration_us);
        columns.column("input_tokens", "bigint", Keep, |row| row.event.facts.usage.map(|usage| usage.input));
        columns
            .column("output_tokens", "bigint", Keep, |row| row.event.facts.usage.map(|usage| usage.output));
        columns.column("usage_parts", "text", Keep, |row| row.usage_parts.as_deref());
        columns.column("cost_nanos", "bigint", Keep, |row| row.cost.as_ref().map(|cost| cost.nanos));
        columns.column("cost_source", "text", Keep, |row| row.cost.as_ref().map(|cost| cost.source.as_str()));
        columns.column("reported_cost_nanos", "bigint", Keep, |row| {
            row.cost.as_ref().and_then(|cost| cost.reported_nanos)
        });
        columns.column("computed_cost_nanos", "bigint", Keep, |row| {
            row.cost.as_ref().and_then(|cost| cost.computed_nanos)
        });
        columns.column("prev_hash", "bytea", Keep, |row| row.prev_hash.as_ref().map(|hash| hash.as_slice()));
        columns.column("hash", "bytea", Keep, |row| row.hash.as_slice());
        columns.column("seal", "bytea", Keep, |row| row.seal.as_slice());
        columns.column("preview", "text", Keep, |row| row.preview);
        columns.column("metadata", "text", Keep, |row| row.event.metadata.as_str());
        columns.column("encoding", "smallint", Keep, |row| {
            i16::try_from(StoredEvent::encoding_of(row.event)).unwrap_or(0)
        });
        columns.column("payload", "bytea", Keep, |row| row.event.payload.as_bytes());
    }
}

/// A row of `sessions`.
pub(crate) struct SessionWrite<'s> {
    key: SessionKey<'s>,
    session: &'s NumberedSession,
    seal: Seal,
}

impl<'s> SessionWrite<'s> {
    pub(crate) fn of((key, session): &'s (SessionKey<'_>, NumberedSession), context: &OrgContext) -> Self {
        Self { key: *key, session, seal: session.seal(context, *key) }
    }
}

impl TryFrom<SessionRow> for NumberedSession {
    type Error = StoreError;

    fn try_from(row: SessionRow) -> Result<Self, StoreError> {
        let tags = serde_json::from_str(&row.tags);
        let state = SessionState {
            agent_id: row.agent_id,
            agent_name: row.agent_name,
            user_id: row.user_id,
            environment: row.environment,
            tags: tags.map_err(|_| StoreError::Corrupt("a session's tags are not JSON".to_owned()))?,
            started_us: row.started_us,
            last_event_us: row.last_event_us,
            opened_us: row.opened_us,
            ended_us: row.ended_us,
            ended_in_error: row.ended_in_error,
            event_count: row.event_count,
            tool_call_count: row.tool_call_count,
            error_count: row.error_count,
            llm_call_count: row.llm_call_count,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cost_nanos: row.cost_nanos,
            last_seq: row.last_seq,
            last_hash: row.last_hash,
            moved_to: row.moved_to,
            own_events: row.own_events,
        };
        let last_seal = row.last_seal.as_slice().try_into();
        let last_seal = last_seal.map_err(|_| StoreError::Corrupt("a session's last seal".to_owned()))?;
        Ok(Self { number: row.number, state, last_seal, expire_day: row.expire_day, is_authentic: true })
    }
}

/// `sessions`.
pub(crate) struct SessionsTable;

impl<'s> Table<SessionWrite<'s>> for SessionsTable {
    const NAME: &'static str = "sessions";

    fn key(dialect: Dialect) -> Option<&'static str> {
        Some(match dialect {
            Dialect::Postgres => "(org_id, workspace_id, session_id)",
            Dialect::Sqlite => "(number)",
        })
    }

    fn declare<'r>(columns: &mut impl Columns<'r, SessionWrite<'s>>)
    where
        SessionWrite<'s>: 'r,
    {
        columns.column("number", "bigint", Keep, |row| row.session.number);
        columns.column("workspace_id", "text", Keep, |row| row.key.0);
        columns.column("session_id", "text", Keep, |row| row.key.1);
        columns.column("environment", "text", Replace, |row| row.session.state.environment.as_str());
        columns.column("agent_id", "text", Replace, |row| row.session.state.agent_id.as_str());
        columns.column("agent_name", "text", Replace, |row| row.session.state.agent_name.as_deref());
        columns.column("user_id", "text", Replace, |row| row.session.state.user_id.as_deref());
        columns.column("tags", "text", Replace, |row| {
            serde_json::to_string(&row.session.state.tags).unwrap_or_default()
        });
        columns.column("status", "text", Replace, |row| row.session.state.stored_status().as_str());
        columns.column("started_us", "bigint", Replace, |row| row.session.state.started_us);
        columns.column("last_event_us", "bigint", Replace, |row| row.session.state.last_event_us);
        columns.column("opened_us", "bigint", Replace, |row| row.session.state.opened_us);
        columns.column("ended_us", "bigint", Replace, |row| row.session.state.ended_us);
        columns.column("ended_in_error", "boolean", Replace, |row| row.session.state.ended_in_error);
        columns.column("event_count", "bigint", Replace, |row| row.session.state.event_count);
        columns.column("tool_call_count", "bigint", Replace, |row| row.session.state.tool_call_count);
        columns.column("error_count", "bigint", Replace, |row| row.session.state.error_count);
        columns.column("llm_call_count", "bigint", Replace, |row| row.session.state.llm_call_count);
        columns.column("input_tokens", "bigint", Replace, |row| row.session.state.input_tokens);
        columns.column("output_tokens", "bigint", Replace, |row| row.session.state.output_tokens);
        columns.column("cost_nanos", "bigint", Replace, |row| row.session.state.cost_nanos);
        columns.column("last_seq", "bigint", Replace, |row| row.session.state.last_seq);
        columns.column("last_hash", "bytea", Replace, |row| row.session.state.last_hash.as_slice());
        columns.column("moved_to", "text", Replace, |row| row.session.state.moved_to.as_deref());
        columns.column("own_events", "bigint", Replace, |row| row.session.state.own_events);
        columns.column("last_seal", "bytea", Replace, |row| row.session.last_seal.as_slice());
        columns.column("expire_day", "integer", Replace, |row| row.session.expire_day);
        columns.column("seal", "bytea", Replace, |row| row.seal.as_slice());
    }
}

type AgentWrite<'a> = (SessionKey<'a>, AgentDelta<'a>);

/// `agents`: what a group adds to each.
pub(crate) struct AgentsTable;

impl<'a> Table<AgentWrite<'a>> for AgentsTable {
    const NAME: &'static str = "agents";

    fn key(_: Dialect) -> Option<&'static str> {
        Some("(org_id, workspace_id, agent_id)")
    }

    fn declare<'r>(columns: &mut impl Columns<'r, AgentWrite<'a>>)
    where
        AgentWrite<'a>: 'r,
    {
        columns.column("workspace_id", "text", Keep, |row| row.0.0);
        columns.column("agent_id", "text", Keep, |row| row.0.1);
        // A name is never the id itself, so the id means that the group brings none.
        let name = "case when excluded.name = excluded.agent_id then t.name else excluded.name end";
        columns.column("name", "text", By(name), |row| row.1.name.unwrap_or(row.0.1));
        columns.column("first_seen_us", "bigint", Least, |row| row.1.first_seen_us);
        columns.column("last_seen_us", "bigint", Greatest, |row| row.1.last_seen_us);
        columns.column("session_count", "bigint", Add, |row| row.1.session_count);
        columns.column("event_count", "bigint", Add, |row| row.1.event_count);
        columns.column("error_count", "bigint", Add, |row| row.1.error_count);
        columns.column("cost_nanos", "bigint", Add, |row| row.1.cost_nanos);
    }
}

/// What a group adds to a cell. See [`Sketch`] for what `latency` holds on which engine.
pub(crate) struct CellWrite<'c> {
    key: &'c CellKey<'c>,
    sums: &'c Measures,
    latency: Vec<u8>,
}

impl<'c> CellWrite<'c> {
    pub(crate) fn of((key, sums): &'c Cell<'c>, latency: Vec<u8>) -> Self {
        Self { key, sums, latency }
    }
}

/// `rollup_hour`.
pub(crate) struct HoursTable;
/// `rollup_day`.
pub(crate) struct DaysTable;

impl<'c> Table<CellWrite<'c>> for HoursTable {
    const NAME: &'static str = "rollup_hour";

    fn key(_: Dialect) -> Option<&'static str> {
        Some(CELL_KEY)
    }

    fn declare<'r>(columns: &mut impl Columns<'r, CellWrite<'c>>)
    where
        CellWrite<'c>: 'r,
    {
        declare_cell(columns);
    }
}

impl<'c> Table<CellWrite<'c>> for DaysTable {
    const NAME: &'static str = "rollup_day";

    fn key(_: Dialect) -> Option<&'static str> {
        Some(CELL_KEY)
    }

    fn declare<'r>(columns: &mut impl Columns<'r, CellWrite<'c>>)
    where
        CellWrite<'c>: 'r,
    {
        declare_cell(columns);
    }
}

const CELL_KEY: &str = "(org_id, workspace_id, dimension, bucket_us, environment, agent_id, provider, name)";

fn declare_cell<'r, 'c: 'r>(columns: &mut impl Columns<'r, CellWrite<'c>>) {
    columns.column("workspace_id", "text", Keep, |row| row.key.workspace_id);
    columns.column("dimension", "text", Keep, |row| row.key.dimension.as_str());
    columns.column("bucket_us", "bigint", Keep, |row| row.key.bucket_us);
    columns.column("environment", "text", Keep, |row| row.key.environment);
    columns.column("agent_id", "text", Keep, |row| row.key.agent_id);
    columns.column("provider", "text", Keep, |row| row.key.provider);
    columns.column("name", "text", Keep, |row| row.key.name);
    columns.column("event_count", "bigint", Add, |row| row.sums.event_count);
    columns.column("error_count", "bigint", Add, |row| row.sums.error_count);
    columns.column("session_count", "bigint", Add, |row| row.sums.session_count);
    columns.column("llm_call_count", "bigint", Add, |row| row.sums.llm_call_count);
    columns.column("tool_call_count", "bigint", Add, |row| row.sums.tool_call_count);
    columns.column("tool_error_count", "bigint", Add, |row| row.sums.tool_error_count);
    columns.column("input_tokens", "bigint", Add, |row| row.sums.usage.input);
    columns.column("output_tokens", "bigint", Add, |row| row.sums.usage.output);
    columns.column("cache_read_tokens", "bigint", Add, |row| row.sums.usage.cache_read);
    columns.column("cache_write_5m_tokens", "bigint", Add, |row| row.sums.usage.cache_write_5m);
    columns.column("cache_write_1h_tokens", "bigint", Add, |row| row.sums.usage.cache_write_1h);
    columns.column("reasoning_tokens", "bigint", Add, |row| row.sums.usage.reasoning);
    columns.column("audio_input_tokens", "bigint", Add, |row| row.sums.usage.audio_input);
    columns.column("audio_output_tokens", "bigint", Add, |row| row.sums.usage.audio_output);
    columns.column("cost_nanos", "bigint", Add, |row| row.sums.cost_nanos);
    columns.column("unknown_cost_count", "bigint", Add, |row| row.sums.unknown_cost_count);
    columns.column("latency", "bytea", Sketch, |row| row.latency.as_slice());
}

/// A row of `spans`.
pub(crate) struct SpanWrite<'s> {
    columns: SpanColumns<'s>,
    numbers: &'s SpanNumbers,
    state: Vec<u8>,
    seal: Seal,
}

/// The rows of the spans that changed.
pub(crate) fn span_rows<'s>(
    spans: &'s [SpanChange<'_>],
    plan: &'s Plan<'_>,
    context: &OrgContext,
) -> Result<Vec<SpanWrite<'s>>, StoreError> {
    let row = |(changed, numbers): (&'s SpanChange<'_>, &'s SpanNumbers)| {
        let (columns, state) = (SpanColumns::of(changed, context), encode_state(&changed.span)?);
        let seal = columns.seal(numbers, &state, context);
        Ok(SpanWrite { columns, numbers, state, seal })
    };
    spans.iter().zip(&plan.span_numbers).map(row).collect()
}

/// `spans`.
pub(crate) struct SpansTable;

impl<'s> Table<SpanWrite<'s>> for SpansTable {
    const NAME: &'static str = "spans";

    fn key(dialect: Dialect) -> Option<&'static str> {
        Some(match dialect {
            Dialect::Postgres => "(org_id, trace_number, span_id)",
            Dialect::Sqlite => "(trace_number, span_id)",
        })
    }

    fn declare<'r>(columns: &mut impl Columns<'r, SpanWrite<'s>>)
    where
        SpanWrite<'s>: 'r,
    {
        columns.column("workspace_id", "text", Keep, |row| row.columns.workspace_id);
        columns.column("trace_id", "text", Keep, |row| row.columns.trace_id);
        columns.column("span_id", "text", Keep, |row| row.columns.span_id);
        columns.column("parent_span_id", "text", Replace, |row| row.columns.parent_span_id);
        columns.column("named_parent_span_id", "text", Replace, |row| {
            row.columns.named_parent_span_id.as_deref()
        });
        columns.column("session_id", "text", Replace, |row| row.columns.session_id);
        columns.column("is_root", "boolean", Replace, |row| row.columns.is_root);
        columns.column("is_part", "boolean", Replace, |row| row.columns.is_part);
        columns.column("start_us", "bigint", Replace, |row| row.columns.start_us);
        columns.column("response_id", "text", Replace, |row| row.columns.response_id.as_deref());
        columns.column("expire_day", "integer", Replace, |row| row.columns.expire_day);
        columns.column("state", "bytea", Replace, |row| row.state.as_slice());
        columns.column("trace_number", "bigint", Keep, |row| row.numbers.trace);
        columns.column("session_number", "bigint", Replace, |row| row.numbers.session);
        columns.column("seal", "bytea", Replace, |row| row.seal.as_slice());
    }
}

/// A row of `traces`.
pub(crate) struct TraceWrite<'t> {
    trace: &'t TraceRow<'t>,
    state: Vec<u8>,
    seal: Seal,
}

/// The rows of the traces that changed.
pub(crate) fn trace_rows<'t>(
    plan: &'t Plan<'_>,
    context: &OrgContext,
) -> Result<Vec<TraceWrite<'t>>, StoreError> {
    let row = |trace: &'t TraceRow<'_>| {
        let state = encode_state(&trace.state)?;
        let seal = trace.seal(&state, context);
        Ok(TraceWrite { trace, state, seal })
    };
    plan.traces.iter().map(row).collect()
}

/// `traces`.
pub(crate) struct TracesTable;

impl<'t> Table<TraceWrite<'t>> for TracesTable {
    const NAME: &'static str = "traces";

    fn key(dialect: Dialect) -> Option<&'static str> {
        Some(match dialect {
            Dialect::Postgres => "(org_id, workspace_id, trace_id)",
            Dialect::Sqlite => "(number)",
        })
    }

    fn declare<'r>(columns: &mut impl Columns<'r, TraceWrite<'t>>)
    where
        TraceWrite<'t>: 'r,
    {
        columns.column("workspace_id", "text", Keep, |row| row.trace.workspace_id);
        columns.column("trace_id", "text", Keep, |row| row.trace.trace_id);
        columns.column("session_id", "text", Replace, |row| row.trace.state.shown.session_id.as_str());
        columns.column("chains", "text", Replace, |row| row.trace.chains());
        columns.column("expire_day", "integer", Replace, |row| row.trace.expire_day);
        columns.column("state", "bytea", Replace, |row| row.state.as_slice());
        columns.column("number", "bigint", Keep, |row| row.trace.number);
        columns.column("session_number", "bigint", Replace, |row| row.trace.session_number);
        columns.column("seal", "bytea", Replace, |row| row.seal.as_slice());
    }
}

/// `ingest_ledger`: what a group adds for each key and outcome.
pub(crate) struct LedgerTable;

impl<'a> Table<LedgerDelta<'a>> for LedgerTable {
    const NAME: &'static str = "ingest_ledger";

    fn key(_: Dialect) -> Option<&'static str> {
        Some("(org_id, key_id, outcome)")
    }

    fn declare<'r>(columns: &mut impl Columns<'r, LedgerDelta<'a>>)
    where
        LedgerDelta<'a>: 'r,
    {
        columns.column("key_id", "text", Keep, |row| row.0.0);
        columns.column("outcome", "text", Keep, |row| row.0.1);
        columns.column("event_count", "bigint", Add, |row| row.1);
    }
}

/// `usage_days`: what a group adds for each workspace and day.
pub(crate) struct UsageTable;

impl<'a> Table<UsageDelta<'a>> for UsageTable {
    const NAME: &'static str = "usage_days";

    fn key(_: Dialect) -> Option<&'static str> {
        Some("(org_id, workspace_id, day)")
    }

    fn declare<'r>(columns: &mut impl Columns<'r, UsageDelta<'a>>)
    where
        UsageDelta<'a>: 'r,
    {
        columns.column("workspace_id", "text", Keep, |row| row.0.0);
        columns.column("day", "bigint", Keep, |row| i64::from(row.0.1));
        columns.column("event_count", "bigint", Add, |row| row.1.0);
        columns.column("payload_bytes", "bigint", Add, |row| row.1.1);
    }
}
