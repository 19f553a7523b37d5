-- One org's data; a file per org. Columns are the same as on PostgreSQL, org_id first, so that the same statements run.
create table events (
  position integer primary key,
  org_id text not null,
  id text not null,
  workspace_id text not null,
  environment text not null,
  session_id text not null,
  seq integer not null,
  agent_id text not null,
  event_type text not null,
  severity text not null,
  timestamp text not null,
  ts_us integer not null,
  received_us integer not null,
  expire_day integer not null,
  name text,
  provider text,
  model text,
  call_id text,
  user_id text,
  duration_us integer,
  input_tokens integer,
  output_tokens integer,
  usage_parts text,
  cost_nanos integer,
  cost_source text,
  reported_cost_nanos integer,
  computed_cost_nanos integer,
  prev_hash blob,
  hash blob not null,
  seal blob not null,
  preview text,
  metadata text not null,
  encoding integer not null,
  payload blob not null
);
-- The org is the same in every row of the file, so it does not lead the indexes of the largest table: comparing it would
-- only cost time. It ends the time index so that counting need not read the rows.
create unique index events_id on events (workspace_id, id);
create unique index events_session on events (workspace_id, session_id, seq);
create index events_time on events (workspace_id, ts_us, id, org_id);

-- Ids that clients chose, and what they were used for: a repeat is told from a clash.
create table event_keys (
  org_id text not null,
  workspace_id text not null,
  id text not null,
  content_digest blob not null,
  expire_day integer not null,
  primary key (org_id, workspace_id, id)
) without rowid;

-- Batches whose effect is in the tables; a batch that is delivered again changes nothing.
create table applied_batches (
  org_id text not null,
  batch_id text not null,
  applied_us integer not null,
  primary key (org_id, batch_id)
) without rowid;

create table org_state (
  org_id text primary key,
  last_position integer not null,
  indexed_position integer not null,
  prices_version integer not null
) without rowid;

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
  started_us integer not null,
  last_event_us integer not null,
  opened_us integer,
  ended_us integer,
  ended_in_error integer not null,
  event_count integer not null,
  tool_call_count integer not null,
  error_count integer not null,
  llm_call_count integer not null,
  input_tokens integer not null,
  output_tokens integer not null,
  cost_nanos integer not null,
  last_seq integer not null,
  last_hash blob not null,
  primary key (org_id, workspace_id, session_id)
) without rowid;
create index sessions_started on sessions (org_id, workspace_id, started_us, session_id);
create index sessions_agent on sessions (org_id, workspace_id, agent_id, started_us);

create table agents (
  org_id text not null,
  workspace_id text not null,
  agent_id text not null,
  name text not null,
  description text,
  first_seen_us integer not null,
  last_seen_us integer not null,
  session_count integer not null,
  event_count integer not null,
  error_count integer not null,
  cost_nanos integer not null,
  model_override text,
  paused_us integer,
  pause_reason text,
  primary key (org_id, workspace_id, agent_id)
) without rowid;

create table rollup_hour (
  org_id text not null,
  workspace_id text not null,
  dimension text not null,
  bucket_us integer not null,
  environment text not null,
  agent_id text not null,
  provider text not null,
  name text not null,
  event_count integer not null,
  error_count integer not null,
  session_count integer not null,
  llm_call_count integer not null,
  tool_call_count integer not null,
  tool_error_count integer not null,
  input_tokens integer not null,
  output_tokens integer not null,
  cache_read_tokens integer not null,
  cache_write_5m_tokens integer not null,
  cache_write_1h_tokens integer not null,
  reasoning_tokens integer not null,
  audio_input_tokens integer not null,
  audio_output_tokens integer not null,
  cost_nanos integer not null,
  unknown_cost_count integer not null,
  latency blob not null,
  primary key (org_id, workspace_id, dimension, bucket_us, environment, agent_id, provider, name)
) without rowid;

create table rollup_day (
  org_id text not null,
  workspace_id text not null,
  dimension text not null,
  bucket_us integer not null,
  environment text not null,
  agent_id text not null,
  provider text not null,
  name text not null,
  event_count integer not null,
  error_count integer not null,
  session_count integer not null,
  llm_call_count integer not null,
  tool_call_count integer not null,
  tool_error_count integer not null,
  input_tokens integer not null,
  output_tokens integer not null,
  cache_read_tokens integer not null,
  cache_write_5m_tokens integer not null,
  cache_write_1h_tokens integer not null,
  reasoning_tokens integer not null,
  audio_input_tokens integer not null,
  audio_output_tokens integer not null,
  cost_nanos integer not null,
  unknown_cost_count integer not null,
  latency blob not null,
  primary key (org_id, workspace_id, dimension, bucket_us, environment, agent_id, provider, name)
) without rowid;

-- What was ingested, by day of arrival; billing reads it.
create table usage_days (
  org_id text not null,
  workspace_id text not null,
  day integer not null,
  event_count integer not null,
  payload_bytes integer not null,
  primary key (org_id, workspace_id, day)
) without rowid;

-- What became of every event that a key sent; `outcome` is received, stored, or the reason of a refusal.
create table ingest_ledger (
  org_id text not null,
  key_id text not null,
  outcome text not null,
  event_count integer not null,
  primary key (org_id, key_id, outcome)
) without rowid;

-- The search index: for each segment of some thousand events, which of its blocks hold which grams.
create table search_segments (
  org_id text not null,
  first_position integer not null,
  last_position integer not null,
  min_ts_us integer not null,
  max_ts_us integer not null,
  min_expire_day integer not null,
  max_expire_day integer not null,
  has_text integer not null,
  block_starts text not null,
  primary key (org_id, first_position)
) without rowid;

create table search_shards (
  org_id text not null,
  shard integer not null,
  first_position integer not null,
  grams blob not null,
  primary key (org_id, shard, first_position)
) without rowid;

-- Batches that could not be applied, with their reason, until someone replays or drops them.
create table dead_letters (
  org_id text not null,
  batch_id text not null,
  key_id text not null,
  failed_us integer not null,
  reason text not null,
  event_count integer not null,
  message blob not null,
  primary key (org_id, batch_id)
) without rowid;

-- An org's own prices; they stand before the table in the program.
create table price_overrides (
  org_id text not null,
  model text not null,
  effective_us integer not null,
  price text not null,
  created_us integer not null,
  primary key (org_id, model, effective_us)
) without rowid;
