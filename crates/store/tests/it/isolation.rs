//! Nothing of one org is reached by another: through the store's functions on both engines, and on PostgreSQL by raw SQL
//! under the application's role.

use agentlens_domain::ids::{BatchId, WorkspaceId};
use agentlens_domain::permissions::{Caller, Role};
use agentlens_store::{
    DeadLetter, EventFilter, IngestRequestRow, Org, RemovalOrder, RemovalReason, SessionFilter, SessionRow,
    Store, StoreError, StoredEvent, Workspace,
};
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::batches::{NOW_US, batch, batch_of, mixture, real_now_us};
use crate::spans::{one_span, span_batch};
use crate::world::{Database, Workspaces, World, apply, cell_queries, connect};

on_both_engines!(no_function_reaches_another_org, no_function_reaches_another_workspace);

/// Not even by one who knows all of its row.
async fn no_session_is_read_by_another_org(ours: &Org, theirs: &Org) {
    let session = ours.ws("default").sessions().find("s1").await.unwrap().unwrap();
    assert!(!ours.ws("default").events().of_session(&session, 0, 10).await.unwrap().is_empty());
    assert!(theirs.ws("default").events().of_session(&session, 0, 10).await.unwrap().is_empty());
}

/// What was stored for another org: spans with this address, and the session.
async fn nothing_is_found(theirs: &Workspace, span: &[(String, String)], session: &SessionRow) {
    assert!(theirs.spans().find(span).await.unwrap().is_empty());
    assert!(theirs.spans().roots(&span[0].0, None, 10).await.unwrap().is_empty());
    assert!(theirs.spans().children(span, None, 10).await.unwrap().is_empty());
    assert!(theirs.sessions().chains_moved_to("s1").await.unwrap().is_empty());
    assert!(theirs.ingest_requests().list(None, None, 10).await.unwrap().is_empty());
    let filter = EventFilter::default();
    let sessions = SessionFilter { now_us: NOW_US, ..SessionFilter::default() };
    assert!(theirs.events().after(0, 1000).await.unwrap().is_empty());
    assert!(theirs.events().list(&filter, None, 0, 10).await.unwrap().events.is_empty());
    assert!(theirs.events().search(&filter, Some("c"), None, 0, 10).await.unwrap().events.is_empty());
    assert_eq!(theirs.events().count(&filter, 10).await.unwrap(), 0);
    assert!(theirs.events().find("e1").await.unwrap().is_none());
    assert!(theirs.events().key_digests(vec!["e1".to_owned()]).await.unwrap().is_empty());
    assert!(theirs.sessions().find("s1").await.unwrap().is_none());
    assert!(theirs.sessions().list(&sessions, None, 0, 10).await.unwrap().sessions.is_empty());
    assert!(theirs.sessions().ids(None, "", 10).await.unwrap().is_empty());
    assert!(theirs.sessions().costliest((None, None), (0, i64::MAX), 10).await.unwrap().is_empty());
    assert!(theirs.agents().list(None, 10).await.unwrap().is_empty());
    assert_eq!(theirs.analytics().stats().await.unwrap().session_count, 0);
    assert_eq!(theirs.events().last_position().await.unwrap(), 0);
    assert_eq!(theirs.chains().verify_session(session).await.unwrap().event_count, 0);
    for query in cell_queries() {
        assert!(theirs.analytics().cells(&query).await.unwrap().is_empty());
    }
}

async fn no_function_reaches_another_org(world: World) {
    let (ours, theirs) = (world.org("ours").await, world.org("theirs").await);
    let events = mixture(100);
    apply(&ours, vec![batch("b1", &events)]).await;
    let letter = DeadLetter {
        batch_id: "b7".to_owned(),
        key_id: "k".to_owned(),
        failed_us: 1,
        reason: String::new(),
        event_count: 1,
    };
    ours.dead_letters().insert(&letter, b"x").await.unwrap();
    add_spans(&ours).await;
    let span = [(one_span().trace_id, one_span().span_id)];
    assert_eq!(ours.ws("default").spans().find(&span).await.unwrap().len(), 1);
    assert_eq!(ours.ws("default").ingest_requests().list(None, None, 10).await.unwrap().len(), 1);
    let session = ours.ws("default").sessions().find("s1").await.unwrap().unwrap();
    no_session_is_read_by_another_org(&ours, &theirs).await;
    nothing_is_found(&theirs.ws("default"), &span, &session).await;
    assert!(theirs.ledger().counts().await.unwrap().is_empty());
    assert_eq!(theirs.chains().verify_all().await.unwrap().total_events, 0);
    assert!(theirs.dead_letters().list(10).await.unwrap().is_empty());
    assert!(matches!(
        theirs
            .dead_letters()
            .delete(
                &Caller::service("test", theirs.id()),
                "dead_letters.replay",
                &BatchId::parse("b7").unwrap()
            )
            .await,
        Err(StoreError::NotFound)
    ));
    theirs.retention().delete_expired(i64::MAX / 2).await.unwrap();
    // The same ids, batches and sessions are free in the other org, and ours are as they were.
    apply(&theirs, vec![batch("b1", &events[..10])]).await;
    assert_eq!(theirs.ws("default").events().after(0, 1000).await.unwrap().len(), 10);
    assert_eq!(ours.ws("default").events().after(0, 1000).await.unwrap().len(), 101);
    assert_eq!(ours.ws("default").spans().find(&span).await.unwrap().len(), 1);
    assert_eq!(ours.ws("default").sessions().find("s1").await.unwrap().unwrap(), session);
    assert_eq!(ours.dead_letters().list(10).await.unwrap().len(), 1);
}

/// Two workspaces that hold the same.
const WORKSPACES: [&str; 2] = ["default", "project"];

/// Rows of both workspaces in every table that has a workspace. Enough transactions for changes of cells to be merged.
async fn fill_workspaces(org: &Org) {
    for (workspace, request) in WORKSPACES.into_iter().zip(0..) {
        for (number, event) in mixture(40).iter().enumerate() {
            let mut event = event.clone();
            event["metadata"] =
                json!({ "userId": format!("user-{}", number % 4), "environment": "night shift" });
            event["id"] = format!("{workspace}-{number}").into();
            apply(org, vec![batch_of(workspace, &format!("{workspace}-{number}"), &[event])]).await;
        }
        let mut spans = span_batch(&format!("spans-{workspace}"), "production", vec![one_span()]);
        spans.workspace_id = WorkspaceId::parse(workspace).unwrap();
        apply(org, vec![spans]).await;
        let request = crate::ingest_requests::request(&format!("key-{workspace}"), request);
        org.ws(workspace).ingest_requests().insert(&request).await.unwrap();
        let order =
            RemovalOrder { why: RemovalReason::Erasure, removed_by: "person:ada".to_owned(), now_us: NOW_US };
        assert!(org.ws(workspace).events().remove_of_user("user-3", &order).await.unwrap() > 0);
    }
}

async fn no_function_reaches_another_workspace(world: World) {
    let org = world.org("acme").await;
    fill_workspaces(&org).await;
    let (ours, theirs) = (org.ws("default"), org.ws("project"));
    let (session, moved) = (
        ours.sessions().find("s1").await.unwrap().unwrap(),
        theirs.sessions().find("s1").await.unwrap().unwrap(),
    );
    assert_ne!(session.number, moved.number);
    // Not even with the row of the other workspace in hand.
    assert!(theirs.events().of_session(&session, 0, 10).await.unwrap().is_empty());
    assert!(theirs.events().of_session_within(&session, 0, 10, 1 << 20).await.unwrap().0.is_empty());
    assert_eq!(theirs.chains().verify_session(&session).await.unwrap().event_count, 0);
    assert!(theirs.removals().of_session(session.number).await.unwrap().is_empty());
    let order =
        RemovalOrder { why: RemovalReason::Deletion, removed_by: "person:ada".to_owned(), now_us: NOW_US };
    assert_eq!(theirs.sessions().remove(&session, &order).await.unwrap(), 0);
    assert_eq!(ours.sessions().find("s1").await.unwrap().unwrap(), session);
    // Ids and positions of events.
    let own: Vec<StoredEvent> = ours.events().after(0, 1000).await.unwrap();
    assert!(own.len() > 20 && own.iter().all(|event| event.workspace_id == "default"));
    let (ids, positions): (Vec<String>, Vec<i64>) =
        own.iter().map(|event| (event.id.clone(), event.position)).unzip();
    assert_eq!(ours.events().at_positions(positions.clone()).await.unwrap().len(), own.len());
    assert!(theirs.events().at_positions(positions).await.unwrap().is_empty());
    // The same span has the same event id in both.
    let ids: Vec<String> = ids.into_iter().filter(|id| id.starts_with("default-")).collect();
    assert_eq!(ours.events().by_ids_within(ids.clone(), 1 << 30).await.unwrap().len(), ids.len());
    assert!(theirs.events().by_ids_within(ids.clone(), 1 << 30).await.unwrap().is_empty());
    assert_eq!(theirs.events().find(&ids[0]).await.unwrap(), None);
    assert_eq!(theirs.events().position_of(&ids[0]).await.unwrap(), None);
    assert!(theirs.events().key_digests(vec!["default-1".to_owned()]).await.unwrap().is_empty());
    assert!(ours.events().key_digests(vec!["default-1".to_owned()]).await.unwrap().len() == 1);
    // A stream passes over what is not its own, and comes to the same end.
    let (read, last) = (
        theirs.events().places_after(0, 1000).await.unwrap(),
        theirs.events().last_position().await.unwrap(),
    );
    assert_eq!(
        (read.places.len(), read.read_to),
        (theirs.events().after(0, 1000).await.unwrap().len(), last)
    );
    let part = ours.events().places_after(0, 3).await.unwrap();
    assert_eq!((part.places.len(), part.read_to), (3, part.places[2].position));
    // Lists, figures and agents are the workspace's alone: an empty one has none, and both have the same.
    let empty = org.ws("empty");
    let filter = EventFilter::default();
    assert_eq!(empty.events().count(&filter, 1000).await.unwrap(), 0);
    assert!(empty.events().search(&filter, Some("c"), None, 0, 10).await.unwrap().events.is_empty());
    assert!(empty.agents().list(None, 10).await.unwrap().is_empty());
    assert_eq!(empty.agents().event_bounds().await.unwrap(), (None, None));
    assert_eq!(empty.chains().verify_all(None).await.unwrap().total_events, 0);
    let span = [(one_span().trace_id, one_span().span_id)];
    assert!(empty.spans().find(&span).await.unwrap().is_empty());
    for query in cell_queries() {
        assert!(empty.analytics().cells(&query).await.unwrap().is_empty());
        assert_eq!(
            ours.analytics().cells(&query).await.unwrap(),
            theirs.analytics().cells(&query).await.unwrap()
        );
    }
    assert_eq!(ours.agents().list(None, 10).await.unwrap(), theirs.agents().list(None, 10).await.unwrap());
    let both = [&ours, &theirs].map(|workspace| workspace.chains().verify_all(None));
    let [first, second] = both;
    let sum = first.await.unwrap().total_events + second.await.unwrap().total_events;
    assert_eq!(org.chains().verify_all().await.unwrap().total_events, sum);
}

/// A row in each table that OpenTelemetry clients fill.
async fn add_spans(org: &Org) {
    apply(org, vec![span_batch("spans", "production", vec![one_span()])]).await;
    let request = IngestRequestRow {
        request_id: "r1".to_owned(),
        key_id: "key_1".to_owned(),
        received_us: 1,
        signal: "traces".to_owned(),
        user_agent: None,
        item_count: 1,
        refused_count: 0,
        report: "{}".to_owned(),
    };
    org.ws("default").ingest_requests().insert(&request).await.unwrap();
}

/// Every table and partition of the schema `tenant`: (name, is partition).
async fn tables(owner: &Client) -> Vec<(String, bool)> {
    let rows = owner
        .query(
            "select c.relname::text, c.relispartition from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = 'tenant' and c.relkind in ('r', 'p', 'f', 'm', 'v') order by 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn every_table_of_the_catalogue_is_guarded() {
    crate::world::run_postgres(|world| async move {
        let org = world.org("acme").await;
        world.store.control().set_retention(&Caller::service("test", org.id()), Some(3)).await.unwrap();
        world.store.make_partitions(real_now_us()).await.unwrap();
        world.store.drop_partitions(real_now_us()).await.unwrap();
        let owner = connect(&world.database.as_ref().unwrap().owner_url).await;
        let tables = tables(&owner).await;
        assert!(
            tables.len() >= 15 && tables.iter().filter(|(_, is_partition)| *is_partition).count() >= 5,
            "{tables:?}"
        );
        for (table, is_partition) in &tables {
            let row = owner
                .query_one(
                    "select c.relrowsecurity, c.relforcerowsecurity,
                       (select count(*) from pg_policy p where p.polrelid = c.oid and p.polcmd = '*' and p.polpermissive
                          and pg_get_expr(p.polqual, p.polrelid) like '%app.current_org%' and pg_get_expr(p.polwithcheck, p.polrelid) like '%app.current_org%'),
                       (select count(*) from pg_policy p where p.polrelid = c.oid
                          and not (p.polcmd = 'r' and p.polroles = array[c.relowner] and c.relname = 'org_state')),
                       (select count(*) from aclexplode(c.relacl) a where a.grantee <> c.relowner),
                       pg_get_userbyid(c.relowner)::text,
                       (select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attname = 'org_id' and a.attnotnull),
                       (select count(*) from pg_attribute a where a.attrelid = c.oid and a.attname = 'workspace_id'),
                       (select count(*) from pg_policy p where p.polrelid = c.oid
                          and pg_get_expr(p.polqual, p.polrelid) like '%app.current_workspace%' and pg_get_expr(p.polwithcheck, p.polrelid) like '%app.current_workspace%')
                     from pg_class c where c.oid = ('tenant.' || quote_ident($1))::regclass",
                    &[table],
                )
                .await
                .unwrap();
            assert!(row.get::<_, bool>(0) && row.get::<_, bool>(1), "{table} has no forced row security");
            assert_eq!(
                (row.get::<_, i64>(2), row.get::<_, i64>(3)),
                (1, 1),
                "{table} must have exactly the one policy, but for what a function of the owner reads"
            );
            assert_eq!(row.get::<_, i64>(4) > 0, !is_partition, "{table}: grants belong on parents only");
            assert!(!row.get::<_, String>(5).contains("app"), "{table} belongs to the application's role");
            assert_eq!(row.get::<_, Option<String>>(6).as_deref(), Some("org_id"), "{table}");
            assert_eq!(
                row.get::<_, i64>(7),
                row.get::<_, i64>(8),
                "{table}: a table has a workspace exactly if its policy asks for it"
            );
        }
        let keys = owner
            .query(
                "select i.indrelid::regclass::text, pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indrelid
                 join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'tenant'",
                &[],
            )
            .await
            .unwrap();
        for row in &keys {
            let definition: String = row.get(1);
            assert!(definition.contains("(org_id"), "{definition}");
        }
    });
}

#[test]
fn raw_statements_of_the_application_see_one_org_only() {
    crate::world::run_postgres(|world| async move {
        let ours = world.org("ours").await;
        apply(&ours, vec![batch("b1", &mixture(50))]).await;
        add_spans(&ours).await;
        let letter = DeadLetter {
            batch_id: "b7".to_owned(),
            key_id: "k".to_owned(),
            failed_us: 1,
            reason: String::new(),
            event_count: 1,
        };
        ours.dead_letters().insert(&letter, b"x").await.unwrap();
        ours.ws("default").ingest_requests().insert(&crate::ingest_requests::request("k", 1)).await.unwrap();
        let database = world.database.as_ref().unwrap();
        let (owner, app) = (connect(&database.owner_url).await, connect(&database.app_url).await);
        app.batch_execute("set app.current_workspace = '*'").await.unwrap();
        let tables = tables(&owner).await;
        let mut seen = 0;
        for org in ["", "theirs", "OURS", "ours ", "%", "' or true --"] {
            app.query_one("select set_config('app.current_org', $1, false)", &[&org]).await.unwrap();
            for (table, is_partition) in &tables {
                let counted = app.query_one(&format!("select count(*) from tenant.{table}"), &[]).await;
                match counted {
                    Ok(row) => assert_eq!(row.get::<_, i64>(0), 0, "{table} as {org:?}"),
                    Err(error) => assert!(*is_partition, "{table}: {error}"),
                }
                if *is_partition {
                    continue;
                }
                for change in [
                    format!("delete from tenant.{table}"),
                    format!("update tenant.{table} set org_id = org_id"),
                ] {
                    match app.execute(&change, &[]).await {
                        Ok(count) => assert_eq!(count, 0, "{change} as {org:?}"),
                        // Nobody but the owner changes what the audit log says.
                        Err(error) => assert_eq!(table, "audit_log", "{change}: {error}"),
                    }
                }
                // A row of ours can't be written by whoever is not us.
                app.query_one("select set_config('app.current_org', 'ours', false)", &[]).await.unwrap();
                let own: i64 =
                    app.query_one(&format!("select count(*) from tenant.{table}"), &[]).await.unwrap().get(0);
                seen += own;
                let stolen = app.execute(&format!("update tenant.{table} set org_id = 'theirs'"), &[]).await;
                assert!(own == 0 || stolen.is_err(), "{table}: a row was given to another org");
                app.query_one("select set_config('app.current_org', $1, false)", &[&org]).await.unwrap();
            }
            for insert in [
                "insert into tenant.applied_batches (org_id, batch_id, applied_us) values ('ours', 'x', 1)",
                "insert into tenant.event_keys (org_id, id, content_digest, expire_day) values ('ours', 'x', '', 1)",
                "insert into tenant.org_state (org_id, last_position, indexed_position, last_session, last_trace, waiting_changes, session_count, seal)
                 values ('ours', 1, 1, 1, 1, 0, 1, '')",
            ] {
                assert!(app.execute(insert, &[]).await.is_err(), "{insert} as {org:?}");
            }
        }
        assert!(seen > 0);
        assert_eq!(ours.ws("default").events().after(0, 1000).await.unwrap().len(), 51);
    });
}

/// Every table that names a workspace, with all of its columns: (name, columns).
async fn tables_of_workspaces(owner: &Client) -> Vec<(String, Vec<String>)> {
    let rows = owner
        .query(
            "select c.relname::text, array(select a.attname::text from pg_attribute a
                 where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum)
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = 'tenant' and c.relkind in ('r', 'p') and not c.relispartition
               and exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'workspace_id')
             order by 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn count(app: &Client, table: &str, workspace: &str) -> i64 {
    let sql = format!("select count(*) from tenant.{table} where workspace_id = $1");
    app.query_one(&sql, &[&workspace]).await.unwrap().get(0)
}

#[test]
fn raw_statements_of_the_application_see_one_workspace_only() {
    crate::world::run_postgres(|world| async move {
        let org = world.org("ours").await;
        fill_workspaces(&org).await;
        let database = world.database.as_ref().unwrap();
        let (owner, app) = (connect(&database.owner_url).await, connect(&database.app_url).await);
        app.batch_execute("set app.current_org = 'ours'").await.unwrap();
        let name = "select set_config('app.current_workspace', $1, false)";
        let tables = tables_of_workspaces(&owner).await;
        assert!(tables.len() >= 12, "{tables:?}");
        for (table, columns) in &tables {
            app.query_one(name, &[&"*"]).await.unwrap();
            let stored = (count(&app, table, WORKSPACES[0]).await, count(&app, table, WORKSPACES[1]).await);
            assert!(
                stored.0 > 0 && stored.1 > 0,
                "{table} has no rows of both: fill it in `fill_workspaces`"
            );
            // Where no workspace, or another one, is named: nothing.
            for other in ["", "empty", "DEFAULT", "default ", "%", "**", "' or true --"] {
                app.query_one(name, &[&other]).await.unwrap();
                let sql = format!("select count(*) from tenant.{table}");
                let seen: i64 = app.query_one(&sql, &[]).await.unwrap().get(0);
                assert_eq!(seen, 0, "{table} as {other:?}");
            }
            for (ours, theirs) in [(WORKSPACES[0], WORKSPACES[1]), (WORKSPACES[1], WORKSPACES[0])] {
                app.query_one(name, &[&ours]).await.unwrap();
                assert_eq!(count(&app, table, theirs).await, 0, "{table}: {ours} sees {theirs}");
                assert!(count(&app, table, ours).await > 0, "{table}");
                let their_rows = format!("workspace_id = '{theirs}'");
                for change in [
                    format!("delete from tenant.{table} where {their_rows}"),
                    format!("update tenant.{table} set org_id = org_id where {their_rows}"),
                ] {
                    assert_eq!(app.execute(&change, &[]).await.unwrap(), 0, "{change} as {ours}");
                }
                // A row of theirs can be made in no way: neither out of one of ours nor beside it.
                let select: Vec<String> = columns
                    .iter()
                    .map(|column| match column.as_str() {
                        "workspace_id" => format!("'{theirs}'"),
                        column => format!("\"{column}\""),
                    })
                    .collect();
                for forged in [
                    format!("update tenant.{table} set {their_rows}"),
                    format!(
                        "insert into tenant.{table} select {} from tenant.{table} limit 1",
                        select.join(", ")
                    ),
                ] {
                    let error = app.execute(&forged, &[]).await.expect_err(&forged);
                    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{forged}: {error}");
                }
            }
            app.query_one(name, &[&"*"]).await.unwrap();
            let after = (count(&app, table, WORKSPACES[0]).await, count(&app, table, WORKSPACES[1]).await);
            assert_eq!(after, stored, "{table}");
        }
        // A connection on which nothing was ever named.
        let fresh = connect(&database.app_url).await;
        fresh.batch_execute("set app.current_org = 'ours'").await.unwrap();
        for (table, _) in &tables {
            let sql = format!("select count(*) from tenant.{table}");
            assert_eq!(fresh.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), 0, "{table}");
        }
    });
}

#[test]
fn control_rows_of_an_org_are_shown_to_that_org_only() {
    crate::world::run_postgres(|world| async move {
        world.org("ours").await;
        let control = world.store.control();
        control
            .insert_key(&crate::control::caller("ours"), crate::control::key("key_1", 1), None)
            .await
            .unwrap();
        let person = crate::control::person("user_1", "a@b");
        control.create_member(&crate::control::caller("ours"), person, Role::Owner).await.unwrap();
        let app = connect(&world.database.as_ref().unwrap().app_url).await;
        let tables = [
            "workspaces",
            "org_members",
            "api_keys",
            "org_plans",
            "control_audit_log",
            "control_audit_heads",
        ];
        for org in ["", "theirs"] {
            app.query_one("select set_config('app.current_org', $1, false)", &[&org]).await.unwrap();
            for table in tables {
                let count = format!("select count(*) from control.{table}");
                assert_eq!(
                    app.query_one(&count, &[]).await.unwrap().get::<_, i64>(0),
                    0,
                    "{table} as {org:?}"
                );
                let steal = app.execute(&format!("update control.{table} set org_id = 'theirs'"), &[]).await;
                assert!(steal.is_err() || steal.is_ok_and(|count| count == 0), "{table} as {org:?}");
            }
            let insert = "insert into control.workspaces (org_id, workspace_id, name, created_us) values ('ours', 'x', 'x', 1)";
            assert!(app.execute(insert, &[]).await.is_err());
        }
        // The one way to a key before its org is known shows that key, whole digests only.
        let found = "select count(*) from control.key_by_digest($1)";
        for (digest, count) in [([1u8; 32].to_vec(), 1), ([1u8; 31].to_vec(), 0), (Vec::new(), 0)] {
            assert_eq!(app.query_one(found, &[&digest]).await.unwrap().get::<_, i64>(0), count);
        }
        app.batch_execute("set app.current_org = 'ours'").await.unwrap();
        for change in
            ["delete from control.control_audit_log", "update control.control_audit_log set act = 'x'"]
        {
            assert!(app.execute(change, &[]).await.is_err(), "{change}");
        }
    });
}

#[test]
fn partitions_and_the_catalogue_are_out_of_reach() {
    crate::world::run_postgres(|world| async move {
        let org = world.org("ours").await;
        apply(&org, vec![batch("b1", &mixture(5))]).await;
        let app = connect(&world.database.as_ref().unwrap().app_url).await;
        app.batch_execute("set app.current_org = 'ours'").await.unwrap();
        let owner = connect(&world.database.as_ref().unwrap().owner_url).await;
        for (partition, _) in tables(&owner).await.iter().filter(|(_, is_partition)| *is_partition) {
            for statement in [
                format!("select 1 from tenant.{partition}"),
                format!("delete from tenant.{partition}"),
                format!("drop table tenant.{partition}"),
                format!("alter table tenant.{partition} disable row level security"),
            ] {
                assert!(app.batch_execute(&statement).await.is_err(), "{statement}");
            }
        }
        for statement in [
            "alter table tenant.events no force row level security",
            "alter table tenant.events disable row level security",
            "drop policy events_org on tenant.events",
            "create policy mine on tenant.events using (true)",
            "create table tenant.mine (x text)",
            "create table control.mine (x text)",
            "drop table tenant.sessions",
            "truncate tenant.sessions",
            "truncate tenant.events",
            "copy tenant.events from program 'true'",
            "set role agentlens_owner",
            "set session authorization agentlens_owner",
            "alter role current_user bypassrls",
            "select * from control.migrations",
            "create function tenant.f() returns int language sql as 'select 1'",
        ] {
            assert!(app.batch_execute(statement).await.is_err(), "{statement}");
        }
    });
}

#[test]
fn a_role_that_could_see_everything_is_refused() {
    crate::world::run_postgres(|world| async move {
        let database = world.database.as_ref().unwrap();
        let refusal = match Store::open_postgres(&database.owner_url, 2, &crate::world::secret()).await {
            Err(StoreError::Misconfigured(text)) => text,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("the owner's role was let in"),
        };
        assert!(refusal.contains("owns tables"), "{refusal}");
        // A table without row security, as a careless migration would leave it.
        let owner = connect(&database.owner_url).await;
        for (spoil, mend) in [
            (
                "alter table tenant.agents no force row level security",
                "alter table tenant.agents force row level security",
            ),
            ("create table tenant.loose (org_id text)", "drop table tenant.loose"),
            (
                "alter policy agents_org on tenant.agents using (org_id = current_setting('app.current_org', true))",
                "drop policy agents_org on tenant.agents; select tenant.secure('agents')",
            ),
        ] {
            owner.batch_execute(spoil).await.unwrap();
            assert!(
                matches!(
                    Store::open_postgres(&database.app_url, 2, &crate::world::secret()).await,
                    Err(StoreError::Misconfigured(_))
                ),
                "{spoil}"
            );
            owner.batch_execute(mend).await.unwrap();
            assert!(Store::open_postgres(&database.app_url, 2, &crate::world::secret()).await.is_ok());
        }
    });
}

#[test]
fn an_empty_database_is_refused_and_migrating_is_idempotent() {
    crate::world::run_postgres(|_| async move {
        let database = Database::make().await.unwrap();
        let refusal = Store::open_postgres(&database.app_url, 2, &crate::world::secret())
            .await
            .err()
            .map(|error| error.to_string())
            .unwrap();
        assert!(refusal.contains("agentlens migrate"), "{refusal}");
        let (first, second) = tokio::join!(
            Store::migrate_postgres(&database.owner_url, Some(&database.app_url)),
            Store::migrate_postgres(&database.owner_url, Some(&database.app_url))
        );
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first.min(second) == 0 && first.max(second) > 0, "{first} {second}");
        assert_eq!(Store::migrate_postgres(&database.owner_url, None).await.unwrap(), 0);
        assert!(Store::open_postgres(&database.app_url, 2, &crate::world::secret()).await.is_ok());
        let owner = connect(&database.owner_url).await;
        owner
            .batch_execute(
                "insert into control.migrations (schema, name) values ('tenant', '2999_01_01_future')",
            )
            .await
            .unwrap();
        assert!(matches!(
            Store::migrate_postgres(&database.owner_url, None).await,
            Err(StoreError::Misconfigured(text)) if text.contains("newer")
        ));
    });
}
