-- Tenant data, all orgs in one schema. Row security is forced on every table, events is partitioned by the day on which
-- a row expires, and the server's role owns nothing: partitions are made and dropped by the two functions at the end.
create table events (
  position bigint not null,
  org_id text not null,
  id text not null,
  workspace_id text not null,
  environment text not null,
  session_id text not null,
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
  payload bytea not null,
  constraint events_pkey primary key (org_id, workspace_id, expire_day, id)
) partition by range (expire_day);
create index events_position on events (org_id, position);
create index events_session on events (org_id, workspace_id, session_id, seq);
create index events_time on events (org_id, workspace_id, ts_us, id);

-- Ids that clients chose, and what they were used for: a repeat is told from a clash.
create table event_keys (
  org_id text not null,
  workspace_id text not null,
  id text not null,
  content_digest bytea not null,
  expire_day integer not null,
  primary key (org_id, workspace_id, id)
);

-- Batches whose effect is in the tables; a batch that is delivered again changes nothing.
create table applied_batches (
  org_id text not null,
  batch_id text not null,
  applied_us bigint not null,
  primary key (org_id, batch_id)
);

create table org_state (
  org_id text primary key,
  last_position bigint not null,
  indexed_position bigint not null,
  prices_version bigint not null
);

create table sessions (
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
  primary key (org_id, workspace_id, session_id)
);
create index sessions_started on sessions (org_id, workspace_id, started_us, session_id);
create index sessions_agent on sessions (org_id, workspace_id, agent_id, started_us);

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
);

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
);

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
);

-- What was ingested, by day of arrival; billing reads it.
create table usage_days (
  org_id text not null,
  workspace_id text not null,
  day bigint not null,
  event_count bigint not null,
  payload_bytes bigint not null,
  primary key (org_id, workspace_id, day)
);

-- What became of every event that a key sent; `outcome` is received, stored, or the reason of a refusal.
create table ingest_ledger (
  org_id text not null,
  key_id text not null,
  outcome text not null,
  event_count bigint not null,
  primary key (org_id, key_id, outcome)
);

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
);

create table search_shards (
  org_id text not null,
  shard integer not null,
  first_position bigint not null,
  grams bytea not null,
  primary key (org_id, shard, first_position)
);

-- Batches that could not be applied, with their reason, until someone replays or drops them.
create table dead_letters (
  org_id text not null,
  batch_id text not null,
  key_id text not null,
  failed_us bigint not null,
  reason text not null,
  event_count bigint not null,
  message bytea not null,
  primary key (org_id, batch_id)
);

-- An org's own prices; they stand before the table in the program.
create table price_overrides (
  org_id text not null,
  model text not null,
  effective_us bigint not null,
  price text not null,
  created_us bigint not null,
  primary key (org_id, model, effective_us)
);

-- Row security: a row is seen and written only where the transaction has named its org.
alter table events enable row level security;
alter table events force row level security;
create policy events_org on events
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table event_keys enable row level security;
alter table event_keys force row level security;
create policy event_keys_org on event_keys
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table applied_batches enable row level security;
alter table applied_batches force row level security;
create policy applied_batches_org on applied_batches
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table org_state enable row level security;
alter table org_state force row level security;
create policy org_state_org on org_state
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table sessions enable row level security;
alter table sessions force row level security;
create policy sessions_org on sessions
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table agents enable row level security;
alter table agents force row level security;
create policy agents_org on agents
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table rollup_hour enable row level security;
alter table rollup_hour force row level security;
create policy rollup_hour_org on rollup_hour
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table rollup_day enable row level security;
alter table rollup_day force row level security;
create policy rollup_day_org on rollup_day
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table usage_days enable row level security;
alter table usage_days force row level security;
create policy usage_days_org on usage_days
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table ingest_ledger enable row level security;
alter table ingest_ledger force row level security;
create policy ingest_ledger_org on ingest_ledger
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table search_segments enable row level security;
alter table search_segments force row level security;
create policy search_segments_org on search_segments
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table search_shards enable row level security;
alter table search_shards force row level security;
create policy search_shards_org on search_shards
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table dead_letters enable row level security;
alter table dead_letters force row level security;
create policy dead_letters_org on dead_letters
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table price_overrides enable row level security;
alter table price_overrides force row level security;
create policy price_overrides_org on price_overrides
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table sessions set (fillfactor = 70);
alter table rollup_hour set (fillfactor = 70);
alter table rollup_day set (fillfactor = 70);
alter table agents set (fillfactor = 70);
alter table org_state set (fillfactor = 70);
alter table ingest_ledger set (fillfactor = 70);
alter table usage_days set (fillfactor = 70);

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

-- The partition that a day of expiry falls into is made unless there is one. Near days have one each, days beyond 45 share
-- one of 7, days beyond 180 one of 28, so that even ten years of retention make some two hundred partitions rather than
-- thousands: a query that can't exclude them locks them all. It carries the same policy as its parent, in case someone
-- reaches it directly.
create function ensure_event_partition(day integer) returns void
language plpgsql security definer set search_path = tenant, pg_temp as $$
declare
  today integer := extract(epoch from now())::bigint / 86400;
  never integer := 2932896;
  width integer := case when day = never then 1 when day - today > 180 then 28 when day - today > 45 then 7 else 1 end;
  from_day integer := day - case when day = never then 0 else day % width end;
  to_day integer := from_day + width;
  partition text;
begin
  if tenant.has_event_partition(day, day + 1) then
    return;
  end if;
  -- Two writers may come here at once; the second finds what the first made.
  perform pg_advisory_xact_lock(7166342909);
  if tenant.has_event_partition(day, day + 1) then
    return;
  end if;
  if tenant.has_event_partition(from_day, to_day) then
    from_day := day;
    to_day := day + 1;
  end if;
  partition := 'events_' || from_day || '_' || to_day;
  execute format('create table tenant.%I partition of tenant.events for values from (%s) to (%s)', partition, from_day, to_day);
  execute format('alter table tenant.%I enable row level security', partition);
  execute format('alter table tenant.%I force row level security', partition);
  execute format('create policy %I on tenant.%I using (org_id = nullif(current_setting(''app.current_org'', true), ''''))'
    ' with check (org_id = nullif(current_setting(''app.current_org'', true), ''''))', partition || '_org', partition);
end
$$;

-- Drops the partitions whose last day is over. It takes no day from its caller, so that it can't be made to drop more.
create function drop_expired_event_partitions() returns integer
language plpgsql security definer set search_path = tenant, pg_temp as $$
declare
  today integer := extract(epoch from now())::bigint / 86400;
  partition record;
  dropped integer := 0;
begin
  for partition in
    select c.relname, (regexp_match(c.relname, '^events_\d+_(\d+)$'))[1]::integer as to_day
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'tenant.events'::regclass and c.relname ~ '^events_\d+_\d+$'
  loop
    if partition.to_day <= today then
      execute format('drop table tenant.%I', partition.relname);
      dropped := dropped + 1;
    end if;
  end loop;
  return dropped;
end
$$;

-- Rows that fit no day land here, and the server raises an alarm: it should stay empty.
create table events_default partition of events default;
alter table events_default enable row level security;
alter table events_default force row level security;
create policy events_default_org on events_default
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
-- Events of orgs that keep everything.
select ensure_event_partition(2932896);
