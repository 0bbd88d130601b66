//! The container log: Docker's json-file format, rotated by size.
//!
//! One JSON object a line, `{"log":"text\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}`. A line of
//! output longer than [`CHUNK`] is split, and the pieces before the last carry no newline, which is how readers join
//! them. Bytes that are not UTF-8 become U+FFFD. What is still unfinished when the output ends is written as it is.
//!
//! Every entry goes to the file whole or not at all: a short write is cut off again. Rotation renames `name.N` upwards
//! before it opens a new `name`; a crash in between leaves complete files under their old or new names, and no `name`,
//! which the next entry makes. With one file only, the file is emptied instead.
//!
//! A `lazy` log is opened, and it and its directory made, with the first entry: most short-lived containers say nothing.

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::uri::JsonFile;
use crate::clock;

/// The longest piece of a line in one entry, in bytes.
pub const CHUNK: usize = 16 << 10;

/// The log file, shared by a process's stdout and stderr.
pub struct LogFile {
    path: PathBuf,
    max_size: Option<u64>,
    max_file: u32,
    lazy: bool,
    /// Not open yet when lazy.
    file: Option<File>,
    size: u64,
    entry: Vec<u8>,
}

impl LogFile {
    /// Opens the log for appending, making it (mode 0640) when it is not there. Its directory must exist, unless it is
    /// lazy.
    pub fn open(parameters: &JsonFile) -> io::Result<Rc<RefCell<LogFile>>> {
        let mut log = LogFile {
            path: parameters.path.clone(),
            max_size: parameters.max_size,
            max_file: parameters.max_file,
            lazy: parameters.lazy,
            file: None,
            size: 0,
            entry: Vec::new(),
        };
        if !parameters.lazy {
            log.file()?;
        }
        Ok(Rc::new(RefCell::new(log)))
    }

    fn file(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                let file = match open(&self.path) {
                    Err(error) if self.lazy && error.kind() == io::ErrorKind::NotFound => {
                        let directory = self.path.parent().unwrap_or(Path::new("/"));
                        DirBuilder::new().mode(0o755).create(directory)?;
                        open(&self.path)?
                    }
                    opened => opened?,
                };
                self.size = file.metadata()?.len();
                Ok(none.insert(file))
            }
        }
    }

    /// Whether this is the log at `path`.
    pub fn is_at(&self, path: &Path) -> bool {
        self.path == path
    }

    fn append(&mut self, stream: &str, text: &[u8]) -> io::Result<()> {
        self.entry.clear();
        self.entry.extend_from_slice(b"{\"log\":\"");
        escape(text, &mut self.entry);
        let time = clock::rfc3339(&clock::now());
        let tail = format!("\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n");
        self.entry.extend_from_slice(tail.as_bytes());
        self.file()?;
        if self
            .max_size
            .is_some_and(|limit| self.size > 0 && self.size + self.entry.len() as u64 > limit)
        {
            self.rotate()?;
        }
        let entry = std::mem::take(&mut self.entry);
        let size = self.size;
        let file = self.file()?;
        if let Err(error) = file.write_all(&entry) {
            file.set_len(size)?;
            return Err(error);
        }
        self.entry = entry;
        self.size += self.entry.len() as u64;
        // One huge entry must not keep its memory for the life of the container.
        if self.entry.capacity() > 4096 {
            self.entry = Vec::new();
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.max_file < 2 {
            self.file()?.set_len(0)?;
        } else {
            for number in (1..self.max_file).rev() {
                let from = if number == 1 {
                    self.path.clone()
                } else {
                    self.numbered(number - 1)
                };
                match fs::rename(&from, self.numbered(number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.file = Some(open(&self.path)?);
        }
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// One output stream of the log: cuts bytes into lines.
pub struct LogStream {
    file: Rc<RefCell<LogFile>>,
    stream: &'static str,
    line: Vec<u8>,
}

impl LogStream {
    /// The stream `stream` (`stdout` or `stderr`) of `file`.
    pub fn new(file: Rc<RefCell<LogFile>>, stream: &'static str) -> LogStream {
        LogStream {
            file,
            stream,
            line: Vec::new(),
        }
    }

    /// Logs the complete lines of `bytes` and keeps the rest for later.
    ///
    /// # Errors
    ///
    /// The first entry that could not be written; the others were tried all the same.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut outcome = Ok(());
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = CHUNK - self.line.len();
            let piece = &rest[..rest.len().min(room)];
            let end = piece.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let taken = end.unwrap_or(piece.len());
            self.line.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            if end.is_some() || self.line.len() == CHUNK {
                outcome = outcome.and(self.flush());
            }
        }
        if self.line.is_empty() && self.line.capacity() > 4096 {
            self.line = Vec::new();
        }
        outcome
    }

    /// Logs what is left of an unfinished line.
    ///
    /// # Errors
    ///
    /// It could not be written.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.line.is_empty() {
            return Ok(());
        }
        // A character that the bound cuts in two is carried over to the next piece.
        let whole = self.line.len() - unfinished_character(&self.line);
        let cut = if self.line.len() == CHUNK && whole > 0 {
            whole
        } else {
            self.line.len()
        };
        let outcome = self.file.borrow_mut().append(self.stream, &self.line[..cut]);
        self.line.drain(..cut);
        outcome
    }
}

/// How many bytes at the end begin a UTF-8 character without ending it.
fn unfinished_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        if byte & 0xc0 == 0x80 {
            continue;
        }
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if length > back { back } else { 0 };
    }
    0
}

/// Appends `text` as the inside of a JSON string.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // As Docker writes them: control characters, what HTML would read, and the JavaScript line ends.
                '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    out.extend_from_slice(format!("\\u{:04x}", character as u32).as_bytes());
                }
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(directory: &Path, max_size: Option<u64>, max_file: u32) -> LogStream {
        let parameters = JsonFile {
            path: directory.join("c.log"),
            max_size,
            max_file,
            lazy: true,
            fifo: None,
        };
        LogStream::new(LogFile::open(&parameters).unwrap(), "stdout")
    }

    fn entries(path: &Path) -> Vec<String> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(value["stream"], "stdout");
                assert!(clock::parse_rfc3339(value["time"].as_str().unwrap()).is_some());
                value["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_are_cut_at_newlines_and_at_the_bound() {
        let directory = tempfile::tempdir().unwrap();
        let mut stream = log(&directory.path().join("made"), None, 1);
        assert!(!directory.path().join("made").exists());
        let directory = directory.path().join("made");
        stream.write(b"one\ntw").unwrap();
        stream.write(b"o\n").unwrap();
        let long = "x".repeat(CHUNK + 10);
        stream.write(format!("{long}\nrest").as_bytes()).unwrap();
        stream.flush().unwrap();
        let expected = ["one\n", "two\n", &long[..CHUNK], "xxxxxxxxxx\n", "rest"];
        assert_eq!(entries(&directory.join("c.log")), expected);
    }

    #[test]
    fn any_bytes_become_valid_json_and_no_character_is_split() {
        let directory = tempfile::tempdir().unwrap();
        let mut stream = log(directory.path(), None, 1);
        stream.write(b"\"\\\x01\xff\xfe<\t\n").unwrap();
        let long = format!("{}\u{20ac}\n", "y".repeat(CHUNK - 1));
        stream.write(long.as_bytes()).unwrap();
        let got = entries(&directory.path().join("c.log"));
        assert_eq!(got[0], "\"\\\u{1}\u{fffd}\u{fffd}<\t\n");
        assert_eq!(got[1..].concat(), long);
    }

    #[test]
    fn rotation_keeps_the_newest_files_and_loses_no_line_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut stream = log(directory.path(), Some(400), 3);
        for number in 0..20 {
            stream.write(format!("line {number}\n").as_bytes()).unwrap();
        }
        let base = directory.path().join("c.log");
        let mut all = Vec::new();
        for name in ["c.log.2", "c.log.1", "c.log"] {
            let path = directory.path().join(name);
            assert!(fs::metadata(&path).unwrap().len() <= 400);
            all.extend(entries(&path));
        }
        let first = 20 - all.len();
        let expected: Vec<String> = (first..20).map(|number| format!("line {number}\n")).collect();
        assert_eq!(all, expected);
        assert!(!base.with_extension("log.3").exists());
    }

    #[test]
    fn a_log_of_one_file_starts_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut stream = log(directory.path(), Some(200), 1);
        for number in 0..9 {
            stream.write(format!("line {number}\n").as_bytes()).unwrap();
        }
        let got = entries(&directory.path().join("c.log"));
        assert_eq!(got.last().unwrap(), "line 8\n");
        assert!(got.len() < 9);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
