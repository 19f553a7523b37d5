//! The numbers of sessions and traces, by which their events and spans are found.

use super::Workspace;
use crate::error::StoreError;
use crate::statement::Builder;

/// Ids of one statement.
const IDS_AT_A_TIME: usize = 32;

impl Workspace {
    /// The numbers of sessions, by their ids. Unknown ids are skipped.
    pub(crate) async fn session_numbers(&self, session_ids: Vec<String>) -> Result<Vec<i64>, StoreError> {
        let select = "select number from sessions where org_id = $1 and workspace_id = $2";
        self.numbers(select, " and session_id = $", session_ids).await
    }

    /// The numbers of traces, by their ids. Unknown ids are skipped.
    pub(crate) async fn trace_numbers(&self, trace_ids: Vec<String>) -> Result<Vec<i64>, StoreError> {
        let select = "select number from traces where org_id = $1 and workspace_id = $2";
        self.numbers(select, " and trace_id = $", trace_ids).await
    }

    /// Each id is looked up by itself, which leaves PostgreSQL one index and all of its key. Given a list, it took time that
    /// grew with the table, as long as its statistics were older than the rows.
    async fn numbers(
        &self,
        select: &'static str,
        is_id: &'static str,
        mut ids: Vec<String>,
    ) -> Result<Vec<i64>, StoreError> {
        ids.sort_unstable();
        ids.dedup();
        let mut numbers = Vec::with_capacity(ids.len());
        for some in ids.chunks(IDS_AT_A_TIME) {
            let mut statement = Builder::of_workspace("");
            for (index, id) in some.iter().enumerate() {
                statement.text(if index == 0 { "" } else { " union all " }).text(select);
                statement.with(is_id, id.as_str());
            }
            let (sql, args) = statement.finish();
            numbers.extend(self.fetch::<i64>(sql, args).await?);
        }
        Ok(numbers)
    }
}
