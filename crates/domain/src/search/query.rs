//! Asking a segment: which shards to fetch, which blocks may match, and which texts do.

use std::ops::RangeInclusive;

use memchr::memmem::Finder;

use super::fold::fold_text;
use super::gram::{facet_gram, gram, shard_of};
use super::shard::blocks_of;

/// More grams than this hardly narrow the candidates further, but each costs a shard to fetch.
const MAX_GRAMS: usize = 6;

/// What is looked for: a text, in any case and Unicode form, and facets that the event must have.
pub struct Query {
    finder: Finder<'static>,
    /// Ranges of grams of which every matching block has at least one each.
    grams: Vec<RangeInclusive<u32>>,
}

impl Query {
    /// Looks for `needle` in events that have all of `facets`. The facets only narrow the
    /// candidates: whether an event has them must be checked by its columns.
    pub fn new(needle: &str, facets: &[(&str, &str)]) -> Self {
        let mut folded = String::with_capacity(needle.len());
        fold_text(needle, &mut folded);
        let mut grams = needle_grams(folded.as_bytes());
        grams.extend(facets.iter().map(|(name, value)| {
            let gram = facet_gram(name, value);
            gram..=gram
        }));
        Self { finder: Finder::new(folded.as_bytes()).into_owned(), grams }
    }

    /// Whether the index cannot narrow this down: without facets, a needle takes three bytes.
    pub fn needs_scan(&self) -> bool {
        self.grams.is_empty()
    }

    /// The numbers of the shards that [`Self::candidates`] asks for, ascending.
    pub fn shards(&self) -> Vec<u16> {
        let mut shards: Vec<u16> = self.grams.iter().map(|grams| shard_of(*grams.start())).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// The blocks of a segment that may match, given its shards by number. A shard that is not
    /// stored has no grams; one that is corrupt excludes nothing.
    pub fn candidates<'bytes>(&self, shard: impl Fn(u16) -> Option<&'bytes [u8]>) -> u64 {
        self.candidates_by(|_| true, shard)
    }

    /// The same as far as some of the shards tell; the others may exclude more.
    pub fn candidates_by<'bytes>(
        &self,
        is_known: impl Fn(u16) -> bool,
        shard: impl Fn(u16) -> Option<&'bytes [u8]>,
    ) -> u64 {
        let mut candidates = u64::MAX;
        for grams in self.grams.iter().filter(|grams| is_known(shard_of(*grams.start()))) {
            let Some(bytes) = shard(shard_of(*grams.start())) else { return 0 };
            candidates &= blocks_of(bytes, grams.clone()).unwrap_or(u64::MAX);
            if candidates == 0 {
                break;
            }
        }
        candidates
    }

    /// Whether a text that [`super::fold`] made contains the needle.
    pub fn matches(&self, folded_text: &str) -> bool {
        self.finder.find(folded_text.as_bytes()).is_some()
    }
}

/// A few grams of the needle, spread evenly over it so that they tell as much as possible.
fn needle_grams(needle: &[u8]) -> Vec<RangeInclusive<u32>> {
    if let [first, second, third] = *needle {
        return vec![gram([first, second, third, 0])..=gram([first, second, third, u8::MAX])];
    }
    let Some(last) = needle.len().checked_sub(4) else { return Vec::new() };
    let count = MAX_GRAMS.min(last + 1);
    let starts = (0..count).map(|number| if count == 1 { 0 } else { last * number / (count - 1) });
    let mut grams: Vec<u32> =
        starts.filter_map(|start| needle[start..].first_chunk()).map(|bytes| gram(*bytes)).collect();
    grams.sort_unstable();
    grams.dedup();
    grams.into_iter().map(|gram| gram..=gram).collect()
}
