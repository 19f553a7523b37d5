//! Reviews of pull requests: read the diff, run the checks, comment.

use serde_json::json;

use super::super::script::{Script, Tool};
use super::{CLAUDE_OPUS, CLAUDE_SONNET, GPT_5_1};

const GET_DIFF: Tool = Tool {
    name: "get_diff",
    duration_ms: (120, 900),
    flaky_percent: 2,
    error: "API rate limit exceeded for installation",
};
const READ_FILE: Tool = Tool { name: "read_file", duration_ms: (8, 60), flaky_percent: 0, error: "" };
const RUN_TESTS: Tool = Tool {
    name: "run_tests",
    duration_ms: (4_000, 95_000),
    flaky_percent: 12,
    error: "runner lost: the test container was evicted (out of memory)",
};
const COMMENT: Tool = Tool { name: "post_comment", duration_ms: (90, 380), flaky_percent: 0, error: "" };

const REPOSITORIES: [&str; 5] =
    ["checkout-api", "mobile-app", "pricing-engine", "search-gateway", "design-system"];
const AUTHORS: [&str; 6] = ["nadia", "tom", "yusuf", "ingrid", "carlos", "mei"];
/// (title, file, finding)
const CHANGES: [(&str, &str, &str); 8] = [
    (
        "Retry payments on timeouts",
        "src/payments/retry.rs",
        "The retry repeats a charge without an idempotency key. If the first request went through and only its answer was lost, the customer pays twice. Pass the order id as the key.",
    ),
    (
        "Cache exchange rates",
        "src/rates/cache.ts",
        "The cache is never emptied: a rate that was wrong once stays wrong until the next deployment. A lifetime of ten minutes fits how often the source changes.",
    ),
    (
        "Add pagination to /orders",
        "src/orders/list.go",
        "Offset pages skip rows when orders arrive between two requests. Use the last id as a cursor instead.",
    ),
    (
        "Move secrets to the vault",
        "deploy/values.yaml",
        "The old value is still in the file's history and should be rotated. Otherwise this looks right.",
    ),
    (
        "Speed up the product search",
        "src/search/query.py",
        "The query is built by joining strings, so a quote in the search text changes it. Use bound parameters.",
    ),
    (
        "Dark mode for settings",
        "src/theme/settings.tsx",
        "Contrast of the disabled labels is 2.9 to 1, the guideline asks for 4.5. Otherwise well made.",
    ),
    (
        "Drop the legacy tax table",
        "migrations/0142_drop_tax.sql",
        "The version that runs in production still reads this table. Drop it one release later.",
    ),
    (
        "Log request bodies on errors",
        "src/http/middleware.rs",
        "Bodies hold card numbers and mail addresses. Log the size and the content type instead.",
    ),
];
const NITS: [&str; 4] = [
    "`unwrap` here ends the whole process; return the error.",
    "The name says what, a comment should say why.",
    "This branch has no test; one for the empty list would do.",
    "The loop asks the database once per row; one statement can do it.",
];

pub(super) fn tell(script: &mut Script) -> String {
    let (title, file, finding) = script.random.pick(&CHANGES);
    let (repository, author) = (script.random.pick(&REPOSITORIES), script.random.pick(&AUTHORS));
    let number = script.random.range(212, 4_890);
    script.user_id = Some(author.to_owned());
    script.start("Code reviewer", "1.9.0", &["review", repository]);
    script.instruct("You review pull requests. Find what breaks, what leaks and what is slow; say how you would change it. Praise briefly, never guess.");
    script.hear(&format!("Please review {repository}#{number} by {author}: {title}"));
    let model = if script.random.chance(25) { CLAUDE_OPUS } else { GPT_5_1 };
    let lines = script.random.range(12, 640);
    let diff = format!("--- a/{file}\n+++ b/{file}\n@@ -1,{lines} +1,{} @@\n+// {title}\n", lines + 9);
    if !script.use_tool(
        model,
        GET_DIFF,
        &json!({ "repository": repository, "number": number }),
        &json!({ "files": [file], "lines": lines, "diff": diff }),
    ) {
        return format!("{repository}#{number}: the diff could not be read");
    }
    let files = if script.random.chance(6) { 24 } else { script.random.range(1, 6) };
    for index in 0..files {
        let path = format!("{}/part_{index}.rs", file.rsplit_once('/').map_or(file, |(folder, _)| folder));
        script.use_tool(CLAUDE_SONNET, READ_FILE, &json!({ "path": path, "from": index * 40 + 1, "to": index * 40 + 80 }), &json!({ "path": path, "text": format!("// {repository}: context of {title}, lines {} to {}", index * 40 + 1, index * 40 + 80) }));
    }
    let passed = script.random.range(180, 2_300);
    if !script.use_tool(
        model,
        RUN_TESTS,
        &json!({ "repository": repository, "ref": format!("refs/pull/{number}/head") }),
        &json!({ "passed": passed, "failed": 0, "coverage": 0.84 }),
    ) {
        return format!("{repository}#{number}: the tests could not be run");
    }
    let nit = script.random.pick(&NITS);
    let review =
        format!("**{title}**\n\n`{file}`: {finding}\n\nSmaller things:\n- {nit}\n\n{passed} tests pass.");
    script.answer(model, &review);
    script.run_tool(
        COMMENT,
        &json!({ "repository": repository, "number": number, "body": review }),
        &json!({ "id": number * 7, "state": "COMMENTED" }),
    );
    format!("{repository}#{number} reviewed: {title}")
}
