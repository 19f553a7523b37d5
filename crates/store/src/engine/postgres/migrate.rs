//! Schema, policies and grants, made under the owner's role. Forward only; each step is one transaction.

use tokio_postgres::Config;

use super::pool;
use crate::error::StoreError;
use crate::schema::{self, Dialect};

/// Any constant will do, as long as every migrating process takes the same.
const LOCK: i64 = 7_166_342_908;

/// What the application's role may do. Partitions are never granted: they are reached through their parent only.
const GRANTS: &str = "
grant usage on schema control, tenant to {role};
grant select, insert, update, delete on all tables in schema control to {role};
revoke all on control.migrations from {role};
revoke update, delete on control.control_audit_log from {role};
revoke delete on control.org_deletions, control.org_deletion_counts, control.signing_keys from {role};
grant execute on function control.deleted_orgs_of_user(text), control.other_orgs_of_user(text, text), control.purge_audit_log(text, bigint) to {role};
grant execute on function control.key_by_digest(bytea), control.key_digests(bytea, bigint), control.orgs_of_user(text), control.invitation_by_digest(bytea), tenant.last_positions(text[]), tenant.stored_orgs(), tenant.recorded_days() to {role};
do $$
declare t record;
begin
  for t in select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'tenant' and c.relkind in ('r', 'p') and not c.relispartition
  loop
    execute format('grant select, insert, update, delete on tenant.%I to %I', t.relname, {literal});
  end loop;
end $$;
revoke update, delete on tenant.audit_log from {role};
revoke all on function tenant.ensure_event_partition(integer, integer), tenant.has_event_partition(integer, integer), tenant.drop_expired_event_partition(integer) from public;
grant execute on function tenant.ensure_event_partition(integer, integer), tenant.has_event_partition(integer, integer), tenant.drop_expired_event_partition(integer) to {role};";

/// Brings the database of `owner_url` to the newest schema and grants what it needs to the role of `app_url`.
/// Returns how many steps were run.
pub(crate) async fn migrate(owner_url: &str, app_url: Option<&str>) -> Result<usize, StoreError> {
    let role = app_url.map(role_of).transpose()?;
    // The grants take from the application's role what only the owner may have: never from the owner itself.
    if role.is_some() && role == role_of(owner_url).ok() {
        return Err(StoreError::Misconfigured(
            "the role of --database-url owns tables of AgentLens: it is that of --database-owner-url; give the server a plain role of its own".to_owned(),
        ));
    }
    let pool = pool(owner_url, 1)?;
    let mut client = pool.get().await?;
    // The one connection holds the lock until it is dropped, however long a step or another process takes.
    client.batch_execute(&format!("set statement_timeout = 0; select pg_advisory_lock({LOCK})")).await?;
    client
        .batch_execute(
            "create schema if not exists control; create schema if not exists tenant;
             create table if not exists control.migrations (schema text, name text, applied timestamptz not null default now(),
               primary key (schema, name));",
        )
        .await?;
    let mut run = 0;
    for (name, steps) in [("control", schema::CONTROL), ("tenant", schema::TENANT)] {
        run += run_steps(&mut client, name, steps).await?;
    }
    if let Some(role) = role {
        let identifier = format!("\"{}\"", role.replace('"', "\"\""));
        let literal = format!("'{}'", role.replace('\'', "''"));
        client.batch_execute(&GRANTS.replace("{role}", &identifier).replace("{literal}", &literal)).await?;
    }
    client.batch_execute(&format!("select pg_advisory_unlock({LOCK})")).await?;
    Ok(run)
}

/// Runs the steps of one schema that have not been run; returns how many those were.
async fn run_steps(
    client: &mut deadpool_postgres::Client,
    schema_name: &str,
    steps: &[schema::Step],
) -> Result<usize, StoreError> {
    let rows = client.query("select name from control.migrations where schema = $1", &[&schema_name]).await?;
    let done: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    schema::refuse_unknown(steps, &done)?;
    let missing: Vec<&schema::Step> =
        steps.iter().filter(|(name, _)| !done.iter().any(|done| done == name)).collect();
    for (name, source) in &missing {
        let transaction = client.transaction().await?;
        transaction.batch_execute(&format!("set local search_path = {schema_name}")).await?;
        transaction.batch_execute(&schema::text_for(Dialect::Postgres, source)).await?;
        transaction
            .execute("insert into control.migrations (schema, name) values ($1, $2)", &[&schema_name, name])
            .await?;
        transaction.commit().await?;
    }
    Ok(missing.len())
}

fn role_of(url: &str) -> Result<String, StoreError> {
    let config: Config = url
        .parse()
        .map_err(|error| StoreError::Misconfigured(format!("the database URL can't be read: {error}")))?;
    config
        .get_user()
        .map(str::to_owned)
        .ok_or_else(|| StoreError::Misconfigured("the URL of --database-url must name its role".to_owned()))
}
