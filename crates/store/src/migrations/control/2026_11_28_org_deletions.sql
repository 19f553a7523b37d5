-- Deletions of orgs and their receipts, orgs that are suspended, and the keys by which the server signs.

alter table orgs add column suspended_us bigint;

-- The request of an owner to delete an org, and what became of it. It outlives the org, so it holds nothing personal: once everything
-- is deleted, `org_id` is null and only its digest stays. `seal` is an HMAC over the request, so that a deletion by hand is found.
create table org_deletions (
  receipt_id text primary key,
  org_id text,
  org_digest text not null,
  requested_us bigint not null,
  undo_until_us bigint not null,
  undone_us bigint,
  purging_us bigint,
  purged_us bigint,
  receipt text,
  jws text,
  seal bytea not null
) without rowid;
create index org_deletions_org on org_deletions (org_id);

-- How much of an org was deleted so far, by place.
create table org_deletion_counts (
  receipt_id text not null references org_deletions (receipt_id),
  place text not null,
  row_count bigint not null,
  primary key (receipt_id, place)
) without rowid;

-- One key signs at a time: it has `slot` 1. Of the others, only the public half is kept, so that what they signed can be checked.
create table signing_keys (
  key_id text primary key,
  public_key bytea not null,
  sealed_secret bytea,
  slot bigint,
  created_us bigint not null,
  retired_us bigint,
  constraint signing_keys_slot_key unique (slot)
) without rowid;

-- only postgres
-- What must be known of other orgs than the transaction's, each by one narrow function of the owner.
create function deleted_orgs_of_user(wanted text) returns table (org_id text, name text, role text, created_us bigint, undo_until_us bigint)
language sql stable security definer set search_path = control, pg_temp as $$
  select m.org_id, o.name, m.role, m.created_us, d.undo_until_us
  from org_members m
  join orgs o on o.org_id = m.org_id and o.deleted_us is not null
  join org_deletions d on d.org_id = m.org_id and d.undone_us is null
  where m.user_id = wanted
  order by o.name, m.org_id
$$;
revoke all on function deleted_orgs_of_user(text) from public;

create function other_orgs_of_user(wanted text, but text) returns bigint
language sql stable security definer set search_path = control, pg_temp as $$
  select count(*) from org_members m where m.user_id = wanted and m.org_id <> but
$$;
revoke all on function other_orgs_of_user(text, text) from public;

-- Audit logs are append-only for the application's role. This deletes some entries of the log that the transaction's org, or person, has
-- in one place, and only where an org is being purged or the person is gone.
create function purge_audit_log(place text, most bigint) returns bigint
language plpgsql security definer set search_path = control, pg_temp as $$
declare
  wanted text := nullif(current_setting('app.current_org', true), '');
  gone bigint;
begin
  if not exists (
      select 1 from control.org_deletions d
      where d.org_id = wanted and d.purging_us is not null and d.undone_us is null)
    and not (wanted like 'user\_%' and not exists (select 1 from control.users u where u.user_id = wanted)) then
    raise exception 'nobody deleted %', wanted using errcode = 'insufficient_privilege';
  end if;
  if place = 'audit_log' then
    delete from tenant.audit_log a where a.org_id = wanted and a.seq in
      (select b.seq from tenant.audit_log b where b.org_id = wanted order by b.seq limit most);
  else
    delete from control.control_audit_log a where a.org_id = wanted and a.seq in
      (select b.seq from control.control_audit_log b where b.org_id = wanted order by b.seq limit most);
  end if;
  get diagnostics gone = row_count;
  return gone;
end
$$;
revoke all on function purge_audit_log(text, bigint) from public;
-- both
