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

-- The number that was given last.
alter table org_state add column last_session integer not null default 0;
update org_state set last_session = (select coalesce(max(number), 0) from sessions);

-- What changes of the rollups: a row for each transaction, until some of them are merged into the cells together.
create table rollup_changes (
  org_id text not null,
  number integer not null,
  cells blob not null,
  primary key (org_id, number)
);
alter table org_state add column waiting_changes integer not null default 0;
