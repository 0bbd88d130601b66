//! `cargo xtask proto`: the wire definitions compiled to Rust, without protoc.
//!
//! The generated code is committed, so that building the crates needs none of this; `--check` keeps it current.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Packages whose services are spoken over ttrpc: no gRPC code is wanted for them.
const TTRPC_PACKAGES: [&str; 4] = [
    "containerd.task.v2",
    "containerd.task.v3",
    "containerd.runtime.sandbox.v1",
    "containerd.services.events.ttrpc.v1",
];

/// Generates into `proto/src/generated`, or with `check` compares with what is there.
pub fn run(check: bool) -> Result<()> {
    let target = workspace().join("proto/src/generated");
    let scratch = tempfile::tempdir()?;
    generate(scratch.path())?;
    let fresh = read_all(scratch.path())?;
    if check {
        if fresh != read_all(&target)? {
            bail!("proto/src/generated is not what proto/proto generates; run `cargo xtask proto`");
        }
        return Ok(());
    }
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::create_dir_all(&target)?;
    for (name, text) in fresh {
        fs::write(target.join(name), text)?;
    }
    Ok(())
}

fn generate(out: &Path) -> Result<()> {
    let root = workspace().join("proto/proto");
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&root)? {
        files.push(entry?.path());
    }
    files.sort();
    let mut descriptors = protox::compile(&files, [&root]).context("compile proto/proto")?;
    for file in &mut descriptors.file {
        if TTRPC_PACKAGES.contains(&file.package()) {
            file.service.clear();
        }
    }
    let mut config = prost_build::Config::new();
    config
        .enable_type_names()
        .bytes([".containerd.services.content.v1"])
        .btree_map(["."]);
    tonic_prost_build::configure()
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .include_file("mod.rs")
        .out_dir(out)
        .compile_fds_with_config(descriptors, config)
        .context("generate Rust from the descriptors")
}

fn read_all(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    if directory.exists() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            texts.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(texts)
}
