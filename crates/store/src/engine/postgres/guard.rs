//! The refusal to start under a role that row security would not hold back.

use super::PostgresEngine;
use crate::error::StoreError;

const ROLE: &str = "
select
  (select count(*) from pg_roles r where r.rolsuper and pg_has_role(current_user, r.oid, 'member')),
  (select count(*) from pg_roles r where r.rolbypassrls and pg_has_role(current_user, r.oid, 'member')),
  (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('tenant', 'control') and pg_has_role(current_user, c.relowner, 'member')),
  (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)
      and (n.nspname = 'tenant' or (n.nspname = 'control' and c.relname <> all ('{orgs,org_deletions,changes,outbox_intents,job_runs}')
        and exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'org_id' and not a.attisdropped)))),
  (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'tenant' and c.relkind in ('r', 'p')),
  (select count(*) from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'tenant' and c.relkind in ('r', 'p') and a.attname = 'workspace_id' and not a.attisdropped
      and not exists (select 1 from pg_policy p where p.polrelid = c.oid
        and pg_get_expr(p.polqual, p.polrelid) like '%app.current_workspace%'
        and pg_get_expr(p.polwithcheck, p.polrelid) like '%app.current_workspace%'))";

/// Refuses a role that is, or can become, a superuser, a bypasser of row security or the owner of a table.
pub(super) async fn check_role(engine: &PostgresEngine) -> Result<(), StoreError> {
    let rows = engine.query(None, ROLE, &[]).await?;
    let row = rows.first().ok_or(StoreError::NotFound)?;
    let faults = [
        (0, "is a superuser, or a member of one"),
        (1, "can bypass row-level security"),
        (2, "owns tables of AgentLens, or is a member of their owner"),
    ];
    for (column, fault) in faults {
        if row.get::<i64>(column)? > 0 {
            return Err(StoreError::Misconfigured(format!(
                "the role of --database-url {fault}, so the database could not keep orgs apart; \
                 give it a plain role (create role agentlens_app login) and keep the owner for --database-owner-url"
            )));
        }
    }
    if row.get::<i64>(4)? == 0 {
        return Err(StoreError::Misconfigured(
            "the database has no AgentLens schema yet: run `agentlens migrate --database-owner-url ...`, or give serve the owner's URL".to_owned(),
        ));
    }
    if row.get::<i64>(3)? > 0 {
        return Err(StoreError::Misconfigured(
            "a table of one org's rows has no forced row-level security; run `agentlens migrate`".to_owned(),
        ));
    }
    if row.get::<i64>(5)? > 0 {
        return Err(StoreError::Misconfigured(
            "row-level security of a table does not keep the workspaces of an org apart; run `agentlens migrate`"
                .to_owned(),
        ));
    }
    Ok(())
}
