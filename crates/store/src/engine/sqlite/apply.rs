//! Applying batches on SQLite: one immediate transaction on the writing connection, prepared statements in loops.

use std::sync::mpsc::sync_channel;

use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use rustc_hash::{FxHashMap, FxHashSet};

use agentlens_domain::batches::Batch;
use agentlens_domain::latency::encode_change;
use agentlens_domain::rollups::Tier;
use agentlens_domain::sessions::SessionState;

use super::spans::{load_staying, project_spans, upsert_spans};
use crate::error::StoreError;
use crate::tenant::environments::{Environments, names_to_look_up};
use crate::tenant::{
    ApplyReport, Cell, Ending, EventRow, LateKey, NumberedSession, OrgContext, OrgState, Plan, PlanInput,
    SessionKey, StoredEvent, Verdict, encode_changes, merged, plan, session_keys,
};

/// Events' rows that the planner hands to the writer at a time, and how many such handfuls may lie between them.
const ROWS_HANDED_OVER: usize = 128;
const MAX_HANDED_OVER: usize = 4;

/// Applies batches in one transaction.
pub(crate) fn apply(
    connection: &mut Connection,
    context: &OrgContext,
    batches: &[Batch],
    now_us: i64,
    ending: Ending,
) -> Result<ApplyReport, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let org = context.org.as_str();
    let state = state(&transaction, org)?;
    let fresh = claim_batches(&transaction, org, batches, now_us)?;
    let verdicts = claim_ids(&transaction, context, batches, &fresh)?;
    let environments = take_environments(&transaction, org, batches, &fresh, now_us)?;
    let projection = project_spans(&transaction, context, batches, &fresh, &environments)?;
    let staying = load_staying(&transaction, org, &projection)?;
    let sessions = load_sessions(&transaction, org, session_keys(batches, &fresh, &projection))?;
    let input = PlanInput {
        batches,
        fresh,
        verdicts,
        sessions: &sessions,
        environments: &environments,
        projection: &projection,
        staying: &staying,
        org: state,
        now_us,
    };
    let plan = plan_and_insert_events(&transaction, context, input)?;
    upsert_spans(&transaction, context, &projection.spans, &plan)?;
    keep_late_keys(&transaction, org, &plan.late_keys)?;
    upsert_sessions(&transaction, context, &plan.sessions)?;
    upsert_agents(&transaction, org, &plan)?;
    let waiting_changes = write_changes(&transaction, org, &state, &plan.changes)?;
    count_usage(&transaction, org, &plan)?;
    transaction
        .prepare_cached(
            "update org_state set last_position = ?2, last_session = ?3, last_trace = ?4, session_count = ?5, seal = ?6,
               waiting_changes = ?7 where org_id = ?1",
        )?
        .execute(params![
            org,
            plan.last_position,
            plan.last_session,
            plan.last_trace,
            plan.session_count,
            plan.state().seal(context),
            waiting_changes
        ])?;
    match ending {
        Ending::Commit => transaction.commit()?,
        Ending::RollBack => transaction.rollback()?,
    }
    Ok(ApplyReport {
        batches: plan.applied,
        last_position: plan.last_position,
        indexed_position: state.indexed_position,
    })
}

fn state(transaction: &Transaction<'_>, org: &str) -> Result<OrgState, StoreError> {
    let mut statement = transaction.prepare_cached(
        "select last_position, indexed_position, last_session, last_trace, waiting_changes, session_count from org_state where org_id = ?1",
    )?;
    let stored = statement
        .query_row([org], |row| {
            Ok(OrgState {
                last_position: row.get(0)?,
                indexed_position: row.get(1)?,
                last_session: row.get(2)?,
                last_trace: row.get(3)?,
                waiting_changes: row.get(4)?,
                session_count: row.get(5)?,
            })
        })
        .optional()?;
    if let Some(state) = stored {
        return Ok(state);
    }
    // The seal is written with the counters, at the end of the transaction.
    transaction.execute(
        "insert into org_state (org_id, last_position, indexed_position, last_session, last_trace, waiting_changes, session_count, seal)
         values (?1, 0, 0, 0, 0, 0, 0, x'')",
        [org],
    )?;
    Ok(OrgState::default())
}

fn claim_batches(
    transaction: &Transaction<'_>,
    org: &str,
    batches: &[Batch],
    now_us: i64,
) -> Result<Vec<bool>, StoreError> {
    let mut statement = transaction
        .prepare_cached("insert into applied_batches (org_id, batch_id, applied_us) values (?1, ?2, ?3) on conflict do nothing")?;
    batches
        .iter()
        .map(|batch| Ok(statement.execute(params![org, batch.batch_id.as_str(), now_us])? == 1))
        .collect()
}

/// Adds the names of environments that have room in their workspaces.
fn take_environments<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    batches: &'a [Batch],
    fresh: &[bool],
    now_us: i64,
) -> Result<Environments<'a>, StoreError> {
    let mut environments = Environments::default();
    for (workspace, names) in names_to_look_up(batches, fresh) {
        let known = transaction
            .prepare_cached("select name from environments where org_id = ?1 and workspace_id = ?2")?
            .query_map([org, workspace], |row| row.get(0))?
            .collect::<Result<FxHashSet<String>, _>>()?;
        for name in environments.settle(workspace, &names, &known) {
            transaction
                .prepare_cached(
                    "insert into environments (org_id, workspace_id, name, first_seen_us) values (?1, ?2, ?3, ?4)",
                )?
                .execute(params![org, workspace, name, now_us])?;
        }
    }
    Ok(environments)
}

fn claim_ids(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    batches: &[Batch],
    fresh: &[bool],
) -> Result<FxHashMap<(usize, usize), Verdict>, StoreError> {
    let org = context.org.as_str();
    let mut claim = transaction.prepare_cached(
        "insert into event_keys (org_id, workspace_id, id, content_digest, expire_day) values (?1, ?2, ?3, ?4, ?5) on conflict do nothing",
    )?;
    let mut compare = transaction.prepare_cached(
        "select content_digest = ?4 from event_keys where org_id = ?1 and workspace_id = ?2 and id = ?3",
    )?;
    let mut verdicts = FxHashMap::default();
    for (batch_index, batch) in batches.iter().enumerate().filter(|(index, _)| fresh[*index]) {
        for (event_index, event) in batch.events.iter().enumerate() {
            let Some(digest) = &event.content_digest else { continue };
            let workspace = batch.workspace_id.as_str();
            let verdict = if claim.execute(params![
                org,
                workspace,
                event.id,
                digest,
                context.expire_day(event.ts_us)
            ])? == 1
            {
                Verdict::New
            } else if compare.query_row(params![org, workspace, event.id, digest], |row| row.get(0))? {
                Verdict::Duplicate
            } else {
                Verdict::Conflict
            };
            verdicts.insert((batch_index, event_index), verdict);
        }
    }
    Ok(verdicts)
}

/// Lets the ids of late events live as long as the events.
fn keep_late_keys(transaction: &Transaction<'_>, org: &str, keys: &[LateKey<'_>]) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(
        "update event_keys set expire_day = ?4 where org_id = ?1 and workspace_id = ?2 and id = ?3",
    )?;
    for ((workspace, id), day) in keys {
        statement.execute(params![org, workspace, id, day])?;
    }
    Ok(())
}

fn load_sessions<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    keys: FxHashSet<SessionKey<'a>>,
) -> Result<FxHashMap<SessionKey<'a>, NumberedSession>, StoreError> {
    let mut statement = transaction.prepare_cached(
        "select agent_id, agent_name, user_id, environment, tags, started_us, last_event_us, opened_us, ended_us, ended_in_error,
           event_count, tool_call_count, error_count, llm_call_count, input_tokens, output_tokens, cost_nanos, last_seq, last_hash,
           moved_to, own_events, number, last_seal, expire_day
         from sessions where org_id = ?1 and workspace_id = ?2 and session_id = ?3",
    )?;
    let mut sessions = FxHashMap::default();
    for key in keys {
        if let Some(state) = load_session(&mut statement, org, key)? {
            sessions.insert(key, state);
        }
    }
    Ok(sessions)
}

fn load_session(
    statement: &mut CachedStatement<'_>,
    org: &str,
    key: SessionKey<'_>,
) -> Result<Option<NumberedSession>, StoreError> {
    let session = statement
        .query_row(params![org, key.0, key.1], |row| {
            let state = SessionState {
                agent_id: row.get(0)?,
                agent_name: row.get(1)?,
                user_id: row.get(2)?,
                environment: row.get(3)?,
                tags: serde_json::from_str(&row.get::<_, String>(4)?).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(4, Type::Text, Box::new(error))
                })?,
                started_us: row.get(5)?,
                last_event_us: row.get(6)?,
                opened_us: row.get(7)?,
                ended_us: row.get(8)?,
                ended_in_error: row.get(9)?,
                event_count: row.get(10)?,
                tool_call_count: row.get(11)?,
                error_count: row.get(12)?,
                llm_call_count: row.get(13)?,
                input_tokens: row.get(14)?,
                output_tokens: row.get(15)?,
                cost_nanos: row.get(16)?,
                last_seq: row.get(17)?,
                last_hash: row.get(18)?,
                moved_to: row.get(19)?,
                own_events: row.get(20)?,
            };
            Ok(NumberedSession {
                number: row.get(21)?,
                state,
                last_seal: row.get(22)?,
                expire_day: row.get(23)?,
            })
        })
        .optional()?;
    Ok(session)
}

/// Computes the plan on a thread beside this one, which writes the events' rows as they come.
fn plan_and_insert_events<'a>(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    input: PlanInput<'a>,
) -> Result<Plan<'a>, StoreError> {
    let org = context.org.as_str();
    let events: usize = input.batches.iter().map(|batch| batch.events.len()).sum();
    if events <= ROWS_HANDED_OVER {
        let mut rows = Vec::with_capacity(events);
        let plan = plan(context, &input, |row| rows.push(row));
        insert_events(transaction, org, std::iter::once(rows))?;
        return Ok(plan);
    }
    let (sender, receiver) = sync_channel::<Vec<EventRow<'a>>>(MAX_HANDED_OVER);
    std::thread::scope(|scope| {
        let planner = scope.spawn(move || {
            let mut rows = Vec::with_capacity(ROWS_HANDED_OVER);
            let plan = plan(context, &input, |row| {
                rows.push(row);
                if rows.len() == ROWS_HANDED_OVER {
                    // Nobody takes them when an insert failed; then the transaction fails as a whole.
                    let _ = sender.send(std::mem::replace(&mut rows, Vec::with_capacity(ROWS_HANDED_OVER)));
                }
            });
            let _ = sender.send(rows);
            plan
        });
        insert_events(transaction, org, receiver.into_iter())?;
        planner.join().map_err(|_| StoreError::Refused("the plan of a group panicked".to_owned()))
    })
}

fn insert_events<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    rows: impl Iterator<Item = Vec<EventRow<'a>>>,
) -> Result<(), StoreError> {
    let mut statement = transaction.prepare_cached(
        "insert into events (org_id, workspace_id, environment, received_us, position, id, session_id, seq, agent_id, event_type, severity,
           timestamp, ts_us, expire_day, name, provider, model, call_id, user_id, duration_us, input_tokens, output_tokens, usage_parts,
           cost_nanos, cost_source, reported_cost_nanos, computed_cost_nanos, prev_hash, hash, seal, preview, metadata, encoding, payload, session_number)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25,
           ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35)",
    )?;
    statement.raw_bind_parameter(1, org)?;
    // What is the same for a whole batch is bound once; SQLite would copy it for each row.
    let (mut bound, mut environment): (Option<&Batch>, Option<&str>) = (None, None);
    for row in rows.flatten() {
        if !bound.is_some_and(|batch| std::ptr::eq(batch, row.batch)) {
            bound = Some(row.batch);
            statement.raw_bind_parameter(2, row.batch.workspace_id.as_str())?;
            statement.raw_bind_parameter(4, row.batch.received_us)?;
        }
        if environment != Some(row.environment) {
            environment = Some(row.environment);
            statement.raw_bind_parameter(3, row.environment)?;
        }
        bind_event(&mut statement, &row)?;
        statement.raw_execute()?;
    }
    Ok(())
}

/// Binds what differs from event to event: the parameters from the fifth on.
fn bind_event(statement: &mut CachedStatement<'_>, row: &EventRow<'_>) -> Result<(), StoreError> {
    let (event, facts, cost) = (row.event, &row.event.facts, row.cost.as_ref());
    let values = params![
        row.position,
        event.id,
        row.session_id,
        row.seq,
        row.agent_id,
        event.event_type.as_str(),
        event.severity.as_str(),
        event.timestamp,
        event.ts_us,
        row.expire_day,
        facts.name,
        facts.provider,
        facts.model,
        facts.call_id,
        facts.user_id,
        facts.duration_us,
        facts.usage.map(|usage| usage.input),
        facts.usage.map(|usage| usage.output),
        row.usage_parts,
        cost.map(|cost| cost.nanos),
        cost.map(|cost| cost.source.as_str()),
        cost.and_then(|cost| cost.reported_nanos),
        cost.and_then(|cost| cost.computed_nanos),
        row.prev_hash,
        row.hash,
        row.seal,
        row.preview,
        event.metadata,
        StoredEvent::encoding_of(event),
        event.payload.as_bytes(),
        row.session_number,
    ];
    for (index, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(index + 5, value)?;
    }
    Ok(())
}

fn upsert_sessions(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    sessions: &[(SessionKey<'_>, NumberedSession)],
) -> Result<(), StoreError> {
    let org = context.org.as_str();
    let mut statement = transaction.prepare_cached(
        "insert into sessions (org_id, workspace_id, session_id, environment, agent_id, agent_name, user_id, tags, status, started_us,
           last_event_us, opened_us, ended_us, ended_in_error, event_count, tool_call_count, error_count, llm_call_count, input_tokens,
           output_tokens, cost_nanos, last_seq, last_hash, moved_to, own_events, number,
           last_seal, expire_day, head_seal)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26,
           ?27, ?28, ?29)
         on conflict (number) do update set
           environment = excluded.environment, agent_id = excluded.agent_id, agent_name = excluded.agent_name, user_id = excluded.user_id, tags = excluded.tags,
           status = excluded.status, started_us = excluded.started_us, last_event_us = excluded.last_event_us,
           opened_us = excluded.opened_us, ended_us = excluded.ended_us, ended_in_error = excluded.ended_in_error,
           event_count = excluded.event_count, tool_call_count = excluded.tool_call_count, error_count = excluded.error_count,
           llm_call_count = excluded.llm_call_count, input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
           cost_nanos = excluded.cost_nanos, last_seq = excluded.last_seq, last_hash = excluded.last_hash,
           moved_to = excluded.moved_to, own_events = excluded.own_events, last_seal = excluded.last_seal,
           expire_day = excluded.expire_day, head_seal = excluded.head_seal",
    )?;
    for (key, session) in sessions {
        let ((workspace, session_id), state) = (key, &session.state);
        statement.execute(params![
            org,
            workspace,
            session_id,
            state.environment,
            state.agent_id,
            state.agent_name,
            state.user_id,
            serde_json::to_string(&state.tags).unwrap_or_default(),
            state.stored_status().as_str(),
            state.started_us,
            state.last_event_us,
            state.opened_us,
            state.ended_us,
            state.ended_in_error,
            state.event_count,
            state.tool_call_count,
            state.error_count,
            state.llm_call_count,
            state.input_tokens,
            state.output_tokens,
            state.cost_nanos,
            state.last_seq,
            state.last_hash,
            state.moved_to,
            state.own_events,
            session.number,
            session.last_seal,
            session.expire_day,
            session.head_seal(context, *key),
        ])?;
    }
    Ok(())
}

fn upsert_agents(transaction: &Transaction<'_>, org: &str, plan: &Plan<'_>) -> Result<(), StoreError> {
    let mut statement = transaction.prepare_cached(
        "insert into agents (org_id, workspace_id, agent_id, name, first_seen_us, last_seen_us, session_count, event_count, error_count, cost_nanos)
         values (?1, ?2, ?3, coalesce(?4, ?3), ?5, ?6, ?7, ?8, ?9, ?10)
         on conflict (org_id, workspace_id, agent_id) do update set
           name = coalesce(?4, agents.name), first_seen_us = min(agents.first_seen_us, excluded.first_seen_us),
           last_seen_us = max(agents.last_seen_us, excluded.last_seen_us), session_count = cast(agents.session_count + excluded.session_count as integer),
           event_count = cast(agents.event_count + excluded.event_count as integer), error_count = cast(agents.error_count + excluded.error_count as integer),
           cost_nanos = cast(agents.cost_nanos + excluded.cost_nanos as integer)",
    )?;
    for ((workspace, agent_id), delta) in &plan.agents {
        statement.execute(params![
            org,
            workspace,
            agent_id,
            delta.name,
            delta.first_seen_us,
            delta.last_seen_us,
            delta.session_count,
            delta.event_count,
            delta.error_count,
            delta.cost_nanos,
        ])?;
    }
    Ok(())
}

/// Writes what changes of the rollups; returns how many changes wait then.
fn write_changes(
    transaction: &Transaction<'_>,
    org: &str,
    state: &OrgState,
    changes: &[Cell<'_>],
) -> Result<i64, StoreError> {
    if changes.is_empty() {
        return Ok(state.waiting_changes);
    }
    if !state.is_merging() {
        let number = state.waiting_changes + 1;
        transaction
            .prepare_cached("insert into rollup_changes (org_id, number, cells) values (?1, ?2, ?3)")?
            .execute(params![org, number, encode_changes(changes)?])?;
        return Ok(number);
    }
    let mut taken =
        transaction.prepare_cached("delete from rollup_changes where org_id = ?1 returning cells")?;
    let waiting: Vec<Vec<u8>> = taken.query_map([org], |row| row.get(0))?.collect::<Result<_, _>>()?;
    merge_cells(transaction, org, &merged(&waiting, changes)?)?;
    Ok(0)
}

// What is stored is a sketch: of a change that also takes something away (version 2), only what comes to it begins one.
// SQLite turns a sum that overflows into a floating-point number; the cast turns that into the nearest integer, so sums saturate.
macro_rules! merge_cell_sql {
    ($table:literal) => {
        concat!(
            "insert into ",
            $table,
            " as t (org_id, workspace_id, dimension, bucket_us, environment, agent_id, provider, name, event_count, error_count,
               session_count, llm_call_count, tool_call_count, tool_error_count, input_tokens, output_tokens, cache_read_tokens,
               cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, cost_nanos,
               unknown_cost_count, latency)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
               case when substr(?25, 1, 1) = x'02' then latency_merge(x'0100', ?25) else ?25 end)
             on conflict do update set
               event_count = cast(t.event_count + excluded.event_count as integer), error_count = cast(t.error_count + excluded.error_count as integer),
               session_count = cast(t.session_count + excluded.session_count as integer), llm_call_count = cast(t.llm_call_count + excluded.llm_call_count as integer),
               tool_call_count = cast(t.tool_call_count + excluded.tool_call_count as integer),
               tool_error_count = cast(t.tool_error_count + excluded.tool_error_count as integer),
               input_tokens = cast(t.input_tokens + excluded.input_tokens as integer), output_tokens = cast(t.output_tokens + excluded.output_tokens as integer),
               cache_read_tokens = cast(t.cache_read_tokens + excluded.cache_read_tokens as integer),
               cache_write_5m_tokens = cast(t.cache_write_5m_tokens + excluded.cache_write_5m_tokens as integer),
               cache_write_1h_tokens = cast(t.cache_write_1h_tokens + excluded.cache_write_1h_tokens as integer),
               reasoning_tokens = cast(t.reasoning_tokens + excluded.reasoning_tokens as integer),
               audio_input_tokens = cast(t.audio_input_tokens + excluded.audio_input_tokens as integer),
               audio_output_tokens = cast(t.audio_output_tokens + excluded.audio_output_tokens as integer),
               cost_nanos = cast(t.cost_nanos + excluded.cost_nanos as integer),
               unknown_cost_count = cast(t.unknown_cost_count + excluded.unknown_cost_count as integer),
               latency = latency_merge(t.latency, ?25)"
        )
    };
}

fn merge_cells(transaction: &Transaction<'_>, org: &str, cells: &[Cell<'_>]) -> Result<(), StoreError> {
    let mut hours = transaction.prepare_cached(merge_cell_sql!("rollup_hour"))?;
    let mut days = transaction.prepare_cached(merge_cell_sql!("rollup_day"))?;
    for (key, cell) in cells {
        let statement = match key.tier {
            Tier::Hour => &mut hours,
            Tier::Day => &mut days,
        };
        statement.execute(params![
            org,
            key.workspace_id,
            key.dimension.as_str(),
            key.bucket_us,
            key.environment,
            key.agent_id,
            key.provider,
            key.name,
            cell.event_count,
            cell.error_count,
            cell.session_count,
            cell.llm_call_count,
            cell.tool_call_count,
            cell.tool_error_count,
            cell.usage.input,
            cell.usage.output,
            cell.usage.cache_read,
            cell.usage.cache_write_5m,
            cell.usage.cache_write_1h,
            cell.usage.reasoning,
            cell.usage.audio_input,
            cell.usage.audio_output,
            cell.cost_nanos,
            cell.unknown_cost_count,
            encode_change(&cell.latency, &cell.removed_latency),
        ])?;
    }
    Ok(())
}

fn count_usage(transaction: &Transaction<'_>, org: &str, plan: &Plan<'_>) -> Result<(), StoreError> {
    let mut ledger = transaction.prepare_cached(
        "insert into ingest_ledger as t (org_id, key_id, outcome, event_count) values (?1, ?2, ?3, ?4)
         on conflict do update set event_count = cast(t.event_count + excluded.event_count as integer)",
    )?;
    for ((key_id, outcome), count) in &plan.ledger {
        ledger.execute(params![org, key_id, outcome, count])?;
    }
    let mut usage = transaction.prepare_cached(
        "insert into usage_days as t (org_id, workspace_id, day, event_count, payload_bytes) values (?1, ?2, ?3, ?4, ?5)
         on conflict do update set event_count = cast(t.event_count + excluded.event_count as integer),
           payload_bytes = cast(t.payload_bytes + excluded.payload_bytes as integer)",
    )?;
    for ((workspace, day), (events, bytes)) in &plan.usage {
        usage.execute(params![org, workspace, day, events, bytes])?;
    }
    Ok(())
}
