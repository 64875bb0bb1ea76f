//! The process's limit of open files, which bounds its connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A proxied connection holds two: one for each side.
const PER_CONNECTION: u64 = 2;

/// Log, listeners, timers of the runtimes, pipes, and some idle upstream connections.
const OTHERS: u64 = 512;

/// Raises the soft limit to the hard one, and says how many connections that allows; `None` is no limit.
///
/// Where raising is refused the soft limit counts: it is what accept will meet.
pub fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    limit.map(|files| files.saturating_sub(OTHERS) / PER_CONNECTION)
}
