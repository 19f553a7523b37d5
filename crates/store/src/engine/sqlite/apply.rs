//! Applying batches on SQLite: one immediate transaction on the writing connection, prepared statements in loops.

use std::sync::LazyLock;
use std::sync::mpsc::sync_channel;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use rustc_hash::{FxHashMap, FxHashSet};

use agentlens_domain::apply::{
    EventRow, LateKey, NumberedSession, OrgContext, OrgState, Plan, PlanInput, Verdict, plan, session_keys,
};
use agentlens_domain::batches::{Batch, Group, PerEvent};
use agentlens_domain::environments::{Environments, names_to_look_up};
use agentlens_domain::latency::encode_change;
use agentlens_domain::rollups::{Cell, Tier, encode_changes, merged};
use agentlens_domain::sessions::SessionKey;

use super::insert::insert;
use super::spans::{load_remaining, project_spans, upsert_spans};
use crate::error::StoreError;
use crate::statement::{FromRow, NamedRow, Row, for_sqlite};
use crate::tenant::{
    AgentsTable, ApplyReport, CellWrite, DaysTable, Ending, EventsTable, HoursTable, LOCK_STATE, LedgerTable,
    OrgStateRow, SessionRow, SessionWrite, SessionsTable, UsageTable,
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
    let state = load_state(&transaction, context)?;
    let group = Group::new(batches, claim_batches(&transaction, org, batches, now_us)?);
    let verdicts = claim_ids(&transaction, context, &group)?;
    let environments = take_environments(&transaction, org, &group, now_us)?;
    let projection = project_spans(&transaction, context, &group, &environments)?;
    let remaining = load_remaining(&transaction, org, &projection)?;
    let sessions = load_sessions(&transaction, context, session_keys(&group, &projection))?;
    let input = PlanInput {
        group: &group,
        verdicts,
        sessions: &sessions,
        environments: &environments,
        projection: &projection,
        remaining: &remaining,
        org: state,
        now_us,
    };
    let plan = plan_and_insert_events(&transaction, context, input)?;
    upsert_spans(&transaction, context, &projection.spans, &plan)?;
    keep_late_keys(&transaction, org, &plan.late_keys)?;
    let sessions = plan.sessions.iter().map(|row| SessionWrite::of(row, context));
    insert(&transaction, org, SessionsTable, sessions)?;
    insert(&transaction, org, AgentsTable, &plan.agents)?;
    let waiting_changes = write_changes(&transaction, org, &state, &plan.changes)?;
    insert(&transaction, org, LedgerTable, &plan.ledger)?;
    insert(&transaction, org, UsageTable, &plan.usage)?;
    transaction
        .prepare_cached(
            "update org_state set last_position = ?2, last_session = ?3, last_trace = ?4, session_count = ?5, seal = ?6,
               waiting_changes = ?7, shortest_retention_days = ?8 where org_id = ?1",
        )?
        .execute(params![
            org,
            plan.org.last_position,
            plan.org.last_session,
            plan.org.last_trace,
            plan.org.session_count,
            plan.org.seal(&context.org, &context.seals),
            waiting_changes,
            plan.org.shortest_retention_days
        ])?;
    match ending {
        Ending::Commit => transaction.commit()?,
        Ending::RollBack => transaction.rollback()?,
    }
    Ok(ApplyReport {
        batches: plan.applied,
        last_position: plan.org.last_position,
        indexed_position: state.indexed_position,
    })
}

fn load_state(transaction: &Transaction<'_>, context: &OrgContext) -> Result<OrgState, StoreError> {
    static SQL: LazyLock<String> = LazyLock::new(|| for_sqlite(LOCK_STATE));
    let mut statement = transaction.prepare_cached(&SQL)?;
    let columns = statement.column_count();
    let row = statement.query_row([context.org.as_str()], |row| Row::from_sqlite(row, columns)).optional()?;
    Ok(OrgStateRow::from_row(&row.ok_or_else(OrgStateRow::missing)?)?.checked(context))
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
    group: &Group<'a>,
    now_us: i64,
) -> Result<Environments<'a>, StoreError> {
    let mut environments = Environments::default();
    for (workspace, names) in names_to_look_up(group) {
        let known = transaction
            .prepare_cached("select name from environments where org_id = ?1 and workspace_id = ?2")?
            .query_map([org, workspace], |row| row.get(0))?
            .collect::<Result<FxHashSet<String>, _>>()?;
        for name in environments.add_names(workspace, &names, &known) {
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
    group: &Group<'_>,
) -> Result<PerEvent<Verdict>, StoreError> {
    let org = context.org.as_str();
    let mut claim = transaction.prepare_cached(
        "insert into event_keys (org_id, workspace_id, id, content_digest, expire_day) values (?1, ?2, ?3, ?4, ?5) on conflict do nothing",
    )?;
    let mut compare = transaction.prepare_cached(
        "select content_digest = ?4 from event_keys where org_id = ?1 and workspace_id = ?2 and id = ?3",
    )?;
    let mut verdicts = group.per_event(Verdict::New);
    for (place, batch, event) in group.new_events() {
        let Some(digest) = &event.content_digest else { continue };
        let (workspace, day) = (batch.workspace_id.as_str(), context.expire_day(event.ts_us));
        verdicts[place] = if claim.execute(params![org, workspace, event.id, digest, day])? == 1 {
            Verdict::New
        } else if compare.query_row(params![org, workspace, event.id, digest], |row| row.get(0))? {
            Verdict::Duplicate
        } else {
            Verdict::Conflict
        };
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
    context: &OrgContext,
    keys: FxHashSet<SessionKey<'a>>,
) -> Result<FxHashMap<SessionKey<'a>, NumberedSession>, StoreError> {
    let org = context.org.as_str();
    let sql = format!(
        "select {} from sessions where org_id = ?1 and workspace_id = ?2 and session_id = ?3",
        SessionRow::COLUMNS
    );
    let mut statement = transaction.prepare_cached(&sql)?;
    let columns = statement.column_count();
    let mut sessions = FxHashMap::default();
    for key in keys {
        let read = |row: &rusqlite::Row<'_>| Row::from_sqlite(row, columns);
        if let Some(row) = statement.query_row(params![org, key.0, key.1], read).optional()? {
            sessions.insert(key, SessionRow::from_row(&row)?.checked(context)?);
        }
    }
    Ok(sessions)
}

/// Computes the plan on a thread beside this one, which writes the events' rows as they come.
fn plan_and_insert_events<'a>(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    input: PlanInput<'a>,
) -> Result<Plan<'a>, StoreError> {
    let org = context.org.as_str();
    let events = input.group.event_count();
    if events <= ROWS_HANDED_OVER {
        let mut rows = Vec::with_capacity(events);
        let plan = plan(context, &input, |row| rows.push(row));
        insert(transaction, org, EventsTable, rows)?;
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
        insert(transaction, org, EventsTable, receiver.into_iter().flatten())?;
        planner.join().map_err(|_| StoreError::Refused("the plan of a group panicked".to_owned()))
    })
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

fn merge_cells(transaction: &Transaction<'_>, org: &str, cells: &[Cell<'_>]) -> Result<(), StoreError> {
    let of_tier = |tier| {
        let of_tier = cells.iter().filter(move |(key, _)| key.tier == tier);
        of_tier.map(|cell| CellWrite::of(cell, encode_change(&cell.1.latency, &cell.1.removed_latency)))
    };
    insert(transaction, org, HoursTable, of_tier(Tier::Hour))?;
    insert(transaction, org, DaysTable, of_tier(Tier::Day))
}
