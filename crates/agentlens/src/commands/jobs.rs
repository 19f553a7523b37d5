//! `agentlens job`: lists periodic jobs and runs one now.

use std::sync::Arc;

use serde_json::{Value, json};

use agentlens_domain::time::format_rfc3339;
use agentlens_server::jobs::{self, Job, Runner};
use agentlens_server::metrics::Metrics;
use agentlens_store::{JobSummary, Store};

use crate::boot::{find_org, open_store};
use crate::config::{Common, JobCommand};
use crate::output;

/// Runs a command on jobs.
pub(crate) async fn run(command: JobCommand, common: &Common) -> Result<(), String> {
    match command {
        JobCommand::List => list(common).await,
        JobCommand::Run { name, org } => run_now(&name, org.as_deref(), common).await,
    }
}

async fn list(common: &Common) -> Result<(), String> {
    let store = open_store(&common.store).await?;
    let (mut table, mut all) =
        (output::Table::new(&["JOB", "EVERY", "LAST RUN", "FAILING", "WHAT"]), Vec::new());
    for job in jobs::registry() {
        let summary = summary_of(&store, &job).await?;
        let last_run = summary.last_run_us.map(format_rfc3339);
        all.push(json_of(&job, &summary));
        table.row([
            job.schedule.name.to_owned(),
            format!("{} s", job.schedule.every.as_secs()),
            last_run.unwrap_or_else(|| "never".to_owned()),
            summary.failing.to_string(),
            job.schedule.about.to_owned(),
        ]);
    }
    if common.json {
        output::json(&json!({ "jobs": all }))
    } else {
        table.print()
    }
    Ok(())
}

async fn summary_of(store: &Store, job: &Job) -> Result<JobSummary, String> {
    store.control().job_summary(job.schedule.name).await.map_err(|error| error.to_string())
}

fn json_of(job: &Job, summary: &JobSummary) -> Value {
    json!({
        "name": job.schedule.name, "about": job.schedule.about, "every_seconds": job.schedule.every.as_secs(),
        "last_run_at": summary.last_run_us.map(format_rfc3339), "failing": summary.failing,
        "last_error": summary.last_error,
    })
}

async fn run_now(name: &str, org: Option<&str>, common: &Common) -> Result<(), String> {
    let job = jobs::find(name).ok_or_else(|| {
        let names: Vec<&str> = jobs::registry().iter().map(|job| job.schedule.name).collect();
        format!("there is no job {name}; jobs are {}", names.join(", "))
    })?;
    let store = open_store(&common.store).await?;
    let org = match org {
        Some(org) => Some(find_org(&store, org).await?),
        None => None,
    };
    let runner = Runner::new(store, Arc::new(Metrics::default()));
    let report = runner.run_now(&job, org.as_ref()).await.map_err(|error| error.to_string())?;
    if common.json {
        output::json(
            &json!({ "name": name, "succeeded": report.succeeded, "failed": report.failed, "done": report.done }),
        );
    } else {
        let failed = if report.failed == 0 { String::new() } else { format!(", {} failed", report.failed) };
        output::line(&format!("{}{failed}", output::count(report.succeeded, "run")));
    }
    if report.failed == 0 { Ok(()) } else { Err(format!("{} failed", output::count(report.failed, "run"))) }
}
