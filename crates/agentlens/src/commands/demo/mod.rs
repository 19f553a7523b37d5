//! `agentlens demo`: realistic sessions of six agents, sent to a running server; the fastest way to see the product.
//!
//! The stories depend only on a fixed seed, the times on the clock. Ids carry the run, so every run adds new sessions.

mod agents;
mod random;
mod script;
mod send;

use std::collections::BTreeSet;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::time::{DAY_US, HOUR_US};

use crate::config::{Common, DemoOptions};
use crate::output;
use agents::Agent;
use random::Random;
use script::{Ending, Script, Story};
use send::{Sender, Taken};

/// Events of one request.
const BATCH_EVENTS: usize = 200;
/// The most days back.
const MAX_DAYS: u32 = 365;
const SEED: u64 = 0x05ee_d0fa_9e27;
/// Every so many sessions one is still open, with something happening right now.
const OPEN_EVERY: u32 = 40;
/// Lines that are printed where there is no terminal.
const PLAIN_LINES: u32 = 10;

/// When and by whom a session is run, and how it ends.
struct Appointment {
    agent: &'static Agent,
    start_us: i64,
    ending: Ending,
    number: u32,
}

#[derive(Default)]
struct Totals {
    taken: Taken,
    agents: BTreeSet<&'static str>,
    batches: u32,
    cost_nanos: i64,
}

/// Sends the sessions.
pub(crate) async fn run(options: DemoOptions, common: &Common) -> Result<(), String> {
    if options.sessions == 0 {
        return Err("--sessions must be 1 or more".to_owned());
    }
    if !(1..=MAX_DAYS).contains(&options.days) {
        return Err(format!("--days must be from 1 to {MAX_DAYS}"));
    }
    let mut sender = Sender::new(options.server.url()?, &options.server.api_key()?)?;
    let now_us = crate::clock::open()?.now_us();
    let run = base36(now_us / 1_000);
    let progress = Progress::new(options.sessions, common.json);
    let mut totals = Totals::default();
    let mut waiting: Vec<Value> = Vec::with_capacity(2 * BATCH_EVENTS);
    for (done, appointment) in (1..).zip(appointments(options.sessions, options.days, now_us)) {
        totals.agents.insert(appointment.agent.id);
        let story = tell(&appointment, &run, now_us);
        totals.cost_nanos += story.cost_nanos;
        waiting.extend(story.events);
        while waiting.len() >= BATCH_EVENTS {
            let batch: Vec<Value> = waiting.drain(..BATCH_EVENTS).collect();
            totals.send(&mut sender, &run, &batch).await?;
        }
        let written = totals.taken.accepted + u64::try_from(waiting.len()).unwrap_or(0);
        progress.show(done, written);
    }
    if !waiting.is_empty() {
        totals.send(&mut sender, &run, &waiting).await?;
    }
    progress.finish();
    totals.report(options.sessions, common.json, &run, &sender.address);
    Ok(())
}

/// Writes one session. Its chance depends on its number alone, so that a run of more sessions begins like one of fewer.
fn tell(appointment: &Appointment, run: &str, now_us: i64) -> Story {
    let agent = appointment.agent;
    let session_id = format!("demo-{run}-{:05}", appointment.number);
    let random = Random::new(SEED ^ (u64::from(appointment.number) << 20));
    let mut script = Script::new(agent.id, session_id, random, appointment.ending, appointment.start_us);
    let summary = (agent.tell)(&mut script);
    script.finish(&summary, appointment.start_us, now_us)
}

/// All sessions in the order of time.
fn appointments(sessions: u32, days: u32, now_us: i64) -> Vec<Appointment> {
    let mut random = Random::new(SEED);
    let mut all: Vec<Appointment> = (1..=sessions)
        .map(|number| {
            let agent = agents::choose(&mut random);
            let is_open = number % OPEN_EVERY == 0;
            let start_us = if is_open { now_us } else { start_of(agent, days, now_us, &mut random) };
            let is_recent = start_us > now_us - DAY_US;
            let ending = if is_open { Ending::Open } else { ending_of(agent, is_recent, &mut random) };
            Appointment { agent, start_us, ending, number }
        })
        .collect();
    all.sort_by_key(|appointment| appointment.start_us);
    all
}

/// An instant of the last days at which the agent has work.
fn start_of(agent: &Agent, days: u32, now_us: i64, random: &mut Random) -> i64 {
    const TRIES: u32 = 64;
    let span_s = i64::from(days) * DAY_US / 1_000_000;
    let mut start_us = now_us;
    for _ in 0..TRIES {
        start_us = now_us - random.range(1, span_s) * 1_000_000 - random.range(0, 999_999);
        let hour = start_us.rem_euclid(DAY_US) / HOUR_US;
        let is_weekend = [2, 3].contains(&start_us.div_euclid(DAY_US).rem_euclid(7));
        if random.chance(agent.rhythm.share_of(hour, is_weekend)) {
            break;
        }
    }
    start_us
}

fn ending_of(agent: &Agent, is_recent: bool, random: &mut Random) -> Ending {
    let error_percent = if is_recent { agent.recent_error_percent } else { agents::USUAL_ERROR_PERCENT };
    match random.range(1, 100) {
        dice if dice <= error_percent => Ending::Error,
        dice if dice <= error_percent + 3 => Ending::Timeout,
        // Nobody said goodbye: the server shows such a session as idle.
        dice if dice <= error_percent + 5 => Ending::Open,
        _ => Ending::Completed,
    }
}

impl Totals {
    async fn send(&mut self, sender: &mut Sender, run: &str, batch: &[Value]) -> Result<(), String> {
        self.batches += 1;
        let taken = sender.send(&format!("demo-{run}-{}", self.batches), batch).await?;
        self.taken.accepted += taken.accepted;
        self.taken.rejected += taken.rejected;
        self.taken.first_refusal = self.taken.first_refusal.take().or(taken.first_refusal);
        Ok(())
    }

    fn report(&self, sessions: u32, as_json: bool, run: &str, address: &str) {
        let cost_usd = nanos_to_usd(self.cost_nanos);
        if as_json {
            output::json(&json!({
                "run": run, "sessions": sessions, "events": self.taken.accepted, "rejected": self.taken.rejected,
                "first_refusal": self.taken.first_refusal, "agents": self.agents, "batches": self.batches, "cost_usd": cost_usd, "url": address,
            }));
            return;
        }
        let agents: Vec<&str> = self.agents.iter().copied().collect();
        output::line(&format!(
            "{} with {} of {} ({}), together ${cost_usd:.2}",
            output::count(sessions, "session"),
            output::count(self.taken.accepted, "event"),
            output::count(agents.len(), "agent"),
            agents.join(", ")
        ));
        if let Some(reason) = &self.taken.first_refusal {
            output::line(&format!(
                "{} refused; the first: {reason}",
                output::count(self.taken.rejected, "event")
            ));
        }
        output::line(&format!(
            "Look at them: curl -s -H \"Authorization: Bearer $AGENTLENS_API_KEY\" \"{address}/api/sessions?limit=5\"   (every endpoint: {address}/docs)"
        ));
    }
}

/// A bar on a terminal, a few lines elsewhere, nothing beside JSON.
enum Progress {
    Bar(ProgressBar),
    Lines { sessions: u32 },
    Silent,
}

impl Progress {
    fn new(sessions: u32, as_json: bool) -> Self {
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(u64::from(sessions));
            let style =
                ProgressStyle::with_template("{bar:40} {pos}/{len} sessions  {msg} events  {elapsed}");
            return Self::Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
        }
        if as_json { Self::Silent } else { Self::Lines { sessions } }
    }

    fn show(&self, sessions: u32, events: u64) {
        match self {
            Self::Bar(bar) => {
                bar.set_message(events.to_string());
                bar.set_position(u64::from(sessions));
            }
            Self::Lines { sessions: all } if sessions.is_multiple_of((all / PLAIN_LINES).max(1)) => {
                output::line(&format!("{sessions} of {all} sessions, {events} events"));
            }
            Self::Lines { .. } | Self::Silent => {}
        }
    }

    fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn base36(number: i64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest = number.unsigned_abs();
    let mut digits = Vec::new();
    while rest > 0 || digits.is_empty() {
        digits.push(char::from(DIGITS[usize::try_from(rest % 36).unwrap_or(0)]));
        rest /= 36;
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests;
