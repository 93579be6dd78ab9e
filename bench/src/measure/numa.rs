//! Which NUMA node a process's memory lies on, from `/proc/PID/numa_maps`.
//!
//! Decides that only pages of the process's own count (`anon=`): where a mapped file lies is the kernel's matter. A kernel
//! without NUMA has no such file, and a host with one node nothing to tell: then there is no answer.

use std::fs;

/// The anonymous memory of process `pid` in bytes, by node; nothing where there are not several.
pub fn anonymous_by_node(pid: u32) -> Vec<f64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/numa_maps")).unwrap_or_default();
    let nodes = parse(&maps, node_count());
    if nodes.len() > 1 { nodes } else { Vec::new() }
}

/// The nodes that the host has, used or not.
fn node_count() -> usize {
    let is_node = |name: &str| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok());
    let entries = fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_node)).count()
}

fn parse(maps: &str, nodes: usize) -> Vec<f64> {
    let mut bytes = vec![0.0; nodes];
    for line in maps.lines().filter(|line| line.contains(" anon=")) {
        let field =
            |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.parse::<f64>().ok());
        let page = 1024.0 * field("kernelpagesize_kB=").unwrap_or(4.0);
        for (node, bytes) in bytes.iter_mut().enumerate() {
            *bytes += page * field(&format!("N{node}=")).unwrap_or(0.0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_process_s_own_are_counted_where_they_lie_at_their_size() {
        let maps = "\
            55d0 default file=/bin/ironpost mapped=300 N0=300 kernelpagesize_kB=4\n\
            7f00 default anon=12 dirty=12 active=0 N0=10 N1=2 kernelpagesize_kB=4\n\
            7f40 default stack anon=1 dirty=1 N1=1 kernelpagesize_kB=4\n\
            7f80 default huge anon=2 dirty=2 N1=2 kernelpagesize_kB=2048\n";
        assert_eq!(parse(maps, 2), [10.0 * 4096.0, 3.0 * 4096.0 + 2.0 * 2_097_152.0]);
        assert_eq!(parse("", 2), [0.0, 0.0]);
    }
}
