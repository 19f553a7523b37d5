//! Spans: after every apply all sums equal a recount from what arrived, whatever came in which order and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentlens_domain::batches::{Batch, Outcome};
use agentlens_domain::cost::PriceTable;
use agentlens_domain::events::{EventType, NewEvent, Severity};
use agentlens_domain::rollups::{CellKey, Counted, Measures, Rollup, Tier};
use agentlens_domain::sessions::SessionStatus;
use agentlens_domain::spans::{
    Arrival, ArrivalSource, Forest, SessionClaim, Sign, SpanKind, Trace, TraceShown, resolve,
};
use agentlens_domain::time::format_rfc3339;
use agentlens_domain::usage::Usage;
use agentlens_store::{Applied, Org, SessionFilter, SessionRow, SpanRow};

use crate::batches::{NOW_US, batch, note};
use crate::world::{Workspaces, World, apply, cell_queries};

on_both_engines!(
    every_sum_equals_a_recount_after_every_apply,
    repeats_add_nothing,
    a_session_that_is_named_late_takes_its_spans_over,
    a_session_begins_once_whoever_leaves_it,
    a_session_says_what_the_traces_in_it_say,
    a_trace_that_follows_no_longer_has_its_own_session,
    an_id_that_many_spans_name_loads_none_of_them,
    what_came_first_decides_nothing_about_a_session,
    chains_of_moves_are_followed,
    a_root_whose_parent_never_came_ends_its_session,
    every_session_that_a_trace_names_is_found,
    spans_of_one_org_are_no_others,
);

const HOUR_US: i64 = 3_600_000_000;

fn trace_id(number: u64) -> String {
    format!("{number:032x}")
}

fn span_id(number: u64) -> String {
    format!("{number:016x}")
}

/// A model's call that began a second after its number and took ten.
fn call(trace: u64, number: u64) -> Arrival {
    let start_us = NOW_US + i64::try_from(number).unwrap() * 1_000_000;
    Arrival {
        trace_id: trace_id(trace),
        span_id: span_id(number),
        source: ArrivalSource::Span,
        digest: [u8::try_from(trace % 256).unwrap(), u8::try_from(number % 256).unwrap(), 0, 0, 0, 0, 0, 0],
        kind: Some(SpanKind::Llm),
        start_us,
        end_us: start_us + 10_000_000,
        model: Some("gpt-4o".to_owned()),
        provider: Some("openai".to_owned()),
        usage: Some(Usage { input: 1000, output: 100, ..Usage::default() }),
        service: Some("service".to_owned()),
        ..Arrival::default()
    }
}

/// A call alone in its trace.
pub(crate) fn one_span() -> Arrival {
    call(1, 1)
}

fn root(trace: u64, number: u64, session: Option<&str>) -> Arrival {
    Arrival {
        kind: Some(SpanKind::Agent),
        agent_id: Some(format!("agent-{trace}")),
        agent_name: Some(format!("Agent {trace}")),
        model: None,
        provider: None,
        usage: None,
        session: session.map(|id| SessionClaim { rank: 0, id: id.to_owned() }),
        ..call(trace, number)
    }
}

fn below(parent: u64, arrival: Arrival) -> Arrival {
    Arrival { parent_span_id: Some(span_id(parent)), ..arrival }
}

fn event(arrival: Arrival) -> NewEvent {
    let id: String = arrival.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    NewEvent {
        environment: arrival.environment.clone(),
        id: format!("otel_{}_{}_{id}", &arrival.trace_id[24..], &arrival.span_id[8..]),
        content_digest: None,
        session_id: arrival.trace_id.clone(),
        agent_id: "unknown".to_owned(),
        event_type: EventType::LlmResponse,
        severity: Severity::Info,
        timestamp: format_rfc3339(arrival.start_us),
        ts_us: arrival.start_us,
        payload: format!(
            "{{\"n\":\"{id}\",\"spanId\":\"{}\",\"traceId\":\"{}\"}}",
            arrival.span_id, arrival.trace_id
        ),
        metadata: "{}".to_owned(),
        holds_wide_numbers: false,
        facts: agentlens_domain::events::Facts::default(),
        span: Some(Box::new(arrival)),
    }
}

/// A batch of what arrived of spans.
pub(crate) fn span_batch(id: &str, environment: &str, arrivals: Vec<Arrival>) -> Batch {
    let mut made = batch(id, &[]);
    made.environment = environment.to_owned();
    made.events = arrivals.into_iter().map(event).collect();
    made
}

/// One org with everything that was sent to it.
struct Sent {
    org: Org,
    ids: BTreeSet<(String, String)>,
    natives: Vec<(NewEvent, String)>,
    stored: usize,
    batches: usize,
}

impl Sent {
    async fn to(world: &World, org: &str) -> Self {
        let org = world.org(org).await;
        Self { org, ids: BTreeSet::new(), natives: Vec::new(), stored: 0, batches: 0 }
    }

    /// Applies batches of arrivals as one group, and recounts.
    async fn send(&mut self, groups: Vec<Vec<Arrival>>) -> usize {
        let mut batches = Vec::new();
        for arrivals in groups {
            self.batches += 1;
            batches.push(span_batch(&format!("b{}", self.batches), "production", arrivals));
        }
        self.apply(batches).await
    }

    async fn apply(&mut self, batches: Vec<Batch>) -> usize {
        for made in &batches {
            for event in &made.events {
                match &event.span {
                    Some(span) => drop(self.ids.insert((span.trace_id.clone(), span.span_id.clone()))),
                    None => self.natives.push((event.clone(), made.environment.clone())),
                }
            }
        }
        let report = self.org.apply(Arc::new(batches), NOW_US).await.unwrap();
        let outcomes = report.batches.iter().flat_map(|applied| match applied {
            Applied::Now(outcomes) => outcomes.as_slice(),
            Applied::Before => &[],
        });
        let stored = outcomes.filter(|outcome| matches!(outcome, Outcome::Stored { .. })).count();
        self.stored += stored;
        self.recount().await;
        stored
    }

    async fn spans(&self) -> Vec<SpanRow> {
        let ids: Vec<_> = self.ids.iter().cloned().collect();
        let mut rows = self.org.ws("default").spans().find(&ids).await.unwrap();
        rows.sort_by(|left, right| (&left.trace_id, &left.span_id).cmp(&(&right.trace_id, &right.span_id)));
        assert_eq!(rows.len(), ids.len());
        rows
    }

    async fn sessions(&self) -> Vec<SessionRow> {
        let filter = SessionFilter { now_us: NOW_US, ..SessionFilter::default() };
        let mut rows = self.org.ws("default").sessions().list(&filter, None, 0, 1000).await.unwrap().sessions;
        rows.sort_by(|left, right| left.session_id.cmp(&right.session_id));
        rows
    }

    async fn recount(&self) {
        let rows = self.spans().await;
        let traces = resolved(&rows);
        for row in &rows {
            let counted = &row.span.shown.counted;
            assert_eq!(row.session_id, counted.session_id);
            assert_eq!(row.session_id, traces[&row.trace_id].session_id);
            assert_eq!(row.start_us, row.span.facts().start_us);
        }
        let sessions = self.sessions().await;
        self.recount_sessions(&rows, &sessions);
        self.retell_sessions(&traces, &sessions);
        self.recount_agents(&rows, &sessions).await;
        self.recount_cells(&rows, &sessions).await;
        let chains = self.org.chains().verify_all().await.unwrap();
        assert_eq!(chains.broken, []);
        assert_eq!(self.org.chains().verify_sums(NOW_US).await.unwrap(), [""; 0]);
        assert_eq!(chains.total_events, i64::try_from(self.stored).unwrap());
    }

    fn recount_sessions(&self, rows: &[SpanRow], sessions: &[SessionRow]) {
        let mut sums: BTreeMap<&str, [i64; 7]> = BTreeMap::new();
        let mut add = |session, parts: [i64; 7]| {
            let sum = sums.entry(session).or_default();
            sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        };
        for counted in rows.iter().map(|row| &row.span.shown.counted) {
            let (calls, usage) = ([counted.llm_calls, counted.tool_calls], counted.usage);
            let parts = [counted.events, counted.errors, calls[0], calls[1], usage.input, usage.output];
            add(
                &counted.session_id,
                [parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], counted.cost_nanos],
            );
        }
        for (event, _) in &self.natives {
            add(&event.session_id, [1, i64::from(event.is_error()), 0, 0, 0, 0, 0]);
        }
        let stored = sessions.iter().map(|row| {
            let (calls, tokens) =
                ([row.llm_call_count, row.tool_call_count], [row.input_tokens, row.output_tokens]);
            let sums =
                [row.event_count, row.error_count, calls[0], calls[1], tokens[0], tokens[1], row.cost_nanos];
            (row.session_id.as_str(), sums)
        });
        assert_eq!(stored.collect::<BTreeMap<_, _>>(), sums);
    }

    /// What sessions of spans alone say is what their traces say now, whoever was in them before.
    fn retell_sessions(&self, traces: &BTreeMap<String, TraceShown>, sessions: &[SessionRow]) {
        let natives: BTreeSet<&str> =
            self.natives.iter().map(|(event, _)| event.session_id.as_str()).collect();
        for row in sessions.iter().filter(|row| !natives.contains(row.session_id.as_str())) {
            let told = traces.values().filter(|shown| shown.session_id == row.session_id);
            let earliest = told.clone().map(|shown| shown.start_us).min();
            assert_eq!(Some(row.started_us), earliest, "{}", row.session_id);
            let agrees = |shown: &TraceShown| {
                (Some(shown.start_us), &shown.agent_id, &shown.environment)
                    == (earliest, &row.agent_id, &row.environment)
            };
            assert!(told.clone().any(agrees), "{} is of no trace of {}", row.agent_id, row.session_id);
            let latest = told.filter(|shown| shown.ended_us.is_some()).map(|shown| shown.end_us).max();
            assert_eq!(row.ended_us, latest, "{}", row.session_id);
        }
    }

    async fn recount_agents(&self, rows: &[SpanRow], sessions: &[SessionRow]) {
        let mut sums: BTreeMap<String, [i64; 4]> = BTreeMap::new();
        for counted in rows.iter().map(|row| &row.span.shown.counted) {
            let sum = sums.entry(counted.agent_id.clone()).or_default();
            sum[0] += counted.events;
            sum[1] += counted.errors;
            sum[2] += counted.cost_nanos;
        }
        for (event, _) in &self.natives {
            let sum = sums.entry(event.agent_id.clone()).or_default();
            sum[0] += 1;
            sum[1] += i64::from(event.is_error());
        }
        for session in sessions {
            sums.entry(session.agent_id.clone()).or_default()[3] += 1;
        }
        let agents = self.org.ws("default").agents().list(None, 1000).await.unwrap();
        assert_eq!(
            self.org.ws("default").agents().count().await.unwrap(),
            i64::try_from(agents.len()).unwrap()
        );
        let stored = agents.iter().map(|row| {
            (row.agent_id.clone(), [row.event_count, row.error_count, row.cost_nanos, row.session_count])
        });
        assert_eq!(stored.collect::<BTreeMap<_, _>>(), sums);
    }

    async fn recount_cells(&self, rows: &[SpanRow], sessions: &[SessionRow]) {
        let mut rollup = Rollup::default();
        rows.iter().for_each(|row| rollup.add_span("default", &row.span.shown.counted, Sign::Plus));
        for (event, environment) in &self.natives {
            let counted =
                Counted { workspace_id: "default", environment, cost_nanos: 0, cost_is_unknown: false };
            rollup.add(event, counted);
        }
        for row in sessions {
            rollup.add_beginning(("default", &row.environment, &row.agent_id), row.started_us, Sign::Plus);
        }
        let expected = rollup.into_sorted().into_iter().map(|(key, measures)| (name_of(&key), measures));
        let expected: BTreeMap<_, _> = expected.collect();
        assert_eq!(stored_cells(&self.org).await, expected);
        let stats = self.org.ws("default").analytics().stats().await.unwrap();
        assert_eq!(stats.session_count, i64::try_from(sessions.len()).unwrap());
    }
}

/// What is shown of each trace, after a look at whether each stored span is what its arrivals make it.
fn resolved(rows: &[SpanRow]) -> BTreeMap<String, TraceShown> {
    let mut traces: BTreeMap<&str, Trace> = BTreeMap::new();
    for row in rows {
        let trace = traces.entry(&row.trace_id).or_default();
        trace.trace_id.clone_from(&row.trace_id);
        trace.spans.push(row.span.clone());
    }
    let mut forest = Forest { traces: traces.into_values().collect(), ..Forest::default() };
    resolve(&mut forest, PriceTable::embedded());
    let anew = forest.traces.iter().flat_map(|trace| &trace.spans);
    for (row, anew) in rows.iter().zip(anew) {
        assert_eq!(row.span.shown, anew.shown);
    }
    forest.traces.into_iter().map(|trace| (trace.trace_id, trace.shown)).collect()
}

type CellName = (bool, &'static str, i64, String, String, String, String);

fn name_of(key: &CellKey<'_>) -> CellName {
    let texts = [key.environment, key.agent_id, key.provider, key.name].map(str::to_owned);
    let [environment, agent, provider, name] = texts;
    (key.tier == Tier::Day, key.dimension.as_str(), key.bucket_us, environment, agent, provider, name)
}

async fn stored_cells(org: &Org) -> BTreeMap<CellName, Measures> {
    let mut all = BTreeMap::new();
    for query in cell_queries() {
        for cell in org.ws("default").analytics().cells(&query).await.unwrap() {
            let place = (query.tier == Tier::Day, query.dimension.as_str(), cell.bucket_us);
            let texts = (cell.environment, cell.agent_id, cell.provider, cell.name);
            // A cell that everything left again says nothing.
            if cell.measures != Measures::default() {
                let name = (place.0, place.1, place.2, texts.0, texts.1, texts.2, texts.3);
                all.insert(name, cell.measures);
            }
        }
    }
    all
}

/// Numbers that are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn some<T>(&mut self, one_in: u64, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.roll(one_in) == 0).then(|| value(self))
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            let other = self.roll(u64::try_from(at).unwrap() + 1);
            all.swap(at, usize::try_from(other).unwrap());
        }
    }
}

/// Random spans in up to four traces, some in two parts, some with log records.
fn random_arrivals(dice: &mut Dice, spans: u64) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for number in 0..spans {
        let kinds = [
            SpanKind::Llm,
            SpanKind::Llm,
            SpanKind::Agent,
            SpanKind::Tool,
            SpanKind::Step,
            SpanKind::Embedding,
        ];
        let kind = kinds[usize::try_from(dice.roll(6)).unwrap()];
        let trace = dice.roll(4);
        let mut arrival = call(trace, number);
        arrival.kind = Some(kind);
        arrival.start_us -= i64::try_from(dice.roll(3)).unwrap() * HOUR_US / 2;
        arrival.end_us = arrival.start_us + i64::try_from(dice.roll(60)).unwrap() * 1_000_000;
        arrival.parent_span_id = (dice.roll(5) > 0).then(|| span_id(dice.roll(spans)));
        arrival.response_id = dice.some(3, |dice| format!("r{}", dice.roll(4)));
        arrival.session = dice.some(9, |dice| SessionClaim {
            rank: u8::try_from(dice.roll(3)).unwrap(),
            id: format!("s{}", dice.roll(3)),
        });
        arrival.agent_id = dice.some(6, |dice| format!("a{}", dice.roll(3)));
        arrival.agent_name = arrival.agent_id.as_ref().map(|id| format!("Agent {id}"));
        arrival.user_id = dice.some(5, |dice| format!("u{}", dice.roll(2)));
        arrival.environment = dice.some(8, |_| "staging".to_owned());
        arrival.tool_name = (kind == SpanKind::Tool).then(|| "tool".to_owned());
        arrival.is_error = dice.roll(7) == 0;
        arrival.usage = arrival.usage.filter(|_| dice.roll(4) > 0);
        match dice.roll(4) {
            0 => arrivals.push(Arrival {
                usage: None,
                digest: [9, number as u8, 1, 0, 0, 0, 0, 0],
                end_us: arrival.start_us,
                ..arrival.clone()
            }),
            1 => arrivals.push(Arrival {
                source: ArrivalSource::Log,
                kind: None,
                digest: [9, number as u8, 2, 0, 0, 0, 0, 0],
                start_us: arrival.start_us + HOUR_US,
                end_us: arrival.start_us + HOUR_US,
                ..arrival.clone()
            }),
            _ => {}
        }
        arrivals.push(arrival);
    }
    arrivals
}

async fn every_sum_equals_a_recount_after_every_apply(world: World) {
    for seed in 1..=6_u64 {
        let mut dice = Dice(seed * 7919);
        let arrivals = random_arrivals(&mut dice, 24);
        let mut shown = Vec::new();
        for order in 0..2 {
            let mut sent = Sent::to(&world, &format!("org-{seed}-{order}")).await;
            let mut left = arrivals.clone();
            dice.shuffle(&mut left);
            while !left.is_empty() {
                let groups = (0..=dice.roll(2)).map(|_| {
                    let size = usize::try_from(dice.roll(7)).unwrap().min(left.len());
                    left.split_off(left.len() - size)
                });
                let groups: Vec<_> = groups.collect();
                sent.send(groups).await;
            }
            // Repeats of everything, and events of the published clients in some of the same sessions.
            assert_eq!(sent.send(vec![arrivals.clone()]).await, 0);
            shown.push(sent.spans().await.into_iter().map(|row| row.span.shown).collect::<Vec<_>>());
            let natives = [note("n1", "s0", NOW_US - HOUR_US), note("n2", &trace_id(1), NOW_US)];
            sent.apply(vec![batch("native", &natives)]).await;
            let late =
                below(3, Arrival { digest: [7; 8], end_us: NOW_US + HOUR_US, ..root(1, 5, Some("s9")) });
            sent.send(vec![vec![late]]).await;
        }
        assert_eq!(shown[0], shown[1], "seed {seed}");
    }
}

async fn repeats_add_nothing(world: World) {
    let mut sent = Sent::to(&world, "acme").await;
    let spans = vec![root(1, 1, Some("chat")), below(1, call(1, 2))];
    assert_eq!(sent.send(vec![spans.clone(), spans.clone()]).await, 2);
    let (rows, sessions) = (sent.spans().await, sent.sessions().await);
    let cells = stored_cells(&sent.org).await;
    assert_eq!(sent.send(vec![spans.clone()]).await, 0);
    assert_eq!(sent.send(vec![spans[..1].to_vec(), spans[1..].to_vec()]).await, 0);
    assert_eq!((sent.sessions().await, stored_cells(&sent.org).await), (sessions, cells));
    let shown = |rows: &[SpanRow]| rows.iter().map(|row| row.span.clone()).collect::<Vec<_>>();
    assert_eq!(shown(&sent.spans().await), shown(&rows));
}

async fn a_session_that_is_named_late_takes_its_spans_over(world: World) {
    let mut sent = Sent::to(&world, "acme").await;
    sent.send(vec![vec![below(1, call(1, 2))]]).await;
    assert_eq!(sent.sessions().await[0].session_id, trace_id(1));
    assert_eq!(sent.sessions().await[0].agent_id, "service");
    sent.send(vec![vec![root(1, 1, Some("chat"))]]).await;
    let sessions = sent.sessions().await;
    assert_eq!(sessions.len(), 1);
    let session = &sessions[0];
    assert_eq!((session.session_id.as_str(), session.agent_id.as_str()), ("chat", "agent-1"));
    assert_eq!((session.event_count, session.last_seq, session.input_tokens), (2, 1, 1000));
    assert_eq!((session.agent_name.as_deref(), session.status.as_str()), (Some("Agent 1"), "completed"));
    let left = sent.org.ws("default").sessions().find(&trace_id(1)).await.unwrap().unwrap();
    assert_eq!((left.event_count, left.last_seq, left.moved_to.as_deref()), (0, 1, Some("chat")));
    assert_eq!(sent.org.ws("default").sessions().chains_moved_to("chat").await.unwrap(), [trace_id(1)]);
    let agents = sent.org.ws("default").agents().list(None, 10).await.unwrap();
    assert_eq!(agents.iter().map(|agent| agent.agent_id.as_str()).collect::<Vec<_>>(), ["agent-1"]);
}

async fn a_session_begins_once_whoever_leaves_it(world: World) {
    let mut sent = Sent::to(&world, "acme").await;
    let claim = |trace, rank, session: &str| Arrival {
        session: Some(SessionClaim { rank, id: session.to_owned() }),
        ..root(trace, trace, None)
    };
    sent.send(vec![vec![claim(1, 2, "shared")], vec![claim(2, 2, "shared")]]).await;
    assert_eq!(sent.sessions().await.len(), 1);
    // The trace that began it turns out to belong elsewhere; the session stays, and is counted.
    let better = Arrival { digest: [5; 8], ..below(1, call(1, 9)) };
    sent.send(vec![vec![Arrival {
        session: Some(SessionClaim { rank: 0, id: "own".to_owned() }),
        ..better
    }]])
    .await;
    assert_eq!(sent.sessions().await.len(), 2);
    // And after the other one left too, it begins anew with what comes then.
    let second = Arrival { digest: [6; 8], ..below(2, call(2, 10)) };
    sent.send(vec![vec![Arrival {
        session: Some(SessionClaim { rank: 0, id: "own".to_owned() }),
        ..second
    }]])
    .await;
    assert_eq!(sent.sessions().await.len(), 1);
    sent.send(vec![vec![claim(7, 2, "shared")]]).await;
    let sessions = sent.sessions().await;
    assert_eq!(sessions.len(), 2);
    assert_eq!((sessions[1].agent_id.as_str(), sessions[1].started_us), ("agent-7", NOW_US + 7_000_000));
    sent.apply(vec![batch("native", &[note("n", "shared", NOW_US)])]).await;
    assert_eq!(sent.sessions().await[1].agent_id, "agent-1");
}

async fn a_session_says_what_the_traces_in_it_say(world: World) {
    let mut sent = Sent::to(&world, "acme").await;
    let named = |trace: u64, number: u64, rank| Arrival {
        session: Some(SessionClaim { rank, id: format!("rank-{rank}") }),
        ..root(trace, number, None)
    };
    sent.send(vec![vec![named(1, 1, 2)], vec![named(2, 2, 2)]]).await;
    assert_eq!(sent.sessions().await[0].agent_id, "agent-1");
    // The trace that told it whose it is and when it began leaves, and the other stays.
    let late = Arrival { parent_span_id: Some(span_id(1)), start_us: NOW_US + HOUR_US, ..named(1, 9, 0) };
    sent.send(vec![vec![late]]).await;
    let sessions = sent.sessions().await;
    let stays = sessions.iter().find(|row| row.session_id == "rank-2").unwrap();
    assert_eq!((stays.agent_id.as_str(), stays.started_us), ("agent-2", NOW_US + 2_000_000));
    assert_eq!((stays.agent_name.as_deref(), stays.event_count), (Some("Agent 2"), 1));
    // Each session knows in whose chains its events lie, though one of the two kept a trace.
    assert_eq!(sent.org.ws("default").sessions().chains_moved_to("rank-0").await.unwrap(), ["rank-2"]);
    assert!(sent.org.ws("default").sessions().chains_moved_to("rank-2").await.unwrap().is_empty());
}

async fn a_trace_that_follows_no_longer_has_its_own_session(world: World) {
    let mut sent = Sent::to(&world, "acme").await;
    let answer = |trace, provider: Option<&str>| Arrival {
        response_id: Some("chatcmpl-the-same-one".to_owned()),
        provider: provider.map(str::to_owned),
        ..call(trace, trace)
    };
    let in_chat = Arrival {
        session: Some(SessionClaim { rank: 0, id: "chat".to_owned() }),
        ..answer(1, Some("openai"))
    };
    sent.send(vec![vec![in_chat]]).await;
    sent.send(vec![vec![answer(2, None)]]).await;
    assert_eq!(sent.sessions().await.len(), 1);
    // Of two providers the second may be either's: it repeats neither, and is a call of its own.
    sent.send(vec![vec![answer(3, Some("azure"))]]).await;
    let sessions = sent.sessions().await;
    let counts: Vec<_> =
        sessions.iter().map(|row| (row.session_id.clone(), row.event_count, row.input_tokens)).collect();
    assert_eq!(counts, [(trace_id(2), 1, 1000), (trace_id(3), 1, 1000), ("chat".to_owned(), 1, 1000)]);
    assert_eq!(sent.org.ws("default").sessions().chains_moved_to(&trace_id(2)).await.unwrap(), ["chat"]);
}

async fn an_id_that_many_spans_name_loads_none_of_them(world: World) {
    let mut sent = Sent::to(&world, "acme").await;
    for trace in 1..=20 {
        let constant = Some("chatcmpl-always-this-one".to_owned());
        sent.send(vec![vec![Arrival { response_id: constant, ..call(trace, trace) }]]).await;
        // Up to sixteen are one answer told again; beyond, each is what it says it is.
        let calls: i64 = sent.sessions().await.iter().map(|row| row.llm_call_count).sum();
        assert_eq!(calls, if trace <= 16 { 1 } else { i64::try_from(trace).unwrap() });
    }
}

async fn what_came_first_decides_nothing_about_a_session(world: World) {
    // A child that began after its root had ended, a log record after the end, another environment below the root.
    let late = Arrival { start_us: NOW_US + HOUR_US, end_us: NOW_US + HOUR_US, ..below(1, call(1, 2)) };
    let log = Arrival {
        source: ArrivalSource::Log,
        kind: None,
        digest: [8; 8],
        start_us: NOW_US + 2 * HOUR_US,
        end_us: NOW_US + 2 * HOUR_US,
        ..call(1, 1)
    };
    let other = Arrival { environment: Some("staging".to_owned()), ..below(1, call(1, 3)) };
    let second = root(2, 4, Some("chat"));
    let all = [root(1, 1, Some("chat")), late, log, other, second];
    let mut told = BTreeSet::new();
    for first in 0..all.len() {
        for is_backwards in [false, true] {
            let mut order = all.to_vec();
            order.rotate_left(first);
            if is_backwards {
                order.reverse();
            }
            let mut sent = Sent::to(&world, &format!("org-{first}-{is_backwards}")).await;
            for arrival in order {
                sent.send(vec![vec![arrival]]).await;
            }
            let sessions = sent.sessions().await;
            assert_eq!(sessions.len(), 1);
            let row = &sessions[0];
            let whose = (
                row.session_id.clone(),
                row.environment.clone(),
                row.agent_id.clone(),
                row.agent_name.clone(),
            );
            let when = (row.started_us, row.last_event_us, row.ended_us, row.status_at(NOW_US));
            assert_eq!(when.3, SessionStatus::Completed);
            told.insert(format!("{whose:?} {when:?}"));
        }
    }
    assert_eq!(told.len(), 1, "{told:#?}");
}

async fn a_root_whose_parent_never_came_ends_its_session(world: World) {
    let mut sent = Sent::to(&world, "acme").await;
    let failed = Arrival { is_error: true, ..below(99, root(1, 1, Some("chat"))) };
    sent.send(vec![vec![failed]]).await;
    let status = |rows: &[SessionRow]| (rows.len(), rows[0].status.clone(), rows[0].ended_us.is_some());
    assert_eq!(status(&sent.sessions().await), (1, "error".to_owned(), true));
    // Something begins after it: it was not the end.
    sent.send(vec![vec![below(99, call(1, 60))]]).await;
    assert_eq!(status(&sent.sessions().await), (1, "active".to_owned(), false));
    // Another trace of the session ended before, and that is what is left of it when this one goes on.
    let earlier =
        Arrival { start_us: NOW_US - HOUR_US, end_us: NOW_US - HOUR_US, ..root(2, 2, Some("chat")) };
    sent.send(vec![vec![earlier], vec![below(98, root(3, 90, Some("chat")))]]).await;
    assert_eq!(sent.sessions().await[0].ended_us, Some(NOW_US + 100_000_000));
    sent.send(vec![vec![below(98, call(3, 120))]]).await;
    assert_eq!(sent.sessions().await[0].ended_us, Some(NOW_US - HOUR_US));
    // The parents come after all, and say how it ended.
    let end_us = NOW_US + HOUR_US;
    sent.send(vec![vec![Arrival { end_us, ..root(1, 99, None) }, Arrival { end_us, ..root(3, 98, None) }]])
        .await;
    assert_eq!(status(&sent.sessions().await), (1, "completed".to_owned(), true));
}

async fn every_session_that_a_trace_names_is_found(world: World) {
    let mut sent = Sent::to(&world, "acme").await;
    let named = |number: u64, session: &str| Arrival {
        session: Some(SessionClaim { rank: 0, id: session.to_owned() }),
        ..below(1, call(1, number))
    };
    sent.send(vec![vec![root(1, 1, None), named(2, "first")], vec![named(3, "second")]]).await;
    sent.send(vec![vec![named(4, "third")]]).await;
    let sessions = sent.sessions().await;
    assert_eq!(sessions.iter().map(|row| row.session_id.as_str()).collect::<Vec<_>>(), ["first"]);
    for id in ["second", "third"] {
        let found = sent.org.ws("default").sessions().find(id).await.unwrap().unwrap();
        assert_eq!((found.event_count, found.moved_to.as_deref()), (0, Some("first")));
    }
    // A trace of its own makes it a session like any other.
    sent.send(vec![vec![root(2, 9, Some("second"))]]).await;
    assert_eq!(sent.sessions().await.len(), 2);
    let found = sent.org.ws("default").sessions().find("second").await.unwrap().unwrap();
    assert_eq!((found.event_count, found.agent_id.as_str()), (1, "agent-2"));
}

async fn chains_of_moves_are_followed(world: World) {
    let mut sent = Sent::to(&world, "acme").await;
    let named = |number: u64, rank, session: &str| Arrival {
        session: Some(SessionClaim { rank, id: session.to_owned() }),
        ..below(1, call(1, number))
    };
    sent.send(vec![vec![below(1, call(1, 2))]]).await;
    sent.send(vec![vec![named(3, 2, "run")]]).await;
    sent.send(vec![vec![named(4, 1, "thread")]]).await;
    sent.send(vec![vec![named(5, 0, &trace_id(1))]]).await;
    let sessions = sent.sessions().await;
    assert_eq!((sessions.len(), sessions[0].session_id.as_str()), (1, trace_id(1).as_str()));
    let mut chains = sent.org.ws("default").sessions().chains_moved_to(&trace_id(1)).await.unwrap();
    chains.sort();
    assert_eq!(chains, ["run", "thread"]);
}

async fn spans_of_one_org_are_no_others(world: World) {
    let (mut ours, theirs) = (Sent::to(&world, "ours").await, world.org("theirs").await);
    ours.send(vec![vec![
        root(1, 1, Some("chat")),
        below(1, Arrival { response_id: Some("r".to_owned()), ..call(1, 2) }),
    ]])
    .await;
    let ids: Vec<_> = ours.ids.iter().cloned().collect();
    assert!(theirs.ws("default").spans().find(&ids).await.unwrap().is_empty());
    assert!(theirs.ws("default").spans().roots("chat", None, 10).await.unwrap().is_empty());
    assert!(theirs.ws("default").spans().children(&ids, None, 10).await.unwrap().is_empty());
    assert!(ours.org.ws("project").spans().find(&ids).await.unwrap().is_empty());
    assert_eq!(ours.org.ws("default").spans().roots("chat", None, 10).await.unwrap().len(), 1);
    assert_eq!(ours.org.ws("default").spans().children(&ids, None, 10).await.unwrap().len(), 1);
    // The same spans are new there, and an answer in common joins nothing across orgs or workspaces.
    let again = || vec![Arrival { response_id: Some("r".to_owned()), ..call(9, 9) }];
    apply(&theirs, vec![span_batch("b", "production", again())]).await;
    let mut elsewhere = span_batch("other", "production", again());
    elsewhere.workspace_id = agentlens_domain::ids::WorkspaceId::parse("project").unwrap();
    apply(&ours.org, vec![elsewhere]).await;
    for (org, workspace) in [(&theirs, "default"), (&ours.org, "project")] {
        let rows = org.ws(workspace).spans().find(&[(trace_id(9), span_id(9))]).await.unwrap();
        assert_eq!((rows[0].session_id.clone(), rows[0].span.shown.counted.llm_calls), (trace_id(9), 1));
    }
    theirs.retention().delete_expired(i64::MAX / 2).await.unwrap();
    assert_eq!(ours.org.ws("default").spans().find(&ids).await.unwrap().len(), 2);
}
