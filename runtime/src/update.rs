//! Changing a container's limits while it runs.

use rustix::fs::{FlockOperation, flock};

use crate::spec::oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice};
use crate::{Container, Error, Status};

impl Container {
    /// Changes limits: what `changes` does not name stays as it is, with these exceptions. Processors, memory nodes, burst and
    /// idle, the limit of processes and the unified values are only those of `changes`; device rules are never changed. What is in
    /// force is remembered in the state, so that the next change builds on it. [`Self::take_warnings`] tells what was left out.
    ///
    /// # Errors
    ///
    /// The container is stopped, or a limit is refused; the limits of before are then set again.
    pub fn update(&self, changes: &LinuxResources) -> Result<(), Error> {
        let status = self.status()?;
        if status == Status::Stopped {
            return Err(self.wrong("update", status));
        }
        // One at a time: each builds on the one before.
        flock(self.directory.fd(), FlockOperation::LockExclusive)
            .map_err(|errno| Error::io(format!("lock the state of container {}", self.id), errno))?;
        let result = self.update_locked(changes);
        flock(self.directory.fd(), FlockOperation::Unlock)
            .map_err(|errno| Error::io(format!("unlock the state of container {}", self.id), errno))?;
        result
    }

    fn update_locked(&self, changes: &LinuxResources) -> Result<(), Error> {
        let mut record = self
            .directory
            .read()?
            .ok_or_else(|| Error::NotFound(self.id.clone()))?;
        let before = match record.resources.take() {
            Some(resources) => resources,
            None => {
                let linux = self.spec()?.oci().linux.clone();
                linux.and_then(|linux| linux.resources).unwrap_or_default()
            }
        };
        let after = merge(&before, changes);
        let mut warnings = Vec::new();
        let updated = self.cgroup.update(&after, &mut warnings);
        warnings.into_iter().for_each(|warning| self.warn(warning));
        if let Err(error) = updated {
            // Some of them may be in force already.
            return Err(match self.cgroup.update(&before, &mut Vec::new()) {
                Ok(()) => error.into(),
                Err(second) => Error::from(error).with_leftovers(vec![second.into()]),
            });
        }
        record.resources = Some(after);
        self.directory.write(&record)
    }
}

/// The limits after a change, as runc understands one.
fn merge(before: &LinuxResources, changes: &LinuxResources) -> LinuxResources {
    let none = LinuxCpu::default();
    let cpu = merge_cpu(
        before.cpu.as_ref().unwrap_or(&none),
        changes.cpu.as_ref().unwrap_or(&none),
    );
    let none = LinuxMemory::default();
    let memory = merge_memory(
        before.memory.as_ref().unwrap_or(&none),
        changes.memory.as_ref().unwrap_or(&none),
    );
    let none = LinuxBlockIo::default();
    let io = merge_io(
        before.block_io.clone().unwrap_or_default(),
        changes.block_io.as_ref().unwrap_or(&none),
    );
    LinuxResources {
        cpu: Some(cpu),
        memory: Some(memory),
        block_io: Some(io),
        pids: Some(LinuxPids {
            limit: changes.pids.and_then(|pids| pids.limit),
        }),
        unified: changes.unified.clone(),
        ..before.clone()
    }
}

fn merge_cpu(before: &LinuxCpu, changes: &LinuxCpu) -> LinuxCpu {
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let period = changes.period.filter(|period| *period != 0);
    let (quota, period) = match (given(changes.quota), period) {
        // Each makes sense only with the other, but they may be given one at a time.
        (Some(quota), None) => (Some(quota), before.period),
        (None, Some(period)) => (before.quota, Some(period)),
        both => both,
    };
    // A group that gets what is left has no weight.
    let idle_shares = changes.idle.map(|_| 0);
    LinuxCpu {
        quota,
        period,
        shares: changes.shares.or(idle_shares).or(before.shares),
        realtime_period: changes.realtime_period.or(before.realtime_period),
        realtime_runtime: changes.realtime_runtime.or(before.realtime_runtime),
        burst: changes.burst,
        cpus: changes.cpus.clone(),
        mems: changes.mems.clone(),
        idle: changes.idle,
    }
}

fn merge_memory(before: &LinuxMemory, changes: &LinuxMemory) -> LinuxMemory {
    // Without a limit on memory there is none on memory and swap.
    let unlimited_swap = (changes.limit == Some(-1)).then_some(0);
    LinuxMemory {
        limit: changes.limit.or(before.limit),
        reservation: changes.reservation.or(before.reservation),
        swap: changes.swap.or(unlimited_swap).or(before.swap),
        check_before_update: changes.check_before_update,
        ..before.clone()
    }
}

fn merge_io(mut io: LinuxBlockIo, changes: &LinuxBlockIo) -> LinuxBlockIo {
    io.weight = changes.weight.or(io.weight);
    io.leaf_weight = changes.leaf_weight.or(io.leaf_weight);
    for new in &changes.weight_device {
        // Of several about one device the last is in force.
        let same =
            |old: &&mut crate::spec::oci::LinuxWeightDevice| (old.major, old.minor) == (new.major, new.minor);
        match io.weight_device.iter_mut().rfind(same) {
            Some(old) => {
                old.weight = new.weight.or(old.weight);
                old.leaf_weight = new.leaf_weight.or(old.leaf_weight);
            }
            None => io.weight_device.push(*new),
        }
    }
    merge_throttles(
        &mut io.throttle_read_bps_device,
        &changes.throttle_read_bps_device,
    );
    merge_throttles(
        &mut io.throttle_write_bps_device,
        &changes.throttle_write_bps_device,
    );
    merge_throttles(
        &mut io.throttle_read_iops_device,
        &changes.throttle_read_iops_device,
    );
    merge_throttles(
        &mut io.throttle_write_iops_device,
        &changes.throttle_write_iops_device,
    );
    io
}

fn merge_throttles(devices: &mut Vec<LinuxThrottleDevice>, changes: &[LinuxThrottleDevice]) {
    for new in changes {
        match devices
            .iter_mut()
            .rfind(|old| (old.major, old.minor) == (new.major, new.minor))
        {
            Some(old) => old.rate = new.rate,
            None => devices.push(*new),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(before: serde_json::Value, changes: serde_json::Value) -> LinuxResources {
        let read = |value| serde_json::from_value(value).unwrap();
        merge(&read(before), &read(changes))
    }

    #[test]
    fn what_is_not_named_stays() {
        let before = json!({
            "memory": {"limit": 100, "swap": 200, "reservation": 50, "swappiness": 10},
            "cpu": {"shares": 5, "cpus": "0", "burst": 7, "idle": 0},
            "pids": {"limit": 3},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
            "unified": {"memory.high": "1"},
        });
        let after = merged(before, json!({"memory": {"limit": 150}}));
        let memory = after.memory.unwrap();
        assert_eq!(
            (memory.limit, memory.swap, memory.reservation),
            (Some(150), Some(200), Some(50))
        );
        assert_eq!(memory.swappiness, Some(10));
        let cpu = after.cpu.unwrap();
        assert_eq!((cpu.shares, cpu.burst, cpu.idle), (Some(5), None, None));
        assert!(cpu.cpus.is_empty() && after.unified.is_empty());
        assert_eq!(after.pids.unwrap().limit, None);
        assert_eq!(after.hugepage_limits.len(), 1);
    }

    #[test]
    fn quota_and_period_may_come_one_at_a_time() {
        let pair = |before: serde_json::Value, changes: serde_json::Value| {
            let cpu = merged(json!({"cpu": before}), json!({"cpu": changes}))
                .cpu
                .unwrap();
            (cpu.quota, cpu.period)
        };
        let both = json!({"quota": 5, "period": 10});
        assert_eq!(pair(both.clone(), json!({"quota": 6})), (Some(6), Some(10)));
        assert_eq!(pair(both.clone(), json!({"period": 20})), (Some(5), Some(20)));
        assert_eq!(
            pair(both.clone(), json!({"quota": 6, "period": 20})),
            (Some(6), Some(20))
        );
        assert_eq!(
            pair(both, json!({"shares": 2})),
            (None, None),
            "neither is written again"
        );
        assert_eq!(pair(json!({}), json!({"quota": -1})), (Some(-1), None));
    }

    #[test]
    fn some_limits_take_others_with_them() {
        let memory = merged(json!({"memory": {"swap": 200}}), json!({"memory": {"limit": -1}}))
            .memory
            .unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(-1), Some(0)));
        let cpu = merged(json!({"cpu": {"shares": 5}}), json!({"cpu": {"idle": 1}}))
            .cpu
            .unwrap();
        assert_eq!((cpu.shares, cpu.idle), (Some(0), Some(1)));
    }

    #[test]
    fn devices_are_changed_or_added() {
        let device = |major: i64, rate: u64| json!({"major": major, "minor": 0, "rate": rate});
        let io = merged(
            json!({"blockIO": {"weight": 10, "throttleReadBpsDevice": [device(7, 1)],
                "weightDevice": [{"major": 7, "minor": 0, "weight": 100, "leafWeight": 1}]}}),
            json!({"blockIO": {"throttleReadBpsDevice": [device(7, 2), device(8, 3)],
                "weightDevice": [{"major": 7, "minor": 0, "weight": 200}]}}),
        )
        .block_io
        .unwrap();
        assert_eq!(io.weight, Some(10));
        let rates: Vec<_> = io
            .throttle_read_bps_device
            .iter()
            .map(|it| (it.major, it.rate))
            .collect();
        assert_eq!(rates, [(7, 2), (8, 3)]);
        assert_eq!(
            (io.weight_device[0].weight, io.weight_device[0].leaf_weight),
            (Some(200), Some(1))
        );
    }
}
