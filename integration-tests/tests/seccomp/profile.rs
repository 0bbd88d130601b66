//! A profile as both compilers are told it.

use serde_json::{Value, json};

/// A comparison: index, operator without its prefix, value, second value.
pub type Condition = (usize, &'static str, u64, u64);

/// An action by its name without the prefix, with its error number.
pub type Action = (&'static str, Option<u32>);

#[derive(Clone, Debug)]
pub struct Rule {
    pub action: Action,
    pub names: Vec<String>,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
pub struct Profile {
    /// `x86_64` or `aarch64`.
    pub native: &'static str,
    /// Those besides the native one, by libseccomp's names without the prefix, in lower case.
    pub others: Vec<&'static str>,
    pub default: Action,
    pub rules: Vec<Rule>,
}

impl Profile {
    /// The `linux.seccomp` object.
    pub fn json(&self) -> Value {
        let rules: Vec<Value> = self.rules.iter().map(rule_json).collect();
        let others = self
            .others
            .iter()
            .map(|name| format!("SCMP_ARCH_{}", name.to_uppercase()));
        let mut json = json!({
            "defaultAction": format!("SCMP_ACT_{}", self.default.0),
            "architectures": others.collect::<Vec<_>>(),
            "listenerPath": "/run/agent",
            "syscalls": rules,
        });
        if let Some(errno) = self.default.1 {
            json["defaultErrnoRet"] = errno.into();
        }
        json
    }

    /// The lines that the reference reads: runc's reading of the rules.
    pub fn lines(&self) -> String {
        let mut lines = format!("native {}\ndefault {:x}\n", self.native, number(self.default));
        for other in &self.others {
            lines += &format!("arch {other}\n");
        }
        if self.rules.iter().map(|rule| rule.names.len()).sum::<usize>() > 32 {
            lines += "tree\n";
        }
        for rule in &self.rules {
            for name in &rule.names {
                lines += &format!("name {name}\n");
            }
            let action = number(rule.action);
            if action == number(self.default) {
                continue;
            }
            for name in &rule.names {
                for conditions in alternatives(&rule.conditions) {
                    lines += &format!("rule {action:x} {name} {}", conditions.len());
                    for (index, operator, value, second) in conditions {
                        lines += &format!(" {index} {operator} {value:x} {second:x}");
                    }
                    lines += "\n";
                }
            }
        }
        lines
    }

    /// Whether calls newer than the profile get ENOSYS.
    pub fn answers_enosys(&self) -> bool {
        !matches!(self.default.0, "ALLOW" | "LOG" | "TRACE") && self.default.1 != Some(38)
    }
}

/// Two comparisons of the same argument are each a rule.
pub fn alternatives(conditions: &[Condition]) -> Vec<Vec<Condition>> {
    let twice = (0..6).any(|index| conditions.iter().filter(|it| it.0 == index).count() > 1);
    match twice {
        true => conditions.iter().map(|it| vec![*it]).collect(),
        false => vec![conditions.to_vec()],
    }
}

fn rule_json(rule: &Rule) -> Value {
    let argument = |(index, operator, value, second): &Condition| json!({"index": index, "op": format!("SCMP_CMP_{operator}"), "value": value, "valueTwo": second});
    let mut json = json!({
        "names": rule.names,
        "action": format!("SCMP_ACT_{}", rule.action.0),
        "args": rule.conditions.iter().map(argument).collect::<Vec<_>>(),
    });
    if let Some(errno) = rule.action.1 {
        json["errnoRet"] = errno.into();
    }
    json
}

/// The kernel's `SECCOMP_RET_*` and its data.
pub fn number((name, errno): Action) -> u32 {
    match name {
        "KILL" | "KILL_THREAD" => 0,
        "KILL_PROCESS" => 0x8000_0000,
        "TRAP" => 0x0003_0000,
        "ERRNO" => 0x0005_0000 | errno.unwrap_or(1),
        "NOTIFY" => 0x7fc0_0000,
        "TRACE" => 0x7ff0_0000 | errno.unwrap_or(1),
        "LOG" => 0x7ffc_0000,
        "ALLOW" => 0x7fff_0000,
        _ => panic!("{name} is no action"),
    }
}
