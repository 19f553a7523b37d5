//! Inserts of many rows: one statement over arrays.

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;

use crate::error::StoreError;

/// An insert over arrays: a name, a type and a value of each row for every column but `org_id`.
pub(super) struct Insert<'a> {
    table: &'static str,
    names: Vec<&'static str>,
    types: Vec<&'static str>,
    values: Vec<Box<dyn ToSql + Sync + Send + 'a>>,
}

impl<'a> Insert<'a> {
    pub(super) fn into(table: &'static str) -> Self {
        Self { table, names: Vec::new(), types: Vec::new(), values: Vec::new() }
    }

    pub(super) fn column<R, T: ToSql + Sync + Send + 'a>(
        mut self,
        name: &'static str,
        ty: &'static str,
        rows: &'a [R],
        value: impl Fn(&'a R) -> T,
    ) -> Self {
        self.names.push(name);
        self.types.push(ty);
        self.values.push(Box::new(rows.iter().map(value).collect::<Vec<T>>()));
        self
    }

    pub(super) async fn run(
        self,
        transaction: &Transaction<'_>,
        org: &str,
        on_conflict: &'static str,
    ) -> Result<u64, StoreError> {
        // In the select list, where the rows pass one by one; behind `from` each array would be copied into a table first.
        let arrays: Vec<String> = self
            .types
            .iter()
            .enumerate()
            .map(|(index, ty)| format!("unnest(${}::{ty}[])", index + 2))
            .collect();
        let (table, names) = (self.table, self.names.join(", "));
        let sql = format!(
            "insert into {table} as t (org_id, {names}) select $1, {} on conflict {on_conflict}",
            arrays.join(", ")
        );
        let statement = transaction.prepare_cached(&sql).await?;
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&org];
        params.extend(self.values.iter().map(|values| &**values as &(dyn ToSql + Sync)));
        Ok(transaction.execute(&statement, &params).await?)
    }
}
