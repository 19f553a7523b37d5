//! Agents: what was observed, counted as events come in.

use super::Workspace;
use crate::error::StoreError;
use crate::statement::Row;
use crate::{args, row_type};

row_type! {
    /// An agent of a workspace. Instants are microseconds UTC, money nano-dollars.
    pub struct AgentRow {
        /// Its id.
        pub agent_id: String,
        /// Its name: that of the last `session_started` to arrive that has one, else its id.
        pub name: String,
        /// What people wrote about it.
        pub description: Option<String>,
        /// Its earliest event.
        pub first_seen_us: i64,
        /// Its latest event.
        pub last_seen_us: i64,
        /// Sessions that are its: whose earliest event is.
        pub session_count: i64,
        /// Its events.
        pub event_count: i64,
        /// Its errors.
        pub error_count: i64,
        /// What it cost.
        pub cost_nanos: i64,
        /// The model it is to use instead, set by guardrails.
        pub model_override: Option<String>,
        /// When it was paused.
        pub paused_us: Option<i64>,
        /// Why it was paused.
        pub pause_reason: Option<String>,
    }
}

/// The agents of a workspace.
#[derive(Clone, Copy)]
pub struct Agents<'w>(&'w Workspace);

impl Workspace {
    /// Its agents.
    pub fn agents(&self) -> Agents<'_> {
        Agents(self)
    }
}

impl Agents<'_> {
    /// A page of agents, latest first; without those that were only taken for the agent of spans until more arrived. `after` is the last row of the page before.
    pub async fn list(self, after: Option<(i64, &str)>, limit: u32) -> Result<Vec<AgentRow>, StoreError> {
        let (last_seen_us, agent_id) = after.unwrap_or((i64::MAX, ""));
        self.0.fetch(
            "select agent_id, name, description, first_seen_us, last_seen_us, session_count, event_count, error_count, cost_nanos,
               model_override, paused_us, pause_reason
             from agents
             where org_id = $1 and workspace_id = $2 and (event_count > 0 or session_count > 0) and (last_seen_us < $3 or (last_seen_us = $3 and agent_id > $4))
             order by last_seen_us desc, agent_id
             limit $5",
            args![last_seen_us, agent_id, limit],
        )
        .await
    }

    /// One agent.
    pub async fn find(self, agent_id: &str) -> Result<Option<AgentRow>, StoreError> {
        self.0.find(
            "select agent_id, name, description, first_seen_us, last_seen_us, session_count, event_count, error_count, cost_nanos,
               model_override, paused_us, pause_reason
             from agents where org_id = $1 and workspace_id = $2 and agent_id = $3",
            args![agent_id],
        )
        .await
    }

    /// How many agents there are.
    pub async fn count(self) -> Result<i64, StoreError> {
        Ok(self
            .0
            .find(
                "select count(*) from agents where org_id = $1 and workspace_id = $2 and (event_count > 0 or session_count > 0)",
                args![],
            )
            .await?
            .unwrap_or(0))
    }

    /// The instants of the workspace's earliest and latest events.
    pub async fn event_bounds(self) -> Result<(Option<i64>, Option<i64>), StoreError> {
        let rows: Vec<Row> = self
            .0
            .fetch("select min(first_seen_us), max(last_seen_us) from agents where org_id = $1 and workspace_id = $2", args![])
            .await?;
        rows.first().map_or(Ok((None, None)), |row| Ok((row.get(0)?, row.get(1)?)))
    }
}
