//! Counters of guesses.

use agentlens_domain::people::guessing::{GuessCounter, Guesses, MustWait};

use crate::control::Control;
use crate::error::StoreError;
use crate::{args, row_type};

row_type! {
    struct GuessRow {
        pub guess_count: i64,
        pub last_us: i64,
    }
}

/// Tries to count one guess while others count theirs at the same time.
const MAX_RACES: usize = 5;

impl Control {
    /// Counts a guess before it is looked at; of guesses at the same time each is counted.
    pub async fn count_guess(&self, counter: &GuessCounter) -> Result<Result<(), MustWait>, StoreError> {
        let key = counter.as_bytes();
        for _ in 0..MAX_RACES {
            let now_us = self.clock.now_us();
            let row: Option<GuessRow> =
                self.find("select guess_count, last_us from guesses where counter = $1", args![key]).await?;
            let before = row.as_ref().map_or_else(Guesses::default, |row| Guesses {
                count: u32::try_from(row.guess_count).unwrap_or(u32::MAX),
                last_us: row.last_us,
            });
            let after = match before.begin(now_us) {
                Ok(after) => after,
                Err(wait) => return Ok(Err(wait)),
            };
            let set = "insert into guesses (counter, guess_count, last_us) values ($1, $2, $3)
                 on conflict (counter) do update set guess_count = excluded.guess_count, last_us = excluded.last_us
                 where guesses.guess_count = $4 and guesses.last_us = $5";
            let args =
                args![key, i64::from(after.count), after.last_us, i64::from(before.count), before.last_us];
            if self.execute_all(vec![(set, args)]).await?.iter().sum::<u64>() == 1 {
                return Ok(Ok(()));
            }
        }
        // Somebody guesses faster than can be counted.
        Ok(Err(MustWait { retry_after_us: 1_000_000 }))
    }

    /// Forgets the guesses after a right one.
    pub async fn forget_guesses(&self, counter: &GuessCounter) -> Result<(), StoreError> {
        self.execute_all(vec![("delete from guesses where counter = $1", args![counter.as_bytes()])])
            .await
            .map(|_| ())
    }
}
