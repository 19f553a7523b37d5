//! Longer research with retrieval: several searches, reading, a written answer.

use serde_json::json;

use super::super::script::{Script, Tool};
use super::{CLAUDE_OPUS, GEMINI_PRO, GPT_5_MINI, HOUSE_MODEL};

const SEARCH_WEB: Tool = Tool {
    name: "search_web",
    duration_ms: (300, 2_600),
    flaky_percent: 7,
    error: "search quota of the day is used up",
};
const FETCH_PAGE: Tool = Tool {
    name: "fetch_page",
    duration_ms: (180, 5_200),
    flaky_percent: 14,
    error: "the site answered 403 Forbidden",
};

/// (topic, question, answer)
const QUESTIONS: [(&str, &str, &str); 7] = [
    (
        "batteries",
        "How do sodium-ion batteries compare with lithium iron phosphate for home storage?",
        "For home storage the two are close. Sodium-ion cells hold about 140 Wh/kg against 170, keep more of their capacity in the cold and need no lithium; lithium iron phosphate lasts for more cycles today and is cheaper while its prices are low.",
    ),
    (
        "regulation",
        "Which duties does the EU AI Act put on a company that only fine-tunes an open model?",
        "Whoever fine-tunes takes over duties for the change they make: documentation of the training data that was added, a summary for the public, and, for high-risk uses, the whole conformity assessment. The size of the change decides how much of it applies.",
    ),
    (
        "postgres",
        "When does a BRIN index beat a B-tree on a table that is only appended to?",
        "When the column follows the physical order of the rows, as a timestamp of an append-only table does, and queries read ranges. The index is then a thousand times smaller; single rows are found faster by a B-tree.",
    ),
    (
        "shipping",
        "What happened to container rates between Shanghai and Rotterdam this quarter?",
        "Rates rose by about a third after ships were diverted around the Cape, and fell again when capacity that had been ordered years ago arrived. Contracts follow spot prices with a delay of two months.",
    ),
    (
        "health",
        "Is there evidence that four-day weeks reduce sick leave?",
        "The trials that exist point that way: sick days fell by between a tenth and two thirds. Most of them had volunteers and no control group, so the size of the effect is not certain.",
    ),
    (
        "seo",
        "Summarise what is known about how answer engines choose the pages they cite.",
        "Cited pages are usually among the first twenty of an ordinary search, answer the question in their first paragraph, and carry figures with a source. Markup seems to matter less than being fetched without scripts.",
    ),
    (
        "competitors",
        "Who else offers observability for agents, and what do they charge?",
        "The offers fall into three groups: tracing products that grew from monitoring, evaluation products that grew from notebooks, and gateways that see traffic anyway. Prices are per span, per seat, or a share of the model bill.",
    ),
];
const SOURCES: [&str; 6] = [
    "journal.example.org/2026/0412",
    "agency.example.eu/report-17",
    "blog.example.com/field-notes",
    "stats.example.net/series/88",
    "conference.example.org/paper-231",
    "handbook.example.io/chapter-9",
];

pub(super) fn tell(script: &mut Script) -> String {
    let (topic, question, answer) = script.random.pick(&QUESTIONS);
    script.user_id = Some(format!("analyst-{}", script.random.range(1, 9)));
    script.start("Research assistant", "0.12.3", &["research", topic]);
    script.instruct("You answer questions with sources. Search widely, read what you cite, say how sure you are and what would change your mind.");
    script.hear(question);
    let planner = if script.random.chance(40) { GEMINI_PRO } else { GPT_5_MINI };
    script.note("chain_step", json!({ "name": "plan", "stepType": "planning", "durationMs": 3 }));
    script.note(
        "embedding",
        json!({ "model": "text-embedding-3-small", "inputCount": 1, "dimensions": 1536, "durationMs": 84 }),
    );
    script.note("retrieval", json!({ "query": question, "retrieverName": "team-notes", "topK": 8, "resultCount": 8, "durationMs": 37 }));
    let rounds = if script.random.chance(10) { 14 } else { script.random.range(2, 5) };
    for round in 1..=rounds {
        let source = script.random.pick(&SOURCES);
        if !script.use_tool(
            planner,
            SEARCH_WEB,
            &json!({ "query": format!("{topic} {question}"), "page": round }),
            &json!([{ "url": source, "title": format!("On {topic}, part {round}") }]),
        ) {
            return format!("{topic}: the search stayed away");
        }
        script.use_tool(planner, FETCH_PAGE, &json!({ "url": source }), &json!({ "url": source, "words": 900 + round * 137, "text": format!("Section {round} of a page on {topic}. {answer}") }));
        script.answer(
            HOUSE_MODEL,
            &format!("{source}: supports the answer in part {round}; figures are from last year."),
        );
    }
    script.note("chain_step", json!({ "name": "write", "stepType": "synthesis", "durationMs": 5 }));
    let writer = if script.random.chance(30) { CLAUDE_OPUS } else { planner };
    script.answer(
        writer,
        &format!("{answer}\n\nI read {rounds} sources; the weakest point is how old the figures are."),
    );
    format!("{topic}: answered from {rounds} sources")
}
