//! How many files this process may open: thousands of connections need thousands of them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Result;

/// Raises the soft limit of open files to the hard one, for this process and its children. Returns it.
pub(crate) fn raise_open_files() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|error| format!("cannot raise the limit of open files: {error}"))?;
    // No limit at all is more than anything here asks for.
    Ok(limit.maximum.unwrap_or(1 << 20))
}
