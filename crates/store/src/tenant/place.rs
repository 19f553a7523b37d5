//! Where an org's data are, and how statements are run there.

use std::sync::Arc;

use super::blocking;
use crate::engine::postgres::PostgresEngine;
use crate::engine::sqlite::{self, SqliteFile};
use crate::error::StoreError;
use crate::row_scope::RowScope;
use crate::statement::{Row, Value};

#[derive(Clone)]
pub(crate) enum Place {
    Sqlite(Arc<SqliteFile>),
    Postgres(Arc<PostgresEngine>),
}

impl Place {
    /// Runs a reading statement when it is the org's turn.
    pub(super) async fn query(
        &self,
        scope: RowScope<'_>,
        sql: String,
        args: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(file) => {
                let read = Arc::clone(file);
                file.readers()
                    .read(scope.org(), read, move |connection| sqlite::query(connection, &sql, &args))
                    .await
            }
            Self::Postgres(engine) => engine.query(Some(scope), &sql, &args).await,
        }
    }

    /// Runs a reading statement that a write waits for.
    pub(super) async fn query_for_write(
        &self,
        scope: RowScope<'_>,
        sql: String,
        args: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(file) => {
                let file = Arc::clone(file);
                blocking(move || file.read(|connection| sqlite::query(connection, &sql, &args))).await
            }
            Self::Postgres(engine) => engine.query_for_write(Some(scope), &sql, &args).await,
        }
    }

    /// Runs a reading statement when it is the org's turn, and hands its rows one by one to `step`.
    pub(super) async fn fold<A: Send + 'static>(
        &self,
        scope: RowScope<'_>,
        sql: String,
        args: Vec<Value>,
        start: A,
        mut step: impl FnMut(&mut A, &Row) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<A, StoreError> {
        let mut collected = start;
        match self {
            Self::Sqlite(file) => {
                let read = Arc::clone(file);
                file.readers()
                    .read(scope.org(), read, move |connection| {
                        sqlite::for_each(connection, &sql, &args, |row| step(&mut collected, row))?;
                        Ok(collected)
                    })
                    .await
            }
            Self::Postgres(engine) => {
                engine.for_each(scope, &sql, &args, |row| step(&mut collected, row)).await?;
                Ok(collected)
            }
        }
    }

    /// Runs statements in one transaction; returns how many rows each changed.
    pub(super) async fn execute_all(
        &self,
        scope: RowScope<'_>,
        statements: Vec<(String, Vec<Value>)>,
    ) -> Result<Vec<u64>, StoreError> {
        match self {
            Self::Sqlite(file) => {
                let file = Arc::clone(file);
                blocking(move || file.write(|connection| sqlite::execute_all(connection, &statements))).await
            }
            Self::Postgres(engine) => engine.execute_all(Some(scope), &statements).await,
        }
    }
}
