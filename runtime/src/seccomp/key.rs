//! What a compiled filter is kept under: the whole profile, and who compiled it.
//!
//! Two profiles that differ in anything have different keys. Each text stands behind its length and each list behind its
//! count, so none can be taken for another's beginning; a field that is new is an error of the compiler's here. As JSON it
//! would take as long as a third of what the filter saves.

use super::arch::Arch;
use crate::spec::oci::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};

/// The key of a profile, for this machine's compiler.
pub(super) fn of(profile: &LinuxSeccomp) -> Vec<u8> {
    let LinuxSeccomp {
        default_action,
        default_errno_ret,
        architectures,
        flags,
        listener_path,
        listener_metadata,
        syscalls,
    } = profile;
    // Docker's takes half of it.
    let mut key = Key(Vec::with_capacity(16 << 10));
    key.text(env!("WHARF_SECCOMP_SOURCES").as_bytes());
    key.text(format!("{:?}", Arch::NATIVE).as_bytes());
    key.perhaps(default_action.map(|action| action as u32));
    key.perhaps(*default_errno_ret);
    key.list(architectures, |key, arch| key.number(*arch as u32));
    key.perhaps(flags.as_ref().map(|flags| flags.len() as u32));
    key.list(flags.as_deref().unwrap_or_default(), |key, flag| {
        key.number(*flag as u32);
    });
    key.text(listener_path.as_os_str().as_encoded_bytes());
    key.text(listener_metadata.as_bytes());
    key.list(syscalls, Key::rule);
    key.0
}

struct Key(Vec<u8>);

impl Key {
    fn rule(&mut self, rule: &LinuxSyscall) {
        let LinuxSyscall {
            names,
            action,
            errno_ret,
            args,
        } = rule;
        self.list(names, |key, name| key.text(name.as_bytes()));
        self.number(*action as u32);
        self.perhaps(*errno_ret);
        self.list(args, |key, arg| {
            let LinuxSeccompArg {
                index,
                value,
                value_two,
                op,
            } = *arg;
            for number in [index, value, value_two, op as u64] {
                key.0.extend_from_slice(&number.to_le_bytes());
            }
        });
    }

    fn list<T>(&mut self, items: &[T], each: impl Fn(&mut Self, &T)) {
        self.number(items.len() as u32);
        for item in items {
            each(self, item);
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u32);
        self.0.extend_from_slice(text);
    }

    fn perhaps(&mut self, number: Option<u32>) {
        self.number(u32::from(number.is_some()));
        self.number(number.unwrap_or_default());
    }

    fn number(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn profiles_that_differ_in_anything_have_different_keys() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/a",
            "listenerMetadata": "b",
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "errnoRet": 2,
                 "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["open"], "action": "SCMP_ACT_LOG"},
            ],
        });
        let changes = [
            ("/defaultAction", json!("SCMP_ACT_KILL")),
            ("/defaultErrnoRet", Value::Null),
            ("/defaultErrnoRet", json!(0)),
            ("/architectures", json!(["SCMP_ARCH_X86"])),
            ("/architectures/0", json!("SCMP_ARCH_ARM")),
            ("/flags", Value::Null),
            ("/flags", json!([])),
            ("/flags/0", json!("SECCOMP_FILTER_FLAG_SPEC_ALLOW")),
            ("/listenerPath", json!("/ab")),
            ("/listenerMetadata", json!("")),
            ("/syscalls/0/names", json!(["readwrite"])),
            ("/syscalls/0/names", json!(["rea", "dwrite"])),
            ("/syscalls/0/names", json!(["read", "write", "open"])),
            ("/syscalls/0/action", json!("SCMP_ACT_TRACE")),
            ("/syscalls/0/errnoRet", json!(3)),
            ("/syscalls/0/args", json!([])),
            ("/syscalls/0/args/0/index", json!(0)),
            ("/syscalls/0/args/0/value", json!(0x1_0000_0002_u64)),
            ("/syscalls/0/args/0/valueTwo", json!(2)),
            ("/syscalls/0/args/0/op", json!("SCMP_CMP_EQ")),
            ("/syscalls/1/names/0", json!("openat")),
        ];
        let key = |profile: &Value| of(&serde_json::from_value(profile.clone()).unwrap());
        let mut keys = vec![key(&profile)];
        assert_eq!(keys[0], key(&profile));
        for (place, value) in changes {
            let mut changed = profile.clone();
            *changed.pointer_mut(place).unwrap() = value;
            keys.push(key(&changed));
        }
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
