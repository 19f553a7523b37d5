-- Who may do what: orgs, workspaces, people, keys. One text for both engines (see `schema.rs`). On PostgreSQL the tables lie in
-- the schema `control`, which no tenant statement names; on SQLite in one file per server.
--
-- On PostgreSQL, row security is forced on every table of which each row belongs to one org. What is read of all orgs (their list, the
-- change feed, due jobs) holds no more than their ids.

-- only postgres
-- Forces row security on a table: a row is seen and written only where the transaction has named its org.
create function secure(table_name text) returns void
language plpgsql set search_path = control, pg_temp as $$
begin
  execute format('alter table control.%I enable row level security', table_name);
  execute format('alter table control.%I force row level security', table_name);
  execute format($policy$
    create policy %I on control.%I
      using (org_id = nullif(current_setting('app.current_org', true), ''))
      with check (org_id = nullif(current_setting('app.current_org', true), ''))
    $policy$, table_name || '_org', table_name);
end
$$;
revoke all on function secure(text) from public;
-- both

create table orgs (
  org_id text primary key,
  name text not null,
  placement text not null default 'pool',
  retention_days bigint,
  priority bigint not null default 0,
  created_us bigint not null,
  deleted_us bigint
) without rowid;

create table workspaces (
  org_id text not null references orgs (org_id),
  workspace_id text not null,
  name text not null,
  created_us bigint not null,
  archived_us bigint,
  primary key (org_id, workspace_id)
) without rowid;
select secure('workspaces');

-- People. Each has proved to own the address, or was made by an operator. `email_key` is what makes two addresses one mailbox.
create table users (
  user_id text primary key,
  email text not null,
  email_key text not null,
  name text not null default '',
  password_hash text,
  password_changed_us bigint,
  preferences text not null default '{}',
  terms_version text,
  terms_accepted_us bigint,
  created_us bigint not null,
  disabled_us bigint,
  constraint users_email_key_key unique (email_key)
) without rowid;

create table org_members (
  org_id text not null references orgs (org_id),
  user_id text not null references users (user_id),
  role text not null check (role in ('owner', 'admin', 'auditor', 'member', 'viewer')),
  created_us bigint not null,
  primary key (org_id, user_id)
) without rowid;
select secure('org_members');

create table api_keys (
  org_id text not null references orgs (org_id),
  key_id text not null,
  digest bytea not null,
  shown_prefix text not null,
  name text not null default '',
  workspace_id text not null,
  environment text not null,
  is_environment_bound boolean not null default false,
  scopes text not null,
  created_us bigint not null,
  expires_us bigint,
  revoked_us bigint,
  last_used_us bigint,
  primary key (org_id, key_id),
  constraint api_keys_digest_key unique (digest)
) without rowid;
select secure('api_keys');

-- What a plan grants is data; the catalogue fills these when billing comes.
create table org_plans (
  org_id text not null references orgs (org_id),
  line text not null,
  plan text not null,
  since_us bigint not null,
  primary key (org_id, line)
) without rowid;
select secure('org_plans');

create table settings (
  name text primary key,
  value text not null
) without rowid;

-- only postgres
-- A key is found by its digest before its org is known, so row security can't show it to the application's role. This function
-- of the owner shows the one key with exactly this digest.
create policy api_keys_owner on api_keys for select to current_user using (true);
create function key_by_digest(wanted bytea) returns table (
  org_id text, key_id text, shown_prefix text, name text, workspace_id text, environment text,
  is_environment_bound boolean, scopes text, created_us bigint, expires_us bigint, revoked_us bigint, last_used_us bigint)
language sql stable security definer set search_path = control, pg_temp as $$
  select k.org_id, k.key_id, k.shown_prefix, k.name, k.workspace_id, k.environment, k.is_environment_bound, k.scopes, k.created_us,
    k.expires_us, k.revoked_us, k.last_used_us
  from api_keys k join orgs o on o.org_id = k.org_id and o.deleted_us is null
  where k.digest = wanted
$$;
revoke all on function key_by_digest(bytea) from public;

-- Digests alone, so that a node knows which keys exist without asking for each guess. A digest is worth nothing without the secret.
create function key_digests(after bytea, most bigint) returns setof bytea
language sql stable security definer set search_path = control, pg_temp as $$
  select k.digest
  from api_keys k join orgs o on o.org_id = k.org_id and o.deleted_us is null
  where k.digest > after and k.revoked_us is null
  order by k.digest limit most
$$;
revoke all on function key_digests(bytea, bigint) from public;
-- both

-- The audit log of acts on these tables: a chain of sealed entries for each org, and its sealed head.
create table control_audit_log (
  org_id text not null,
  seq bigint not null,
  at_us bigint not null,
  actor text not null,
  workspace text,
  origin text not null,
  act text not null,
  target text not null,
  details text not null,
  seal bytea not null,
  primary key (org_id, seq)
) without rowid;
select secure('control_audit_log');

create table control_audit_heads (
  org_id text primary key,
  last_seq bigint not null,
  last_seal bytea not null,
  head_seal bytea not null
) without rowid;
select secure('control_audit_heads');

-- The change feed: every change of settings, in the order of commits.
create table changes (
  seq bigint primary key,
  org_id text not null,
  topic text not null,
  at_us bigint not null
) without rowid;
create index changes_at on changes (at_us);

create table change_counter (
  counter bigint primary key,
  newest bigint not null
) without rowid;
insert into change_counter (counter, newest) values (1, 0);

-- Orgs whose outbox may hold something.
create table outbox_intents (
  intent_id text primary key,
  org_id text not null
) without rowid;

-- Which process runs a job.
create table leases (
  name text primary key,
  holder text not null,
  until_us bigint not null
) without rowid;

-- When an org's run of a job is due, what became of the last one, and since when runs fail. The org is empty for a job of the server as a whole.
create table job_runs (
  job text not null,
  org_id text not null,
  due_us bigint not null,
  last_run_us bigint not null,
  last_ok_us bigint,
  failures bigint not null,
  failing_since_us bigint,
  last_error text,
  primary key (job, org_id)
) without rowid;
