//! Sessions: lists and single ones. They are written only by applying batches.

use agentlens_domain::apply::{NumberedSession, OrgContext};
use agentlens_domain::page::Cursor;
use agentlens_domain::sessions::{SessionStatus, idle_before};

use super::Workspace;
use crate::error::StoreError;
use crate::row_type;
use crate::statement::{Builder, NamedRow};

row_type! {
    /// A session. Instants are microseconds UTC, money nano-dollars.
    pub struct SessionRow {
        /// Its id.
        pub session_id: String,
        /// The workspace.
        pub workspace_id: String,
        /// The environment of its first event.
        pub environment: String,
        /// Its agent.
        pub agent_id: String,
        /// The agent's name as the session states it.
        pub agent_name: Option<String>,
        /// Its end user.
        pub user_id: Option<String>,
        /// Tags as a JSON array.
        pub tags: String,
        /// active, completed or error; idle is derived, see [`SessionRow::status_at`].
        pub status: String,
        /// Its earliest event.
        pub started_us: i64,
        /// Its latest event.
        pub last_event_us: i64,
        /// Its latest `session_started`, or the end of its latest trace.
        pub opened_us: Option<i64>,
        /// Its latest `session_ended`.
        pub ended_us: Option<i64>,
        /// Whether that end was an error.
        pub ended_in_error: bool,
        /// Events.
        pub event_count: i64,
        /// Tool calls.
        pub tool_call_count: i64,
        /// Errors.
        pub error_count: i64,
        /// Model answers.
        pub llm_call_count: i64,
        /// Input tokens.
        pub input_tokens: i64,
        /// Output tokens.
        pub output_tokens: i64,
        /// Cost.
        pub cost_nanos: i64,
        /// The sequence number of its last event.
        pub last_seq: i64,
        /// The hash of its last event.
        pub last_hash: [u8; 32],
        /// The session in which its spans are shown now; absent unless they moved.
        pub moved_to: Option<String>,
        /// Its number in the org, by which its events are found.
        pub number: i64,
        /// Those of its events that are no arrivals of spans.
        pub own_events: i64,
        /// The seal of its last event.
        pub last_seal: Vec<u8>,
        /// The day on which the last of its events may be deleted.
        pub expire_day: i32,
        /// The seal of its row.
        pub seal: Vec<u8>,
    }
}

impl SessionRow {
    /// The session as applying batches keeps it, taken for authentic.
    pub fn as_stored(&self) -> Result<NumberedSession, StoreError> {
        NumberedSession::try_from(self.clone())
    }

    /// The session as applying batches keeps it, and whether its seal matches.
    pub(crate) fn checked(self, context: &OrgContext) -> Result<NumberedSession, StoreError> {
        let (workspace_id, session_id) = (self.workspace_id.clone(), self.session_id.clone());
        let (seal, status) = (self.seal.clone(), self.status.clone());
        let mut stored = NumberedSession::try_from(self)?;
        stored.is_authentic = stored.seal(context, (&workspace_id, &session_id)).as_slice() == seal
            && stored.state.stored_status().as_str() == status;
        Ok(stored)
    }

    /// The status as it is shown: an open session without events for a while is idle.
    pub fn status_at(&self, now_us: i64) -> SessionStatus {
        match SessionStatus::parse(&self.status).unwrap_or(SessionStatus::Active) {
            SessionStatus::Active if self.last_event_us < idle_before(now_us) => SessionStatus::Idle,
            stored => stored,
        }
    }
}

/// Which sessions to list. Instants are microseconds UTC; `from` and `to` bound the start, both inclusive.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each field is the condition that its name says")]
pub struct SessionFilter {
    pub environment: Option<String>,
    pub agent_id: Option<String>,
    pub user_id: Option<String>,
    /// Any of these; empty for all.
    pub statuses: Vec<SessionStatus>,
    /// At least one of these; empty for all.
    pub tags: Vec<String>,
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
    /// Oldest first instead of newest first.
    pub ascending: bool,
    pub now_us: i64,
}

/// A page of sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// The rows.
    pub sessions: Vec<SessionRow>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<Cursor>,
}

/// True of every session; PostgreSQL's indexes for lists ask for it.
const OF_A_LIST: &str = " and started_us > -9000000000000000000";

/// A statement that reads sessions of the workspace.
fn of_sessions() -> Builder {
    let mut statement = Builder::of_workspace("select ");
    statement.text(SessionRow::COLUMNS).text(" from sessions where org_id = $1 and workspace_id = $2");
    statement
}

/// The sessions of a workspace.
#[derive(Clone, Copy)]
pub struct Sessions<'w>(pub(super) &'w Workspace);

impl Workspace {
    /// Its sessions.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions(self)
    }
}

impl Sessions<'_> {
    /// One page by start.
    pub async fn list(
        self,
        filter: &SessionFilter,
        after: Option<&Cursor>,
        offset: u32,
        limit: u32,
    ) -> Result<SessionPage, StoreError> {
        let mut statement = of_sessions();
        add_conditions(&mut statement, filter);
        if let Some(cursor) = after {
            if filter.ascending {
                statement
                    .with(" and (started_us, session_id) > ($", cursor.value)
                    .with(", $)", cursor.id.as_str());
            } else {
                statement
                    .with(" and (started_us, session_id) < ($", cursor.value)
                    .with(", $)", cursor.id.as_str());
            }
        }
        statement.text(if filter.ascending {
            " order by started_us, session_id"
        } else {
            " order by started_us desc, session_id desc"
        });
        statement.with(" limit $", limit + 1).with(" offset $", offset);
        let (sql, args) = statement.finish();
        let mut sessions: Vec<SessionRow> = self.0.fetch(sql, args).await?;
        let has_more = sessions.len() > limit as usize;
        sessions.truncate(limit as usize);
        let next = sessions
            .last()
            .filter(|_| has_more)
            .map(|last| Cursor { value: last.started_us, id: last.session_id.clone() });
        Ok(SessionPage { sessions, next })
    }

    /// How many sessions match, counted up to `cap`.
    pub async fn count(self, filter: &SessionFilter, cap: i64) -> Result<i64, StoreError> {
        let mut statement = Builder::of_workspace(
            "select count(*) from (select 1 from sessions where org_id = $1 and workspace_id = $2",
        );
        add_conditions(&mut statement, filter);
        statement.with(" limit $) as counted", cap);
        let (sql, args) = statement.finish();
        Ok(self.0.find(sql, args).await?.unwrap_or(0))
    }

    /// One session.
    pub async fn find(self, session_id: &str) -> Result<Option<SessionRow>, StoreError> {
        let mut statement = of_sessions();
        statement.with(" and session_id = $", session_id);
        let (sql, args) = statement.finish();
        self.0.find(sql, args).await
    }

    /// The sessions that began in [from, to] and cost most; of an environment and of an agent if given.
    pub async fn costliest(
        self,
        (environment, agent_id): (Option<&str>, Option<&str>),
        (from_us, to_us): (i64, i64),
        limit: u32,
    ) -> Result<Vec<SessionRow>, StoreError> {
        let mut statement = of_sessions();
        statement
            .text(OF_A_LIST)
            .with_some(" and environment = $", environment)
            .with_some(" and agent_id = $", agent_id)
            .with(" and started_us >= $", from_us)
            .with(" and started_us <= $", to_us)
            .with(" and cost_nanos > 0 order by cost_nanos desc, session_id limit $", limit);
        let (sql, args) = statement.finish();
        self.0.fetch(sql, args).await
    }

    /// Ids of the sessions that have an event in [from, to], by id, after `after`; for walks over all of them.
    pub async fn ids(
        self,
        range: Option<(i64, i64)>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        let mut statement =
            Builder::of_workspace("select session_id from sessions where org_id = $1 and workspace_id = $2");
        if let Some((from_us, to_us)) = range {
            statement.with(" and started_us <= $", to_us).with(" and last_event_us >= $", from_us);
        }
        statement.with(" and session_id > $", after).with(" order by session_id limit $", limit);
        let (sql, args) = statement.finish();
        self.0.fetch(sql, args).await
    }
}

fn add_conditions(statement: &mut Builder, filter: &SessionFilter) {
    statement
        .text(OF_A_LIST)
        // What is left of a session whose spans moved away is a chain, and nothing to show.
        .text(" and event_count > 0")
        .with_some(" and environment = $", filter.environment.as_deref())
        .with_some(" and agent_id = $", filter.agent_id.as_deref())
        .with_some(" and user_id = $", filter.user_id.as_deref())
        .with_some(" and started_us >= $", filter.from_us)
        .with_some(" and started_us <= $", filter.to_us);
    if !filter.statuses.is_empty() {
        let idle_us = idle_before(filter.now_us);
        statement.text(" and (");
        for (index, status) in filter.statuses.iter().enumerate() {
            statement.text(if index == 0 { "" } else { " or " });
            match status {
                SessionStatus::Active => {
                    statement.with("(status = 'active' and last_event_us >= $)", idle_us)
                }
                SessionStatus::Idle => statement.with("(status = 'active' and last_event_us < $)", idle_us),
                SessionStatus::Completed => statement.text("status = 'completed'"),
                SessionStatus::Error => statement.text("status = 'error'"),
            };
        }
        statement.text(")");
    }
    if !filter.tags.is_empty() {
        statement.text(" and (");
        for (index, tag) in filter.tags.iter().enumerate() {
            statement.text(if index == 0 { "" } else { " or " });
            // A tag is found in the JSON array by its quoted form, which no other tag contains.
            let quoted = serde_json::to_string(tag).unwrap_or_default();
            statement.with("replace(tags, $, '') <> tags", quoted);
        }
        statement.text(")");
    }
}
