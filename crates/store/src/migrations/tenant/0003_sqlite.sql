-- Sessions have numbers, given in the order in which they begin. What is stored of a session lies beside what is stored of its
-- neighbours in time, which are written at the same time; by their ids, which are random, each would lie on a page of its own.
create table numbered_sessions (
  number integer primary key,
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
  moved_to text,
  own_events integer not null
);
insert into numbered_sessions (number, org_id, workspace_id, session_id, environment, agent_id, agent_name, user_id, tags, status,
  started_us, last_event_us, opened_us, ended_us, ended_in_error, event_count, tool_call_count, error_count, llm_call_count,
  input_tokens, output_tokens, cost_nanos, last_seq, last_hash, moved_to, own_events)
select row_number() over (order by started_us, workspace_id, session_id), org_id, workspace_id, session_id, environment, agent_id,
  agent_name, user_id, tags, status, started_us, last_event_us, opened_us, ended_us, ended_in_error, event_count, tool_call_count,
  error_count, llm_call_count, input_tokens, output_tokens, cost_nanos, last_seq, last_hash, moved_to, own_events
from sessions;
drop table sessions;
alter table numbered_sessions rename to sessions;
create unique index sessions_key on sessions (workspace_id, session_id, org_id);
create index sessions_started on sessions (workspace_id, started_us, session_id);
create index sessions_agent on sessions (workspace_id, agent_id, started_us);

alter table events add column session_number integer not null default 0;
update events set session_number =
  (select number from sessions s where s.workspace_id = events.workspace_id and s.session_id = events.session_id);
drop index events_session;
create unique index events_session on events (session_number, seq);

-- Traces have numbers for the same reason.
create table numbered_traces (
  number integer primary key,
  org_id text not null,
  workspace_id text not null,
  trace_id text not null,
  session_id text not null,
  session_number integer not null,
  chains text,
  expire_day integer not null,
  state blob not null
);
insert into numbered_traces (number, org_id, workspace_id, trace_id, session_id, session_number, chains, expire_day, state)
select row_number() over (order by s.number, t.workspace_id, trace_id), t.org_id, t.workspace_id, trace_id, t.session_id,
  coalesce(s.number, 0), chains, expire_day, state
from traces t left join sessions s on s.workspace_id = t.workspace_id and s.session_id = t.session_id;
drop table traces;
alter table numbered_traces rename to traces;
create unique index traces_key on traces (trace_id, workspace_id, org_id);
create index traces_session on traces (session_number);
create index traces_chains on traces (session_number) where chains is not null;
create index traces_expire on traces (expire_day) where expire_day < 2932896;

alter table spans add column trace_number integer not null default 0;
alter table spans add column session_number integer not null default 0;
update spans set
  trace_number = (select number from traces t where t.workspace_id = spans.workspace_id and t.trace_id = spans.trace_id),
  session_number = coalesce(
    (select number from sessions s where s.workspace_id = spans.workspace_id and s.session_id = spans.session_id), 0);
drop index spans_key;
drop index spans_children;
drop index spans_roots;
create unique index spans_key on spans (trace_number, span_id);
create index spans_children on spans (trace_number, parent_span_id, start_us, span_id, is_part) where parent_span_id is not null;
create index spans_roots on spans (session_number, start_us, span_id) where is_root;

-- The numbers that were given last.
alter table org_state add column last_session integer not null default 0;
alter table org_state add column last_trace integer not null default 0;
update org_state set last_session = (select coalesce(max(number), 0) from sessions),
  last_trace = (select coalesce(max(number), 0) from traces);

-- The shards of a segment are written together and lie together. They are too large for an index tree, which would spread each
-- over pages of its own.
create table placed_shards (
  place integer primary key,
  org_id text not null,
  grams blob not null
);
insert into placed_shards (place, org_id, grams)
select first_position * 256 + shard, org_id, grams from search_shards order by 1;
drop table search_shards;
alter table placed_shards rename to search_shards;

-- What changes of the rollups: a row for each transaction, until some of them are merged into the cells together.
create table rollup_changes (
  org_id text not null,
  number integer not null,
  cells blob not null,
  primary key (org_id, number)
);
alter table org_state add column waiting_changes integer not null default 0;
