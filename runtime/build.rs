//! Links the program so that it starts fast.
//!
//! The program is position-independent and static: it relocates itself each time it starts. In the packed form (`DT_RELR`)
//! that takes a hundredth of the space and a fraction of the time. Refused: the packed form where the C library that is
//! linked in could not read it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WHARF_COMMIT");
    println!("cargo::rustc-env=WHARF_COMMIT={}", commit());
    let of_target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let native = std::env::var("HOST") == std::env::var("TARGET");
    if of_target("OS") == "linux" && of_target("ENV") == "gnu" && native && reads_packed_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// What the sources are, for `--version`: as the packager says, or what git says about a release build. Other builds are not
/// made anew for each commit.
fn commit() -> String {
    if let Ok(given) = std::env::var("WHARF_COMMIT") {
        return given;
    }
    let unknown = || "unknown".to_owned();
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return unknown();
    }
    // Where that file does not exist cargo would run this at each build.
    if std::path::Path::new("../.git/HEAD").exists() {
        println!("cargo::rerun-if-changed=../.git/HEAD");
    }
    let arguments = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    match Command::new("git").args(arguments).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => unknown(),
    }
}

/// Whether the host's glibc, which is the one that is linked, is 2.36 or newer.
fn reads_packed_relocations() -> bool {
    let Ok(output) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text
        .trim()
        .trim_start_matches("glibc ")
        .split('.')
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (2, 36),
        _ => false,
    }
}
