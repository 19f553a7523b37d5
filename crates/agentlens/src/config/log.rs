//! How the server logs.

use clap::{Args, ValueEnum};

/// Names of levels, the quietest first.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How the server logs.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogOptions {
    /// How logs are written.
    #[arg(long, env = "AGENTLENS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// What is logged: `off`, `error`, `warn`, `info`, `debug`, `trace`, or filters by module such as
    /// `info,agentlens_store=debug`.
    #[arg(long, env = "AGENTLENS_LOG", default_value = "info", value_parser = read_filter)]
    pub(crate) log: String,
}

/// Accepts levels and `module=level`. The filter's own parser takes any other word for a module, and then logs nothing.
fn read_filter(text: &str) -> Result<String, String> {
    let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    for directive in text.split(',') {
        let is_good = match directive.rsplit_once('=') {
            None => is_level(directive),
            Some((module, level)) => !module.is_empty() && is_level(level),
        };
        if !is_good {
            return Err(format!(
                "`{directive}` is neither a level ({}) nor a filter such as agentlens_store=debug",
                LEVELS.join(", ")
            ));
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_and_filters_are_taken() {
        for good in ["info", "WARN", "off", "info,agentlens_store=debug", "agentlens_server[request]=trace"] {
            assert_eq!(read_filter(good).as_deref(), Ok(good));
        }
        for bad in ["verbose", "bogus=,,", "", "info,", "=debug", "agentlens_store=loud", "agentlens_store"] {
            let error = read_filter(bad).unwrap_err();
            assert!(error.contains("error, warn, info"), "{bad}: {error}");
        }
    }
}
