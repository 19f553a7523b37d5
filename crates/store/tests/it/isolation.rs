//! Nothing of one org is reached by another: through the store's functions on both engines, and on PostgreSQL by raw SQL
//! under the application's role.

use agentlens_domain::ids::{BatchId, UserId};
use agentlens_domain::permissions::Caller;
use agentlens_store::{DeadLetter, EventFilter, IngestRequestRow, Org, SessionFilter, Store, StoreError};
use tokio_postgres::Client;

use crate::batches::{NOW_US, batch, mixture, real_now_us};
use crate::spans::{one_span, span_batch};
use crate::world::{Database, World, apply, cell_queries, connect};

on_both_engines!(no_function_reaches_another_org);

/// Not even by one who knows all of its row.
async fn no_session_is_read_by_another_org(ours: &Org, theirs: &Org) {
    let session = ours.find_session("default", "s1").await.unwrap().unwrap();
    assert!(!ours.events_of_session(&session, 0, 10).await.unwrap().is_empty());
    assert!(theirs.events_of_session(&session, 0, 10).await.unwrap().is_empty());
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
    ours.insert_dead_letter(&letter, b"x").await.unwrap();
    add_spans(&ours).await;
    let span = [(one_span().trace_id, one_span().span_id)];
    assert_eq!(ours.find_spans("default", &span).await.unwrap().len(), 1);
    assert_eq!(ours.list_ingest_requests("default", None, None, 10).await.unwrap().len(), 1);
    assert!(theirs.find_spans("default", &span).await.unwrap().is_empty());
    assert!(theirs.root_spans("default", &span[0].0, None, 10).await.unwrap().is_empty());
    assert!(theirs.child_spans("default", &span, None, 10).await.unwrap().is_empty());
    assert!(theirs.chains_moved_to("default", "s1").await.unwrap().is_empty());
    assert!(theirs.list_ingest_requests("default", None, None, 10).await.unwrap().is_empty());
    let filter = EventFilter { workspace: "default".to_owned(), ..EventFilter::default() };
    let sessions =
        SessionFilter { workspace: "default".to_owned(), now_us: NOW_US, ..SessionFilter::default() };
    assert!(theirs.events_after(0, 1000).await.unwrap().is_empty());
    assert!(theirs.list_events(&filter, None, 0, 10).await.unwrap().events.is_empty());
    assert!(theirs.scan_events(&filter, Some("c"), None, 0, 10).await.unwrap().events.is_empty());
    assert_eq!(theirs.count_events(&filter, 10).await.unwrap(), 0);
    assert!(theirs.find_event("default", "e1").await.unwrap().is_none());
    assert!(theirs.event_key_digests("default", vec!["e1".to_owned()]).await.unwrap().is_empty());
    assert!(theirs.find_session("default", "s1").await.unwrap().is_none());
    assert!(theirs.list_sessions(&sessions, None, 0, 10).await.unwrap().sessions.is_empty());
    no_session_is_read_by_another_org(&ours, &theirs).await;
    assert!(theirs.session_ids(None, None, ("", ""), 10).await.unwrap().is_empty());
    assert!(theirs.costliest_sessions("default", (None, None), (0, i64::MAX), 10).await.unwrap().is_empty());
    assert!(theirs.list_agents("default", None, 10).await.unwrap().is_empty());
    assert!(theirs.ledger().await.unwrap().is_empty());
    assert_eq!(theirs.stats("default").await.unwrap().session_count, 0);
    assert_eq!(theirs.last_position().await.unwrap(), 0);
    assert_eq!(theirs.verify_all(None, None).await.unwrap().total_events, 0);
    assert!(theirs.list_dead_letters(10).await.unwrap().is_empty());
    assert!(matches!(
        theirs
            .delete_dead_letter(
                &Caller::service("test", theirs.id()),
                "dead_letters.replay",
                &BatchId::parse("b7").unwrap()
            )
            .await,
        Err(StoreError::NotFound)
    ));
    let session = ours.find_session("default", "s1").await.unwrap().unwrap();
    assert_eq!(theirs.verify_session(&session).await.unwrap().event_count, 0);
    for query in cell_queries("default") {
        assert!(theirs.cells(&query).await.unwrap().is_empty());
    }
    theirs.delete_expired(i64::MAX / 2).await.unwrap();
    // The same ids, batches and sessions are free in the other org, and ours are as they were.
    apply(&theirs, vec![batch("b1", &events[..10])]).await;
    assert_eq!(theirs.events_after(0, 1000).await.unwrap().len(), 10);
    assert_eq!(ours.events_after(0, 1000).await.unwrap().len(), 101);
    assert_eq!(ours.find_spans("default", &span).await.unwrap().len(), 1);
    assert_eq!(ours.find_session("default", "s1").await.unwrap().unwrap(), session);
    assert_eq!(ours.list_dead_letters(10).await.unwrap().len(), 1);
}

/// A row in each table that OpenTelemetry clients fill.
async fn add_spans(org: &Org) {
    apply(org, vec![span_batch("spans", "production", vec![one_span()])]).await;
    let request = IngestRequestRow {
        request_id: "r1".to_owned(),
        workspace_id: "default".to_owned(),
        key_id: "key_1".to_owned(),
        received_us: 1,
        signal: "traces".to_owned(),
        user_agent: None,
        item_count: 1,
        refused_count: 0,
        report: "{}".to_owned(),
    };
    org.insert_ingest_request(&request).await.unwrap();
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
                       (select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attname = 'org_id' and a.attnotnull)
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
        ours.insert_dead_letter(&letter, b"x").await.unwrap();
        ours.insert_ingest_request(&crate::ingest_requests::request("k", 1)).await.unwrap();
        let database = world.database.as_ref().unwrap();
        let (owner, app) = (connect(&database.owner_url).await, connect(&database.app_url).await);
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
        assert_eq!(ours.events_after(0, 1000).await.unwrap().len(), 51);
    });
}

#[test]
fn control_rows_of_an_org_are_shown_to_that_org_only() {
    crate::world::run_postgres(|world| async move {
        world.org("ours").await;
        let control = world.store.control();
        control.insert_key(&crate::control::caller("ours"), crate::control::key("key_1", 1)).await.unwrap();
        let user = UserId::parse("user_1").unwrap();
        control.insert_owner(&crate::control::caller("ours"), &user, "a@b", "hash").await.unwrap();
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
