//! The nightly pipeline that classifies orders; since yesterday its warehouse has been failing.

use serde_json::json;

use super::super::script::{Script, Tool};
use super::{DEEPSEEK_CHAT, GPT_4O_MINI, MISTRAL_LARGE};

const READ_BATCH: Tool = Tool {
    name: "warehouse_read",
    duration_ms: (400, 6_500),
    flaky_percent: 6,
    error: "permission denied for schema orders_v3: the role orders_reader was dropped",
};
const WRITE_BATCH: Tool = Tool {
    name: "warehouse_write",
    duration_ms: (300, 3_100),
    flaky_percent: 4,
    error: "serialization failure: could not serialize access due to concurrent update",
};

const SHOPS: [&str; 5] = ["berlin", "lyon", "porto", "gdansk", "malmo"];
const CLASSES: [&str; 6] =
    ["gift", "bulk order", "subscription renewal", "likely fraud", "warranty replacement", "press sample"];
const REASONS: [&str; 5] = [
    "the same card in three countries within an hour",
    "twelve pieces of one size",
    "the address is a company's",
    "the basket repeats every four weeks",
    "the message reads like a birthday card",
];

pub(super) fn tell(script: &mut Script) -> String {
    let shop = script.random.pick(&SHOPS);
    let first = script.random.range(400_000, 900_000);
    script.start("Orders pipeline", "2026.11", &["pipeline", "nightly", shop]);
    script.instruct("Classify every order by what it is and say why in one sentence. Answer in JSON.");
    let batches = if script.random.chance(12) { 18 } else { script.random.range(2, 7) };
    for batch in 0..batches {
        let from = first + batch * 50;
        script.hear(&format!("Orders {from} to {} of shop {shop}", from + 49));
        if !script.use_tool(
            MISTRAL_LARGE,
            READ_BATCH,
            &json!({ "table": "orders_v3", "shop": shop, "from": from, "rows": 50 }),
            &json!({ "rows": 50, "first": from }),
        ) {
            return format!("{shop}: stopped at order {from}, the warehouse refuses to be read");
        }
        let (class, reason) = (script.random.pick(&CLASSES), script.random.pick(&REASONS));
        let model = if script.random.chance(65) { DEEPSEEK_CHAT } else { GPT_4O_MINI };
        let odd = from + script.random.range(0, 49);
        script.answer(model, &format!("{{\"from\":{from},\"class\":\"ordinary\",\"count\":49,\"exceptions\":[{{\"order\":{odd},\"class\":\"{class}\",\"why\":\"{reason}\"}}]}}"));
        script.run_tool(
            WRITE_BATCH,
            &json!({ "table": "order_classes", "rows": 50 }),
            &json!({ "written": 50 }),
        );
        script.note(
            "custom",
            json!({ "type": "checkpoint", "data": { "shop": shop, "lastOrder": from + 49 } }),
        );
    }
    format!("{shop}: {} orders classified", batches * 50)
}
