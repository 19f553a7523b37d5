//! What an older program stored: it is numbered by the upgrade, and found and continued by the numbers.

use agentlens_domain::ids::OrgId;
use agentlens_store::{Store, Tenant};

use crate::batches::{NOW_US, batch, note};
use crate::world::{Database, apply, block_on, connect};

const SQLITE: [&str; 2] = [
    include_str!("../../src/migrations/tenant/0001_sqlite.sql"),
    include_str!("../../src/migrations/tenant/0002_sqlite.sql"),
];
const POSTGRES: [(&str, &str); 3] = [
    ("control", include_str!("../../src/migrations/control/0001_postgres.sql")),
    ("tenant", include_str!("../../src/migrations/tenant/0001_postgres.sql")),
    ("tenant", include_str!("../../src/migrations/tenant/0002_postgres.sql")),
];

/// Two sessions of three and of two events, the second of which has a trace of two spans; `zeros` writes so many bytes.
fn old_rows(zeros: fn(usize) -> String) -> String {
    let (bytes, seal) = (zeros(32), zeros(16));
    let mut rows = String::from(
        "insert into org_state (org_id, last_position, indexed_position, prices_version) values ('acme', 5, 0, 0);",
    );
    for (session, started_us, count, own) in [("late", 2_000, 3, 3), ("early", 1_000, 2, 0)] {
        rows += &format!(
            "insert into sessions (org_id, workspace_id, session_id, environment, agent_id, tags, status, started_us, last_event_us,
               ended_in_error, event_count, tool_call_count, error_count, llm_call_count, input_tokens, output_tokens, cost_nanos,
               last_seq, last_hash, own_events)
             values ('acme', 'default', '{session}', 'production', 'a', '[]', 'active', {started_us}, {started_us}, (1 = 0), {count},
               0, 0, 0, 0, 0, 0, {count}, {bytes}, {own});"
        );
        for seq in 1..=count {
            rows += &format!(
                "insert into events (position, org_id, id, workspace_id, environment, session_id, seq, agent_id, event_type, severity,
                   timestamp, ts_us, received_us, expire_day, hash, seal, metadata, encoding, payload)
                 values ({started_us} + {seq}, 'acme', '{session}-{seq}', 'default', 'production', '{session}', {seq}, 'a', 'custom',
                   'info', '', {started_us}, 0, 2932896, {bytes}, {seal}, '{{}}', 0, {bytes});"
            );
        }
    }
    rows += &format!(
        "insert into search_shards (org_id, shard, first_position, grams) values ('acme', 255, 1, {seal}), ('acme', 0, 2, {bytes});"
    );
    rows += &format!(
        "insert into traces (org_id, workspace_id, trace_id, session_id, expire_day, state)
         values ('acme', 'default', 't', 'early', 2932896, {bytes});"
    );
    for span in ["root", "child"] {
        rows += &format!(
            "insert into spans (org_id, workspace_id, trace_id, span_id, session_id, is_root, is_part, start_us, expire_day, state)
             values ('acme', 'default', 't', '{span}', 'early', ('{span}' = 'root'), (1 = 0), 0, 2932896, {bytes});"
        );
    }
    rows
}

/// What must be counted, and how much of it, on an upgraded store.
const FOUND: [(&str, i64); 8] = [
    ("from events e join sessions s on s.number = e.session_number and s.session_id = e.session_id", 5),
    ("from sessions where session_id = 'early' and number = 1 and own_events = 0", 1),
    ("from sessions where session_id = 'late' and number = 2 and own_events = 3", 1),
    (
        "from spans p join traces t on t.number = p.trace_number join sessions s on s.number = p.session_number
         where s.session_id = 'early'",
        2,
    ),
    ("from traces t join sessions s on s.number = t.session_number where s.session_id = 'early'", 1),
    ("from search_shards where place = 511 and length(grams) = 16", 1),
    ("from search_shards where place = 512 and length(grams) = 32", 1),
    ("from org_state where last_session = 2 and last_trace = 1 and waiting_changes = 0", 1),
];

async fn goes_on(tenant: &Tenant) {
    let report =
        apply(tenant, vec![batch("b1", &[note("e1", "late", NOW_US), note("e2", "new", NOW_US)])]).await;
    assert_eq!(report.last_position, 7);
    let late = tenant.find_session("default", "late").await.unwrap().unwrap();
    assert_eq!((late.number, late.last_seq), (2, 4));
    let ids: Vec<String> =
        tenant.events_of_session(&late, 0, 10).await.unwrap().into_iter().map(|event| event.id).collect();
    assert_eq!(ids, ["late-1", "late-2", "late-3", "e1"]);
    assert_eq!(tenant.find_session("default", "new").await.unwrap().unwrap().number, 3);
}

#[test]
fn sqlite() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let org = OrgId::parse("acme").unwrap();
        let store = Store::open_sqlite(directory.path()).await.unwrap();
        store.control().ensure_org(&org, "Acme", NOW_US).await.unwrap();
        let file = directory.path().join("orgs/acme.db");
        std::fs::remove_file(&file).unwrap();
        let old = rusqlite::Connection::open(&file).unwrap();
        for step in SQLITE {
            old.execute_batch(step).unwrap();
        }
        old.execute_batch(&old_rows(|count| format!("zeroblob({count})"))).unwrap();
        old.pragma_update(None, "user_version", SQLITE.len()).unwrap();
        drop(old);
        let tenant = store.tenant(&org).await.unwrap();
        let upgraded = rusqlite::Connection::open(&file).unwrap();
        for (rows, count) in FOUND {
            let found: i64 =
                upgraded.query_row(&format!("select count(*) {rows}"), [], |row| row.get(0)).unwrap();
            assert_eq!(found, count, "{rows}");
        }
        goes_on(&tenant).await;
    });
}

#[test]
fn postgres() {
    crate::world::run_postgres(|_| async {
        let database = Database::make().await.unwrap();
        let old = connect(&database.owner_url).await;
        old.batch_execute(
            "create schema control; create schema tenant; create table control.migrations
               (step bigint primary key, applied timestamptz not null default now());",
        )
        .await
        .unwrap();
        for (step, (schema, text)) in POSTGRES.into_iter().enumerate() {
            old.batch_execute(&format!("set search_path = {schema}; {text}")).await.unwrap();
            let done = format!("insert into control.migrations (step) values ({})", step + 1);
            old.batch_execute(&done).await.unwrap();
        }
        let rows = old_rows(|count| format!("decode(repeat('00', {count}), 'hex')"));
        old.batch_execute(&format!("set search_path = tenant; set app.current_org = 'acme'; {rows}"))
            .await
            .unwrap();
        let run = Store::migrate_postgres(&database.owner_url, Some(&database.app_url)).await.unwrap();
        assert_eq!(run, 1);
        for (rows, count) in FOUND {
            let row = old.query_one(&format!("select count(*) {rows}"), &[]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), count, "{rows}");
        }
        let store = Store::open_postgres(&database.app_url, 2).await.unwrap();
        let org = OrgId::parse("acme").unwrap();
        store.control().ensure_org(&org, "Acme", NOW_US).await.unwrap();
        goes_on(&store.tenant(&org).await.unwrap()).await;
    });
}
