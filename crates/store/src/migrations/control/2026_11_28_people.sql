-- How people prove who they are, and how they come into orgs. What belongs to a person and no org has no row security: the
-- application's role must find it before any org is known. Every secret here is a digest, or is encrypted.

-- Ways to sign in beside the password: what a provider calls the person, never an address.
create table user_identities (
  provider text not null,
  subject text not null,
  user_id text not null references users (user_id),
  email text,
  created_us bigint not null,
  primary key (provider, subject)
) without rowid;
create index user_identities_user on user_identities (user_id);

-- Browsers in which a person is signed in.
create table browser_sessions (
  session_id text primary key,
  user_id text not null references users (user_id),
  digest bytea not null,
  created_us bigint not null,
  seen_us bigint not null,
  idle_us bigint not null,
  expires_us bigint not null,
  proved_us bigint not null,
  methods text not null,
  connection_id text,
  address text,
  user_agent text,
  constraint browser_sessions_digest_key unique (digest)
) without rowid;
create index browser_sessions_user on browser_sessions (user_id);

-- Half-done sign-ins: the second factor is missing, or a provider has not sent the person back.
create table login_flows (
  digest bytea primary key,
  kind text not null,
  user_id text references users (user_id),
  state text not null,
  tries bigint not null default 0,
  created_us bigint not null,
  expires_us bigint not null
) without rowid;
create index login_flows_expiry on login_flows (expires_us);

-- Secrets that were mailed. A sign-up is nothing but such a row: the person is made when it is used, from what it holds.
create table mail_tokens (
  digest bytea primary key,
  purpose text not null,
  email_key text not null,
  user_id text references users (user_id),
  state text not null,
  created_us bigint not null,
  expires_us bigint not null,
  used_us bigint
) without rowid;
create index mail_tokens_address on mail_tokens (email_key, purpose);
create index mail_tokens_expiry on mail_tokens (expires_us);

create table user_totp (
  user_id text primary key references users (user_id),
  sealed_secret bytea not null,
  confirmed_us bigint,
  last_step bigint not null default 0
) without rowid;

create table recovery_codes (
  user_id text not null references users (user_id),
  digest bytea not null,
  used_us bigint,
  primary key (user_id, digest)
) without rowid;

-- Guesses of passwords and codes, by the digest of what they were aimed at or of the browser that they came from.
create table guesses (
  counter bytea primary key,
  guess_count bigint not null,
  last_us bigint not null
) without rowid;
create index guesses_last on guesses (last_us);

-- Mail that has to be sent.
create table mail_outbox (
  mail_id text primary key,
  address text not null,
  message text not null,
  created_us bigint not null,
  due_us bigint not null,
  attempts bigint not null default 0,
  last_error text,
  given_up_us bigint
) without rowid;
create index mail_outbox_due on mail_outbox (due_us);

create table org_invitations (
  org_id text not null references orgs (org_id),
  invitation_id text not null,
  email text not null,
  email_key text not null,
  role text not null check (role in ('owner', 'admin', 'auditor', 'member', 'viewer')),
  digest bytea not null,
  invited_by text not null,
  created_us bigint not null,
  sent_us bigint not null,
  expires_us bigint not null,
  accepted_us bigint,
  revoked_us bigint,
  primary key (org_id, invitation_id),
  constraint org_invitations_digest_key unique (digest)
) without rowid;
select secure('org_invitations');

-- Names of environments beside production, staging and development.
create table org_environments (
  org_id text not null references orgs (org_id),
  name text not null,
  created_us bigint not null,
  primary key (org_id, name)
) without rowid;
select secure('org_environments');

-- only postgres
-- The same as for keys: what must be found before its org is known, each by one narrow function of the owner.
create policy org_members_owner on org_members for select to current_user using (true);
create function orgs_of_user(wanted text) returns table (org_id text, name text, role text, created_us bigint)
language sql stable security definer set search_path = control, pg_temp as $$
  select m.org_id, o.name, m.role, m.created_us
  from org_members m join orgs o on o.org_id = m.org_id and o.deleted_us is null
  where m.user_id = wanted
  order by o.name, m.org_id
$$;
revoke all on function orgs_of_user(text) from public;

create policy org_invitations_owner on org_invitations for select to current_user using (true);
create function invitation_by_digest(wanted bytea) returns table (org_id text, invitation_id text)
language sql stable security definer set search_path = control, pg_temp as $$
  select i.org_id, i.invitation_id
  from org_invitations i join orgs o on o.org_id = i.org_id and o.deleted_us is null
  where i.digest = wanted
$$;
revoke all on function invitation_by_digest(bytea) from public;
-- both
