//! Tables that ingest writes, each declared once for both engines.
//!
//! A declaration names every column, with its type and how a row gives the value (see `tenant/apply/tables.rs`). PostgreSQL runs it
//! once for a group and binds an array for each column; SQLite runs it for each row and binds values. So the text of a statement
//! and what is bound to it come from the same lines, on both engines.

use std::sync::LazyLock;

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::schema::Dialect;

/// A value that both engines can bind.
pub(crate) trait Field: rusqlite::ToSql + tokio_postgres::types::ToSql + Send + Sync {}
impl<T: rusqlite::ToSql + tokio_postgres::types::ToSql + Send + Sync> Field for T {}

/// What becomes of a stored row's column when a row with the same key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It stays: it is part of the key, or never changes.
    Keep,
    /// The new value takes its place.
    Replace,
    /// They are added. The sum stays within 64 bits.
    Add,
    /// The smaller one is kept.
    Least,
    /// The larger one is kept.
    Greatest,
    /// A text that both engines understand; `t` is the stored row and `excluded` the new one.
    By(&'static str),
    /// A sketch of durations. PostgreSQL is given the merged sketch, SQLite a change that it merges itself.
    Sketch,
}

/// What a declaration tells about its columns.
pub(crate) trait Columns<'r, R: 'r> {
    /// A column: its name, PostgreSQL's name of its type, what becomes of a stored one, and the value in a row.
    fn column<T: Field + 'r>(
        &mut self,
        name: &'static str,
        ty: &'static str,
        rule: Rule,
        value: impl Fn(&'r R) -> T,
    );
}

/// A table that is written from rows of a type.
pub(crate) trait Table<R> {
    /// Its name.
    const NAME: &'static str;

    /// The columns by which a stored row is found again; `None` if there must be none.
    fn key(dialect: Dialect) -> Option<&'static str>;

    /// Names every column but `org_id`.
    fn declare<'r>(columns: &mut impl Columns<'r, R>)
    where
        R: 'r;
}

/// A column's name, type and rule.
type Column = (&'static str, &'static str, Rule);

/// The names, types and rules of a table's columns.
#[derive(Debug, Default)]
pub(crate) struct Names {
    columns: Vec<Column>,
}

impl<'r, R: 'r> Columns<'r, R> for Names {
    fn column<T: Field + 'r>(
        &mut self,
        name: &'static str,
        ty: &'static str,
        rule: Rule,
        _: impl Fn(&'r R) -> T,
    ) {
        self.columns.push((name, ty, rule));
    }
}

/// The statement that writes rows of a table: one row on SQLite, arrays of columns on PostgreSQL. `$1` is the org. It is made once.
pub(crate) fn insert_sql<R, T: Table<R>>(dialect: Dialect) -> &'static str {
    static MADE: LazyLock<RwLock<FxHashMap<(Dialect, &'static str), &'static str>>> =
        LazyLock::new(RwLock::default);
    let key = (dialect, T::NAME);
    let made = MADE.read().get(&key).copied();
    // There are as many texts as tables, so they may stay for ever.
    made.unwrap_or_else(|| MADE.write().entry(key).or_insert_with(|| make_sql::<R, T>(dialect).leak()))
}

fn make_sql<R, T: Table<R>>(dialect: Dialect) -> String {
    let mut names = Names::default();
    <T as Table<R>>::declare(&mut names);
    let columns = names.columns;
    let list = |part: &dyn Fn(usize, &Column) -> Option<String>| -> String {
        let parts: Vec<String> =
            columns.iter().enumerate().filter_map(|(index, column)| part(index + 2, column)).collect();
        parts.join(", ")
    };
    let names = list(&|_, (name, ..)| Some((*name).to_owned()));
    let values = match dialect {
        // In the select list, where the rows pass one by one; behind `from` each array would be copied into a table first.
        Dialect::Postgres => {
            format!("select $1, {}", list(&|place, (_, ty, _)| Some(format!("unnest(${place}::{ty}[])"))))
        }
        Dialect::Sqlite => {
            format!("values (?1, {})", list(&|place, (.., rule)| Some(sqlite_value(place, *rule))))
        }
    };
    let updates =
        list(&|place, (name, _, rule)| Some(format!("{name} = {}", update(dialect, name, place, *rule)?)));
    let on_conflict = match T::key(dialect) {
        None => String::new(),
        Some(key) if updates.is_empty() => format!(" on conflict {key} do nothing"),
        Some(key) => format!(" on conflict {key} do update set {updates}"),
    };
    format!("insert into {} as t (org_id, {names}) {values}{on_conflict}", T::NAME)
}

fn sqlite_value(place: usize, rule: Rule) -> String {
    match rule {
        // What is stored is a sketch: of a change that also takes something away (version 2), only what comes to it begins one.
        Rule::Sketch => format!(
            "case when substr(?{place}, 1, 1) = x'02' then latency_merge(x'0100', ?{place}) else ?{place} end"
        ),
        _ => format!("?{place}"),
    }
}

fn update(dialect: Dialect, name: &str, place: usize, rule: Rule) -> Option<String> {
    use Dialect::{Postgres, Sqlite};
    Some(match (rule, dialect) {
        (Rule::Keep, _) => return None,
        (Rule::By(text), _) => text.to_owned(),
        (Rule::Replace, _) | (Rule::Sketch, Postgres) => format!("excluded.{name}"),
        (Rule::Sketch, Sqlite) => format!("latency_merge(t.{name}, ?{place})"),
        (Rule::Add, Postgres) => format!("saturating_add(t.{name}, excluded.{name})"),
        // SQLite turns a sum that overflows into a floating-point number; the cast turns that into the nearest integer.
        (Rule::Add, Sqlite) => format!("cast(t.{name} + excluded.{name} as integer)"),
        (Rule::Least, Postgres) => format!("least(t.{name}, excluded.{name})"),
        (Rule::Least, Sqlite) => format!("min(t.{name}, excluded.{name})"),
        (Rule::Greatest, Postgres) => format!("greatest(t.{name}, excluded.{name})"),
        (Rule::Greatest, Sqlite) => format!("max(t.{name}, excluded.{name})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counts;
    type Count = (String, i64);

    impl Table<Count> for Counts {
        const NAME: &'static str = "counts";

        fn key(dialect: Dialect) -> Option<&'static str> {
            Some(match dialect {
                Dialect::Postgres => "(org_id, name)",
                Dialect::Sqlite => "(name)",
            })
        }

        fn declare<'r>(columns: &mut impl Columns<'r, Count>) {
            columns.column("name", "text", Rule::Keep, |row| row.0.as_str());
            columns.column("count", "bigint", Rule::Add, |row| row.1);
            columns.column("seen", "bigint", Rule::Greatest, |row| row.1);
        }
    }

    #[test]
    fn one_declaration_gives_the_statement_of_each_engine() {
        assert_eq!(
            insert_sql::<Count, Counts>(Dialect::Postgres),
            "insert into counts as t (org_id, name, count, seen) select $1, unnest($2::text[]), unnest($3::bigint[]), unnest($4::bigint[]) \
             on conflict (org_id, name) do update set count = saturating_add(t.count, excluded.count), seen = greatest(t.seen, excluded.seen)"
        );
        assert_eq!(
            insert_sql::<Count, Counts>(Dialect::Sqlite),
            "insert into counts as t (org_id, name, count, seen) values (?1, ?2, ?3, ?4) \
             on conflict (name) do update set count = cast(t.count + excluded.count as integer), seen = max(t.seen, excluded.seen)"
        );
    }
}
