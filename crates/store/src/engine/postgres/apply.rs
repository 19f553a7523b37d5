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

use agentlens_domain::apply::{
    EventRow, LateKey, NumberedSession, OrgContext, OrgState, PlanInput, Verdict, plan, session_keys,
};
use agentlens_domain::batches::{Batch, EventPlace, Group, PerEvent};
use agentlens_domain::environments::{Environments, names_to_look_up};
use agentlens_domain::latency::Latency;
use agentlens_domain::rollups::{Cell, CellKey, Tier, encode_changes, merged};
use agentlens_domain::sessions::SessionKey;
use agentlens_domain::time::day_of;

use super::PostgresEngine;
use super::insert::insert;
use super::spans::{load_remaining, project_spans, upsert_spans};
use crate::error::StoreError;
use crate::row_scope::RowScope;
use crate::statement::{FromRow, NamedRow, Row};
use crate::tenant::{
    AgentsTable, ApplyReport, CellWrite, DaysTable, Ending, EventsTable, HoursTable, LOCK_STATE, LedgerTable,
    OrgStateRow, SessionRow, SessionWrite, SessionsTable, UsageTable, merged_latency,
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
    let state = lock_state(&transaction, context).await?;
    let group = Group::new(batches, claim_batches(&transaction, org, batches, now_us).await?);
    let verdicts = claim_ids(&transaction, context, &group).await?;
    let environments = take_environments(&transaction, org, &group, now_us).await?;
    let projection = project_spans(&transaction, context, &group, &environments).await?;
    let remaining = load_remaining(&transaction, org, &projection).await?;
    let keys = session_keys(&group, &projection).into_iter().collect();
    let sessions = load_sessions(&transaction, context, keys).await?;
    let mut events = Vec::with_capacity(group.event_count());
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
    let plan = plan(context, &input, |row| events.push(row));

    let days = engine.without_partition(events.iter().map(|row| row.expire_day));
    if !days.is_empty() {
        return Ok(Try::NeedsPartitions(days));
    }
    insert_events(&transaction, org, &events).await?;
    upsert_spans(&transaction, context, &projection.spans, &plan).await?;
    keep_late_keys(&transaction, org, &plan.late_keys).await?;
    let sessions: Vec<_> = plan.sessions.iter().map(|row| SessionWrite::of(row, context)).collect();
    insert(&transaction, org, SessionsTable, &sessions).await?;
    insert(&transaction, org, AgentsTable, &plan.agents).await?;
    let waiting_changes = write_changes(&transaction, org, &state, &plan.changes).await?;
    insert(&transaction, org, LedgerTable, &plan.ledger).await?;
    insert(&transaction, org, UsageTable, &plan.usage).await?;
    let advance = transaction
        .prepare_cached(
            "update org_state set last_position = $2, last_session = $3, last_trace = $4, session_count = $5, seal = $6,
               waiting_changes = $7, shortest_retention_days = $8 where org_id = $1",
        )
        .await?;
    let OrgState { last_position: position, last_session: session, last_trace: trace, .. } = plan.org;
    let OrgState { session_count: sessions, shortest_retention_days: days, .. } = plan.org;
    let seal = plan.org.seal(&context.org, &context.seals);
    let seal = seal.as_slice();
    transaction
        .execute(&advance, &[&org, &position, &session, &trace, &sessions, &seal, &waiting_changes, &days])
        .await?;
    match ending {
        Ending::Commit => transaction.commit().await?,
        Ending::RollBack => transaction.rollback().await?,
    }
    Ok(Try::Done(ApplyReport {
        batches: plan.applied,
        last_position: plan.org.last_position,
        indexed_position: state.indexed_position,
    }))
}

/// The row of the org is locked for the transaction: a second writer, who should not exist, waits here.
async fn lock_state(transaction: &Transaction<'_>, context: &OrgContext) -> Result<OrgState, StoreError> {
    let statement = transaction.prepare_cached(LOCK_STATE).await?;
    let row = transaction.query_opt(&statement, &[&context.org.as_str()]).await?;
    let row = Row::from_postgres(&row.ok_or_else(OrgStateRow::missing)?)?;
    Ok(OrgStateRow::from_row(&row)?.checked(context))
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
    group: &Group<'a>,
    now_us: i64,
) -> Result<Environments<'a>, StoreError> {
    let mut environments = Environments::default();
    for (workspace, names) in names_to_look_up(group) {
        let sql = "select name from environments where org_id = $1 and workspace_id = $2";
        let statement = transaction.prepare_cached(sql).await?;
        let rows = transaction.query(&statement, &[&org, &workspace]).await?;
        let known = rows.iter().map(|row| row.try_get(0)).collect::<Result<FxHashSet<String>, _>>()?;
        let added = environments.add_names(workspace, &names, &known);
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
    group: &Group<'_>,
) -> Result<PerEvent<Verdict>, StoreError> {
    let org = context.org.as_str();
    // The first event of the group with an id is its candidate; later ones are compared with what it claims.
    type IdKey<'b> = (&'b str, &'b str);
    let mut candidates: FxHashMap<IdKey<'_>, EventPlace> = FxHashMap::default();
    let mut all: Vec<(EventPlace, IdKey<'_>, &[u8; 16])> = Vec::new();
    let (mut workspaces, mut ids): (Vec<&str>, Vec<&str>) = Default::default();
    let (mut digests, mut days): (Vec<&[u8]>, Vec<i32>) = Default::default();
    for (place, batch, event) in group.new_events() {
        let Some(digest) = &event.content_digest else { continue };
        let key = (batch.workspace_id.as_str(), event.id.as_str());
        all.push((place, key, digest));
        if let std::collections::hash_map::Entry::Vacant(vacant) = candidates.entry(key) {
            vacant.insert(place);
            workspaces.push(key.0);
            ids.push(key.1);
            digests.push(digest);
            days.push(context.expire_day(event.ts_us));
        }
    }
    let mut verdicts = group.per_event(Verdict::New);
    if ids.is_empty() {
        return Ok(verdicts);
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
    let verdict_of = |place: EventPlace, key: IdKey<'_>, digest: &[u8; 16]| {
        let owned = (key.0.to_owned(), key.1.to_owned());
        if claimed.contains(&owned) && candidates.get(&key) == Some(&place) {
            Verdict::New
        } else if stored.get(&owned).is_some_and(|stored| stored == digest) {
            Verdict::Duplicate
        } else {
            Verdict::Conflict
        }
    };
    for (place, key, digest) in all {
        verdicts[place] = verdict_of(place, key, digest);
    }
    Ok(verdicts)
}

async fn load_sessions<'a>(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    keys: Vec<SessionKey<'a>>,
) -> Result<FxHashMap<SessionKey<'a>, NumberedSession>, StoreError> {
    let org = context.org.as_str();
    let workspaces: Vec<&str> = keys.iter().map(|key| key.0).collect();
    let session_ids: Vec<&str> = keys.iter().map(|key| key.1).collect();
    let sql = format!(
        "select s.*, k.place from unnest($2::text[], $3::text[]) with ordinality as k (workspace_id, session_id, place)
         cross join lateral (select {} from sessions s
           where s.org_id = $1 and s.workspace_id = k.workspace_id and s.session_id = k.session_id limit 1) s",
        SessionRow::COLUMNS
    );
    let statement = transaction.prepare_cached(&sql).await?;
    let rows = transaction.query(&statement, &[&org, &workspaces, &session_ids]).await?;
    let mut sessions = FxHashMap::default();
    for row in &rows {
        let place = usize::try_from(row.try_get::<_, i64>("place")?).unwrap_or(1) - 1;
        let key = *keys
            .get(place)
            .ok_or_else(|| StoreError::Corrupt("an unknown session was joined".to_owned()))?;
        sessions.insert(key, SessionRow::from_row(&Row::from_postgres(row)?)?.checked(context)?);
    }
    Ok(sessions)
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
    let inserted = insert(transaction, org, EventsTable, rows).await?;
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
    let cells: Vec<_> = rows.iter().zip(sketches).map(|(cell, sketch)| CellWrite::of(cell, sketch)).collect();
    match tier {
        Tier::Hour => insert(transaction, org, HoursTable, &cells).await?,
        Tier::Day => insert(transaction, org, DaysTable, &cells).await?,
    };
    Ok(())
}

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
