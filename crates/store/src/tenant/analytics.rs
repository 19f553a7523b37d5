//! Rollup cells and the figures made of them. No screen sums raw events.

use agentlens_domain::latency::Latency;
use agentlens_domain::rollups::{CellKey, Dimension, Measures, Tier, decode_changes};
use agentlens_domain::time::day_of;
use agentlens_domain::usage::Usage;

use super::Workspace;
use crate::args;
use crate::error::StoreError;
use crate::statement::{Builder, Row};

/// Which cells to read. Buckets begin in [from, to), microseconds UTC.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the condition that its name says")]
pub struct CellQuery {
    pub tier: Tier,
    pub dimension: Dimension,
    pub environment: Option<String>,
    pub agent_id: Option<String>,
    pub provider: Option<String>,
    pub name: Option<String>,
    pub from_us: i64,
    pub to_us: i64,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "see `CellKey`")]
pub struct CellRow {
    pub bucket_us: i64,
    pub environment: String,
    pub agent_id: String,
    pub provider: String,
    pub name: String,
    pub measures: Measures,
}

impl CellRow {
    /// Reads the columns of [`CELLS_OF_HOURS`].
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let latency: Vec<u8> = row.get(21)?;
        Ok(Self {
            bucket_us: row.get(0)?,
            environment: row.get(1)?,
            agent_id: row.get(2)?,
            provider: row.get(3)?,
            name: row.get(4)?,
            measures: Measures {
                event_count: row.get(5)?,
                error_count: row.get(6)?,
                session_count: row.get(7)?,
                llm_call_count: row.get(8)?,
                tool_call_count: row.get(9)?,
                tool_error_count: row.get(10)?,
                usage: Usage {
                    input: row.get(11)?,
                    output: row.get(12)?,
                    cache_read: row.get(13)?,
                    cache_write_5m: row.get(14)?,
                    cache_write_1h: row.get(15)?,
                    reasoning: row.get(16)?,
                    audio_input: row.get(17)?,
                    audio_output: row.get(18)?,
                },
                cost_nanos: row.get(19)?,
                unknown_cost_count: row.get(20)?,
                latency: Latency::decode(&latency)
                    .ok_or_else(|| StoreError::Corrupt("a rollup's latency sketch".to_owned()))?,
                removed_latency: Latency::default(),
            },
        })
    }
}

macro_rules! cells_sql {
    ($table:literal) => {
        concat!(
            "select bucket_us, environment, agent_id, provider, name, event_count, error_count, session_count, llm_call_count,
               tool_call_count, tool_error_count, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
               cache_write_1h_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, cost_nanos, unknown_cost_count, latency,
               null as changes
             from ",
            $table,
            " where org_id = $1 and workspace_id = $2"
        )
    };
}

pub(super) const CELLS_OF_HOURS: &str = cells_sql!("rollup_hour");
pub(super) const CELLS_OF_DAYS: &str = cells_sql!("rollup_day");

/// The column of a row of changes; in the row of a cell it is null.
pub(super) const CHANGES_COLUMN: usize = 22;

/// The changes that wait, in the same statement as the cells: whatever is merged meanwhile, each is seen once.
pub(super) const CHANGES_SQL: &str = " union all
   select 0, '', '', '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, cells, cells from rollup_changes where org_id = $1";

impl CellRow {
    /// Its place in the order of lists.
    fn place(&self) -> (i64, &str, &str, &str, &str) {
        (self.bucket_us, &self.environment, &self.agent_id, &self.provider, &self.name)
    }
}

impl CellQuery {
    /// Those changes of one transaction that are of cells of the query in a workspace.
    pub(super) fn changes(&self, workspace_id: &str, bytes: &[u8]) -> Result<Vec<CellRow>, StoreError> {
        let mut rows = Vec::new();
        for (key, measures) in decode_changes(bytes)? {
            // An hourly change also applies to its day. A daily change (users) has no hour.
            let key = if self.tier == Tier::Day { key.of_day() } else { key };
            if self.asks_for(workspace_id, &key) {
                rows.push(CellRow {
                    bucket_us: key.bucket_us,
                    environment: key.environment.to_owned(),
                    agent_id: key.agent_id.to_owned(),
                    provider: key.provider.to_owned(),
                    name: key.name.to_owned(),
                    measures,
                });
            }
        }
        Ok(rows)
    }

    /// Adds its conditions to a statement.
    pub(super) fn add_to(&self, statement: &mut Builder) {
        statement
            .with(" and dimension = $", self.dimension.as_str())
            .with(" and bucket_us >= $", self.from_us)
            .with(" and bucket_us < $", self.to_us)
            .with_some(" and environment = $", self.environment.as_deref())
            .with_some(" and agent_id = $", self.agent_id.as_deref())
            .with_some(" and provider = $", self.provider.as_deref())
            .with_some(" and name = $", self.name.as_deref());
    }

    fn asks_for(&self, workspace_id: &str, key: &CellKey<'_>) -> bool {
        key.workspace_id == workspace_id
            && key.tier == self.tier
            && (self.from_us..self.to_us).contains(&key.bucket_us)
            && self.is_about(key)
    }

    /// Whether a cell of the workspace matches its conditions, but for the time.
    pub(super) fn is_about(&self, key: &CellKey<'_>) -> bool {
        let is = |asked: &Option<String>, text: &str| asked.as_deref().is_none_or(|asked| asked == text);
        key.dimension == self.dimension
            && is(&self.environment, key.environment)
            && is(&self.agent_id, key.agent_id)
            && is(&self.provider, key.provider)
            && is(&self.name, key.name)
    }
}

/// Figures about everything that a workspace has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceStats {
    /// Bytes of the payloads that came in on the days that the org keeps.
    pub storage_bytes: i64,
    /// How many sessions there are.
    pub session_count: i64,
}

/// Figures of a workspace.
#[derive(Clone, Copy)]
pub struct Analytics<'w>(pub(super) &'w Workspace);

impl Workspace {
    /// Its figures.
    pub fn analytics(&self) -> Analytics<'_> {
        Analytics(self)
    }
}

impl Analytics<'_> {
    /// Cells in the order of their buckets.
    pub async fn cells(self, query: &CellQuery) -> Result<Vec<CellRow>, StoreError> {
        let mut statement = Builder::of_workspace(match query.tier {
            Tier::Hour => CELLS_OF_HOURS,
            Tier::Day => CELLS_OF_DAYS,
        });
        query.add_to(&mut statement);
        statement.text(CHANGES_SQL);
        let (sql, args) = statement.finish();
        let mut cells: Vec<CellRow> = Vec::new();
        for row in self.0.fetch::<Row>(sql, args).await? {
            match row.get::<Option<Vec<u8>>>(CHANGES_COLUMN)? {
                None => cells.push(CellRow::read(&row)?),
                Some(changes) => cells.extend(query.changes(self.0.id().as_str(), &changes)?),
            }
        }
        cells.sort_by(|left, right| left.place().cmp(&right.place()));
        cells.dedup_by(|again, cell| {
            let is_same = again.place() == cell.place();
            if is_same {
                cell.measures.merge(&again.measures);
            }
            is_same
        });
        for CellRow { measures, .. } in &mut cells {
            measures.latency.subtract(&std::mem::take(&mut measures.removed_latency));
        }
        Ok(cells)
    }

    /// Figures that no rollup holds.
    pub async fn stats(self) -> Result<WorkspaceStats, StoreError> {
        let first_day = self.0.retention_days().map_or(0, |days| day_of(self.0.clock().now_us()) - days);
        let sql =
            "select payload_bytes from usage_days where org_id = $1 and workspace_id = $2 and day >= $3";
        let bytes: Vec<i64> = self.0.fetch(sql, args![first_day]).await?;
        let storage_bytes = bytes.into_iter().fold(0, i64::saturating_add);
        let days = CellQuery {
            tier: Tier::Day,
            dimension: Dimension::Total,
            environment: None,
            agent_id: None,
            provider: None,
            name: None,
            from_us: i64::MIN,
            to_us: i64::MAX,
        };
        let session_count = self.cells(&days).await?.iter().map(|day| day.measures.session_count).sum();
        Ok(WorkspaceStats { storage_bytes, session_count })
    }
}
