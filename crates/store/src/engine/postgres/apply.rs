//! Applying batches on PostgreSQL: one transaction, a few statements, each over arrays of all rows.
//!
//! `COPY` is refused under row security, so rows come in by `insert ... select unnest(...), ...`, always with
//! `on conflict`, without which Citus would turn it into the refused `COPY`.
//!
//! Stored rows are looked up by `cross join lateral (... limit 1)`: a row by its key, one at a time. A plain join leaves it to
//! the planner, whose statistics lag behind a growing table: it then compares every key with every row of the org. For the
//! same reason no whole index but the primary key may begin with the key's first columns (see `sessions_started`).

use deadpool_postgres::{Object, Transaction};
use rustc_hash::{FxHashMap, FxHashSet};

use agentlens_domain::batches::Batch;
use agentlens_domain::chain::Seal;
use agentlens_domain::latency::Latency;
use agentlens_domain::rollups::{CellKey, Tier};
use agentlens_domain::sessions::SessionState;
use agentlens_domain::time::day_of;

use super::PostgresEngine;
use super::insert::Insert;
use super::spans::{load_staying, project_spans, upsert_spans};
use crate::error::StoreError;
use crate::row_scope::RowScope;
use crate::tenant::environments::{Environments, names_to_look_up};
use crate::tenant::{
    ApplyReport, Cell, Ending, EventRow, LateKey, NumberedSession, OrgContext, OrgState, Plan, PlanInput,
    SessionKey, StoredEvent, Verdict, encode_changes, merged, merged_latency, plan, session_keys,
};

/// What one try to apply batches came to.
enum Try {
    Done(ApplyReport),
    /// Nothing was written: these days of expiry have no partition that is known of.
    NeedsPartitions(Vec<i32>),
}

/// Applies batches in one transaction.
pub(crate) async fn apply(
    engine: &PostgresEngine,
    context: &OrgContext,
    batches: &[Batch],
    now_us: i64,
    ending: Ending,
) -> Result<ApplyReport, StoreError> {
    let mut client = engine.connection().await?;
    for _ in 0..MAX_TRIES {
        match try_apply(engine, &mut client, context, batches, now_us, ending).await? {
            Try::Done(report) => return Ok(report),
            // In a transaction of its own, so that no lock on the table of all orgs is held while batches are applied.
            Try::NeedsPartitions(days) => engine.ensure_partitions(&client, &days, day_of(now_us)).await?,
        }
    }
    Err(StoreError::Unavailable("the partitions of new events could not be made".to_owned()))
}

/// A try makes the partitions that the next one needs. A third is for another writer whose plan came in between.
const MAX_TRIES: usize = 3;

async fn try_apply(
    engine: &PostgresEngine,
    client: &mut Object,
    context: &OrgContext,
    batches: &[Batch],
    now_us: i64,
    ending: Ending,
) -> Result<Try, StoreError> {
    let transaction = client.transaction().await?;
    let org = context.org.as_str();
    // A group holds batches of all workspaces of the org.
    transaction.batch_execute(&RowScope::Org(&context.org).set_local()).await?;
    let state = lock_state(&transaction, org).await?;
    let fresh = claim_batches(&transaction, org, batches, now_us).await?;
    let verdicts = claim_ids(&transaction, context, batches, &fresh).await?;
    let environments = take_environments(&transaction, org, batches, &fresh, now_us).await?;
    let projection = project_spans(&transaction, context, batches, &fresh, &environments).await?;
    let staying = load_staying(&transaction, org, &projection).await?;
    let keys = session_keys(batches, &fresh, &projection).into_iter().collect();
    let sessions = load_sessions(&transaction, org, keys).await?;
    let mut events = Vec::with_capacity(batches.iter().map(|batch| batch.events.len()).sum());
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
    let plan = plan(context, &input, |row| events.push(row));

    let days = engine.without_partition(events.iter().map(|row| row.expire_day));
    if !days.is_empty() {
        return Ok(Try::NeedsPartitions(days));
    }
    insert_events(&transaction, org, &events).await?;
    upsert_spans(&transaction, context, &projection.spans, &plan).await?;
    keep_late_keys(&transaction, org, &plan.late_keys).await?;
    upsert_sessions(&transaction, context, &plan.sessions).await?;
    upsert_agents(&transaction, org, &plan).await?;
    let waiting_changes = write_changes(&transaction, org, &state, &plan.changes).await?;
    count_usage(&transaction, org, &plan).await?;
    let advance = transaction
        .prepare_cached(
            "update org_state set last_position = $2, last_session = $3, last_trace = $4, session_count = $5, seal = $6,
               waiting_changes = $7 where org_id = $1",
        )
        .await?;
    let (position, session, trace) = (plan.last_position, plan.last_session, plan.last_trace);
    let (sessions, seal) = (plan.session_count, plan.state().seal(context));
    let seal = seal.as_slice();
    transaction
        .execute(&advance, &[&org, &position, &session, &trace, &sessions, &seal, &waiting_changes])
        .await?;
    match ending {
        Ending::Commit => transaction.commit().await?,
        Ending::RollBack => transaction.rollback().await?,
    }
    Ok(Try::Done(ApplyReport {
        batches: plan.applied,
        last_position: plan.last_position,
        indexed_position: state.indexed_position,
    }))
}

/// The row of the org is locked for the transaction: a second writer, who should not exist, waits here.
async fn lock_state(transaction: &Transaction<'_>, org: &str) -> Result<OrgState, StoreError> {
    let sql = "select last_position, indexed_position, last_session, last_trace, waiting_changes, session_count from org_state where org_id = $1 for update";
    let read = |row: tokio_postgres::Row| -> Result<OrgState, StoreError> {
        Ok(OrgState {
            last_position: row.try_get(0)?,
            indexed_position: row.try_get(1)?,
            last_session: row.try_get(2)?,
            last_trace: row.try_get(3)?,
            waiting_changes: row.try_get(4)?,
            session_count: row.try_get(5)?,
        })
    };
    let statement = transaction.prepare_cached(sql).await?;
    if let Some(row) = transaction.query_opt(&statement, &[&org]).await? {
        return read(row);
    }
    // The seal is written with the counters, at the end of the transaction.
    let insert = "insert into org_state (org_id, last_position, indexed_position, last_session, last_trace, waiting_changes, session_count, seal)
         values ($1, 0, 0, 0, 0, 0, 0, '') on conflict do nothing";
    transaction.execute(insert, &[&org]).await?;
    read(transaction.query_one(&statement, &[&org]).await?)
}

async fn claim_batches(
    transaction: &Transaction<'_>,
    org: &str,
    batches: &[Batch],
    now_us: i64,
) -> Result<Vec<bool>, StoreError> {
    let ids: Vec<&str> = batches.iter().map(|batch| batch.batch_id.as_str()).collect();
    let sql = "insert into applied_batches (org_id, batch_id, applied_us)
         select $1, batch_id, $3 from unnest($2::text[]) as b (batch_id) order by batch_id
         on conflict do nothing returning batch_id";
    let statement = transaction.prepare_cached(sql).await?;
    let rows = transaction.query(&statement, &[&org, &ids, &now_us]).await?;
    let mut fresh: rustc_hash::FxHashSet<String> =
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    // The same batch twice in one group counts once.
    Ok(ids.iter().map(|id| fresh.remove(*id)).collect())
}

/// Adds the names of environments that have room in their workspaces.
async fn take_environments<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    batches: &'a [Batch],
    fresh: &[bool],
    now_us: i64,
) -> Result<Environments<'a>, StoreError> {
    let mut environments = Environments::default();
    for (workspace, names) in names_to_look_up(batches, fresh) {
        let sql = "select name from environments where org_id = $1 and workspace_id = $2";
        let statement = transaction.prepare_cached(sql).await?;
        let rows = transaction.query(&statement, &[&org, &workspace]).await?;
        let known = rows.iter().map(|row| row.try_get(0)).collect::<Result<FxHashSet<String>, _>>()?;
        let added = environments.settle(workspace, &names, &known);
        if !added.is_empty() {
            let sql = "insert into environments (org_id, workspace_id, name, first_seen_us)
                 select $1, $2, name, $4 from unnest($3::text[]) as n (name)";
            let statement = transaction.prepare_cached(sql).await?;
            transaction.execute(&statement, &[&org, &workspace, &added, &now_us]).await?;
        }
    }
    Ok(environments)
}

async fn claim_ids(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    batches: &[Batch],
    fresh: &[bool],
) -> Result<FxHashMap<(usize, usize), Verdict>, StoreError> {
    let org = context.org.as_str();
    // The first event of the group with an id is its candidate; later ones are compared with what it claims.
    type IdKey<'b> = (&'b str, &'b str);
    let mut candidates: FxHashMap<IdKey<'_>, (usize, usize)> = FxHashMap::default();
    let mut all: Vec<((usize, usize), IdKey<'_>, &[u8; 16])> = Vec::new();
    let (mut workspaces, mut ids): (Vec<&str>, Vec<&str>) = Default::default();
    let (mut digests, mut days): (Vec<&[u8]>, Vec<i32>) = Default::default();
    for (batch_index, batch) in batches.iter().enumerate().filter(|(index, _)| fresh[*index]) {
        for (event_index, event) in batch.events.iter().enumerate() {
            let Some(digest) = &event.content_digest else { continue };
            let (place, key) = ((batch_index, event_index), (batch.workspace_id.as_str(), event.id.as_str()));
            all.push((place, key, digest));
            if let std::collections::hash_map::Entry::Vacant(vacant) = candidates.entry(key) {
                vacant.insert(place);
                workspaces.push(key.0);
                ids.push(key.1);
                digests.push(digest);
                days.push(context.expire_day(event.ts_us));
            }
        }
    }
    if ids.is_empty() {
        return Ok(FxHashMap::default());
    }
    let claim = "insert into event_keys (org_id, workspace_id, id, content_digest, expire_day)
         select $1, k.workspace_id, k.id, k.digest, k.day
         from unnest($2::text[], $3::text[], $4::bytea[], $5::integer[]) as k (workspace_id, id, digest, day) order by k.workspace_id, k.id
         on conflict do nothing returning workspace_id, id";
    let statement = transaction.prepare_cached(claim).await?;
    let rows = transaction.query(&statement, &[&org, &workspaces, &ids, &digests, &days]).await?;
    let mut claimed: rustc_hash::FxHashSet<(String, String)> = rustc_hash::FxHashSet::default();
    for row in &rows {
        claimed.insert((row.try_get(0)?, row.try_get(1)?));
    }
    let standing = "select k.workspace_id, k.id, e.content_digest from unnest($2::text[], $3::text[]) as k (workspace_id, id)
         cross join lateral (select content_digest from event_keys e
           where e.org_id = $1 and e.workspace_id = k.workspace_id and e.id = k.id limit 1) e";
    let statement = transaction.prepare_cached(standing).await?;
    let rows = transaction.query(&statement, &[&org, &workspaces, &ids]).await?;
    let mut stored: FxHashMap<(String, String), Vec<u8>> = FxHashMap::default();
    for row in &rows {
        stored.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    let verdict_of = |place: (usize, usize), key: IdKey<'_>, digest: &[u8; 16]| {
        let owned = (key.0.to_owned(), key.1.to_owned());
        if claimed.contains(&owned) && candidates.get(&key) == Some(&place) {
            Verdict::New
        } else if stored.get(&owned).is_some_and(|stored| stored == digest) {
            Verdict::Duplicate
        } else {
            Verdict::Conflict
        }
    };
    Ok(all.into_iter().map(|(place, key, digest)| (place, verdict_of(place, key, digest))).collect())
}

async fn load_sessions<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    keys: Vec<SessionKey<'a>>,
) -> Result<FxHashMap<SessionKey<'a>, NumberedSession>, StoreError> {
    let workspaces: Vec<&str> = keys.iter().map(|key| key.0).collect();
    let session_ids: Vec<&str> = keys.iter().map(|key| key.1).collect();
    let sql = "select k.place, s.agent_id, s.agent_name, s.user_id, s.environment, s.tags, s.started_us, s.last_event_us, s.opened_us, s.ended_us,
           s.ended_in_error, s.event_count, s.tool_call_count, s.error_count, s.llm_call_count, s.input_tokens, s.output_tokens,
           s.cost_nanos, s.last_seq, s.last_hash, s.moved_to, s.own_events, s.number, s.last_seal, s.expire_day
         from unnest($2::text[], $3::text[]) with ordinality as k (workspace_id, session_id, place)
         cross join lateral (select * from sessions s
           where s.org_id = $1 and s.workspace_id = k.workspace_id and s.session_id = k.session_id limit 1) s";
    let statement = transaction.prepare_cached(sql).await?;
    let rows = transaction.query(&statement, &[&org, &workspaces, &session_ids]).await?;
    let mut sessions = FxHashMap::default();
    for row in &rows {
        let place = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(1) - 1;
        let key = *keys
            .get(place)
            .ok_or_else(|| StoreError::Corrupt("an unknown session was joined".to_owned()))?;
        let seal: Vec<u8> = row.try_get(23)?;
        let session = NumberedSession {
            number: row.try_get(22)?,
            state: session_state(row)?,
            last_seal: seal
                .try_into()
                .map_err(|_| StoreError::Corrupt("a session's last seal has another length".to_owned()))?,
            expire_day: row.try_get(24)?,
        };
        sessions.insert(key, session);
    }
    Ok(sessions)
}

fn session_state(row: &tokio_postgres::Row) -> Result<SessionState, StoreError> {
    let hash: Vec<u8> = row.try_get(19)?;
    Ok(SessionState {
        agent_id: row.try_get(1)?,
        agent_name: row.try_get(2)?,
        user_id: row.try_get(3)?,
        environment: row.try_get(4)?,
        tags: serde_json::from_str(row.try_get(5)?)
            .map_err(|_| StoreError::Corrupt("a session's tags are not JSON".to_owned()))?,
        started_us: row.try_get(6)?,
        last_event_us: row.try_get(7)?,
        opened_us: row.try_get(8)?,
        ended_us: row.try_get(9)?,
        ended_in_error: row.try_get(10)?,
        event_count: row.try_get(11)?,
        tool_call_count: row.try_get(12)?,
        error_count: row.try_get(13)?,
        llm_call_count: row.try_get(14)?,
        input_tokens: row.try_get(15)?,
        output_tokens: row.try_get(16)?,
        cost_nanos: row.try_get(17)?,
        last_seq: row.try_get(18)?,
        last_hash: hash
            .try_into()
            .map_err(|_| StoreError::Corrupt("a session's last hash has another length".to_owned()))?,
        moved_to: row.try_get(20)?,
        own_events: row.try_get(21)?,
    })
}

/// Lets the ids of late events live as long as the events.
async fn keep_late_keys(
    transaction: &Transaction<'_>,
    org: &str,
    keys: &[LateKey<'_>],
) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let workspaces: Vec<&str> = keys.iter().map(|key| key.0.0).collect();
    let ids: Vec<&str> = keys.iter().map(|key| key.0.1).collect();
    let days: Vec<i32> = keys.iter().map(|key| key.1).collect();
    let sql = "update event_keys e set expire_day = k.day
         from unnest($2::text[], $3::text[], $4::integer[]) as k (workspace_id, id, day)
         where e.org_id = $1 and e.workspace_id = k.workspace_id and e.id = k.id";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.execute(&statement, &[&org, &workspaces, &ids, &days]).await?;
    Ok(())
}

async fn insert_events(
    transaction: &Transaction<'_>,
    org: &str,
    rows: &[EventRow<'_>],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let inserted = Insert::into("events")
        .column("position", "bigint", rows, |row| row.position)
        .column("id", "text", rows, |row| row.event.id.as_str())
        .column("workspace_id", "text", rows, |row| row.batch.workspace_id.as_str())
        .column("environment", "text", rows, |row| row.environment)
        .column("session_id", "text", rows, |row| row.session_id)
        .column("session_number", "bigint", rows, |row| row.session_number)
        .column("seq", "bigint", rows, |row| row.seq)
        .column("agent_id", "text", rows, |row| row.agent_id)
        .column("event_type", "text", rows, |row| row.event.event_type.as_str())
        .column("severity", "text", rows, |row| row.event.severity.as_str())
        .column("timestamp", "text", rows, |row| row.event.timestamp.as_str())
        .column("ts_us", "bigint", rows, |row| row.event.ts_us)
        .column("received_us", "bigint", rows, |row| row.batch.received_us)
        .column("expire_day", "integer", rows, |row| row.expire_day)
        .column("name", "text", rows, |row| row.event.facts.name.as_deref())
        .column("provider", "text", rows, |row| row.event.facts.provider.as_deref())
        .column("model", "text", rows, |row| row.event.facts.model.as_deref())
        .column("call_id", "text", rows, |row| row.event.facts.call_id.as_deref())
        .column("user_id", "text", rows, |row| row.event.facts.user_id.as_deref())
        .column("duration_us", "bigint", rows, |row| row.event.facts.duration_us)
        .column("input_tokens", "bigint", rows, |row| row.event.facts.usage.map(|usage| usage.input))
        .column("output_tokens", "bigint", rows, |row| row.event.facts.usage.map(|usage| usage.output))
        .column("usage_parts", "text", rows, |row| row.usage_parts.as_deref())
        .column("cost_nanos", "bigint", rows, |row| row.cost.as_ref().map(|cost| cost.nanos))
        .column("cost_source", "text", rows, |row| row.cost.as_ref().map(|cost| cost.source.as_str()))
        .column("reported_cost_nanos", "bigint", rows, |row| {
            row.cost.as_ref().and_then(|cost| cost.reported_nanos)
        })
        .column("computed_cost_nanos", "bigint", rows, |row| {
            row.cost.as_ref().and_then(|cost| cost.computed_nanos)
        })
        .column("prev_hash", "bytea", rows, |row| row.prev_hash.as_ref().map(|hash| hash.as_slice()))
        .column("hash", "bytea", rows, |row| row.hash.as_slice())
        .column("seal", "bytea", rows, |row| row.seal.as_slice())
        .column("preview", "text", rows, |row| row.preview)
        .column("metadata", "text", rows, |row| row.event.metadata.as_str())
        .column("encoding", "smallint", rows, |row| {
            i16::try_from(StoredEvent::encoding_of(row.event)).unwrap_or(0)
        })
        .column("payload", "bytea", rows, |row| row.event.payload.as_bytes())
        .run(transaction, org, "do nothing")
        .await?;
    if inserted != rows.len() as u64 {
        // Ids of ours can't collide and ids of clients were claimed before, so this is a fault; nothing is written.
        return Err(StoreError::Refused(format!(
            "{} of {} events have ids that are taken",
            rows.len() as u64 - inserted,
            rows.len()
        )));
    }
    Ok(())
}

type SessionRow<'a> = (SessionKey<'a>, NumberedSession);

async fn upsert_sessions(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    rows: &[SessionRow<'_>],
) -> Result<(), StoreError> {
    let heads: Vec<Seal> = rows.iter().map(|(key, session)| session.head_seal(context, *key)).collect();
    Insert::into("sessions")
        .column("number", "bigint", rows, |row| row.1.number)
        .column("workspace_id", "text", rows, |row| row.0.0)
        .column("session_id", "text", rows, |row| row.0.1)
        .column("environment", "text", rows, |row| row.1.state.environment.as_str())
        .column("agent_id", "text", rows, |row| row.1.state.agent_id.as_str())
        .column("agent_name", "text", rows, |row| row.1.state.agent_name.as_deref())
        .column("user_id", "text", rows, |row| row.1.state.user_id.as_deref())
        .column("tags", "text", rows, |row| serde_json::to_string(&row.1.state.tags).unwrap_or_default())
        .column("status", "text", rows, |row| row.1.state.stored_status().as_str())
        .column("started_us", "bigint", rows, |row| row.1.state.started_us)
        .column("last_event_us", "bigint", rows, |row| row.1.state.last_event_us)
        .column("opened_us", "bigint", rows, |row| row.1.state.opened_us)
        .column("ended_us", "bigint", rows, |row| row.1.state.ended_us)
        .column("ended_in_error", "boolean", rows, |row| row.1.state.ended_in_error)
        .column("event_count", "bigint", rows, |row| row.1.state.event_count)
        .column("tool_call_count", "bigint", rows, |row| row.1.state.tool_call_count)
        .column("error_count", "bigint", rows, |row| row.1.state.error_count)
        .column("llm_call_count", "bigint", rows, |row| row.1.state.llm_call_count)
        .column("input_tokens", "bigint", rows, |row| row.1.state.input_tokens)
        .column("output_tokens", "bigint", rows, |row| row.1.state.output_tokens)
        .column("cost_nanos", "bigint", rows, |row| row.1.state.cost_nanos)
        .column("last_seq", "bigint", rows, |row| row.1.state.last_seq)
        .column("last_hash", "bytea", rows, |row| row.1.state.last_hash.as_slice())
        .column("moved_to", "text", rows, |row| row.1.state.moved_to.as_deref())
        .column("own_events", "bigint", rows, |row| row.1.state.own_events)
        .column("last_seal", "bytea", rows, |row| row.1.last_seal.as_slice())
        .column("expire_day", "integer", rows, |row| row.1.expire_day)
        .column("head_seal", "bytea", &heads, |seal| seal.as_slice())
        .run(
            transaction,
            context.org.as_str(),
            "(org_id, workspace_id, session_id) do update set environment = excluded.environment, agent_id = excluded.agent_id, agent_name = excluded.agent_name,
               user_id = excluded.user_id, tags = excluded.tags, status = excluded.status, started_us = excluded.started_us,
               last_event_us = excluded.last_event_us, opened_us = excluded.opened_us, ended_us = excluded.ended_us,
               ended_in_error = excluded.ended_in_error, event_count = excluded.event_count, tool_call_count = excluded.tool_call_count,
               error_count = excluded.error_count, llm_call_count = excluded.llm_call_count, input_tokens = excluded.input_tokens,
               output_tokens = excluded.output_tokens, cost_nanos = excluded.cost_nanos, last_seq = excluded.last_seq,
               last_hash = excluded.last_hash, moved_to = excluded.moved_to, own_events = excluded.own_events,
               last_seal = excluded.last_seal, expire_day = excluded.expire_day, head_seal = excluded.head_seal",
        )
        .await?;
    Ok(())
}

async fn upsert_agents(transaction: &Transaction<'_>, org: &str, plan: &Plan<'_>) -> Result<(), StoreError> {
    let rows = plan.agents.as_slice();
    Insert::into("agents")
        .column("workspace_id", "text", rows, |row| row.0.0)
        .column("agent_id", "text", rows, |row| row.0.1)
        // A name is never the id itself, so that stands for none.
        .column("name", "text", rows, |row| row.1.name.unwrap_or(row.0.1))
        .column("first_seen_us", "bigint", rows, |row| row.1.first_seen_us)
        .column("last_seen_us", "bigint", rows, |row| row.1.last_seen_us)
        .column("session_count", "bigint", rows, |row| row.1.session_count)
        .column("event_count", "bigint", rows, |row| row.1.event_count)
        .column("error_count", "bigint", rows, |row| row.1.error_count)
        .column("cost_nanos", "bigint", rows, |row| row.1.cost_nanos)
        .run(
            transaction,
            org,
            "(org_id, workspace_id, agent_id) do update set
               name = case when excluded.name = excluded.agent_id then t.name else excluded.name end,
               first_seen_us = least(t.first_seen_us, excluded.first_seen_us),
               last_seen_us = greatest(t.last_seen_us, excluded.last_seen_us), session_count = saturating_add(t.session_count, excluded.session_count),
               event_count = saturating_add(t.event_count, excluded.event_count), error_count = saturating_add(t.error_count, excluded.error_count),
               cost_nanos = saturating_add(t.cost_nanos, excluded.cost_nanos)",
        )
        .await?;
    Ok(())
}

/// Writes what changes of the rollups; returns how many changes wait then.
async fn write_changes(
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
        let insert = transaction
            .prepare_cached("insert into rollup_changes (org_id, number, cells) values ($1, $2, $3)")
            .await?;
        transaction.execute(&insert, &[&org, &number, &encode_changes(changes)?]).await?;
        return Ok(number);
    }
    let take =
        transaction.prepare_cached("delete from rollup_changes where org_id = $1 returning cells").await?;
    let rows = transaction.query(&take, &[&org]).await?;
    let waiting: Vec<Vec<u8>> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let cells = merged(&waiting, changes)?;
    merge_cells(transaction, org, &cells, Tier::Hour).await?;
    merge_cells(transaction, org, &cells, Tier::Day).await?;
    Ok(0)
}

/// Counters add up in SQL; a sketch is read, merged here and written back, which is safe because the org is locked.
async fn merge_cells(
    transaction: &Transaction<'_>,
    org: &str,
    cells: &[Cell<'_>],
    tier: Tier,
) -> Result<(), StoreError> {
    let rows: Vec<Cell<'_>> = cells.iter().filter(|(key, _)| key.tier == tier).cloned().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let sketches = merged_latencies(transaction, org, &rows, tier).await?;
    let rows = rows.as_slice();
    let table = match tier {
        Tier::Hour => "rollup_hour",
        Tier::Day => "rollup_day",
    };
    Insert::into(table)
        .column("workspace_id", "text", rows, |row| row.0.workspace_id)
        .column("dimension", "text", rows, |row| row.0.dimension.as_str())
        .column("bucket_us", "bigint", rows, |row| row.0.bucket_us)
        .column("environment", "text", rows, |row| row.0.environment)
        .column("agent_id", "text", rows, |row| row.0.agent_id)
        .column("provider", "text", rows, |row| row.0.provider)
        .column("name", "text", rows, |row| row.0.name)
        .column("event_count", "bigint", rows, |row| row.1.event_count)
        .column("error_count", "bigint", rows, |row| row.1.error_count)
        .column("session_count", "bigint", rows, |row| row.1.session_count)
        .column("llm_call_count", "bigint", rows, |row| row.1.llm_call_count)
        .column("tool_call_count", "bigint", rows, |row| row.1.tool_call_count)
        .column("tool_error_count", "bigint", rows, |row| row.1.tool_error_count)
        .column("input_tokens", "bigint", rows, |row| row.1.usage.input)
        .column("output_tokens", "bigint", rows, |row| row.1.usage.output)
        .column("cache_read_tokens", "bigint", rows, |row| row.1.usage.cache_read)
        .column("cache_write_5m_tokens", "bigint", rows, |row| row.1.usage.cache_write_5m)
        .column("cache_write_1h_tokens", "bigint", rows, |row| row.1.usage.cache_write_1h)
        .column("reasoning_tokens", "bigint", rows, |row| row.1.usage.reasoning)
        .column("audio_input_tokens", "bigint", rows, |row| row.1.usage.audio_input)
        .column("audio_output_tokens", "bigint", rows, |row| row.1.usage.audio_output)
        .column("cost_nanos", "bigint", rows, |row| row.1.cost_nanos)
        .column("unknown_cost_count", "bigint", rows, |row| row.1.unknown_cost_count)
        .column("latency", "bytea", &sketches, |sketch| sketch.as_slice())
        .run(transaction, org, MERGE_CELL)
        .await?;
    Ok(())
}

const MERGE_CELL: &str = "(org_id, workspace_id, dimension, bucket_us, environment, agent_id, provider, name) do update set
   event_count = saturating_add(t.event_count, excluded.event_count), error_count = saturating_add(t.error_count, excluded.error_count),
   session_count = saturating_add(t.session_count, excluded.session_count), llm_call_count = saturating_add(t.llm_call_count, excluded.llm_call_count),
   tool_call_count = saturating_add(t.tool_call_count, excluded.tool_call_count), tool_error_count = saturating_add(t.tool_error_count, excluded.tool_error_count),
   input_tokens = saturating_add(t.input_tokens, excluded.input_tokens), output_tokens = saturating_add(t.output_tokens, excluded.output_tokens),
   cache_read_tokens = saturating_add(t.cache_read_tokens, excluded.cache_read_tokens),
   cache_write_5m_tokens = saturating_add(t.cache_write_5m_tokens, excluded.cache_write_5m_tokens),
   cache_write_1h_tokens = saturating_add(t.cache_write_1h_tokens, excluded.cache_write_1h_tokens),
   reasoning_tokens = saturating_add(t.reasoning_tokens, excluded.reasoning_tokens),
   audio_input_tokens = saturating_add(t.audio_input_tokens, excluded.audio_input_tokens),
   audio_output_tokens = saturating_add(t.audio_output_tokens, excluded.audio_output_tokens),
   cost_nanos = saturating_add(t.cost_nanos, excluded.cost_nanos), unknown_cost_count = saturating_add(t.unknown_cost_count, excluded.unknown_cost_count),
   latency = excluded.latency";

macro_rules! stored_latency_sql {
    ($table:literal) => {
        concat!(
            "select k.place, c.latency
             from unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[]) with ordinality
               as k (workspace_id, dimension, bucket_us, environment, agent_id, provider, name, place)
             cross join lateral (select latency from ",
            $table,
            " c where c.org_id = $1 and c.workspace_id = k.workspace_id and c.dimension = k.dimension and c.bucket_us = k.bucket_us
               and c.environment = k.environment and c.agent_id = k.agent_id and c.provider = k.provider and c.name = k.name limit 1) c"
        )
    };
}

/// The sketches of the cells as they are after the merge.
async fn merged_latencies(
    transaction: &Transaction<'_>,
    org: &str,
    rows: &[Cell<'_>],
    tier: Tier,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let sql = match tier {
        Tier::Hour => stored_latency_sql!("rollup_hour"),
        Tier::Day => stored_latency_sql!("rollup_day"),
    };
    let texts = |part: for<'k> fn(&CellKey<'k>) -> &'k str| -> Vec<String> {
        rows.iter().map(|(key, _)| part(key).to_owned()).collect()
    };
    let workspaces = texts(|key| key.workspace_id);
    let dimensions = texts(|key| key.dimension.as_str());
    let buckets: Vec<i64> = rows.iter().map(|(key, _)| key.bucket_us).collect();
    let environments = texts(|key| key.environment);
    let agents = texts(|key| key.agent_id);
    let providers = texts(|key| key.provider);
    let names = texts(|key| key.name);
    let statement = transaction.prepare_cached(sql).await?;
    let stored = transaction
        .query(
            &statement,
            &[&org, &workspaces, &dimensions, &buckets, &environments, &agents, &providers, &names],
        )
        .await?;
    let mut sketches: FxHashMap<usize, Vec<u8>> = FxHashMap::default();
    for row in &stored {
        let place = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
        if let Some((_, measures)) = rows.get(place.wrapping_sub(1)) {
            let change = (&measures.latency, &measures.removed_latency);
            sketches.insert(place - 1, merged_latency(row.try_get(1)?, change));
        }
    }
    let sketch = |(index, (_, measures)): (usize, &Cell<'_>)| {
        let begun =
            || merged_latency(&Latency::default().encode(), (&measures.latency, &measures.removed_latency));
        sketches.remove(&index).unwrap_or_else(begun)
    };
    Ok(rows.iter().enumerate().map(sketch).collect())
}

async fn count_usage(transaction: &Transaction<'_>, org: &str, plan: &Plan<'_>) -> Result<(), StoreError> {
    let ledger = plan.ledger.as_slice();
    Insert::into("ingest_ledger")
        .column("key_id", "text", ledger, |row| row.0.0)
        .column("outcome", "text", ledger, |row| row.0.1)
        .column("event_count", "bigint", ledger, |row| row.1)
        .run(
            transaction,
            org,
            "(org_id, key_id, outcome) do update set event_count = saturating_add(t.event_count, excluded.event_count)",
        )
        .await?;
    let usage = plan.usage.as_slice();
    Insert::into("usage_days")
        .column("workspace_id", "text", usage, |row| row.0.0)
        .column("day", "bigint", usage, |row| i64::from(row.0.1))
        .column("event_count", "bigint", usage, |row| row.1.0)
        .column("payload_bytes", "bigint", usage, |row| row.1.1)
        .run(
            transaction,
            org,
            "(org_id, workspace_id, day) do update set event_count = saturating_add(t.event_count, excluded.event_count),
               payload_bytes = saturating_add(t.payload_bytes, excluded.payload_bytes)",
        )
        .await?;
    Ok(())
}
