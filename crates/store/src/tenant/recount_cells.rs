//! Counting rollup cells and the sums of agents again, from events, spans and sessions.
//!
//! A day at a time. The server goes on writing meanwhile, so the cells of a day are read before and after it is counted. A cell
//! that is the same both times is compared with the count; the others are counted again, a few times.

use std::collections::{BTreeMap, BTreeSet};

use agentlens_domain::apply::NEVER_EXPIRES_DAY;
use agentlens_domain::ids::WorkspaceId;
use agentlens_domain::latency::Latency;
use agentlens_domain::rollups::{Dimension, Measures, Tier};
use agentlens_domain::time::{DAY_US, day_start, format_rfc3339};

use super::analytics::CellQuery;
use super::edges::{Counts, OwnKey};
use super::retention::HOURLY_DAYS;
use super::{OrgChains, Workspace};
use crate::args;
use crate::error::StoreError;
use crate::statement::Row;

/// How often a day is counted while its cells change.
const MAX_TRIES: usize = 3;
/// Days are counted up to this instant, and from as long before 1970; nothing that was accepted lies outside.
const LAST_US: i64 = NEVER_EXPIRES_DAY as i64 * DAY_US;
/// So many cells and agents that differ are named.
const MAX_FAULTS: usize = 20;

/// The sums of an agent, as [`AGENT_SUMS`] names them.
type AgentSums = [i64; 4];

const AGENT_SUMS: [&str; 4] = ["session_count", "event_count", "error_count", "cost_nanos"];

/// What was deleted, as far as sums that count it can't be counted again.
struct Gone {
    /// The latest instant that retention deleted.
    expired_us: i64,
    /// Instants between which events were deleted on purpose.
    ranges: Vec<(i64, i64)>,
    /// From when on cells of hours and of days are kept. Of those before, some may be there again, for what came late.
    hours_from_us: i64,
    days_from_us: i64,
}

impl Gone {
    fn is_whole(&self, (from_us, to_us): (i64, i64)) -> bool {
        from_us > self.expired_us
            && !self.ranges.iter().any(|(first, last)| *first < to_us && *last >= from_us)
    }

    fn is_nothing(&self) -> bool {
        self.expired_us == 0 && self.ranges.is_empty()
    }

    fn is_kept(&self, (tier, _, bucket_us): (Tier, Dimension, i64)) -> bool {
        match tier {
            Tier::Hour => bucket_us >= self.hours_from_us,
            Tier::Day => bucket_us >= self.days_from_us,
        }
    }
}

impl OrgChains<'_> {
    /// Counts the rollups and the sums of agents again. Returns what differs, in words. What someone is changing right now is left out.
    /// `now_us` decides which hourly cells must be there.
    pub async fn verify_sums(self, now_us: i64) -> Result<Vec<String>, StoreError> {
        let mut faults = Vec::new();
        // Someone may have deleted all agents of a workspace, or all of its sessions.
        let sql = "select workspace_id from agents where org_id = $1 union select workspace_id from sessions where org_id = $1
             order by workspace_id";
        for id in self.0.fetch::<String>(sql, args![]).await? {
            // A row that was moved elsewhere by hand: where it belongs, it is missing.
            let Ok(workspace) = WorkspaceId::parse(&id) else {
                faults.push(format!("Agents were moved to a workspace `{id}`"));
                continue;
            };
            let gone = self.gone(&id, now_us).await?;
            let mut recount = Recount { org: self, workspace: self.0.workspace(&workspace), now_us, gone };
            match recount.run(&mut faults).await {
                Err(StoreError::Corrupt(what)) => {
                    faults.push(format!("The sums of workspace {workspace} can't be counted again: {what}"));
                }
                done => done?,
            }
            faults.truncate(MAX_FAULTS);
        }
        Ok(faults)
    }

    async fn gone(self, workspace_id: &str, now_us: i64) -> Result<Gone, StoreError> {
        let sql = "select expired_us, cells_from_us from org_state where org_id = $1";
        let state: Vec<Row> = self.0.fetch(sql, args![]).await?;
        let (expired_us, days_from_us) =
            state.first().map_or(Ok((0, 0)), |row| Ok::<_, StoreError>((row.get(0)?, row.get(1)?)))?;
        let (mut ranges, mut after): (Vec<(i64, i64)>, String) = (Vec::new(), String::new());
        loop {
            let removals = self.0.removals().list(&after, 500).await?;
            let here = removals.iter().filter(|removal| removal.workspace_id == workspace_id);
            ranges.extend(here.filter_map(|removal| removal.first_us.zip(removal.last_us)));
            match removals.last() {
                Some(last) => after.clone_from(&last.removal_id),
                None => break,
            }
        }
        let hours_from_us = now_us - (HOURLY_DAYS - 1) * DAY_US;
        Ok(Gone { expired_us, ranges, hours_from_us, days_from_us })
    }
}

/// A recount of one workspace under way.
struct Recount<'o> {
    org: OrgChains<'o>,
    workspace: Workspace,
    now_us: i64,
    gone: Gone,
}

impl Recount<'_> {
    async fn run(&mut self, faults: &mut Vec<String>) -> Result<(), StoreError> {
        let before = agents(&self.workspace).await?;
        let mut counted: BTreeMap<String, AgentSums> = BTreeMap::new();
        let mut next_us = -LAST_US;
        while let Some(day_us) = next_day(&self.workspace, next_us).await? {
            let range = (day_us, day_us + DAY_US);
            let cells = self.recount_day(range, faults).await?;
            for (key, measures) in &cells {
                add_to_agents(&mut counted, key, measures);
            }
            if faults.len() > MAX_FAULTS {
                return Ok(());
            }
            next_us = range.1;
        }
        let after = agents(&self.workspace).await?;
        self.look_again().await?;
        for (agent_id, stored) in &before {
            if after.get(agent_id) != Some(stored) {
                continue;
            }
            let counted = counted.remove(agent_id).unwrap_or_default();
            let is_whole = self.gone.is_nothing();
            if let Some((name, stored, counted)) = difference(named(*stored), named(counted), is_whole) {
                faults.push(format!("Agent {agent_id} says {name} {stored} but its events say {counted}"));
            }
        }
        // The rows of agents that came in meanwhile are in `after`.
        let missing = counted.into_keys().filter(|agent_id| !after.contains_key(agent_id));
        faults.extend(missing.map(|agent_id| format!("The row of agent {agent_id} is missing")));
        Ok(())
    }

    /// Compares the cells of a day with a count. Returns the count.
    async fn recount_day(
        &mut self,
        range: (i64, i64),
        faults: &mut Vec<String>,
    ) -> Result<Counts, StoreError> {
        let (mut counted, mut found) = (Counts::new(), Vec::new());
        for _ in 0..MAX_TRIES {
            let before = stored_cells(&self.workspace, range).await?;
            counted = self.workspace.analytics().count_days(range).await?;
            let after = stored_cells(&self.workspace, range).await?;
            let keys: BTreeSet<&OwnKey> = before.keys().chain(after.keys()).chain(counted.keys()).collect();
            let (settled, moving): (Vec<_>, Vec<_>) =
                keys.into_iter().partition(|key| before.get(key) == after.get(key));
            let faults_beside = |gone: &Gone| -> Vec<String> {
                let of_key =
                    |key: &&OwnKey| cell_fault(key, before.get(key), counted.get(key), (range, gone));
                settled.iter().filter_map(of_key).collect()
            };
            found = faults_beside(&self.gone);
            if !found.is_empty() {
                self.look_again().await?;
                found = faults_beside(&self.gone);
            }
            if moving.is_empty() {
                break;
            }
        }
        faults.append(&mut found);
        Ok(counted)
    }

    /// Reads what is gone once more. Whatever was deleted while events were counted was recorded before it went, or with it.
    async fn look_again(&mut self) -> Result<(), StoreError> {
        self.gone = self.org.gone(self.workspace.id().as_str(), self.now_us).await?;
        Ok(())
    }
}

/// The first day, from an instant on, that has events, sessions or cells.
async fn next_day(workspace: &Workspace, from_us: i64) -> Result<Option<i64>, StoreError> {
    let sql = "select coalesce(min(us), 9223372036854775807) from (
           select min(bucket_us) as us from rollup_day
             where org_id = $1 and workspace_id = $2 and dimension = 'total' and bucket_us >= $3
           union all select min(bucket_us) from rollup_hour
             where org_id = $1 and workspace_id = $2 and dimension = 'total' and bucket_us >= $3) t";
    let counted: i64 = workspace.find(sql, args![from_us]).await?.unwrap_or(i64::MAX);
    let first = workspace.analytics().next_instant(from_us).await?.min(counted);
    Ok((first < LAST_US).then(|| day_start(first)))
}

/// The cells of hours and of days that lie in a range, with the changes that wait.
async fn stored_cells(workspace: &Workspace, (from_us, to_us): (i64, i64)) -> Result<Counts, StoreError> {
    let mut cells = Counts::new();
    for tier in [Tier::Hour, Tier::Day] {
        for dimension in Dimension::ALL {
            let query = CellQuery {
                tier,
                dimension,
                environment: None,
                agent_id: None,
                provider: None,
                name: None,
                from_us,
                to_us,
            };
            for cell in workspace.analytics().cells(&query).await? {
                let texts = [cell.environment, cell.agent_id, cell.provider, cell.name];
                cells.insert(((tier, dimension, cell.bucket_us), texts), cell.measures);
            }
        }
    }
    Ok(cells)
}

/// Adds the count of an hour to the sums of its agent.
fn add_to_agents(agents: &mut BTreeMap<String, AgentSums>, key: &OwnKey, measures: &Measures) {
    let ((Tier::Hour, Dimension::Agent, _), [_, agent_id, ..]) = key else { return };
    let agent = agents.entry(agent_id.clone()).or_default();
    let added = [measures.session_count, measures.event_count, measures.error_count, measures.cost_nanos];
    for (sum, added) in agent.iter_mut().zip(added) {
        *sum = sum.saturating_add(added);
    }
}

async fn agents(workspace: &Workspace) -> Result<BTreeMap<String, AgentSums>, StoreError> {
    let sql = format!(
        "select agent_id, {} from agents where org_id = $1 and workspace_id = $2",
        AGENT_SUMS.join(", ")
    );
    let rows: Vec<Row> = workspace.fetch(sql, args![]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))).collect()
}

type Sums<const N: usize> = [(&'static str, i64); N];

fn named(sums: AgentSums) -> Sums<4> {
    let [sessions, events, errors, cost] = AGENT_SUMS;
    [(sessions, sums[0]), (events, sums[1]), (errors, sums[2]), (cost, sums[3])]
}

/// The sums of a cell. Of its latency the number of durations and their sum.
fn sums_of(cell: &Measures) -> Sums<18> {
    let latency: &Latency = &cell.latency;
    [
        ("event_count", cell.event_count),
        ("error_count", cell.error_count),
        ("session_count", cell.session_count),
        ("llm_call_count", cell.llm_call_count),
        ("tool_call_count", cell.tool_call_count),
        ("tool_error_count", cell.tool_error_count),
        ("input_tokens", cell.usage.input),
        ("output_tokens", cell.usage.output),
        ("cache_read_tokens", cell.usage.cache_read),
        ("cache_write_5m_tokens", cell.usage.cache_write_5m),
        ("cache_write_1h_tokens", cell.usage.cache_write_1h),
        ("reasoning_tokens", cell.usage.reasoning),
        ("audio_input_tokens", cell.usage.audio_input),
        ("audio_output_tokens", cell.usage.audio_output),
        ("cost_nanos", cell.cost_nanos),
        ("unknown_cost_count", cell.unknown_cost_count),
        ("latency_count", i64::try_from(latency.count()).unwrap_or(i64::MAX)),
        ("latency_sum_us", latency.sum_us()),
    ]
}

/// The first sum that is not what was counted; where something counted is gone, the first that is smaller.
fn difference<const N: usize>(
    stored: Sums<N>,
    counted: Sums<N>,
    is_whole: bool,
) -> Option<(&'static str, i64, i64)> {
    let pairs = stored.into_iter().zip(counted);
    let is_wrong = |stored, counted| if is_whole { stored != counted } else { stored < counted };
    let wrong = pairs.filter(|((_, stored), (_, counted))| is_wrong(*stored, *counted));
    wrong.map(|((name, stored), (_, counted))| (name, stored, counted)).next()
}

fn cell_fault(
    key: &OwnKey,
    stored: Option<&Measures>,
    counted: Option<&Measures>,
    (range, gone): ((i64, i64), &Gone),
) -> Option<String> {
    if !gone.is_kept(key.0) {
        return None;
    }
    let (is_whole, none) = (gone.is_whole(range), Measures::default());
    let (stored, counted) = (stored.unwrap_or(&none), counted.unwrap_or(&none));
    let wrong = difference(sums_of(stored), sums_of(counted), is_whole);
    let wrong = wrong.map(|(name, stored, counted)| format!("{name} {stored} but its events say {counted}"));
    let sketch = || {
        let is_other = is_whole && stored.latency != counted.latency;
        is_other.then(|| "other latencies than its events".to_owned())
    };
    let wrong = wrong.or_else(sketch)?;
    let ((tier, dimension, bucket_us), [environment, agent_id, provider, name]) = key;
    let (tier, start) = (if *tier == Tier::Hour { "hour" } else { "day" }, format_rfc3339(*bucket_us));
    let parts = [dimension.as_str(), agent_id, provider, name].into_iter().filter(|part| !part.is_empty());
    let about = parts.collect::<Vec<_>>().join(" ");
    Some(format!("The rollup of the {tier} {start} in {environment} ({about}) says {wrong}"))
}
