//! The program's clock: the system's, or in tests of a debug build one that a file moves.
//!
//! `AGENTLENS_TEST_CLOCK` names a file that holds how many microseconds the clock is ahead of the system's. It is read
//! at every look at the clock, so a test moves the time of a running server by writing the file. A release build
//! refuses to start while the variable is set: with it one could back-date events, or revive keys that have expired.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use agentlens_domain::clock::Clock;

const VARIABLE: &str = "AGENTLENS_TEST_CLOCK";

/// The clock of this process.
pub(crate) fn open() -> Result<Clock, String> {
    let Some(path) = moved_by() else { return Ok(Clock::system()) };
    if !cfg!(debug_assertions) {
        return Err(format!("{VARIABLE} moves the clock in tests and works in debug builds only; unset it"));
    }
    let ahead_us = AtomicI64::new(read(&path).map_err(|error| format!("{VARIABLE}: {error}"))?);
    let system = Clock::system();
    Ok(Clock::custom(move || {
        // While the file is being replaced, the clock stays where it was.
        if let Ok(us) = read(&path) {
            ahead_us.store(us, Ordering::Relaxed);
        }
        system.now_us() + ahead_us.load(Ordering::Relaxed)
    }))
}

/// Says in the log that the time is not the real one.
pub(crate) fn warn_if_moved() {
    if let Some(path) = moved_by() {
        tracing::warn!(file = %path.display(), "the clock is moved for a test");
    }
}

fn moved_by() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn read(path: &Path) -> Result<i64, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.trim().parse().map_err(|_| format!("{} must hold a number of microseconds", path.display()))
}
