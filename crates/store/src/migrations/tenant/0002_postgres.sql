-- Spans as they are shown and counted: a projection of their arrivals, which are events. `state` holds the arrivals' facts
-- and what was counted of them; the other columns are what spans are looked up by.
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
  expire_day integer not null,
  state bytea not null,
  primary key (org_id, workspace_id, trace_id)
);

-- Where the spans of a session are shown now, if a later arrival named another session for them.
alter table sessions add column moved_to text;
create index sessions_moved on sessions (org_id, workspace_id, moved_to) where moved_to is not null;

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
