//! The schema: one text for both engines, in steps that are named by their date and never edited once released.
//!
//! A step is written in PostgreSQL's words. Three rules turn it into the text of an engine:
//! - Lines between `-- only postgres` or `-- only sqlite` and `-- both` belong to that engine alone.
//! - SQLite calls `bigint` and `boolean` `integer`, and `bytea` `blob`. `without rowid` is for SQLite alone.
//! - `select secure('t')` forces row security on a table, which is for PostgreSQL alone.

use std::borrow::Cow;

use crate::error::StoreError;

/// A step: its name and its text.
pub(crate) type Step = (&'static str, &'static str);

/// Orgs, people, keys.
pub(crate) const CONTROL: &[Step] = &[
    ("2026_11_27_foundation", include_str!("migrations/control/2026_11_27_foundation.sql")),
    ("2026_11_28_people", include_str!("migrations/control/2026_11_28_people.sql")),
    ("2026_11_28_keysapi", include_str!("migrations/control/2026_11_28_keysapi.sql")),
    ("2026_11_28_org_deletions", include_str!("migrations/control/2026_11_28_org_deletions.sql")),
];

/// What belongs to one org.
pub(crate) const TENANT: &[Step] =
    &[("2026_11_27_foundation", include_str!("migrations/tenant/2026_11_27_foundation.sql"))];

/// Refuses a store on which a newer program ran steps that this one does not know.
pub(crate) fn refuse_unknown(known: &[Step], done: &[String]) -> Result<(), StoreError> {
    match done.iter().find(|done| !known.iter().any(|(name, _)| name == done)) {
        None => Ok(()),
        Some(name) => Err(StoreError::Misconfigured(format!(
            "the data has schema step {name}, which this program does not know; run a newer agentlens"
        ))),
    }
}

/// An engine that a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    /// The embedded store.
    Sqlite,
    /// The cloud's store.
    Postgres,
}

/// The text of a step for one engine.
pub(crate) fn text_for(dialect: Dialect, source: &str) -> String {
    let mut section = None;
    let mut text = String::with_capacity(source.len());
    for line in source.lines() {
        match line.trim() {
            "-- only postgres" => section = Some(Dialect::Postgres),
            "-- only sqlite" => section = Some(Dialect::Sqlite),
            "-- both" => section = None,
            _ if section.is_some_and(|only| only != dialect) => {}
            _ => {
                text.push_str(&line_for(dialect, line));
                text.push('\n');
            }
        }
    }
    text
}

fn line_for(dialect: Dialect, line: &str) -> Cow<'_, str> {
    match dialect {
        Dialect::Postgres => Cow::Owned(line.replace(" without rowid", "")),
        Dialect::Sqlite if line.starts_with("select secure(") => Cow::Borrowed(""),
        Dialect::Sqlite => Cow::Owned(
            line.replace(" bigint", " integer").replace(" boolean", " integer").replace(" bytea", " blob"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{Dialect, text_for};

    const SOURCE: &str = "create table t (\n  a bigint not null,\n-- only sqlite\n  b integer primary key\n-- only postgres\n  b bytea,\n  c boolean\n-- both\n) without rowid;\nselect secure('t');\n";

    #[test]
    fn postgres_gets_its_sections_and_no_rowid_clause() {
        assert_eq!(
            text_for(Dialect::Postgres, SOURCE),
            "create table t (\n  a bigint not null,\n  b bytea,\n  c boolean\n);\nselect secure('t');\n"
        );
    }

    #[test]
    fn sqlite_gets_its_sections_and_its_own_types() {
        assert_eq!(
            text_for(Dialect::Sqlite, SOURCE),
            "create table t (\n  a integer not null,\n  b integer primary key\n) without rowid;\n\n"
        );
    }
}
