-- What restricts a key further: how often it may be used, and from where. A key of an archived workspace is refused.

alter table api_keys add column rate_per_minute bigint;
-- Networks such as `192.0.2.0/24`, separated by spaces; empty for all.
alter table api_keys add column allowed_networks text not null default '';

-- Keys could be made for a workspace that nobody had made. Each of these becomes one.
-- only postgres
alter table workspaces no force row level security;
-- both
insert into workspaces (org_id, workspace_id, name, created_us)
select org_id, workspace_id, workspace_id, min(created_us)
from api_keys
where true
group by org_id, workspace_id
on conflict do nothing;
-- only postgres
alter table workspaces force row level security;

create policy workspaces_owner on workspaces for select to current_user using (true);
drop function key_by_digest(bytea);
create function key_by_digest(wanted bytea) returns table (
  org_id text, key_id text, shown_prefix text, name text, workspace_id text, environment text,
  is_environment_bound boolean, scopes text, created_us bigint, expires_us bigint, revoked_us bigint, last_used_us bigint,
  rate_per_minute bigint, allowed_networks text, is_workspace_archived boolean)
language sql stable security definer set search_path = control, pg_temp as $$
  select k.org_id, k.key_id, k.shown_prefix, k.name, k.workspace_id, k.environment, k.is_environment_bound, k.scopes, k.created_us,
    k.expires_us, k.revoked_us, k.last_used_us, k.rate_per_minute, k.allowed_networks, w.archived_us is not null
  from api_keys k
    join orgs o on o.org_id = k.org_id and o.deleted_us is null
    left join workspaces w on w.org_id = k.org_id and w.workspace_id = k.workspace_id
  where k.digest = wanted
$$;
revoke all on function key_by_digest(bytea) from public;
-- both
