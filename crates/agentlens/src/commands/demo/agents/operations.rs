//! An on-call bot: reads metrics and logs of an alert, tries a runbook, asks before it touches production.

use serde_json::json;

use super::super::script::{Script, Tool};
use super::{CLAUDE_HAIKU, GPT_5_MINI};

const QUERY_METRICS: Tool = Tool {
    name: "query_metrics",
    duration_ms: (80, 1_500),
    flaky_percent: 4,
    error: "query exceeded 50000000 samples",
};
const READ_LOGS: Tool = Tool {
    name: "read_logs",
    duration_ms: (150, 4_200),
    flaky_percent: 9,
    error: "log store answered 504 Gateway Timeout",
};
const RESTART: Tool = Tool {
    name: "restart_service",
    duration_ms: (2_000, 21_000),
    flaky_percent: 3,
    error: "rollout stuck: 1 of 4 replicas unavailable",
};

const SERVICES: [&str; 6] =
    ["payments", "search-gateway", "image-resizer", "session-store", "mail-relay", "checkout-api"];
/// (alert, what is found, what is done)
const INCIDENTS: [(&str, &str, &str); 6] = [
    (
        "latency above 2 s",
        "p99 rose when the connection pool ran full after the 14:00 deployment",
        "roll back to the version before",
    ),
    (
        "error rate above 5 %",
        "one replica answers 500 for every request that needs the rates file, which is empty there",
        "restart the replica",
    ),
    ("disk above 90 %", "debug logs have been on since Monday", "turn debug logs off and rotate"),
    (
        "queue depth above 10000",
        "consumers wait for a lock that a stopped migration holds",
        "end the idle transaction",
    ),
    (
        "certificate expires in 3 days",
        "renewal fails because the DNS record was moved",
        "renew with the new record",
    ),
    (
        "memory above 85 %",
        "the cache has no upper limit since the last release",
        "restart with a cache of 512 MB",
    ),
];

pub(super) fn tell(script: &mut Script) -> String {
    let service = script.random.pick(&SERVICES);
    let (alert, found, action) = script.random.pick(&INCIDENTS);
    script.start("Ops bot", "5.1.0", &["operations", service]);
    script.instruct("You are on call. Find the cause from metrics and logs, propose the smallest action that helps, and ask before you change production.");
    script.hear(&format!("ALERT {service}: {alert}"));
    let threshold = script.random.range(5, 90);
    script.note("alert_triggered", json!({ "alertRuleId": format!("rule-{service}"), "alertName": format!("{service}: {alert}"), "condition": "above", "currentValue": threshold + 7, "threshold": threshold, "message": format!("{service} has {alert}") }));
    for minutes in [15, 60] {
        if !script.use_tool(
            GPT_5_MINI,
            QUERY_METRICS,
            &json!({ "service": service, "minutes": minutes }),
            &json!({ "p50": 0.08, "p99": 2.4, "errorRate": 0.061, "replicas": 4 }),
        ) {
            return format!("{service}: metrics can't be read, escalated to a person");
        }
    }
    script.use_tool(
        CLAUDE_HAIKU,
        READ_LOGS,
        &json!({ "service": service, "level": "error", "limit": 200 }),
        &json!({ "lines": 200, "sample": format!("{service} ERROR request failed: {found}") }),
    );
    script.answer(GPT_5_MINI, &format!("Cause: {found}. Proposed action: {action}."));
    let decision = script.random.pick(&["granted", "granted", "granted", "granted", "denied", "expired"]);
    script.ask(
        action,
        &json!({ "service": service, "environment": "production" }),
        "oncall@example.com",
        decision,
    );
    if decision != "granted" {
        return format!("{service}: {action} was {decision}");
    }
    if !script.use_tool(
        CLAUDE_HAIKU,
        RESTART,
        &json!({ "service": service, "action": action }),
        &json!({ "state": "healthy", "replicas": 4 }),
    ) {
        return format!("{service}: {action} failed");
    }
    script.note("alert_resolved", json!({ "alertRuleId": format!("rule-{service}"), "alertName": format!("{service}: {alert}"), "resolvedBy": "ops-bot" }));
    script.answer(
        CLAUDE_HAIKU,
        &format!("{service} is healthy again after: {action}. I opened a ticket for the lasting fix."),
    );
    format!("{service}: {alert} resolved")
}
