-- Tenant data: everything that belongs to one org. One text for both engines (see `schema.rs`): column types are PostgreSQL's,
-- `without rowid` is SQLite's, and what only one engine needs stands between `-- only postgres` or `-- only sqlite` and `-- both`.
--
-- PostgreSQL keeps all orgs in one schema. Row security is forced on every table by `secure`, and the server's role owns nothing.
-- SQLite keeps a file per org. The org is the same in every row of the file, so it leads no index of the large tables there.

-- only postgres
-- Forces row security on a table: a row is seen and written only where the transaction has named its org. If the table has a
-- workspace, the transaction must also have named that, or all of the org's as `*`.
--
-- A `case`, because it looks up the setting once for each row, and because the planner takes an `or` of equalities for a condition
-- that hardly any row fulfils.
create function secure(table_name text) returns void
language plpgsql set search_path = tenant, pg_temp as $$
declare
  rule text := $rule$org_id = nullif(current_setting('app.current_org', true), '')$rule$;
begin
  if exists (
    select 1
    from pg_attribute
    where attrelid = format('tenant.%I', table_name)::regclass and attname = 'workspace_id' and not attisdropped
  ) then
    rule := rule || $rule$
      and case nullif(current_setting('app.current_workspace', true), '')
        when '*' then true
        when workspace_id then true
        else false
      end$rule$;
  end if;
  execute format('alter table tenant.%I enable row level security', table_name);
  execute format('alter table tenant.%I force row level security', table_name);
  execute format('create policy %I on tenant.%I using (%s) with check (%s)', table_name || '_org', table_name, rule, rule);
end
$$;
revoke all on function secure(text) from public;

-- The sum, or the nearest number that a bigint holds: a sum that overflows must not fail the transaction that adds to it.
create function saturating_add(a bigint, b bigint) returns bigint
language sql immutable parallel safe as $$
  select case
    when b > 0 and a > 9223372036854775807 - b then 9223372036854775807
    when b < 0 and a < -9223372036854775807 - 1 - b then -9223372036854775807 - 1
    else a + b
  end
$$;
-- both

-- One immutable row per event. `seal` continues the seal of the event before it in the session and covers the typed columns.
-- PostgreSQL partitions the table by the day on which a row expires, so that retention drops whole partitions.
create table events (
-- only postgres
  position bigint not null,
-- only sqlite
  position integer primary key,
-- both
  org_id text not null,
  id text not null,
  workspace_id text not null,
  environment text not null,
  session_id text not null,
  session_number bigint not null,
  seq bigint not null,
  agent_id text not null,
  event_type text not null,
  severity text not null,
  timestamp text not null,
  ts_us bigint not null,
  received_us bigint not null,
  expire_day integer not null,
  name text,
  provider text,
  model text,
  call_id text,
  user_id text,
  duration_us bigint,
  input_tokens bigint,
  output_tokens bigint,
  usage_parts text,
  cost_nanos bigint,
  cost_source text,
  reported_cost_nanos bigint,
  computed_cost_nanos bigint,
  prev_hash bytea,
  hash bytea not null,
  seal bytea not null,
  preview text,
  metadata text not null,
  encoding smallint not null,
  payload bytea not null
-- only postgres
  , constraint events_pkey primary key (org_id, id, workspace_id, expire_day)
) partition by range (expire_day);
select secure('events');
create index events_position on events (org_id, position);
create index events_session on events (org_id, session_number, seq);
-- For lists only. It is partial so that a lookup by key, which doesn't name the condition, can't be planned to walk it.
create index events_time on events (org_id, workspace_id, ts_us, id) where ts_us > -9000000000000000000;
-- only sqlite
);
create unique index events_id on events (workspace_id, id);
create unique index events_session on events (session_number, seq);
-- The org ends the index so that counting need not read the rows.
create index events_time on events (workspace_id, ts_us, id, org_id);
-- Rows that are kept for ever (day 2932896) are in no index of days.
create index events_expire on events (expire_day, position) where expire_day < 2932896;
-- both

-- Ids that clients chose, and the digest of their content: it tells a repeat from a clash. A key expires with its event.
create table event_keys (
  org_id text not null,
  workspace_id text not null,
  id text not null,
  content_digest bytea not null,
  expire_day integer not null,
  primary key (org_id, workspace_id, id)
) without rowid;
-- only postgres
create index event_keys_expire on event_keys (org_id, expire_day) where expire_day < 2932896;
-- only sqlite
create index event_keys_expire on event_keys (expire_day) where expire_day < 2932896;
-- both
select secure('event_keys');

-- Batches whose effect is in the tables; a batch that is delivered again changes nothing.
create table applied_batches (
  org_id text not null,
  batch_id text not null,
  applied_us bigint not null,
  primary key (org_id, batch_id)
) without rowid;
select secure('applied_batches');

-- One row per org: the last numbers given out, the number of sessions, that of entries in `audit_log`, and `seal`, an HMAC over
-- them (see `domain::chain`).
-- Retention has recorded the removal of what expired before `recorded_day`.
create table org_state (
  org_id text not null,
  last_position bigint not null,
  indexed_position bigint not null,
  last_session bigint not null,
  last_trace bigint not null,
  waiting_changes bigint not null,
  session_count bigint not null,
  removed_session_count bigint not null default 0,
  expired_us bigint not null default 0,
  cells_from_us bigint not null default 0,
  shortest_retention_days integer not null default 2147483647,
  audit_seq bigint not null default 0,
  recorded_day integer not null default 0,
  recording_day integer not null default 0,
  recorded_session bigint not null default 0,
  seal bytea not null,
  primary key (org_id)
) without rowid;
select secure('org_state');

-- A session's sums, and the head of its chain. Sessions are numbered in the order in which they begin, so that rows of sessions
-- that run at the same time lie together. `moved_to` names the session that shows the spans of this one now, if they moved.
-- `own_events` counts the events that are not spans. `expire_day` is the latest of its events'. `seal` is an HMAC over the row.
create table sessions (
-- only postgres
  number bigint not null,
-- only sqlite
  number integer primary key,
-- both
  org_id text not null,
  workspace_id text not null,
  session_id text not null,
  environment text not null,
  agent_id text not null,
  agent_name text,
  user_id text,
  tags text not null,
  status text not null,
  started_us bigint not null,
  last_event_us bigint not null,
  opened_us bigint,
  ended_us bigint,
  ended_in_error boolean not null,
  event_count bigint not null,
  tool_call_count bigint not null,
  error_count bigint not null,
  llm_call_count bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cost_nanos bigint not null,
  last_seq bigint not null,
  last_hash bytea not null,
  last_seal bytea not null,
  seal bytea not null,
  expire_day integer not null,
  moved_to text,
  own_events bigint not null
-- only postgres
  , primary key (org_id, workspace_id, session_id)
);
select secure('sessions');
-- The condition is true of every row; it names only what the index holds, so that an update of a counter moves no index entry.
create index sessions_started on sessions (org_id, workspace_id, started_us, session_id) where started_us > -9000000000000000000;
create index sessions_agent on sessions (org_id, workspace_id, agent_id, started_us) where started_us > -9000000000000000000;
create index sessions_expire on sessions (org_id, expire_day) where expire_day < 2932896;
-- only sqlite
);
create unique index sessions_key on sessions (workspace_id, session_id, org_id);
create index sessions_started on sessions (workspace_id, started_us, session_id);
create index sessions_agent on sessions (workspace_id, agent_id, started_us);
create index sessions_expire on sessions (expire_day) where expire_day < 2932896;
-- both

-- What was removed from chains on purpose: what, why, by whom and when, the first and last sequence number, the hash before them
-- (absent if they are the first), and hash and seal of the last one, so that the chain can be followed past the gap. `first_us` and
-- `last_us` are the instants between which the removed events lie; absent for retention (see `org_state.expired_us`). `seal` is an
-- HMAC over the row. Verification accepts a gap only if a row of this table covers it.
create table removals (
  org_id text not null,
  removal_id text not null,
  workspace_id text not null,
  session_id text not null,
  session_number bigint not null,
  what text not null,
  why text not null,
  removed_by text not null,
  removed_us bigint not null,
  event_count bigint not null,
  first_us bigint,
  last_us bigint,
  first_seq bigint not null,
  last_seq bigint not null,
  hash_before bytea,
  last_hash bytea not null,
  last_seal bytea not null,
  seal bytea not null,
  primary key (org_id, removal_id)
) without rowid;
select secure('removals');
create index removals_session on removals (org_id, session_number, first_seq);

create table agents (
  org_id text not null,
  workspace_id text not null,
  agent_id text not null,
  name text not null,
  description text,
  first_seen_us bigint not null,
  last_seen_us bigint not null,
  session_count bigint not null,
  event_count bigint not null,
  error_count bigint not null,
  cost_nanos bigint not null,
  model_override text,
  paused_us bigint,
  pause_reason text,
  primary key (org_id, workspace_id, agent_id)
) without rowid;
select secure('agents');

create table rollup_hour (
  org_id text not null,
  workspace_id text not null,
  dimension text not null,
  bucket_us bigint not null,
  environment text not null,
  agent_id text not null,
  provider text not null,
  name text not null,
  event_count bigint not null,
  error_count bigint not null,
  session_count bigint not null,
  llm_call_count bigint not null,
  tool_call_count bigint not null,
  tool_error_count bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cache_read_tokens bigint not null,
  cache_write_5m_tokens bigint not null,
  cache_write_1h_tokens bigint not null,
  reasoning_tokens bigint not null,
  audio_input_tokens bigint not null,
  audio_output_tokens bigint not null,
  cost_nanos bigint not null,
  unknown_cost_count bigint not null,
  latency bytea not null,
  primary key (org_id, workspace_id, dimension, bucket_us, environment, agent_id, provider, name)
) without rowid;
select secure('rollup_hour');

create table rollup_day (
  org_id text not null,
  workspace_id text not null,
  dimension text not null,
  bucket_us bigint not null,
  environment text not null,
  agent_id text not null,
  provider text not null,
  name text not null,
  event_count bigint not null,
  error_count bigint not null,
  session_count bigint not null,
  llm_call_count bigint not null,
  tool_call_count bigint not null,
  tool_error_count bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cache_read_tokens bigint not null,
  cache_write_5m_tokens bigint not null,
  cache_write_1h_tokens bigint not null,
  reasoning_tokens bigint not null,
  audio_input_tokens bigint not null,
  audio_output_tokens bigint not null,
  cost_nanos bigint not null,
  unknown_cost_count bigint not null,
  latency bytea not null,
  primary key (org_id, workspace_id, dimension, bucket_us, environment, agent_id, provider, name)
) without rowid;
select secure('rollup_day');

-- Changes of the rollups: a row per transaction, until some of them are merged into the cells together.
create table rollup_changes (
  org_id text not null,
  number bigint not null,
  cells bytea not null,
  primary key (org_id, number)
);
-- only postgres
-- The rows are gone before compressing them would have paid.
alter table rollup_changes alter column cells set storage external;
-- both
select secure('rollup_changes');

-- The environments of a workspace besides those that every workspace has (see `environments.rs`).
create table environments (
  org_id text not null,
  workspace_id text not null,
  name text not null,
  first_seen_us bigint not null,
  primary key (org_id, workspace_id, name)
) without rowid;
select secure('environments');

-- What was ingested, by day of arrival; billing reads it.
create table usage_days (
  org_id text not null,
  workspace_id text not null,
  day bigint not null,
  event_count bigint not null,
  payload_bytes bigint not null,
  primary key (org_id, workspace_id, day)
) without rowid;
select secure('usage_days');

-- How many events of each key had which outcome: received, stored, or the reason of a refusal.
create table ingest_ledger (
  org_id text not null,
  key_id text not null,
  outcome text not null,
  event_count bigint not null,
  primary key (org_id, key_id, outcome)
) without rowid;
select secure('ingest_ledger');

-- The search index: for each segment of some thousand events, which of its blocks hold which grams.
create table search_segments (
  org_id text not null,
  first_position bigint not null,
  last_position bigint not null,
  min_ts_us bigint not null,
  max_ts_us bigint not null,
  min_expire_day integer not null,
  max_expire_day integer not null,
  has_text boolean not null,
  block_starts text not null,
  primary key (org_id, first_position)
) without rowid;
select secure('search_segments');

-- The shards of a segment are written together and lie together: place = first position * 256 + shard.
create table search_shards (
-- only postgres
  place bigint not null,
-- only sqlite
-- Too large for an index tree, which would spread each row over pages of its own.
  place integer primary key,
-- both
  org_id text not null,
  grams bytea not null
-- only postgres
  , primary key (org_id, place)
-- both
);
select secure('search_shards');

-- Batches that could not be applied, with the reason, until someone replays or drops them.
create table dead_letters (
  org_id text not null,
  batch_id text not null,
  key_id text not null,
  failed_us bigint not null,
  reason text not null,
  event_count bigint not null,
  message bytea not null,
  primary key (org_id, batch_id)
) without rowid;
select secure('dead_letters');

-- An org's own prices; they win over the table in the program.
create table price_overrides (
  org_id text not null,
  model text not null,
  effective_us bigint not null,
  price text not null,
  created_us bigint not null,
  primary key (org_id, model, effective_us)
) without rowid;
select secure('price_overrides');

-- Spans as they are shown and counted: a projection of their arrivals, which are events. `state` holds the arrivals' facts
-- and what was counted; the other columns serve lookups. `seal` is an HMAC over the row, since it is shown instead of the events.
create table spans (
  org_id text not null,
  workspace_id text not null,
  trace_number bigint not null,
  trace_id text not null,
  span_id text not null,
  parent_span_id text,
  -- The parent that it names where it is not shown below that one: it has not arrived, or is shown as part of another span.
  named_parent_span_id text,
  session_number bigint not null,
  session_id text not null,
  is_root boolean not null,
  is_part boolean not null,
  start_us bigint not null,
  response_id text,
  expire_day integer not null,
  state bytea not null,
  seal bytea not null
-- only postgres
  , primary key (org_id, trace_number, span_id)
);
create index spans_children on spans (org_id, trace_number, parent_span_id, start_us) where parent_span_id is not null;
create index spans_named_parents on spans (org_id, trace_number, named_parent_span_id) where named_parent_span_id is not null;
create index spans_roots on spans (org_id, session_number, start_us) where is_root;
create index spans_responses on spans (org_id, workspace_id, response_id) where response_id is not null;
create index spans_expire on spans (org_id, expire_day) where expire_day < 2932896;
-- only sqlite
);
-- Rows are appended; only these short keys lie where their random ids put them.
create unique index spans_key on spans (trace_number, span_id);
create index spans_children on spans (trace_number, parent_span_id, start_us, span_id, is_part) where parent_span_id is not null;
create index spans_named_parents on spans (trace_number, named_parent_span_id) where named_parent_span_id is not null;
create index spans_roots on spans (session_number, start_us, span_id) where is_root;
create index spans_responses on spans (response_id) where response_id is not null;
create index spans_expire on spans (expire_day) where expire_day < 2932896;
-- both
select secure('spans');

-- Traces are numbered like sessions. `chains`: the other sessions whose chains hold events of the trace, as a JSON array; absent
-- if there are none.
create table traces (
-- only postgres
  number bigint not null,
-- only sqlite
  number integer primary key,
-- both
  org_id text not null,
  workspace_id text not null,
  trace_id text not null,
  session_id text not null,
  session_number bigint not null,
  chains text,
  expire_day integer not null,
  state bytea not null,
  seal bytea not null
-- only postgres
  , primary key (org_id, workspace_id, trace_id)
);
create index traces_session on traces (org_id, session_number);
create index traces_chains on traces (org_id, session_number) where chains is not null;
create index traces_expire on traces (org_id, expire_day) where expire_day < 2932896;
-- only sqlite
);
create unique index traces_key on traces (trace_id, workspace_id, org_id);
create index traces_session on traces (session_number);
create index traces_chains on traces (session_number) where chains is not null;
create index traces_expire on traces (expire_day) where expire_day < 2932896;
-- both
select secure('traces');

-- The last requests of OpenTelemetry clients, so that people see what was read from them.
create table ingest_requests (
  org_id text not null,
  request_id text not null,
  workspace_id text not null,
  key_id text not null,
  received_us bigint not null,
  signal text not null,
  user_agent text,
  item_count bigint not null,
  refused_count bigint not null,
  report text not null,
  primary key (org_id, request_id)
) without rowid;
create index ingest_requests_key on ingest_requests (org_id, workspace_id, key_id, request_id);
select secure('ingest_requests');

-- The audit log of acts on the org's data: a chain of sealed entries, and its sealed head.
create table audit_log (
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
select secure('audit_log');

create table audit_heads (
  org_id text primary key,
  last_seq bigint not null,
  last_seal bytea not null,
  head_seal bytea not null
) without rowid;
select secure('audit_heads');

-- What a change of the org's data must cause elsewhere.
create table outbox (
  org_id text not null,
  message_id text not null,
  kind text not null,
  body text not null,
  created_us bigint not null,
  due_us bigint not null,
  attempts bigint not null,
  last_error text,
  dead_us bigint,
  primary key (org_id, message_id)
) without rowid;
select secure('outbox');

-- only postgres
-- A node that serves streams asks for the positions of many orgs at once. This function of the owner shows those and nothing else.
create policy org_state_owner on org_state for select to current_user using (true);
create function last_positions(orgs text[]) returns table (org_id text, last_position bigint)
language sql stable security definer set search_path = tenant, pg_temp as $$
  select s.org_id, s.last_position from org_state s where s.org_id = any(orgs)
$$;
revoke all on function last_positions(text[]) from public;
-- Verification compares the orgs that have data with those that the control tables list.
create function stored_orgs() returns table (org_id text)
language sql stable security definer set search_path = tenant, pg_temp as $$
  select s.org_id from org_state s
$$;
revoke all on function stored_orgs() from public;
-- A partition of events is dropped once every org has recorded what it loses.
create function recorded_days() returns table (org_id text, recorded_day integer)
language sql stable security definer set search_path = tenant, pg_temp as $$
  select s.org_id, s.recorded_day from org_state s
$$;
revoke all on function recorded_days() from public;

alter table sessions set (fillfactor = 70);
alter table rollup_hour set (fillfactor = 70);
alter table rollup_day set (fillfactor = 70);
alter table agents set (fillfactor = 70);
alter table org_state set (fillfactor = 70);
alter table ingest_ledger set (fillfactor = 70);
alter table usage_days set (fillfactor = 70);
alter table spans set (fillfactor = 80);
alter table traces set (fillfactor = 80);

-- Whether a partition overlaps the days [from, to); partitions bear their days in their names.
create function has_event_partition(from_day integer, to_day integer) returns boolean
language sql stable set search_path = tenant, pg_temp as $$
  select exists (
    select 1
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'tenant.events'::regclass and c.relname ~ '^events_\d+_\d+$'
      and (regexp_match(c.relname, '^events_(\d+)_'))[1]::integer < to_day
      and (regexp_match(c.relname, '_(\d+)$'))[1]::integer > from_day
  )
$$;

-- Makes the partition that a day of expiry falls into, unless there is one; returns whether it made one. Near days have one
-- each, days beyond 45 share one of 7, days beyond 180 one of 28, so that ten years of retention make some two hundred partitions:
-- a query that can't exclude them locks them all.
--
-- The table is made apart and then attached, which neither waits for readers and writers of `events` nor delays them. There is no
-- default partition, because attaching beside one would lock it.
create function ensure_event_partition(day integer, today integer) returns boolean
language plpgsql security definer set search_path = tenant, pg_temp set lock_timeout = '200ms' as $$
declare
  never integer := 2932896;
  width integer := case when day = never then 1 when day - today > 180 then 28 when day - today > 45 then 7 else 1 end;
  from_day integer := day - case when day = never then 0 else day % width end;
  to_day integer := from_day + width;
  partition text;
begin
  if tenant.has_event_partition(day, day + 1) then
    return false;
  end if;
  -- Two writers may come here at once; the second finds what the first made.
  perform pg_advisory_xact_lock(7166342909);
  if tenant.has_event_partition(day, day + 1) then
    return false;
  end if;
  if tenant.has_event_partition(from_day, to_day) then
    from_day := day;
    to_day := day + 1;
  end if;
  partition := 'events_' || from_day || '_' || to_day;
  execute format('create table tenant.%I (like tenant.events including defaults)', partition);
  -- The partition has the policy of its parent, in case someone reaches it directly.
  perform tenant.secure(partition);
  execute format('alter table tenant.events attach partition tenant.%I for values from (%s) to (%s)', partition, from_day, to_day);
  return true;
end
$$;

-- Drops one partition whose last day is over; returns its last day, or null if there is none or it is in use. Dropping locks
-- `events` for a moment, so it waits for readers for 200 ms at most and is tried again later. One call drops one partition, so
-- that the lock is not held while it waits for the next.
create function drop_expired_event_partition(today integer) returns integer
language plpgsql security definer set search_path = tenant, pg_temp set lock_timeout = '200ms' as $$
declare
  expired record;
begin
  -- A wrong clock must not delete data. Only a database of tests allows days that have not come.
  if today > extract(epoch from now())::bigint / 86400 + 1
    and not exists (select 1 from control.settings where name = 'test_clock' and value = 'on') then
    raise exception 'day % has not come yet', today using errcode = 'invalid_parameter_value';
  end if;
  for expired in
    select c.relname, (regexp_match(c.relname, '^events_\d+_(\d+)$'))[1]::integer as to_day
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'tenant.events'::regclass and c.relname ~ '^events_\d+_\d+$'
    order by to_day
  loop
    if expired.to_day > today then
      return null;
    end if;
    begin
      execute format('drop table tenant.%I', expired.relname);
      return expired.to_day;
    exception when lock_not_available then
      return null;
    end;
  end loop;
  return null;
end
$$;

-- Events of orgs that keep everything.
select ensure_event_partition(2932896, 0);
-- both
