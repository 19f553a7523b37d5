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
  is_root integer not null,
  is_part integer not null,
  start_us integer not null,
  response_id text,
  expire_day integer not null,
  state blob not null
);
-- Rows are appended; only these short keys lie where their random ids put them. As in events, the org is the same in every
-- row of the file, so it leads no index.
create unique index spans_key on spans (trace_id, span_id, workspace_id, org_id);
create index spans_children on spans (trace_id, parent_span_id, start_us, span_id, is_part, workspace_id, org_id)
  where parent_span_id is not null;
create index spans_roots on spans (session_id, start_us, span_id) where is_root;
create index spans_responses on spans (response_id) where response_id is not null;

create table traces (
  org_id text not null,
  workspace_id text not null,
  trace_id text not null,
  session_id text not null,
  chains text,
  expire_day integer not null,
  state blob not null,
  primary key (org_id, workspace_id, trace_id)
) without rowid;
create index traces_session on traces (session_id, workspace_id);
create index traces_chains on traces (session_id, workspace_id) where chains is not null;

-- `moved_to`: where one finds what was shown in a session that has nothing left but its chain. `own_events`: how many of
-- its events are no arrivals of spans.
alter table sessions add column moved_to text;
alter table sessions add column own_events integer not null default 0;
update sessions set own_events = event_count;

-- What expires is found by its day; what is kept for ever is in none of these.
create index events_expire on events (expire_day) where expire_day < 2932896;
create index event_keys_expire on event_keys (expire_day) where expire_day < 2932896;
create index spans_expire on spans (expire_day) where expire_day < 2932896;
create index traces_expire on traces (expire_day) where expire_day < 2932896;

-- The last requests of OpenTelemetry clients, so that one sees what was read out of them.
create table ingest_requests (
  org_id text not null,
  request_id text not null,
  workspace_id text not null,
  key_id text not null,
  received_us integer not null,
  signal text not null,
  user_agent text,
  item_count integer not null,
  refused_count integer not null,
  report text not null,
  primary key (org_id, request_id)
) without rowid;
create index ingest_requests_key on ingest_requests (org_id, workspace_id, key_id, request_id);
