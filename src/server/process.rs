//! What the operating system says of this process and of the disk under its data directory.
//!
//! # Caveats
//! - Open files and memory come from `/proc`. Where there is none, their gauges stay at 0.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::metrics;

/// Sets the gauges. Blocks: it lists a directory with an entry for each open file.
pub(super) fn measure(data_dir: &Path) {
    let gauges = metrics::process();
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        gauges.open_files.set(files.count().saturating_sub(1) as f64);
    }
    // No limit is as good as one that is never reached.
    gauges.open_files_max.set(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) as f64);
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
        gauges.memory_bytes.set(bytes as f64);
    }
    if let Ok(disk) = rustix::fs::statvfs(data_dir) {
        gauges.disk_free_bytes.set(disk.f_bavail.saturating_mul(disk.f_frsize) as f64);
        gauges.disk_size_bytes.set(disk.f_blocks.saturating_mul(disk.f_frsize) as f64);
    }
}

/// The resident set, in a line like `VmRSS:   1234 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_counted_in_bytes() {
        assert_eq!(resident_bytes("VmHWM:\t    9000 kB\nVmRSS:\t    1200 kB\n"), Some(1200 * 1024));
        assert_eq!(resident_bytes("VmHWM:\t    9000 kB\n"), None);
        assert_eq!(resident_bytes("VmRSS:\t    1200 MB\n"), None);
    }
}
