//! Which whole views of the kernel's own file systems this process sees.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

const FILE: &str = "/proc/self/mountinfo";

/// Where a procfs or a sysfs is mounted whole, outside of `rootfs`.
///
/// # Errors
///
/// The kernel's table cannot be read.
pub(crate) fn whole_views(rootfs: &Path) -> Result<Vec<PathBuf>, Error> {
    let table = fs::read_to_string(FILE).map_err(|error| Error::io(format!("read {FILE}"), error))?;
    Ok(parse(&table, rootfs))
}

/// Lines of `proc_pid_mountinfo(5)`: the root within the file system is the fourth field, the mount point the fifth, and
/// the type is the first after a lone dash.
fn parse(table: &str, rootfs: &Path) -> Vec<PathBuf> {
    let views = table.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        let kind = fields.skip_while(|field| *field != "-").nth(1)?;
        (root == "/" && matches!(kind, "proc" | "sysfs")).then(|| PathBuf::from(unescape(point)))
    });
    views.filter(|point| !point.starts_with(rootfs)).collect()
}

/// Blanks and backslashes of a path are written as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_mounts_outside_of_the_root_are_found() {
        let table = "\
22 28 0:21 / /proc rw,relatime shared:5 - proc proc rw
23 28 0:22 / /sys rw - sysfs sysfs rw
24 23 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 28 0:21 /sys /mnt rw - proc proc rw
26 28 0:24 / /bundle/rootfs/proc rw - proc proc rw
27 28 0:25 / /a\\040b rw - proc proc rw
";
        let expected = ["/proc", "/sys", "/a b"].map(PathBuf::from);
        assert_eq!(parse(table, Path::new("/bundle/rootfs")), expected);
        assert!(parse("", Path::new("/")).is_empty());
    }

    #[test]
    fn this_process_sees_a_whole_procfs() {
        let views = whole_views(Path::new("/nowhere")).unwrap();
        assert!(views.contains(&PathBuf::from("/proc")));
    }
}
