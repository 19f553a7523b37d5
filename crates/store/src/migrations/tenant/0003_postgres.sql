-- Sessions have numbers, given in the order in which they begin. What is stored of a session lies beside what is stored of its
-- neighbours in time, which are written at the same time; by their ids, which are random, each would lie on a page of its own.
-- The owner sees the rows of all orgs while they are numbered.
alter table sessions no force row level security;
alter table events no force row level security;
alter table org_state no force row level security;
alter table traces no force row level security;
alter table search_shards no force row level security;
alter table spans no force row level security;

-- Step 2 counted them as whoever sees no org's rows.
update sessions s set own_events = event_count where own_events = 0 and not exists
  (select 1 from traces t where t.org_id = s.org_id and t.workspace_id = s.workspace_id and t.session_id = s.session_id);

alter table sessions add column number bigint;
update sessions s set number = n.number
from (select org_id, workspace_id, session_id,
        row_number() over (partition by org_id order by started_us, workspace_id, session_id) as number
      from sessions) n
where n.org_id = s.org_id and n.workspace_id = s.workspace_id and n.session_id = s.session_id;
alter table sessions alter column number set not null;

alter table events add column session_number bigint not null default 0;
update events e set session_number = s.number
from sessions s where s.org_id = e.org_id and s.workspace_id = e.workspace_id and s.session_id = e.session_id;
alter table events alter column session_number drop default;
drop index events_session;
create index events_session on events (org_id, session_number, seq);

-- Traces have numbers for the same reason.
alter table traces add column number bigint;
alter table traces add column session_number bigint not null default 0;
update traces t set number = n.number
from (select org_id, workspace_id, trace_id,
        row_number() over (partition by org_id order by session_id, workspace_id, trace_id) as number
      from traces) n
where n.org_id = t.org_id and n.workspace_id = t.workspace_id and n.trace_id = t.trace_id;
update traces t set session_number = s.number
from sessions s where s.org_id = t.org_id and s.workspace_id = t.workspace_id and s.session_id = t.session_id;
alter table traces alter column number set not null;
alter table traces alter column session_number drop default;
drop index traces_session;
drop index traces_chains;
create index traces_session on traces (org_id, session_number);
create index traces_chains on traces (org_id, session_number) where chains is not null;

alter table spans add column trace_number bigint;
alter table spans add column session_number bigint not null default 0;
update spans p set trace_number = t.number
from traces t where t.org_id = p.org_id and t.workspace_id = p.workspace_id and t.trace_id = p.trace_id;
update spans p set session_number = s.number
from sessions s where s.org_id = p.org_id and s.workspace_id = p.workspace_id and s.session_id = p.session_id;
alter table spans alter column session_number drop default;
alter table spans drop constraint spans_pkey;
alter table spans add constraint spans_pkey primary key (org_id, trace_number, span_id);
drop index spans_children;
drop index spans_roots;
create index spans_children on spans (org_id, trace_number, parent_span_id, start_us) where parent_span_id is not null;
create index spans_roots on spans (org_id, session_number, start_us) where is_root;

-- The numbers that were given last.
alter table org_state add column last_session bigint not null default 0;
alter table org_state add column last_trace bigint not null default 0;
update org_state o set last_session = (select coalesce(max(number), 0) from sessions s where s.org_id = o.org_id),
  last_trace = (select coalesce(max(number), 0) from traces t where t.org_id = o.org_id);

-- The shards of a segment are written together and lie together.
alter table search_shards add column place bigint;
update search_shards set place = first_position * 256 + shard;
alter table search_shards drop constraint search_shards_pkey;
alter table search_shards drop column first_position;
alter table search_shards drop column shard;
alter table search_shards alter column place set not null;
alter table search_shards add constraint search_shards_pkey primary key (org_id, place);

alter table search_shards force row level security;
alter table spans force row level security;
alter table sessions force row level security;
alter table events force row level security;
alter table org_state force row level security;
alter table traces force row level security;

-- What changes of the rollups: a row for each transaction, until some of them are merged into the cells together.
create table rollup_changes (
  org_id text not null,
  number bigint not null,
  cells bytea not null,
  primary key (org_id, number)
);
alter table org_state add column waiting_changes bigint not null default 0;
-- They are gone before compressing them would have paid.
alter table rollup_changes alter column cells set storage external;
alter table rollup_changes enable row level security;
alter table rollup_changes force row level security;
create policy rollup_changes_org on rollup_changes
  using (org_id = nullif(current_setting('app.current_org', true), ''))
  with check (org_id = nullif(current_setting('app.current_org', true), ''));
