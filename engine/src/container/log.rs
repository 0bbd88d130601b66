//! Reading a container's log, which the shim writes: Docker's json-file format, one object a line, rotated by renaming
//! `log` to `log.1`, that to `log.2`, and so on.
//!
//! Following sleeps on inotify and on the container's state, so nothing is asked over and over. Refuses to write.

use super::stdio::Piece;
use super::store::Container;
use crate::api::stdcopy::Stream;
use crate::error::{Error, Result};
use bytes::Bytes;
use rustix::fs::inotify;
use serde::Deserialize;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

const BLOCK: usize = 64 * 1024;
// A line holds at most 16 KiB of output, escaped six-fold at worst.
const MAX_LINE: usize = 1 << 20;
const MAX_FILES: u32 = 1000;

/// What of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Lines of stdout.
    pub stdout: bool,
    /// Lines of stderr.
    pub stderr: bool,
    /// Only so many of the last lines.
    pub tail: Option<usize>,
    /// Only lines written then or later.
    pub since: Option<jiff::Timestamp>,
    /// Only lines written before.
    pub until: Option<jiff::Timestamp>,
    /// Whether each line begins with its time.
    pub timestamps: bool,
    /// Whether to go on until the container ends.
    pub follow: bool,
}

#[derive(Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: String,
}

/// Reads the log of a container in the background.
///
/// # Errors
///
/// The log cannot be watched.
pub fn read(container: &Arc<Container>, selection: Selection) -> Result<mpsc::Receiver<Piece>> {
    let (sender, receiver) = mpsc::channel(16);
    let path = container.log_path();
    let watch = if selection.follow {
        let directory = &container.log_directory;
        // It may be there from the first line on only.
        std::fs::create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
        Some(watch(directory)?)
    } else {
        None
    };
    let progress = container.watch();
    let id = container.id.clone();
    tokio::spawn(async move {
        if let Err(error) = send(&path, &selection, watch, progress, &sender).await {
            tracing::warn!(container_id = id, %error, "log not read to its end");
        }
    });
    Ok(receiver)
}

// The directory is watched, since the log is renamed away and made anew.
fn watch(directory: &Path) -> Result<AsyncFd<OwnedFd>> {
    let failed = |error: std::io::Error| Error::io("watch", directory, error);
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
        .map_err(|error| failed(error.into()))?;
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&fd, directory, events).map_err(|error| failed(error.into()))?;
    crate::readiness::watch(fd, tokio::io::Interest::READABLE).map_err(failed)
}

async fn send(
    path: &Path,
    selection: &Selection,
    watch: Option<AsyncFd<OwnedFd>>,
    mut progress: tokio::sync::watch::Receiver<super::store::Progress>,
    sender: &mpsc::Sender<Piece>,
) -> Result<()> {
    let mut files = rotated(path);
    if let Some(tail) = selection.tail {
        files = crate::engine::blocking(move || skip_to_tail(files, tail)).await?;
    }
    let mut live = None;
    while let Some(mut file) = files.pop_front() {
        live = None;
        if !copy(&mut file, selection, sender).await? {
            return Ok(());
        }
        if file.path == path {
            live = Some(file);
        }
    }
    let Some(watch) = watch else { return Ok(()) };
    loop {
        // Looked at before the read: what was written before the end is there by then.
        let running = progress.borrow_and_update().running;
        match &mut live {
            Some(file) => {
                if !copy(file, selection, sender).await? {
                    return Ok(());
                }
                if std::fs::metadata(path).is_ok_and(|stat| stat.ino() != file.inode) {
                    if !copy(file, selection, sender).await? {
                        return Ok(());
                    }
                    live = open(path)?;
                    continue;
                }
            }
            None => {
                live = open(path)?;
                if live.is_some() {
                    continue;
                }
            }
        }
        if !running {
            return Ok(());
        }
        tokio::select! {
            ready = watch.readable() => drain(&mut ready.map_err(|error| Error::io("watch", path, error))?),
            changed = progress.changed() => if changed.is_err() { return Ok(()) },
            () = sender.closed() => return Ok(()),
        }
    }
}

fn drain(ready: &mut tokio::io::unix::AsyncFdReadyGuard<'_, OwnedFd>) {
    let mut buffer = [0; 4096];
    // What changed does not matter: the file is looked at.
    while let Ok(Ok(1..)) =
        ready.try_io(|fd| rustix::io::read(fd.get_ref(), &mut buffer).map_err(std::io::Error::from))
    {}
}

struct Open {
    path: PathBuf,
    file: File,
    inode: u64,
    rest: Vec<u8>,
}

// The files of a log, oldest first.
fn rotated(path: &Path) -> VecDeque<Open> {
    let mut files = VecDeque::new();
    if let Ok(Some(file)) = open(path) {
        files.push_front(file);
    }
    for number in 1..MAX_FILES {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        match open(Path::new(&name)) {
            Ok(Some(file)) => files.push_front(file),
            _ => break,
        }
    }
    files
}

fn open(path: &Path) -> Result<Option<Open>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let inode = file
        .metadata()
        .map_err(|error| Error::io("read", path, error))?
        .ino();
    Ok(Some(Open {
        path: path.to_owned(),
        file,
        inode,
        rest: Vec::new(),
    }))
}

// Drops what comes before the last `lines` lines, going backwards from the end.
fn skip_to_tail(mut files: VecDeque<Open>, lines: usize) -> Result<VecDeque<Open>> {
    let mut kept = VecDeque::new();
    let mut wanted = lines;
    while let Some(mut open) = files.pop_back() {
        let path = open.path.clone();
        let failed = |error| Error::io("read", &path, error);
        let length = open.file.metadata().map_err(failed)?.len();
        let (offset, found) = tail_offset(&mut open.file, length, wanted).map_err(failed)?;
        open.file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        kept.push_front(open);
        wanted -= found;
        if wanted == 0 {
            break;
        }
    }
    Ok(kept)
}

// Where the last `wanted` lines begin, and how many of them there are.
fn tail_offset(file: &mut File, length: u64, wanted: usize) -> std::io::Result<(u64, usize)> {
    let mut newlines = 0;
    let mut end = length;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let size = usize::try_from(end).map_or(BLOCK, |end| end.min(BLOCK));
        let begin = end - size as u64;
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut block[..size])?;
        for (index, byte) in block[..size].iter().enumerate().rev() {
            if *byte == b'\n' {
                newlines += 1;
                // The line that ends here is one too many.
                if newlines > wanted {
                    return Ok((begin + index as u64 + 1, wanted));
                }
            }
        }
        end = begin;
    }
    Ok((0, newlines))
}

// Sends the complete lines from where the file is read to its end; `false` when nobody listens any more.
async fn copy(open: &mut Open, selection: &Selection, sender: &mpsc::Sender<Piece>) -> Result<bool> {
    let mut block = vec![0; BLOCK];
    loop {
        let count = open
            .file
            .read(&mut block)
            .map_err(|error| Error::io("read", &open.path, error))?;
        if count == 0 {
            return Ok(true);
        }
        open.rest.extend_from_slice(&block[..count]);
        let mut begin = 0;
        while let Some(length) = open.rest[begin..].iter().position(|byte| *byte == b'\n') {
            let line = &open.rest[begin..begin + length];
            begin += length + 1;
            if let Some(piece) = select(line, selection)
                && sender.send(piece).await.is_err()
            {
                return Ok(false);
            }
        }
        open.rest.drain(..begin);
        if open.rest.len() > MAX_LINE {
            return Err(Error::io(
                "read",
                &open.path,
                format!("a line is longer than {MAX_LINE} bytes"),
            ));
        }
    }
}

// A line that is damaged is left out: the others are still of use.
fn select(line: &[u8], selection: &Selection) -> Option<Piece> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let stream = if line.stream == "stderr" {
        Stream::Stderr
    } else {
        Stream::Stdout
    };
    if !(if stream == Stream::Stderr {
        selection.stderr
    } else {
        selection.stdout
    }) {
        return None;
    }
    if selection.since.is_some() || selection.until.is_some() {
        let time: jiff::Timestamp = line.time.parse().ok()?;
        if selection.since.is_some_and(|since| time < since)
            || selection.until.is_some_and(|until| time >= until)
        {
            return None;
        }
    }
    let text = if selection.timestamps {
        format!("{} {}", line.time, line.log)
    } else {
        line.log
    };
    Some((stream, Bytes::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Selection {
        Selection {
            stdout: true,
            stderr: true,
            ..Default::default()
        }
    }

    fn line(log: &str, stream: &str, second: u32) -> String {
        format!(
            "{{\"log\":\"{log}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{second:02}.5Z\"}}\n"
        )
    }

    async fn collect(path: &Path, selection: Selection) -> String {
        let (sender, mut receiver) = mpsc::channel(16);
        let progress = tokio::sync::watch::channel(super::super::store::Progress::default()).1;
        let path = path.to_owned();
        let sent = tokio::spawn(async move { send(&path, &selection, None, progress, &sender).await });
        let mut text = String::new();
        while let Some((_, bytes)) = receiver.recv().await {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        sent.await.unwrap().unwrap();
        text
    }

    #[tokio::test]
    async fn lines_are_selected_over_rotated_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(directory.path().join("log.2"), line("a", "stdout", 1)).unwrap();
        std::fs::write(
            directory.path().join("log.1"),
            line("b", "stderr", 2) + &line("c", "stdout", 3),
        )
        .unwrap();
        std::fs::write(
            &path,
            line("d", "stdout", 4) + "damaged\n" + &line("e", "stderr", 5) + "{\"log\":\"unfin",
        )
        .unwrap();
        assert_eq!(collect(&path, both()).await, "a\nb\nc\nd\ne\n");
        let only = Selection {
            stderr: false,
            ..both()
        };
        assert_eq!(collect(&path, only).await, "a\nc\nd\n");
        let since = Selection {
            since: "2026-01-01T00:00:03Z".parse().ok(),
            until: "2026-01-01T00:00:05Z".parse().ok(),
            ..both()
        };
        assert_eq!(collect(&path, since).await, "c\nd\n");
        let stamped = Selection {
            tail: Some(1),
            timestamps: true,
            ..both()
        };
        assert_eq!(collect(&path, stamped).await, "2026-01-01T00:00:05.5Z e\n");
    }

    #[tokio::test]
    async fn tails_are_found_from_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(
            directory.path().join("log.1"),
            line("a", "stdout", 1) + &line("b", "stdout", 2),
        )
        .unwrap();
        std::fs::write(
            &path,
            (0..5000).map(|_| line("x", "stdout", 3)).collect::<String>() + &line("z", "stdout", 4),
        )
        .unwrap();
        for (tail, expected) in [
            (0, String::new()),
            (1, "z\n".to_owned()),
            (4000, "x\n".repeat(3999) + "z\n"),
            (5002, "b\n".to_owned() + &"x\n".repeat(5000) + "z\n"),
        ] {
            assert_eq!(
                collect(
                    &path,
                    Selection {
                        tail: Some(tail),
                        ..both()
                    }
                )
                .await,
                expected,
                "{tail}"
            );
        }
        let everything = collect(
            &path,
            Selection {
                tail: Some(99_999),
                ..both()
            },
        )
        .await;
        assert!(everything.starts_with("a\nb\nx\n"));
    }
}
