//! What containers use, asked of their shims when somebody wants to know: containerd's `container_…` families.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use prost_types::Any;
use wharf_proto::{
    any,
    containerd::task::v2::{StatsRequest, StatsResponse},
    io::containerd::cgroups::{v1, v2},
};

use super::text::{Kind, Page};
use crate::task::{Task, Tasks};

/// How long one shim may take: containerd's `io.containerd.timeout.metrics.shimstats`.
const SHIM: Duration = Duration::from_secs(2);
/// How many shims are asked side by side.
const PARALLEL: usize = 64;
/// The most samples that one container adds to one family: machines have that many processors and disks.
const MOST: usize = 1024;

/// The samples of one family: the labels of its own, and the value.
pub type Values = Vec<(Vec<(&'static str, String)>, f64)>;

/// The families by name, with what they mean, and the samples of all containers.
#[derive(Default)]
pub struct Families(BTreeMap<&'static str, (&'static str, Vec<Sample>)>);

struct Sample {
    container: usize,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

/// Adds the families of all containers to `page`. One that does not answer in time is left out.
pub async fn write(tasks: &Tasks, page: &mut Page) {
    let stats = futures_util::stream::iter(tasks.all())
        .map(|task| async move {
            let request = StatsRequest { id: task.id.clone() };
            let asked = task.call::<_, StatsResponse>("Stats", &request, Some(SHIM));
            match tokio::time::timeout(SHIM, asked).await {
                Ok(Ok(answer)) => answer.stats.map(|stats| (task, stats)),
                Ok(Err(error)) => {
                    tracing::debug!(namespace = task.namespace, container_id = task.id, %error, "no metrics");
                    None
                }
                Err(_) => {
                    tracing::warn!(
                        namespace = task.namespace,
                        container_id = task.id,
                        "no metrics in time"
                    );
                    None
                }
            }
        })
        .buffer_unordered(PARALLEL)
        .filter_map(std::future::ready);
    let mut stats: Vec<_> = stats.collect().await;
    stats.sort_by(|(a, _), (b, _)| (&a.namespace, &a.id).cmp(&(&b.namespace, &b.id)));
    let mut families = Families::default();
    for (container, (task, stats)) in stats.iter().enumerate() {
        if let Err(error) = families.take(container, stats) {
            tracing::warn!(namespace = task.namespace, container_id = task.id, %error, "metrics not understood");
        }
    }
    let tasks: Vec<_> = stats.iter().map(|(task, _)| task.as_ref()).collect();
    families.write(&tasks, page);
}

impl Families {
    fn take(&mut self, container: usize, stats: &Any) -> Result<(), prost::DecodeError> {
        if let Some(stats) = any::unpack::<v1::Metrics>(stats)? {
            self.take_v1(container, &stats);
        } else if let Some(stats) = any::unpack::<v2::Metrics>(stats)? {
            self.take_v2(container, &stats);
        }
        Ok(())
    }

    pub fn add(&mut self, container: usize, name: &'static str, help: &'static str, values: Values) {
        let (_, samples) = self.0.entry(name).or_insert((help, Vec::new()));
        samples.extend(values.into_iter().take(MOST).map(|(labels, value)| Sample {
            container,
            labels,
            value,
        }));
    }

    pub fn one(&mut self, container: usize, name: &'static str, help: &'static str, value: u64) {
        self.add(container, name, help, vec![(Vec::new(), value as f64)]);
    }

    fn write(self, tasks: &[&Task], page: &mut Page) {
        for (name, (help, samples)) in self.0 {
            page.family(name, Kind::Gauge, help);
            for sample in samples {
                let task = tasks[sample.container];
                let mut labels = vec![("container_id", task.id.as_str()), ("namespace", &task.namespace)];
                labels.extend(
                    sample
                        .labels
                        .iter()
                        .map(|(label, value)| (*label, value.as_str())),
                );
                page.sample(name, &labels, sample.value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stats: &Any) -> Vec<&'static str> {
        let mut families = Families::default();
        families.take(0, stats).unwrap();
        families.0.into_keys().collect()
    }

    #[test]
    fn both_kinds_of_cgroups_have_containerds_families() {
        let v1 = v1::Metrics {
            cpu: Some(v1::CpuStat {
                usage: Some(v1::CpuUsage {
                    per_cpu: vec![1, 2],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            memory: Some(v1::MemoryStat {
                usage: Some(v1::MemoryEntry::default()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let names_v1 = names(&any::pack(&v1));
        for name in [
            "container_cpu_total_nanoseconds",
            "container_per_cpu_nanoseconds",
            "container_memory_usage_usage_bytes",
            "container_memory_total_rss_bytes",
            "container_memory_total_pgmajfault_bytes",
        ] {
            assert!(names_v1.contains(&name), "{name}: {names_v1:?}");
        }
        let v2 = v2::Metrics {
            cpu: Some(v2::CpuStat::default()),
            memory: Some(v2::MemoryStat::default()),
            memory_events: Some(v2::MemoryEvents::default()),
            pids: Some(v2::PidsStat::default()),
            ..Default::default()
        };
        let names_v2 = names(&any::pack(&v2));
        for name in [
            "container_cpu_usage_usec_microseconds",
            "container_memory_usage_bytes",
            "container_memory_oom_total",
            "container_pids_current",
        ] {
            assert!(names_v2.contains(&name), "{name}: {names_v2:?}");
        }
        let mut families = Families::default();
        families.take_v1(0, &v1);
        assert_eq!(families.0["container_per_cpu_nanoseconds"].1.len(), 2);
    }

    #[test]
    fn other_stats_are_passed_by_and_broken_ones_are_an_error() {
        assert!(names(&Any::default()).is_empty());
        let broken = Any {
            type_url: "io.containerd.cgroups.v2.Metrics".to_owned(),
            value: vec![0xff],
        };
        assert!(Families::default().take(0, &broken).is_err());
    }
}
