//! How many files and connections the system lets this process keep open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections that are kept open however few files the process may open.
const MIN_CONNECTIONS: u64 = 16;

/// Connections that a server keeps open: at most as many as configured, and half of what the process may open is left to
/// the store.
pub(crate) fn max_connections(configured: u64) -> u64 {
    let open_files = raise_limit();
    let most = configured.min(open_files / 2).max(MIN_CONNECTIONS);
    if most < configured {
        tracing::warn!(
            open_files,
            connections = most,
            "the limit of open files allows fewer connections than configured"
        );
    }
    most
}

/// Raises the soft limit of open files to the hard one, and returns what is in force. Shells and service managers set a soft
/// limit of 1,024 for programs that can't handle more; the files of 128 orgs alone take that many.
fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current == limit.maximum {
        return soft;
    }
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(error = %error, limit = soft, "the limit of open files can't be raised");
            soft
        }
    }
}
