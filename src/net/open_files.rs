//! The process's limit of open files, which bounds its connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A proxied connection holds two: one for each side.
const PER_CONNECTION: u64 = 2;

/// Log, files read again, timers, pipes, name resolution, ACME.
pub const OTHERS: u64 = 512;

/// Raises the soft limit to the hard one, and returns how many connections that allows; `None` is no limit.
pub fn raise() -> Option<u64> {
    raise_files().map(|files| files.saturating_sub(OTHERS) / PER_CONNECTION)
}

/// Raises the soft limit to the hard one, and returns the number of open files; `None` is no limit.
///
/// Where raising is refused the soft limit counts: it is what accept will meet.
pub fn raise_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    if raised { maximum } else { current }
}
