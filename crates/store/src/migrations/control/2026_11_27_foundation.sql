-- Who may do what: orgs, workspaces, people, keys. One text for both engines (see `schema.rs`). On PostgreSQL the tables lie in
-- the schema `control`, which no tenant statement names; on SQLite in one file per server.
create table orgs (
  org_id text primary key,
  name text not null,
  placement text not null default 'pool',
  retention_days bigint,
  created_us bigint not null,
  deleted_us bigint
) without rowid;

create table workspaces (
  org_id text not null references orgs (org_id),
  workspace_id text not null,
  name text not null,
  created_us bigint not null,
  primary key (org_id, workspace_id)
) without rowid;

create table users (
  user_id text primary key,
  email text not null,
  name text not null default '',
  password_hash text,
  email_verified_us bigint,
  created_us bigint not null,
  disabled_us bigint,
  constraint users_email_key unique (email)
) without rowid;

create table org_members (
  org_id text not null references orgs (org_id),
  user_id text not null references users (user_id),
  role text not null check (role in ('owner', 'admin', 'auditor', 'member', 'viewer')),
  created_us bigint not null,
  primary key (org_id, user_id)
) without rowid;

create table api_keys (
  org_id text not null references orgs (org_id),
  key_id text not null,
  digest bytea not null,
  shown_prefix text not null,
  name text not null default '',
  workspace_id text not null,
  environment text not null check (environment in ('production', 'staging', 'development')),
  scopes text not null,
  created_us bigint not null,
  expires_us bigint,
  revoked_us bigint,
  last_used_us bigint,
  primary key (org_id, key_id),
  constraint api_keys_digest_key unique (digest)
) without rowid;

-- What a plan grants is data; the catalogue fills these when billing comes.
create table org_plans (
  org_id text not null references orgs (org_id),
  line text not null,
  plan text not null,
  since_us bigint not null,
  primary key (org_id, line)
) without rowid;

create table settings (
  name text primary key,
  value text not null
) without rowid;
