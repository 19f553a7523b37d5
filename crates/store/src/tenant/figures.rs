//! Figures made of rollup cells: sums by any key, and tables that show the largest rows and the sum of all others.
//!
//! Neither holds the cells that it reads. Sums are formed while rows arrive; a table is chosen by the database, which returns the
//! rows of one page. The changes that wait are read by the same statement as the cells, so that each is counted once.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use agentlens_domain::ids::WorkspaceId;
use agentlens_domain::rollups::{Measures, Tier};
use agentlens_domain::usage::Usage;

use super::analytics::{
    Analytics, CELLS_OF_DAYS, CELLS_OF_HOURS, CHANGES_COLUMN, CHANGES_SQL, CellQuery, CellRow,
};
use crate::error::StoreError;
use crate::statement::{Builder, Row, Value};

/// The cells that figures are made of: those of each query, which cover different times and otherwise ask for the same; and
/// figures of parts of hours, which were read from events.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Whole hours or days.
    pub queries: Vec<CellQuery>,
    /// Parts of hours or days. They must match the conditions of the queries.
    pub edges: Vec<CellRow>,
}

/// What one row of a table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKey {
    /// An agent.
    Agent,
    /// The name of a tool or a user.
    Name,
    /// A model of a provider; see [`provider_and_model`].
    Model,
}

/// What a table is ordered by, the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableOrder {
    /// Cost.
    Cost,
    /// Events.
    Events,
    /// Calls of tools.
    ToolCalls,
}

/// The place of a row in a table. A cost has two parts, since a sum of costs may be larger than an `i64` of nano-dollars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePlace {
    /// Whole dollars, or the count.
    pub high: i64,
    /// Nano-dollars beside the whole dollars; 0 of a count.
    pub low: i64,
    /// The row's key.
    pub key: String,
}

/// A page of a table.
#[derive(Debug, Clone, Default)]
pub struct TablePage {
    /// The rows, the largest first. They have no latencies.
    pub rows: Vec<(String, Measures)>,
    /// The place of the last row, if there are more.
    pub next: Option<TablePlace>,
    /// How many rows there are on all pages.
    pub row_count: i64,
    /// The sum of all rows of all pages.
    pub total: Measures,
    /// The cost of all rows that have calls of models.
    pub cost_of_calls_nanos: i64,
}

/// Separates provider and model in a key.
const SEPARATOR: char = '\u{1f}';

/// The parts of the key of [`TableKey::Model`].
pub fn provider_and_model(key: &str) -> (&str, &str) {
    key.split_once(SEPARATOR).unwrap_or(("", key))
}

impl TableKey {
    fn column(self) -> &'static str {
        match self {
            Self::Agent => "agent_id",
            Self::Name => "name",
            Self::Model => "(provider || '\u{1f}' || name)",
        }
    }

    /// The key of a cell's row.
    pub fn of(self, cell: &CellRow) -> String {
        match self {
            Self::Agent => cell.agent_id.clone(),
            Self::Name => cell.name.clone(),
            Self::Model => format!("{}{SEPARATOR}{}", cell.provider, cell.name),
        }
    }
}

impl TableOrder {
    fn place(self, key: &str, measures: &Measures) -> TablePlace {
        let (high, low) = match self {
            Self::Cost => (measures.cost_nanos.div_euclid(DOLLAR), measures.cost_nanos.rem_euclid(DOLLAR)),
            Self::Events => (measures.event_count, 0),
            Self::ToolCalls => (measures.tool_call_count, 0),
        };
        TablePlace { high, low, key: key.to_owned() }
    }

    /// Orders a statement on `sums`, for rows behind a place.
    fn add_to(self, statement: &mut Builder, after: Option<&TablePlace>) {
        if let Some(after) = after {
            match self {
                Self::Cost => statement
                    .with(" and (cost_high < $", after.high)
                    .with(" or (cost_high = $", after.high)
                    .with(" and (cost_low < $", after.low)
                    .with(" or (cost_low = $", after.low)
                    .with(" and key collate \"C\" > $))))", after.key.as_str()),
                Self::Events => statement
                    .with(" and (event_count < $", after.high)
                    .with(" or (event_count = $", after.high)
                    .with(" and key collate \"C\" > $))", after.key.as_str()),
                Self::ToolCalls => statement
                    .with(" and (tool_call_count < $", after.high)
                    .with(" or (tool_call_count = $", after.high)
                    .with(" and key collate \"C\" > $))", after.key.as_str()),
            };
        }
        statement.text(match self {
            Self::Cost => " order by cost_high desc, cost_low desc, key collate \"C\"",
            Self::Events => " order by event_count desc, key collate \"C\"",
            Self::ToolCalls => " order by tool_call_count desc, key collate \"C\"",
        });
    }
}

impl TablePlace {
    fn is_before(&self, other: &Self) -> bool {
        (other.high, other.low, self.key.as_str()) < (self.high, self.low, other.key.as_str())
    }
}

const DOLLAR: i64 = 1_000_000_000;

/// The sums of a key. Dollars and nano-dollars are summed apart, so that no sum can overflow.
const SUMS: &str = "cast(sum(event_count) as bigint) as event_count, cast(sum(error_count) as bigint) as error_count,
   cast(sum(session_count) as bigint) as session_count, cast(sum(llm_call_count) as bigint) as llm_call_count,
   cast(sum(tool_call_count) as bigint) as tool_call_count, cast(sum(tool_error_count) as bigint) as tool_error_count,
   cast(sum(input_tokens) as bigint) as input_tokens, cast(sum(output_tokens) as bigint) as output_tokens,
   cast(sum(cost_nanos / 1000000000) as bigint) + cast(sum(cost_nanos % 1000000000) as bigint) / 1000000000 as cost_high,
   cast(sum(cost_nanos % 1000000000) as bigint) % 1000000000 as cost_low,
   cast(sum(unknown_cost_count) as bigint) as unknown_cost_count";

const SUMMED: &str =
    "event_count, error_count, session_count, llm_call_count, tool_call_count, tool_error_count,
   input_tokens, output_tokens, cost_high, cost_low, unknown_cost_count";

/// The sums of all keys, how many keys there are, and the cost of those that have calls of models.
const TOTALS: &str =
    "cast(coalesce(sum(event_count), 0) as bigint), cast(coalesce(sum(error_count), 0) as bigint),
   cast(coalesce(sum(session_count), 0) as bigint), cast(coalesce(sum(llm_call_count), 0) as bigint),
   cast(coalesce(sum(tool_call_count), 0) as bigint), cast(coalesce(sum(tool_error_count), 0) as bigint),
   cast(coalesce(sum(input_tokens), 0) as bigint), cast(coalesce(sum(output_tokens), 0) as bigint),
   cast(coalesce(sum(cost_high), 0) as bigint), cast(coalesce(sum(cost_low), 0) as bigint),
   cast(coalesce(sum(unknown_cost_count), 0) as bigint),
   cast(coalesce(sum(case when event_count <> 0 or session_count <> 0 then 1 else 0 end), 0) as bigint),
   cast(coalesce(sum(case when llm_call_count > 0 then cost_high else 0 end), 0) as bigint),
   cast(coalesce(sum(case when llm_call_count > 0 then cost_low else 0 end), 0) as bigint)";

/// What a row of the statement is.
const CHANGES: i64 = 0;
const CHANGED_KEY: i64 = 1;
const LARGEST: i64 = 2;
const TOTAL: i64 = 3;

fn is_something(measures: &Measures) -> bool {
    measures.event_count != 0 || measures.session_count != 0
}

fn cost_nanos(high: i64, low: i64) -> i64 {
    high.saturating_mul(DOLLAR).saturating_add(low)
}

/// The sums of a row, which begin at the third column.
fn measures(row: &Row) -> Result<Measures, StoreError> {
    Ok(Measures {
        event_count: row.get(2)?,
        error_count: row.get(3)?,
        session_count: row.get(4)?,
        llm_call_count: row.get(5)?,
        tool_call_count: row.get(6)?,
        tool_error_count: row.get(7)?,
        usage: Usage { input: row.get(8)?, output: row.get(9)?, ..Usage::default() },
        cost_nanos: cost_nanos(row.get(10)?, row.get(11)?),
        unknown_cost_count: row.get(12)?,
        ..Measures::default()
    })
}

/// What the statement of a table found.
#[derive(Default)]
struct Found {
    /// The stored sums of keys, changes not included.
    stored: FxHashMap<String, Measures>,
    /// What changes of keys.
    changes: FxHashMap<String, Measures>,
    page: TablePage,
}

impl Analytics<'_> {
    /// Sums by a key of the cells, of all cells or only of those that are about the given rows of a table.
    pub async fn sums<K: Ord + Send + 'static>(
        self,
        figures: &Figures,
        only: Option<(TableKey, Vec<String>)>,
        key: impl Fn(&CellRow) -> K + Clone + Send + 'static,
    ) -> Result<BTreeMap<K, Measures>, StoreError> {
        let mut sums: BTreeMap<K, Measures> = BTreeMap::new();
        let wanted = only.clone().map(|(by, keys)| (by, keys.into_iter().collect::<FxHashSet<String>>()));
        let wanted = Arc::new(wanted);
        let is_wanted = |cell: &CellRow, wanted: &Option<(TableKey, FxHashSet<String>)>| {
            wanted.as_ref().is_none_or(|(by, keys)| keys.contains(&by.of(cell)))
        };
        for cell in figures.edges.iter().filter(|cell| is_wanted(cell, &wanted)) {
            sums.entry(key(cell)).or_default().merge(&cell.measures);
        }
        for query in &figures.queries {
            let mut statement = Builder::of_workspace(match query.tier {
                Tier::Hour => CELLS_OF_HOURS,
                Tier::Day => CELLS_OF_DAYS,
            });
            query.add_to(&mut statement);
            if let Some((by, keys)) = &only {
                statement.text(" and ").text(by.column()).with(" = any($)", keys.clone());
            }
            statement.text(CHANGES_SQL);
            let (sql, args) = statement.finish();
            let (query, key, wanted) = (query.clone(), key.clone(), Arc::clone(&wanted));
            let workspace = self.0.id().clone();
            sums = self
                .0
                .fold(sql, args, sums, move |sums, row| {
                    let cells = match row.get::<Option<Vec<u8>>>(CHANGES_COLUMN)? {
                        None => vec![CellRow::read(row)?],
                        Some(changes) => query.changes(workspace.as_str(), &changes)?,
                    };
                    for cell in cells.into_iter().filter(|cell| is_wanted(cell, &wanted)) {
                        sums.entry(key(&cell)).or_default().merge(&cell.measures);
                    }
                    Ok(())
                })
                .await?;
        }
        // Drop empty cells. A span that later moved to another cell leaves zeros behind.
        sums.retain(|_, measures| is_something(measures));
        for measures in sums.values_mut() {
            measures.latency.subtract(&std::mem::take(&mut measures.removed_latency));
        }
        Ok(sums)
    }

    /// A page of a table: at most `limit` rows behind `after`, and the sum of all rows.
    ///
    /// A key that changed while the page was read may be missing on it; it is in the total then.
    pub async fn table(
        self,
        figures: &Figures,
        key: TableKey,
        order: TableOrder,
        after: Option<&TablePlace>,
        limit: u32,
    ) -> Result<TablePage, StoreError> {
        let changes: Vec<Row> =
            self.0.fetch_shared("select cells from rollup_changes where org_id = $1", vec![]).await?;
        let workspace = self.0.id();
        let mut changed: FxHashMap<String, Measures> = FxHashMap::default();
        for row in &changes {
            figures.add_changes(workspace, &row.get::<Vec<u8>>(0)?, key, &mut changed)?;
        }
        for cell in &figures.edges {
            changed.entry(key.of(cell)).or_default();
        }
        let changed: Vec<String> = changed.into_keys().collect();
        let mut found = Found::default();
        for cell in &figures.edges {
            found.changes.entry(key.of(cell)).or_default().merge(&cell.measures);
        }
        if figures.queries.is_empty() {
            return Ok(found.finish(changed, order, after, limit));
        }
        let (sql, args) = figures.table_statement(key, order, after, limit, &changed);
        let (figures, workspace) = (figures.clone(), workspace.clone());
        let found = self
            .0
            .fold(sql, args, found, move |found, row| {
                match row.get(0)? {
                    CHANGES => {
                        let changes = row.get::<Vec<u8>>(16)?;
                        figures.add_changes(&workspace, &changes, key, &mut found.changes)?;
                    }
                    TOTAL => {
                        found.page.total = measures(row)?;
                        found.page.row_count = row.get(13)?;
                        found.page.cost_of_calls_nanos = cost_nanos(row.get(14)?, row.get(15)?);
                    }
                    _ => {
                        found.stored.insert(row.get(1)?, measures(row)?);
                    }
                }
                Ok(())
            })
            .await?;
        Ok(found.finish(changed, order, after, limit))
    }
}

impl Figures {
    fn add_changes(
        &self,
        workspace: &WorkspaceId,
        bytes: &[u8],
        key: TableKey,
        to: &mut FxHashMap<String, Measures>,
    ) -> Result<(), StoreError> {
        for query in &self.queries {
            for cell in query.changes(workspace.as_str(), bytes)? {
                to.entry(key.of(&cell)).or_default().merge(&cell.measures);
            }
        }
        Ok(())
    }

    fn table_statement(
        &self,
        key: TableKey,
        order: TableOrder,
        after: Option<&TablePlace>,
        limit: u32,
        changed: &[String],
    ) -> (String, Vec<Value>) {
        let mut statement = Builder::of_workspace("with cells as (");
        for (index, query) in self.queries.iter().enumerate() {
            statement.text(if index == 0 { "select " } else { " union all select " }).text(key.column());
            statement.text(
                " as key, event_count, error_count, session_count, llm_call_count, tool_call_count, tool_error_count,
                   input_tokens, output_tokens, cost_nanos, unknown_cost_count from ",
            );
            statement.text(match query.tier {
                Tier::Hour => "rollup_hour",
                Tier::Day => "rollup_day",
            });
            statement.text(" where org_id = $1 and workspace_id = $2");
            query.add_to(&mut statement);
        }
        statement.text("), sums as materialized (select key, ").text(SUMS).text(" from cells group by key) ");
        statement
            .with("select cast($ as bigint), '' as key, ", CHANGES)
            .text("0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, cells as changes from rollup_changes where org_id = $1");
        statement
            .with(" union all select cast($ as bigint), key, ", CHANGED_KEY)
            .text(SUMMED)
            .with(", 0, 0, 0, cast(null as bytea) from sums where key = any($)", changed.to_vec());
        statement
            .with(" union all select * from (select cast($ as bigint), key, ", LARGEST)
            .text(SUMMED)
            .with(", 0, 0, 0, cast(null as bytea) from sums where not (key = any($))", changed.to_vec())
            .text(" and (event_count <> 0 or session_count <> 0)");
        order.add_to(&mut statement, after);
        statement.with(" limit $) as largest", i64::from(limit) + 1);
        statement
            .with(" union all select cast($ as bigint), '', ", TOTAL)
            .text(TOTALS)
            .text(", cast(null as bytea) from sums");
        statement.finish()
    }
}

impl Found {
    /// Adds the changes to what is stored, and cuts the page.
    fn finish(
        mut self,
        changed: Vec<String>,
        order: TableOrder,
        after: Option<&TablePlace>,
        limit: u32,
    ) -> TablePage {
        for change in self.changes.values() {
            self.page.total.merge(change);
        }
        let mut keys: Vec<String> = self.stored.keys().cloned().collect();
        keys.extend(changed.into_iter().filter(|key| !self.stored.contains_key(key)));
        let mut rows: Vec<(TablePlace, Measures)> = Vec::with_capacity(keys.len());
        let page = &mut self.page;
        for key in keys {
            let stored = self.stored.remove(&key).unwrap_or_default();
            let mut now = stored.clone();
            if let Some(change) = self.changes.get(&key) {
                now.merge(change);
            }
            page.row_count += i64::from(is_something(&now)) - i64::from(is_something(&stored));
            let cost_of_calls = |row: &Measures| if row.llm_call_count > 0 { row.cost_nanos } else { 0 };
            page.cost_of_calls_nanos = page
                .cost_of_calls_nanos
                .saturating_sub(cost_of_calls(&stored))
                .saturating_add(cost_of_calls(&now));
            let place = order.place(&key, &now);
            if is_something(&now) && after.is_none_or(|after| after.is_before(&place)) {
                rows.push((place, now));
            }
        }
        rows.sort_by(|(left, _), (right, _)| {
            (right.high, right.low, &left.key).cmp(&(left.high, left.low, &right.key))
        });
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        page.next = rows.last().filter(|_| has_more).map(|(place, _)| place.clone());
        page.rows = rows.into_iter().map(|(place, measures)| (place.key, measures)).collect();
        self.page
    }
}
