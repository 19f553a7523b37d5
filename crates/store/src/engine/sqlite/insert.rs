//! Inserts of rows: one prepared statement, run for each row.

use std::borrow::Borrow;

use rusqlite::{CachedStatement, Transaction};

use crate::error::StoreError;
use crate::schema::Dialect;
use crate::table::{Columns, Field, Rule, Table, insert_sql};

/// Binds the values of one row.
struct Binding<'s, 'c, 'r, R> {
    statement: &'s mut CachedStatement<'c>,
    row: &'r R,
    /// The parameter that was bound last.
    place: usize,
    bound: rusqlite::Result<()>,
}

impl<'r, R> Columns<'r, R> for Binding<'_, '_, 'r, R> {
    fn column<T: Field + 'r>(
        &mut self,
        _: &'static str,
        _: &'static str,
        _: Rule,
        value: impl Fn(&'r R) -> T,
    ) {
        self.place += 1;
        if self.bound.is_ok() {
            self.bound = self.statement.raw_bind_parameter(self.place, value(self.row));
        }
    }
}

/// Writes rows of a table as they come.
pub(super) fn insert<R, T: Table<R>>(
    transaction: &Transaction<'_>,
    org: &str,
    _: T,
    rows: impl IntoIterator<Item = impl Borrow<R>>,
) -> Result<(), StoreError> {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(insert_sql::<R, T>(Dialect::Sqlite))?;
    statement.raw_bind_parameter(1, org)?;
    for row in rows {
        let mut binding = Binding { statement: &mut statement, row: row.borrow(), place: 1, bound: Ok(()) };
        T::declare(&mut binding);
        binding.bound?;
        statement.raw_execute()?;
    }
    Ok(())
}
