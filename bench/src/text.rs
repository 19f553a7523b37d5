//! The words events are made of: a vocabulary whose frequencies fall like those of a language, laid
//! out once in an arena, so that a varied text costs its generator one copy.
//!
//! Four strings have a known frequency, for the search measurements.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// In about a quarter of all events.
pub(crate) const COMMON_WORD: &str = "invoice";
/// In one event of fifty thousand.
pub(crate) const RARE_WORD: &str = "zephyrquill";
/// A piece of a Chinese sentence, in about one event of two hundred.
pub(crate) const CJK_SUBSTRING: &str = "退款申请";
/// In no event.
pub(crate) const ABSENT_WORD: &str = "vexmortigan";

const ARENA_BYTES: usize = 4 << 20;
const VOCABULARY_WORDS: usize = 20_000;
const RARE_ONE_IN: u32 = 50_000;
const CJK_ONE_IN: u32 = 50;

const FREQUENT: [&str; 40] = [
    "the",
    "to",
    "and",
    "of",
    "for",
    "in",
    "order",
    "is",
    "customer",
    "with",
    "that",
    "request",
    "on",
    "from",
    "account",
    "please",
    "this",
    "was",
    "at",
    COMMON_WORD,
    "payment",
    "status",
    "by",
    "not",
    "has",
    "item",
    "result",
    "update",
    "search",
    "before",
    "ticket",
    "delivery",
    "return",
    "address",
    "number",
    "policy",
    "reply",
    "summary",
    "contract",
    "schedule",
];
const SYLLABLES: [&str; 32] = [
    "ba", "cor", "del", "en", "fi", "gra", "hol", "in", "jo", "ka", "lum", "mer", "no", "or", "pan", "qui",
    "ra", "sol", "ter", "u", "ver", "wil", "xi", "yo", "zen", "tra", "pli", "sto", "ment", "tion", "ing",
    "er",
];
const SENTENCES: [&str; 4] = [
    "客户的退款申请已经提交，请在三天内处理。",
    "请求失败：数据库连接超时，正在重试。",
    "会議の議事録を要約して送信しました。",
    "주문 상태를 확인하고 고객에게 알렸습니다.",
];

/// Ready-made text, safe to stand inside a JSON string.
pub(crate) struct Text {
    arena: Vec<u8>,
    word_starts: Vec<u32>,
}

impl Text {
    pub(crate) fn new() -> Self {
        let mut rng = SmallRng::seed_from_u64(0x7e47);
        let vocabulary = vocabulary(&mut rng);
        let mut arena = Vec::with_capacity(ARENA_BYTES + 64);
        let mut word_starts = Vec::new();
        while arena.len() < ARENA_BYTES {
            word_starts.push(u32::try_from(arena.len()).unwrap_or(0));
            push_word(&mut arena, &vocabulary, &mut rng);
        }
        Self { arena, word_starts }
    }

    /// Appends about `bytes` bytes of text, ending between two words.
    pub(crate) fn append(&self, out: &mut Vec<u8>, bytes: usize, rng: &mut SmallRng) {
        if rng.random_ratio(1, CJK_ONE_IN) {
            out.extend_from_slice(SENTENCES[rng.random_range(0..SENTENCES.len())].as_bytes());
        }
        if rng.random_ratio(1, RARE_ONE_IN) {
            out.extend_from_slice(RARE_WORD.as_bytes());
            out.push(b' ');
        }
        let start = self.word_starts[rng.random_range(0..self.word_starts.len())] as usize;
        let start = start.min(self.arena.len().saturating_sub(bytes + 1));
        let start = self.arena[..start].iter().rposition(|&byte| byte == b' ').map_or(0, |at| at + 1);
        let slice = &self.arena[start..start + bytes];
        let end = slice.iter().rposition(|&byte| byte == b' ').unwrap_or(0);
        out.extend_from_slice(&slice[..end]);
    }
}

/// The commonest words are English, the rest is made of syllables.
fn vocabulary(rng: &mut SmallRng) -> Vec<String> {
    let mut words: Vec<String> = FREQUENT.iter().map(|&word| word.to_owned()).collect();
    while words.len() < VOCABULARY_WORDS {
        let syllables = rng.random_range(2..=4);
        words.push((0..syllables).map(|_| SYLLABLES[rng.random_range(0..SYLLABLES.len())]).collect());
    }
    words
}

fn push_word(arena: &mut Vec<u8>, vocabulary: &[String], rng: &mut SmallRng) {
    // Rank r has a share proportional to 1/r.
    let rank = (vocabulary.len() as f64).powf(rng.random::<f64>()) as usize;
    let word = &vocabulary[rank.saturating_sub(1).min(vocabulary.len() - 1)];
    match rng.random_range(0..60) {
        0 => arena.extend_from_slice(format!("\\\"{word}\\\"").as_bytes()),
        1 => arena.extend_from_slice(format!("{word}.\\n").as_bytes()),
        2..=5 => arena.extend_from_slice(format!("{word},").as_bytes()),
        6..=7 => arena.extend_from_slice(rng.random_range(1..100_000).to_string().as_bytes()),
        _ => arena.extend_from_slice(word.as_bytes()),
    }
    arena.push(b' ');
}
