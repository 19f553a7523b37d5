//! Inserts of many rows: one statement over an array for each column.

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;

use crate::error::StoreError;
use crate::schema::Dialect;
use crate::table::{Columns, Field, Rule, Table, insert_sql};

/// The arrays of a statement.
struct Arrays<'r, R> {
    rows: &'r [R],
    values: Vec<Box<dyn ToSql + Sync + Send + 'r>>,
}

impl<'r, R> Columns<'r, R> for Arrays<'r, R> {
    fn column<T: Field + 'r>(
        &mut self,
        _: &'static str,
        _: &'static str,
        _: Rule,
        value: impl Fn(&'r R) -> T,
    ) {
        self.values.push(Box::new(self.rows.iter().map(value).collect::<Vec<T>>()));
    }
}

/// Writes rows of a table; returns how many were written.
pub(super) async fn insert<R: Sync, T: Table<R>>(
    transaction: &Transaction<'_>,
    org: &str,
    _: T,
    rows: &[R],
) -> Result<u64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let statement = transaction.prepare_cached(insert_sql::<R, T>(Dialect::Postgres)).await?;
    let mut arrays = Arrays { rows, values: Vec::new() };
    T::declare(&mut arrays);
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&org];
    params.extend(arrays.values.iter().map(|values| &**values as &(dyn ToSql + Sync)));
    Ok(transaction.execute(&statement, &params).await?)
}
