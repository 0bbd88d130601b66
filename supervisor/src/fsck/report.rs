//! What a check found, for people and for programs.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// Something that takes place and has an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// `blob`, `ingest`, `snapshot`, `bundle`, `mount`, `cgroup` or `metadata`.
    pub kind: &'static str,
    /// The path, below the root where it is there.
    pub path: String,
    /// Bytes on disk.
    pub size: u64,
    /// Whose it is: namespaces, or `namespace/snapshotter/key`, or `namespace/container (state)`.
    pub owner: String,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// As in [`Item::kind`].
    pub kind: &'static str,
    /// The path, or the name of what is missing.
    pub path: String,
    /// Bytes that it takes.
    pub size: u64,
    /// What is wrong.
    pub problem: String,
    /// What a repair does about it; empty: nothing.
    pub repair: &'static str,
    /// Whether that was done.
    pub repaired: bool,
    /// The row that stands for nothing.
    #[serde(skip)]
    pub(super) row: Option<Row>,
}

/// A row whose files are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    /// Namespace and digest.
    Blob(String, String),
    /// Namespace, snapshotter and key.
    Snapshot(String, String, String),
}

impl Fault {
    /// Whether both are the same fault.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.kind, &self.path, &self.problem) == (other.kind, &other.path, &other.problem)
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The directory of the instance.
    pub root: String,
    /// All that is there and has an owner.
    pub items: Vec<Item>,
    /// All that is wrong.
    pub faults: Vec<Fault>,
}

impl Report {
    /// Faults that are still there.
    pub fn left(&self) -> usize {
        self.faults.iter().filter(|fault| !fault.repaired).count()
    }
}

impl fmt::Display for Report {
    /// A table of what is there, largest first within its kind, then the faults, then one line that sums up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.root)?;
        writeln!(f, "{:<9} {:>10}  {:<60} OWNER", "KIND", "SIZE", "PATH")?;
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by_key(|item| (item.kind, std::cmp::Reverse(item.size), &item.path));
        for item in items {
            writeln!(
                f,
                "{:<9} {:>10}  {:<60} {}",
                item.kind,
                Bytes(item.size).to_string(),
                item.path,
                item.owner
            )?;
        }
        for fault in &self.faults {
            let size = match fault.size {
                0 => String::new(),
                size => format!(" ({})", Bytes(size)),
            };
            let done = match (fault.repair, fault.repaired) {
                ("", _) => "left alone".to_owned(),
                (repair, true) => format!("repaired: {repair}"),
                (repair, false) => format!("to repair: {repair}"),
            };
            writeln!(
                f,
                "fault: {} {}{size}: {}; {done}",
                fault.kind, fault.path, fault.problem
            )?;
        }
        let mut kinds: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
        for item in &self.items {
            let sum = kinds.entry(item.kind).or_default();
            *sum = (sum.0 + 1, sum.1 + item.size);
        }
        for (kind, (count, size)) in kinds {
            write!(f, "{kind}: {count} ({}), ", Bytes(size))?;
        }
        match (self.faults.len(), self.left()) {
            (0, _) => writeln!(f, "no faults"),
            (all, left) => writeln!(f, "faults: {all}, left: {left}"),
        }
    }
}

/// A number of bytes for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut unit = 0;
        let mut tenths = self.0 * 10 / 1024;
        while tenths >= 10_240 && unit + 1 < units.len() {
            tenths /= 1024;
            unit += 1;
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let shown: Vec<String> = [0, 1023, 1024, 1_572_864, 5 << 30]
            .map(|size| Bytes(size).to_string())
            .into();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB"]);
    }

    #[test]
    fn the_last_line_sums_up() {
        let fault = |repaired| Fault {
            kind: "blob",
            path: "x".into(),
            size: 0,
            problem: "nobody's".into(),
            repair: "remove it",
            repaired,
            row: None,
        };
        let mut report = Report::default();
        assert!(report.to_string().ends_with("no faults\n"));
        report.faults = vec![fault(true), fault(false)];
        assert!(report.to_string().ends_with("faults: 2, left: 1\n"), "{report}");
        assert!(report.to_string().contains("to repair: remove it"));
    }
}
