//! The last requests of OpenTelemetry clients, so that one sees what was read out of them.

use agentlens_domain::page::Cursor;

use super::Workspace;
use crate::error::StoreError;
use crate::statement::Builder;
use crate::{args, row_type};

/// Requests that are kept of each key.
pub const MAX_REQUESTS_PER_KEY: u32 = 200;

row_type! {
    /// One request. Its id is a ULID, so ids are in the order of time.
    pub struct IngestRequestRow {
        /// Its id in the server's log.
        pub request_id: String,
        /// The key that sent it.
        pub key_id: String,
        /// When it came, microseconds UTC.
        pub received_us: i64,
        /// `traces`, `logs` or `metrics`.
        pub signal: String,
        /// The client's `User-Agent`.
        pub user_agent: Option<String>,
        /// How many spans, log records or metrics it held.
        pub item_count: i64,
        /// How many of these were refused.
        pub refused_count: i64,
        /// What else is told of it, as JSON.
        pub report: String,
    }
}

/// The last requests of a workspace's OpenTelemetry clients.
#[derive(Clone, Copy)]
pub struct IngestRequests<'w>(&'w Workspace);

impl Workspace {
    /// The last requests of its OpenTelemetry clients.
    pub fn ingest_requests(&self) -> IngestRequests<'_> {
        IngestRequests(self)
    }
}

impl IngestRequests<'_> {
    /// Keeps a request, and of its key no more than the newest [`MAX_REQUESTS_PER_KEY`].
    pub async fn insert(self, request: &IngestRequestRow) -> Result<(), StoreError> {
        let insert = "insert into ingest_requests
               (org_id, workspace_id, request_id, key_id, received_us, signal, user_agent, item_count, refused_count, report)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             on conflict (org_id, request_id) do nothing";
        let trim = "delete from ingest_requests
             where org_id = $1 and workspace_id = $2 and key_id = $3
               and request_id <= (select request_id from ingest_requests
                 where org_id = $1 and workspace_id = $2 and key_id = $3
                 order by request_id desc limit 1 offset $4)";
        let inserted = args![
            &request.request_id,
            &request.key_id,
            request.received_us,
            &request.signal,
            request.user_agent.clone(),
            request.item_count,
            request.refused_count,
            &request.report,
        ];
        let trimmed = args![&request.key_id, MAX_REQUESTS_PER_KEY];
        self.0.execute_all(vec![(insert.to_owned(), inserted), (trim.to_owned(), trimmed)]).await.map(|_| ())
    }

    /// The newest requests, all or those of one key, before `before`.
    pub async fn list(
        self,
        key_id: Option<&str>,
        before: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<IngestRequestRow>, StoreError> {
        let mut statement = Builder::of_workspace(
            "select request_id, key_id, received_us, signal, user_agent, item_count, refused_count, report
             from ingest_requests where org_id = $1 and workspace_id = $2",
        );
        statement
            .with_some(" and key_id = $", key_id)
            .with_some(" and request_id < $", before.map(|cursor| cursor.id.as_str()))
            .with(" order by request_id desc limit $", limit);
        let (sql, args) = statement.finish();
        self.0.fetch(sql, args).await
    }
}
