-- Spans as they are shown and counted: a projection of their arrivals, which are events. `state` holds the arrivals' facts
-- and what was counted of them; the other columns are what spans are looked up by. `chains` of a trace: the other sessions in
-- whose chains events of it lie, as a JSON array; absent if there are none.
create table spans (
  org_id text not null,
  workspace_id text not null,
  trace_id text not null,
  span_id text not null,
  parent_span_id text,
  session_id text not null,
  is_root boolean not null,
  is_part boolean not null,
  start_us bigint not null,
  response_id text,
  expire_day integer not null,
  state bytea not null,
  primary key (org_id, workspace_id, trace_id, span_id)
);
create index spans_children on spans (org_id, workspace_id, trace_id, parent_span_id, start_us) where parent_span_id is not null;
create index spans_roots on spans (org_id, workspace_id, session_id, start_us) where is_root;
create index spans_responses on spans (org_id, workspace_id, response_id) where response_id is not null;

create table traces (
  org_id text not null,
  workspace_id text not null,
  trace_id text not null,
  session_id text not null,
  chains text,
  expire_day integer not null,
  state bytea not null,
  primary key (org_id, workspace_id, trace_id)
);
create index traces_session on traces (org_id, workspace_id, session_id);
create index traces_chains on traces (org_id, workspace_id, session_id) where chains is not null;

-- `moved_to`: where one finds what was shown in a session that has nothing left but its chain. `own_events`: how many of
-- its events are no arrivals of spans.
alter table sessions add column moved_to text;
alter table sessions add column own_events bigint not null default 0;
update sessions set own_events = event_count;

-- Both are for lists, and partial so that a lookup by key, which doesn't name their condition, can't be planned to walk
-- them. The condition is true of every row; it names only what they index, so that a counter's update moves no index entry.
drop index sessions_started;
drop index sessions_agent;
create index sessions_started on sessions (org_id, workspace_id, started_us, session_id) where started_us > -9000000000000000000;
create index sessions_agent on sessions (org_id, workspace_id, agent_id, started_us) where started_us > -9000000000000000000;

-- An event is looked up by its id; its day is in the key only because a partition's key must hold it. Neither the key nor
-- the index of lists, which is partial like those above, serves a query for the events of a session.
alter table events drop constraint events_pkey;
alter table events add constraint events_pkey primary key (org_id, id, workspace_id, expire_day);
drop index events_time;
create index events_time on events (org_id, workspace_id, ts_us, id) where ts_us > -9000000000000000000;

-- What expires is found by its day; what is kept for ever is in none of these.
create index event_keys_expire on event_keys (org_id, expire_day) where expire_day < 2932896;
create index spans_expire on spans (org_id, expire_day) where expire_day < 2932896;
create index traces_expire on traces (org_id, expire_day) where expire_day < 2932896;

-- The last requests of OpenTelemetry clients, so that one sees what was read out of them.
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
);
create index ingest_requests_key on ingest_requests (org_id, workspace_id, key_id, request_id);

alter table spans enable row level security;
alter table spans force row level security;
create policy spans_org on spans
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table traces enable row level security;
alter table traces force row level security;
create policy traces_org on traces
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table ingest_requests enable row level security;
alter table ingest_requests force row level security;
create policy ingest_requests_org on ingest_requests
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
alter table spans set (fillfactor = 80);
alter table traces set (fillfactor = 80);
