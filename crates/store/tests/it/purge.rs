//! The walk over everything that belongs to an org knows every table.

use std::collections::BTreeSet;

use agentlens_store::{CONTROL_PLACES, LAST_TENANT_PLACE, OTHER_PLACES, TENANT_PLACES};

use crate::world::{World, connect};

on_both_engines!(every_table_with_an_org_is_known);

async fn every_table_with_an_org_is_known(world: World) {
    world.store.control().ensure_org(&crate::control::caller("a"), "A").await.unwrap();
    let known: BTreeSet<String> = TENANT_PLACES
        .into_iter()
        .chain([LAST_TENANT_PLACE])
        .chain(CONTROL_PLACES)
        .chain(OTHER_PLACES)
        .map(str::to_owned)
        .collect();
    let tables: BTreeSet<String> = match &world.database {
        Some(database) => {
            let sql = "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
                 join pg_attribute a on a.attrelid = c.oid and a.attname = 'org_id' and not a.attisdropped
                 where n.nspname in ('tenant', 'control') and c.relkind in ('r', 'p') and not c.relispartition";
            let rows = connect(&database.owner_url).await.query(sql, &[]).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        }
        None => {
            let directory = world.directory();
            let mut tables = BTreeSet::new();
            for file in ["control.db", "orgs/a.db"] {
                let file = rusqlite::Connection::open(directory.join(file)).unwrap();
                let sql = "select t.name from sqlite_master t join pragma_table_info(t.name) c on c.name = 'org_id' where t.type = 'table'";
                let mut statement = file.prepare(sql).unwrap();
                tables.extend(
                    statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap),
                );
            }
            tables
        }
    };
    assert_eq!(tables, known, "a table with rows of orgs that deleting an org does not know, see `purge.rs`");
}
