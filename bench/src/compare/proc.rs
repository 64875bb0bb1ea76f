//! What /proc says of a proxy: its whole process tree, the CPU time it took, the memory it holds.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path};

use crate::Result;

/// CPU time of every thread of a process tree, by thread id, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTimes(BTreeMap<u32, u64>);

impl CpuTimes {
    /// Reads /proc/PID/task/TID/schedstat: exact to the nanosecond, where utime and stime count ticks of ten
    /// milliseconds.
    pub(crate) fn read(root: u32) -> Result<Self> {
        let mut times = BTreeMap::new();
        for process in tree(root)? {
            for task in names(&format!("/proc/{process}/task"))? {
                let path = format!("/proc/{process}/task/{task}/schedstat");
                if let Some(text) = read_if_there(Path::new(&path))? {
                    let time = parse_schedstat(&text).ok_or_else(|| format!("cannot understand {path}"))?;
                    times.insert(task, time);
                }
            }
        }
        if times.is_empty() {
            Err(format!("process {root} is gone, or this kernel keeps no schedstat").into())
        } else {
            Ok(Self(times))
        }
    }

    #[cfg(test)]
    pub(super) fn of(task: u32, time: u64) -> Self {
        Self(BTreeMap::from([(task, time)]))
    }

    /// What was spent since `earlier`. A thread that ended meanwhile is not counted: it is not there to ask.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let Self(times) = self;
        let spent = |(task, time): (&u32, &u64)| time.saturating_sub(earlier.0.get(task).copied().unwrap_or_default());
        times.iter().map(spent).sum()
    }
}

/// Private memory (Private_Clean + Private_Dirty of smaps_rollup) of a process tree, in KiB.
pub(super) fn memory(root: u32) -> Result<u64> {
    let mut sum = 0;
    for process in tree(root)? {
        let path = format!("/proc/{process}/smaps_rollup");
        if let Some(text) = read_if_there(Path::new(&path))? {
            sum += parse_private(&text).ok_or_else(|| format!("cannot understand {path}"))?;
        }
    }
    Ok(sum)
}

/// `root` and everything that descends from it.
fn tree(root: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for process in names("/proc")? {
        if let Some(text) = read_if_there(Path::new(&format!("/proc/{process}/stat")))?
            && let Some(parent) = parse_parent(&text)
        {
            parents.push((process, parent));
        }
    }
    Ok(descendants(root, &parents))
}

fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| process));
        at += 1;
    }
    found
}

/// Entries that are numbers.
fn names(folder: &str) -> Result<Vec<u32>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read {folder}: {error}").into()),
    }
}

/// `None` where the process or thread ended meanwhile.
fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        // ESRCH, which has no kind of its own, for a file that was open when its process ended.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(3) => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display()).into()),
    }
}

/// The first number: time on a CPU.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The parent in /proc/PID/stat. The name before it may hold anything, parentheses and spaces included.
fn parse_parent(text: &str) -> Option<u32> {
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn parse_private(text: &str) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_end_matches("kB").trim().parse().ok()
    };
    Some(field("Private_Clean:")? + field("Private_Dirty:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_understood() {
        assert_eq!(parse_schedstat("525627 2122159 3\n"), Some(525_627));
        assert_eq!(parse_schedstat(""), None);
        assert_eq!(parse_parent("12 (a) b (c)) S 7 12 12 0"), Some(7));
        let text = "00-7f ---p 00 00:00 0 [rollup]\nRss:  1776 kB\nPrivate_Clean:   40 kB\nPrivate_Dirty:  112 kB\n";
        assert_eq!(parse_private(text), Some(152));
        assert_eq!(parse_private("Rss: 1 kB\n"), None);
    }

    #[test]
    fn a_tree_holds_grandchildren_and_no_strangers() {
        let mut found = descendants(5, &[(6, 5), (7, 6), (8, 1), (9, 5)]);
        found.sort_unstable();
        assert_eq!(found, [5, 6, 7, 9]);
    }

    #[test]
    fn time_of_a_new_thread_counts_and_of_an_ended_one_does_not() {
        let before = CpuTimes(BTreeMap::from([(1, 100), (2, 50)]));
        let after = CpuTimes(BTreeMap::from([(1, 130), (3, 7)]));
        assert_eq!(after.since(&before), 37);
    }

    #[test]
    fn this_process_can_be_read() {
        let me = std::process::id();
        assert!(memory(me).unwrap() > 0);
        assert!(CpuTimes::read(me).unwrap().since(&CpuTimes::default()) > 0);
    }
}
