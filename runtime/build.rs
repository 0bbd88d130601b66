//! Links the program so that it starts fast, and tells it which compiler of system call filters it has.
//!
//! The program is position-independent and static: it relocates itself each time it starts. In the packed form (`DT_RELR`)
//! that takes a hundredth of the space and a fraction of the time. What runs when a container is created stands together
//! in it (`link/`): the kernel loads it by 64 KiB, and would load all of it otherwise. Refused: the packed form where the C
//! library that is linked in could not read it, and the order where the linker takes none.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(early)");
    println!("cargo::rerun-if-env-changed=WHARF_COMMIT");
    println!("cargo::rustc-env=WHARF_COMMIT={}", commit());
    // What is kept was typed by the one and compiled by the other.
    let mut sources = DefaultHasher::new();
    for directory in ["src/spec", "src/seccomp"] {
        println!("cargo::rerun-if-changed={directory}");
        hash(directory.as_ref(), &mut sources);
    }
    println!("cargo::rustc-env=WHARF_SECCOMP_SOURCES={:016x}", sources.finish());
    let of_target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let native = std::env::var("HOST") == std::env::var("TARGET");
    println!("cargo::rerun-if-changed=link");
    let is_release = std::env::var("PROFILE").as_deref() == Ok("release");
    if is_release && of_target("OS") == "linux" {
        let order = order();
        if links_with(&order) {
            for argument in order {
                println!("cargo::rustc-link-arg-bins={argument}");
            }
        }
    }
    if of_target("ARCH") == "x86_64" && is_release {
        println!("cargo::rustc-cfg=early");
        println!("cargo::rustc-link-arg-bins=-Wl,-e,wharf_start");
    }
    if of_target("OS") == "linux" && of_target("ENV") == "gnu" && native && reads_packed_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// What tells the linker (rust-lld, or another LLD) the order of functions. Names that it does not find are no fault: the C
/// library has other ones in another version.
fn order() -> [String; 3] {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    [
        format!("-Wl,--symbol-ordering-file={directory}/link/start.txt"),
        "-Wl,--no-warn-symbol-ordering".to_owned(),
        format!("-Wl,-T,{directory}/link/cold.ld"),
    ]
}

/// Whether a small program can be linked with these arguments, the way that the large one will be.
fn links_with(arguments: &[String]) -> bool {
    let of_cargo = |name: &str| std::env::var(name).unwrap_or_default();
    let directory = PathBuf::from(of_cargo("OUT_DIR"));
    let source = directory.join("linked.rs");
    if std::fs::write(&source, "fn main() {}").is_err() {
        return false;
    }
    let mut command = Command::new(of_cargo("RUSTC"));
    command
        .arg(source)
        .arg("-o")
        .arg(directory.join("linked"))
        .args(["--target", &of_cargo("TARGET")]);
    let flags = of_cargo("CARGO_ENCODED_RUSTFLAGS");
    command.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        command.arg(format!("-Clinker={linker}"));
    }
    for argument in arguments {
        command.arg(format!("-Clink-arg={argument}"));
    }
    command.output().is_ok_and(|output| output.status.success())
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

/// Counts the sources in a directory to `hasher`: a filter that was compiled by others is not used.
fn hash(directory: &Path, hasher: &mut DefaultHasher) {
    let entries = std::fs::read_dir(directory).expect("the sources are there");
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            hash(&path, hasher);
            continue;
        }
        std::fs::read(&path)
            .expect("the sources can be read")
            .hash(hasher);
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
