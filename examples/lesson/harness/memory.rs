//! What memory a process holds, and what the kernel holds for everybody's sockets. Linux's
//! `/proc` tells; elsewhere the answer is `None` and the claim is not tested.

use std::fs;

/// Resident memory of a process, in bytes. Added up from its mappings, because `VmRSS` is counted
/// per core and may be off by hundreds of KiB.
pub fn resident(pid: u32) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = maps.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// What the kernel's TCP buffers take at this moment, of all processes in this network, in bytes.
pub fn sockets() -> Option<u64> {
    const PAGE: u64 = 4096;
    let stat = fs::read_to_string("/proc/net/sockstat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "mem")?;
    Some(words.next()?.parse::<u64>().ok()? * PAGE)
}
