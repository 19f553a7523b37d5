-- Who may do what: orgs, workspaces, people, keys. One control file per server.
create table orgs (
  org_id text primary key,
  name text not null,
  placement text not null default 'pool',
  retention_days integer,
  created_us integer not null,
  deleted_us integer
) without rowid;

create table workspaces (
  org_id text not null references orgs (org_id),
  workspace_id text not null,
  name text not null,
  created_us integer not null,
  primary key (org_id, workspace_id)
) without rowid;

create table users (
  user_id text primary key,
  email text not null,
  name text not null default '',
  password_hash text,
  email_verified_us integer,
  created_us integer not null,
  disabled_us integer,
  constraint users_email_key unique (email)
) without rowid;

create table org_members (
  org_id text not null references orgs (org_id),
  user_id text not null references users (user_id),
  role text not null check (role in ('owner', 'admin', 'auditor', 'member', 'viewer')),
  created_us integer not null,
  primary key (org_id, user_id)
) without rowid;

create table api_keys (
  org_id text not null references orgs (org_id),
  key_id text not null,
  digest blob not null,
  shown_prefix text not null,
  name text not null default '',
  workspace_id text not null,
  environment text not null check (environment in ('production', 'staging', 'development')),
  scopes text not null,
  created_us integer not null,
  expires_us integer,
  revoked_us integer,
  last_used_us integer,
  primary key (org_id, key_id),
  constraint api_keys_digest_key unique (digest)
) without rowid;

-- What a plan grants is data; the catalogue fills these when billing comes.
create table org_plans (
  org_id text not null references orgs (org_id),
  line text not null,
  plan text not null,
  since_us integer not null,
  primary key (org_id, line)
) without rowid;

create table settings (
  name text primary key,
  value text not null
) without rowid;
