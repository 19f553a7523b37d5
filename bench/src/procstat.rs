//! What processes used, read from `/proc`: processor time with all threads, and memory.
//!
//! A process tree counts its parent, every living descendant, and the descendants already reaped
//! (`cutime` and `cstime` of the parent), so short-lived database backends are not missed.

use std::collections::HashMap;

use clap::Args;

/// Ticks per second of the times in `/proc/PID/stat`; a constant of the Linux interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Which processes to charge.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Watched {
    /// A server process whose CPU time and memory are counted (repeatable).
    #[arg(long = "pid", value_name = "PID")]
    pub(crate) pids: Vec<u32>,
    /// A process counted with all its children, such as the PostgreSQL postmaster (repeatable).
    #[arg(long = "pid-tree", value_name = "PID")]
    pub(crate) trees: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    reaped_ticks: u64,
}

impl Watched {
    pub(crate) fn is_empty(&self) -> bool {
        self.pids.is_empty() && self.trees.is_empty()
    }

    /// Seconds of processor time so far, of each watched process or tree.
    pub(crate) fn cpu_seconds(&self) -> Vec<(String, f64)> {
        let single = self.pids.iter().map(|&pid| {
            let ticks = read_stat(pid).map_or(0, |stat| stat.own_ticks);
            (name_of(pid), seconds(ticks))
        });
        let all = if self.trees.is_empty() { HashMap::new() } else { all_stats() };
        let trees = self.trees.iter().map(|&pid| (name_of(pid), seconds(tree_ticks(pid, &all))));
        single.chain(trees).collect()
    }

    /// Peak resident memory in MiB since start or since `reset_peak`, of each watched process; a
    /// tree's is left out, for shared buffers would be counted once per backend.
    pub(crate) fn peak_rss_mib(&self) -> Vec<(String, f64)> {
        self.pids.iter().map(|&pid| (name_of(pid), status_mib(pid, "VmHWM"))).collect()
    }

    /// Forgets earlier peaks, where the kernel lets us.
    pub(crate) fn reset_peak(&self) {
        for pid in &self.pids {
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }
}

/// Processor seconds of the calling thread, in nanosecond resolution.
pub(crate) fn thread_cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).map_or(0.0, |ns| ns / 1e9)
}

/// A memory figure of `/proc/PID/status` in MiB.
pub(crate) fn status_mib(pid: u32, field: &str) -> f64 {
    field_mib(&format!("/proc/{pid}/status"), field)
}

fn field_mib(path: &str, field: &str) -> f64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0);
    crate::report::round(kib / 1024.0, 1)
}

/// The living children of a process.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    all_stats().into_iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| pid).collect()
}

/// Resident memory of a process and all below it in MiB, shared pages divided among those that share them.
pub(crate) fn tree_memory_mib(root: u32) -> f64 {
    let all = all_stats();
    let mut members = vec![root];
    let mut at = 0;
    while let Some(&parent) = members.get(at) {
        members.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(&pid, _)| pid));
        at += 1;
    }
    members.iter().map(|&pid| field_mib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")).sum()
}

fn seconds(ticks: u64) -> f64 {
    f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / TICKS_PER_SECOND
}

fn tree_ticks(root: u32, all: &HashMap<u32, Stat>) -> u64 {
    let Some(stat) = all.get(&root) else { return 0 };
    let below: u64 =
        all.iter().filter(|(_, child)| child.parent == root).map(|(&pid, _)| tree_ticks(pid, all)).sum();
    stat.own_ticks + stat.reaped_ticks + below
}

fn all_stats() -> HashMap<u32, Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, read_stat(pid)?)))
        .collect()
}

fn read_stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may hold blanks; the fixed fields follow the last one.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        own_ticks: number(11)? + number(12)?,
        reaped_ticks: number(13)? + number(14)?,
    })
}

fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} {pid}", name.trim())
}
