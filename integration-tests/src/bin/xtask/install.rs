//! `cargo xtask install`: the release binaries, where a system looks for them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::{programs, shell, workspace};

/// The programs that an installation consists of.
pub(crate) const PROGRAMS: [&str; 4] = ["wharf", "wharfd", "containerd-shim-wharf-v2", "wharf-runtime"];

/// Where to install.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The directory whose `bin/` takes the programs, and `share/man` the manual pages
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
}

/// Builds with the release profile and copies each program by a rename, so that running ones are not disturbed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    build()?;
    let runtime = build_runtime()?;
    let target = arguments.prefix.join("bin");
    fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    for program in PROGRAMS {
        let source = match program {
            "wharf-runtime" => runtime.clone(),
            _ => programs("release")?.join(program),
        };
        let temporary = target.join(format!(".{program}.new"));
        let place = target.join(program);
        fs::copy(&source, &temporary)
            .with_context(|| format!("copy {} to {}", source.display(), temporary.display()))?;
        fs::rename(&temporary, &place).with_context(|| format!("move {} into place", place.display()))?;
        println!("{}", place.display());
    }
    install_pages(&arguments.prefix.join("share/man/man8"))?;
    install_service(&arguments.prefix)
}

/// The supervisor's unit for systemd, with the programs where they were installed, and its manual pages. The unit is not
/// started.
fn install_service(prefix: &Path) -> Result<()> {
    let pages = prefix.join("share/man/man1");
    fs::create_dir_all(&pages).with_context(|| format!("make {}", pages.display()))?;
    let wharfd = prefix.join("bin/wharfd");
    let mut make = std::process::Command::new(&wharfd);
    shell::run(make.arg("man").arg(&pages))?;
    println!("{}", pages.display());
    let source = workspace().join("supervisor/systemd/wharfd.service");
    let unit = fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
    let unit = unit.replace("/usr/local", &prefix.display().to_string());
    let target = prefix.join("lib/systemd/system");
    fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    let place = target.join("wharfd.service");
    fs::write(&place, unit).with_context(|| format!("write {}", place.display()))?;
    println!("{}", place.display());
    Ok(())
}

/// The runtime's manual pages.
fn install_pages(target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("make {}", target.display()))?;
    let source = workspace().join("runtime/man");
    for page in fs::read_dir(&source).with_context(|| format!("list {}", source.display()))? {
        let page = page.with_context(|| format!("list {}", source.display()))?;
        let place = target.join(page.file_name());
        fs::copy(page.path(), &place).with_context(|| format!("write {}", place.display()))?;
    }
    println!("{}", target.display());
    Ok(())
}

/// Builds the release binaries.
pub(crate) fn build() -> Result<()> {
    shell::run(&mut shell::command("cargo", ["build", "--release"]))
}

/// Builds the runtime's release program, and answers where it is.
pub(crate) fn build_runtime() -> Result<PathBuf> {
    let target = runtime_target()?;
    let mut build = shell::command("cargo", ["build", "--release", "--package", "wharf-runtime"]);
    if let Some(target) = &target {
        build.args(["--target", target]);
    }
    shell::run(&mut build)?;
    let own = programs("release")?;
    let Some(target) = target else {
        return Ok(own.join("wharf-runtime"));
    };
    let targets = own
        .ancestors()
        .nth(2)
        .context("the programs are in no target directory")?;
    Ok(targets.join(target).join("release/wharf-runtime"))
}

/// What the runtime's program is built for: musl, where Rust has its standard library; nothing: as all others.
///
/// It starts once for each command, and musl's start takes a quarter of what glibc's does, which asks the processor about its
/// caches again and again.
pub(crate) fn runtime_target() -> Result<Option<String>> {
    let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let output = shell::command("rustc", ["--print", "target-libdir", "--target", &musl]).output();
    let library = output.context("run rustc")?.stdout;
    let is_there = Path::new(String::from_utf8_lossy(&library).trim_end()).is_dir();
    Ok(is_there.then_some(musl))
}
