//! A concierge for travellers who write Japanese or Chinese; its texts are there to be searched.

use serde_json::json;

use super::super::script::{Script, Tool};
use super::{CLAUDE_SONNET, GEMINI_FLASH};

const FIND_HOTEL: Tool = Tool {
    name: "find_hotel",
    duration_ms: (250, 1_900),
    flaky_percent: 5,
    error: "予約サービスが一時的に利用できません (503)",
};
const FIND_TRAIN: Tool = Tool { name: "find_train", duration_ms: (150, 900), flaky_percent: 0, error: "" };
const BOOK: Tool =
    Tool {
        name: "book", duration_ms: (600, 3_800), flaky_percent: 6, error: "支付失败：银行卡被拒绝"
    };

struct Trip {
    tag: &'static str,
    city: &'static str,
    ask: &'static str,
    answer: &'static str,
    follow_ups: [(&'static str, &'static str); 3],
}

const TRIPS: [Trip; 6] = [
    Trip {
        tag: "ja",
        city: "京都",
        ask: "来月の連休に京都で二泊したいです。駅から近くて、朝食付きの静かな宿はありますか。",
        answer: "京都駅から徒歩六分の町家旅館が空いています。一泊二名様で朝食付き三万二千円、庭に面した静かな部屋です。仮予約をお取りしましょうか。",
        follow_ups: [
            ("禁煙の部屋でお願いします。", "かしこまりました。禁煙室に変更しました。"),
            (
                "近くにおすすめの豆腐料理はありますか。",
                "南禅寺の門前に湯豆腐の老舗がございます。昼は予約なしで入れます。",
            ),
            ("雨の日の過ごし方も教えてください。", "京都国立博物館と錦市場なら、雨でもゆっくり楽しめます。"),
        ],
    },
    Trip {
        tag: "ja",
        city: "札幌",
        ask: "札幌の雪まつりに家族四人で行きます。子どもが小さいので、乗り換えの少ない行き方を知りたいです。",
        answer: "新千歳空港から札幌駅まで快速で三十七分、乗り換えはありません。会場までは地下街を歩けるので、雪の日でも安心です。",
        follow_ups: [
            ("ベビーカーは借りられますか。", "会場の案内所で無料で借りられます。台数に限りがございます。"),
            ("夜のライトアップは何時までですか。", "ライトアップは二十二時までです。"),
            ("ホテルから会場は遠いですか。", "地下道を通って徒歩八分です。"),
        ],
    },
    Trip {
        tag: "ja",
        city: "福岡",
        ask: "出張で福岡に行きます。空港から会議場までと、夜に一人で入りやすい屋台を教えてください。",
        answer: "福岡空港から会議場までは地下鉄とバスで約二十五分です。夜は中洲の川沿いに、一人のお客様が多い屋台が三軒あります。",
        follow_ups: [
            ("領収書は出ますか。", "三軒のうち二軒で領収書を出してもらえます。"),
            ("朝ごはんが早い宿に変えたいです。", "朝六時から朝食のある宿に変更できます。差額はありません。"),
            ("帰りの便を一本遅らせたい。", "十九時四十分の便に空席があります。変更いたしますか。"),
        ],
    },
    Trip {
        tag: "zh",
        city: "成都",
        ask: "下周末想去成都玩三天，主要想看大熊猫和吃火锅，帮我安排一下行程。",
        answer: "第一天下午到，住在春熙路附近，晚上去吃老火锅；第二天早上七点半到大熊猫基地，那时熊猫最活跃；第三天逛宽窄巷子，下午返程。",
        follow_ups: [
            ("有没有不太辣的火锅？", "可以点鸳鸯锅，白汤用菌菇熬制，老人和孩子都能吃。"),
            ("大熊猫基地的门票要提前买吗？", "需要提前一天实名预约，我可以代您办理。"),
            ("酒店可以延迟退房吗？", "可以延迟到下午两点，不另收费。"),
        ],
    },
    Trip {
        tag: "zh",
        city: "台北",
        ask: "我們一家五口想去台北，有長輩同行，請推薦交通方便、有電梯的飯店。",
        answer: "推薦台北車站旁的家庭飯店，電梯直達大廳，捷運兩條線都在三分鐘內。五人可訂連通房，含早餐。",
        follow_ups: [
            ("附近有適合長輩的餐廳嗎？", "步行五分鐘有一家清淡的台菜餐廳，可以訂包廂。"),
            ("去故宮怎麼走最省力？", "建議搭計程車，約二十分鐘，車資三百元左右。"),
            ("可以加一張嬰兒床嗎？", "可以，飯店免費提供，我已備註。"),
        ],
    },
    Trip {
        tag: "zh",
        city: "杭州",
        ask: "公司团建三十人去杭州，预算每人八百元，两天一夜，请给出方案。",
        answer: "第一天上午骑行西湖，下午龙井村采茶，晚上湖边团餐；第二天徒步九溪，中午返程。住宿和三餐合计每人七百六十元。",
        follow_ups: [
            ("下雨怎么办？", "下雨时改去丝绸博物馆和室内茶艺课，费用不变。"),
            ("能开发票吗？", "可以开增值税专用发票，请提供抬头和税号。"),
            ("素食的同事有八位。", "已经通知餐厅准备八份素食。"),
        ],
    },
];

pub(super) fn tell(script: &mut Script) -> String {
    let choice = usize::try_from(script.random.range(0, TRIPS.len() as i64 - 1)).unwrap_or(0);
    let Trip { tag, city, ask, answer, follow_ups } = &TRIPS[choice];
    let traveller = script.random.range(1, 45);
    script.user_id = Some(format!("traveller-{traveller:03}"));
    script.state_costs();
    script.start("旅のコンシェルジュ", "2.0.5", &["travel", tag]);
    script.instruct("You are a travel concierge. Answer in the language of the guest, politely and briefly. Book nothing without the guest's word.");
    script.hear(ask);
    let nights = script.random.range(1, 3);
    let found = script.use_tool(GEMINI_FLASH, FIND_HOTEL, &json!({ "city": city, "nights": nights, "guests": traveller % 4 + 1 }), &json!([{ "name": format!("{city}グランドホテル"), "price": 12_000 + traveller * 310, "rooms": 3 }, { "name": format!("{city}民宿 花見"), "price": 9_800, "rooms": 1 }]));
    if !found {
        return format!("{city}: 予約サービスに接続できず終了");
    }
    script.run_tool(
        FIND_TRAIN,
        &json!({ "to": city }),
        &json!({ "departure": "09:03", "arrival": "11:18", "changes": 0 }),
    );
    script.answer(CLAUDE_SONNET, answer);
    let turns = if script.random.chance(8) { 30 } else { script.random.range(1, 4) };
    for _ in 0..turns {
        let (said, replied) = script.random.pick(follow_ups);
        script.wait_ms(12_000, 90_000);
        script.hear(said);
        script.answer(GEMINI_FLASH, replied);
    }
    if script.random.chance(55) {
        script.ask(
            "book",
            &json!({ "city": city, "nights": nights }),
            &format!("traveller-{traveller:03}"),
            if traveller % 7 == 0 { "expired" } else { "granted" },
        );
        script.use_tool(
            CLAUDE_SONNET,
            BOOK,
            &json!({ "city": city, "nights": nights }),
            &json!({ "confirmation": format!("TK{}", traveller * 7919), "state": "confirmed" }),
        );
    }
    format!("{city}: {turns} 回のやり取りで案内完了")
}
