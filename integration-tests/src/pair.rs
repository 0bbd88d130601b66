//! Debian's containerd and `wharfd` side by side, asked the same things by Debian's `ctr`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::containerd::Containerd;
use crate::wharf::Wharfd;
use crate::{Finished, Scratch, run};

/// `bash` in `directory`, with `ctr` bound to `socket`.
pub fn shell(directory: &Path, socket: &Path, script: &str) -> Finished {
    run(&mut shell_command(directory, socket, script))
}

fn shell_command(directory: &Path, socket: &Path, script: &str) -> Command {
    let bound = format!("ctr() {{ command ctr --address \"$SOCKET\" \"$@\"; }}\n{script}");
    // In the foreground: in a process group of its own `ctr` would be stopped when it sets up a terminal.
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "--kill-after=5", "60", "bash", "-c", &bound])
        .env("SOCKET", socket)
        .current_dir(directory);
    command
}

/// One of the two daemons, with a directory of its own to run scripts in.
#[derive(Debug)]
struct Side {
    directory: PathBuf,
    socket: PathBuf,
    /// Set for each script.
    environment: Vec<(&'static str, String)>,
    /// What stands for the same on both sides, and what is said in its place.
    same: Vec<(String, &'static str)>,
    /// Where its overlay snapshots are.
    snapshots: PathBuf,
    /// The numbers of snapshots that were seen, by order of appearance: the daemons count differently.
    numbers: BTreeMap<String, usize>,
}

impl Side {
    fn answer(&mut self, script: &str) -> String {
        let mut command = shell_command(&self.directory, &self.socket, script);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let finished = run(&mut command);
        assert!(finished.code != 124, "not within a minute: {finished}");
        let text = format!("{}{}code {}", finished.stdout, finished.stderr, finished.code);
        self.neutral(&text)
    }

    /// The text without what has to differ: times in logs, the place and number of each snapshot's directory.
    fn neutral(&mut self, text: &str) -> String {
        let root = format!("{}/", self.snapshots.display());
        let mut pieces = text.split(root.as_str());
        let mut neutral = pieces.next().unwrap_or_default().to_string();
        for piece in pieces {
            let end = piece.find('/').unwrap_or(piece.len());
            let next = self.numbers.len();
            let number = *self.numbers.entry(piece[..end].to_string()).or_insert(next);
            neutral += &format!("SNAPSHOTS/{number}{}", &piece[end..]);
        }
        for (own, common) in &self.same {
            neutral = neutral.replace(own, common);
        }
        let lines = neutral.lines().map(|line| {
            match line.strip_prefix("time=").and_then(|rest| rest.split_once(' ')) {
                Some((_, rest)) => rest,
                None => line,
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Both daemons.
#[derive(Debug)]
pub struct Pair {
    _containerd: Containerd,
    _wharfd: Wharfd,
    theirs: Side,
    ours: Side,
    /// Where both have their directories.
    pub scratch: Scratch,
}

impl Pair {
    /// Starts both. Scripts find the files `hello` and `empty` in their directory.
    ///
    /// # Panics
    ///
    /// One of them does not come up.
    pub fn start() -> Pair {
        Pair::start_with("")
    }

    /// As [`Pair::start`], with `configuration` as the content of our side's file.
    ///
    /// # Panics
    ///
    /// One of them does not come up.
    pub fn start_with(configuration: &str) -> Pair {
        let scratch = Scratch::new();
        let containerd = Containerd::start(&scratch);
        let mut wharfd = Wharfd::unstarted(&scratch);
        fs::write(wharfd.home().join("wharfd.toml"), configuration).expect("write a configuration");
        wharfd.restart();
        let side = |name: &str, socket: &Path, snapshots: PathBuf| Side {
            directory: scratch.directory(name),
            socket: socket.to_path_buf(),
            environment: Vec::new(),
            same: vec![
                (scratch.join(name).display().to_string(), "DIRECTORY"),
                (socket.display().to_string(), "SOCKET"),
            ],
            snapshots,
            numbers: BTreeMap::new(),
        };
        let theirs = side(
            "theirs",
            containerd.socket(),
            scratch.join("containerd/root/io.containerd.snapshotter.v1.overlayfs/snapshots"),
        );
        let ours = side(
            "ours",
            &wharfd.socket(),
            wharfd.home().join("root/snapshots/overlay"),
        );
        let pair = Pair {
            theirs,
            ours,
            _containerd: containerd,
            _wharfd: wharfd,
            scratch,
        };
        pair.file("hello", b"hello\n");
        pair.file("empty", b"");
        pair
    }

    /// Gives each side a namespace of its own, which is a part of cgroups' names, and its name in `$SIDE`: for scripts that
    /// change what the two share.
    #[must_use]
    pub fn apart(mut self) -> Pair {
        for (side, letter) in [(&mut self.theirs, 't'), (&mut self.ours, 'o')] {
            let namespace = format!("{}-{letter}", self.scratch.unique());
            side.environment.push(("CONTAINERD_NAMESPACE", namespace.clone()));
            let name = if letter == 't' { "theirs" } else { "ours" };
            side.environment.push(("SIDE", name.to_owned()));
            side.same.push((namespace, "NAMESPACE"));
        }
        self
    }

    /// Sets a variable for the scripts of both; `DIRECTORY` in it is each one's own.
    pub fn variable(&mut self, name: &'static str, value: &str) {
        for side in [&mut self.theirs, &mut self.ours] {
            let value = value.replace("DIRECTORY", &side.directory.display().to_string());
            side.environment.push((name, value));
        }
    }

    /// Puts a file into both directories.
    ///
    /// # Panics
    ///
    /// It cannot be written.
    pub fn file(&self, name: &str, bytes: &[u8]) {
        for side in [&self.theirs, &self.ours] {
            fs::write(side.directory.join(name), bytes).expect("write a test's file");
        }
    }

    /// Runs each script on both daemons, in order; the answers are the same.
    ///
    /// # Panics
    ///
    /// Some are not; it tells of all of them.
    pub fn agree(&mut self, scripts: &[&str]) {
        let mut differences = Vec::new();
        for script in scripts {
            let (theirs, ours) = (self.theirs.answer(script), self.ours.answer(script));
            if ours != theirs {
                differences.push(format!("{script}\n--- ours\n{ours}\n--- theirs\n{theirs}\n"));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}
