//! Triage of customer questions: look up the order, search the help pages, answer, sometimes refund with approval.

use serde_json::json;

use super::super::script::{Script, Tool};
use super::{CLAUDE_HAIKU, CLAUDE_SONNET, GPT_4O_MINI};

const FIND_ORDER: Tool = Tool {
    name: "find_order",
    duration_ms: (35, 240),
    flaky_percent: 3,
    error: "orders service answered 502 Bad Gateway",
};
const SEARCH_HELP: Tool =
    Tool { name: "search_help_center", duration_ms: (60, 420), flaky_percent: 0, error: "" };
const CREATE_REFUND: Tool = Tool {
    name: "create_refund",
    duration_ms: (200, 1400),
    flaky_percent: 5,
    error: "payment provider declined: charge already disputed",
};

const NAMES: [&str; 12] = [
    "Amara", "Björn", "Chloé", "Dmitri", "Elena", "Farid", "Grace", "Hana", "Ivo", "Jamal", "Kirsten", "Luz",
];
const PRODUCTS: [&str; 8] = [
    "walnut standing desk",
    "noise-cancelling headset",
    "espresso grinder",
    "trail running shoes",
    "4K webcam",
    "wool blanket",
    "bike helmet",
    "e-reader",
];
/// (tag, what the customer writes, what is answered)
const CASES: [(&str, &str, &str); 8] = [
    (
        "delivery",
        "Where is my {product}? The tracking page has said \"in transit\" since Tuesday.",
        "I checked order {order}: the parcel with your {product} is held at the regional depot and leaves tonight. It should reach you within two working days; if it does not, reply here and I will send a replacement.",
    ),
    (
        "refund",
        "The {product} arrived with a scratched surface. I would like my money back, please.",
        "I am sorry about the scratch on your {product}. I started a refund for order {order}; depending on your bank you will see it in three to five days. You don't need to send anything back.",
    ),
    (
        "billing",
        "I was charged twice for the {product}, once on the 3rd and again on the 4th. Can you look into it?",
        "One of the two charges for order {order} is only a reservation that was never captured; it disappears by itself within seven days. You paid for the {product} once.",
    ),
    (
        "account",
        "I can't log in any more, the reset mail never arrives. My order of a {product} is in that account.",
        "I sent a new reset link to the address on order {order} and removed a delivery block that our mail provider had set. Please also look into your spam folder.",
    ),
    (
        "warranty",
        "My {product} stopped working after eight months. Is that covered?",
        "Yes: your {product} has a warranty of 24 months, and order {order} is eight months old. I made a repair label for you; repairs take about ten days.",
    ),
    (
        "delivery",
        "Please change the delivery address of my {product}, I moved last week.",
        "The address of order {order} is changed; your {product} had not left the warehouse yet. You will get a new confirmation in a few minutes.",
    ),
    (
        "returns",
        "How do I send back the {product}? There was no label in the box.",
        "You can print a return label for order {order} under Orders > Return. Please hand in the {product} within 30 days at any parcel shop.",
    ),
    (
        "presales",
        "Does the {product} ship to Norway, and who pays the customs fees?",
        "We ship the {product} to Norway; customs and VAT are included at checkout, so nothing is due at the door.",
    ),
];
const FOLLOW_UPS: [(&str, &str); 6] = [
    (
        "Thanks. Could you also send me the invoice as a PDF?",
        "The invoice is on its way to your mail address; you also find it under Orders > Invoices.",
    ),
    (
        "That is not what I asked. Can I talk to a person?",
        "Of course. I passed the conversation to my colleagues with everything you wrote; someone answers within two hours.",
    ),
    (
        "And how long would a replacement take?",
        "A replacement takes three working days from the moment our warehouse confirms the stock, which it just did.",
    ),
    (
        "Is there any compensation for the wait?",
        "I added a voucher of 10 to your account; it is valid for a year and can be combined with other offers.",
    ),
    (
        "My neighbour may have taken it. Can you see who signed?",
        "The carrier notes that nobody signed yet, so the parcel is not with your neighbour.",
    ),
    ("Great, that works for me.", "I am glad. I close the case now; writing to this address opens it again."),
];

pub(super) fn tell(script: &mut Script) -> String {
    let (topic, question, answer) = script.random.pick(&CASES);
    let (name, product) = (script.random.pick(&NAMES), script.random.pick(&PRODUCTS));
    let order = format!("A-{}", script.random.range(104_200, 198_900));
    let fill = |text: &str| text.replace("{product}", product).replace("{order}", &order);
    let customer = script.random.range(1, 60);
    script.user_id = Some(format!("customer-{customer:03}"));
    script.state_costs();
    script.start("Support triage", "3.4.1", &["support", topic]);
    script.instruct("You triage questions of customers of an online shop. Look up facts before you answer, promise nothing that a tool did not confirm, and keep to the policy: refunds above 100 need the approval of a person.");
    script.hear(&format!("{}\n\n{name}", fill(question)));
    let model = if script.random.chance(70) { CLAUDE_HAIKU } else { GPT_4O_MINI };
    let found = script.use_tool(
        model,
        FIND_ORDER,
        &json!({ "customer": customer, "text": product }),
        &json!({ "order": order, "status": "shipped", "item": product, "carrier": "Northwind Parcel", "ageDays": customer * 3 % 40 }),
    );
    if !found {
        return format!("{topic}: the orders service stayed away, handed to a person");
    }
    script.use_tool(model, SEARCH_HELP, &json!({ "query": format!("{topic} policy {product}"), "limit": 3 }), &json!([{ "title": format!("How {topic} works"), "score": 0.83 }, { "title": "Delivery times by country", "score": 0.51 }]));
    if topic == "refund" {
        let amount = script.random.range(28, 340);
        let mut is_allowed = true;
        if amount > 100 {
            let decision = script.random.pick(&["granted", "granted", "granted", "denied", "expired"]);
            script.ask(
                "refund",
                &json!({ "order": order, "amount": amount, "currency": "EUR" }),
                "maria.lopez",
                decision,
            );
            is_allowed = decision == "granted";
        }
        if is_allowed
            && !script.use_tool(
                CLAUDE_SONNET,
                CREATE_REFUND,
                &json!({ "order": order, "amount": amount }),
                &json!({ "refund": format!("re_{amount}{customer}"), "state": "pending" }),
            )
        {
            return format!("refund of {amount} for {order} failed");
        }
    }
    script.answer(CLAUDE_SONNET, &fill(answer));
    let turns = if script.random.chance(4) { 26 } else { script.random.range(0, 4) };
    for _ in 0..turns {
        let (said, replied) = script.random.pick(&FOLLOW_UPS);
        script.wait_ms(15_000, 180_000);
        script.hear(said);
        if script.random.chance(25) {
            script.run_tool(
                FIND_ORDER,
                &json!({ "order": order }),
                &json!({ "order": order, "status": "shipped", "lastScan": "regional depot" }),
            );
        }
        script.answer(CLAUDE_HAIKU, replied);
    }
    format!("{topic}: question of {name} about a {product} answered")
}
