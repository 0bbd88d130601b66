//! Starting a container, and what happens when its process has ended.
//!
//! One task a running container waits for the exit at the supervisor, which keeps the status until the task is deleted:
//! that is the only source of exits, so none is missed by looking away.

use super::record::{Phase, Record};
use super::runtime::Runtime;
use super::stdio::Fifos;
use super::store::Container;
use crate::api::types::HostConfig;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::supervisor::{CallError, Exit, StdioUris};
use crate::undo::Undo;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

impl Engine {
    /// Starts a container's process.
    ///
    /// # Errors
    ///
    /// [`Kind::NotModified`] when it runs already. An executable that does not exist or may not be run is named in the
    /// words that Docker's clients look for. A container that is removed when it ends is removed after a failure too.
    pub async fn start_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let lifecycle = container.lifecycle.lock().await;
        match container.with_record(|record| record.state.phase) {
            Phase::Running => return Err(Error::new(Kind::NotModified, "container already started")),
            Phase::Paused => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Phase::Dead => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            Phase::Created | Phase::Exited => {}
        }
        // Before the start, since the notice may come at once.
        if container.with_record(|record| record.state.oom_killed) {
            container.update(|record| record.state.oom_killed = false)?;
        }
        let mut undo = Undo::default();
        match self.launch(container, &mut undo).await {
            Ok(pid) => {
                undo.keep();
                let saved = container.update(|record| {
                    record.state.phase = Phase::Running;
                    record.state.pid = pid;
                    record.state.exit_code = 0;
                    record.state.error.clear();
                    record.state.started = Some(jiff::Timestamp::now());
                    record.state.finished = None;
                });
                if let Err(error) = saved {
                    // The task says the same after a restart; the process runs.
                    tracing::warn!(container_id = container.id, %error, "start not recorded");
                }
                container.announce(|progress| progress.running = true);
                self.publish(container, "start", &[]);
                self.watch_exit(container);
                Ok(())
            }
            Err(error) => {
                undo.run().await;
                container.stdio.finish().await;
                drop(lifecycle);
                Err(self.start_failed(container, error).await)
            }
        }
    }

    async fn launch(&self, container: &Arc<Container>, undo: &mut Undo) -> Result<u32> {
        let (host, terminal, stdin) = container
            .with_record(|record| (record.host.clone(), record.config.tty, record.config.open_stdin));
        let runtime = Runtime::parse(&host.runtime)?;
        let rootfs = self.rootfs_mounts(container).await?;
        std::fs::create_dir_all(&container.run_directory)
            .map_err(|error| Error::io("create", &container.run_directory, error))?;
        let fifos = container
            .stdio
            .begin(&container.run_directory, terminal, stdin, false)?;
        let lazy = container.with_record(Record::dies_with_boot);
        let stdio = uris(&fifos, terminal, &container.log_path(), lazy, &host)?;
        let failed = |error: CallError| start_error(&error);
        self.client
            .create_task(&container.id, rootfs, stdio, runtime.options())
            .await
            .map_err(failed)?;
        let (client, id) = (self.client.clone(), container.id.clone());
        undo.push("task", async move { Ok(client.delete_task(&id).await?) });
        let pid = self
            .client
            .start_process(&container.id, "")
            .await
            .map_err(failed)?;
        Ok(pid)
    }

    // Records why, tells those who wait, and removes the container if that was to be its fate.
    async fn start_failed(self: &Arc<Self>, container: &Arc<Container>, error: Error) -> Error {
        let (error, code) = classify(error);
        let saved = container.update(|record| {
            record.state.exit_code = code;
            record.state.error = error.to_string();
        });
        if let Err(error) = saved {
            tracing::warn!(container_id = container.id, %error, "failed start not recorded");
        }
        container.announce(|progress| {
            progress.ends += 1;
            progress.exit_code = code;
        });
        if container.with_record(|record| record.host.auto_remove)
            && let Err(error) = self.remove_container(container, true).await
        {
            tracing::warn!(container_id = container.id, %error, "container not removed");
        }
        error
    }

    /// Waits in the background for a running container's exit.
    pub fn watch_exit(self: &Arc<Self>, container: &Arc<Container>) {
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        tokio::spawn(async move {
            let exit = engine.await_exit(&container.id).await;
            let _operation = engine.operations.token();
            engine.ended(&container, exit).await;
        });
    }

    async fn await_exit(&self, id: &str) -> Option<Exit> {
        let mut pause = Duration::from_millis(10);
        loop {
            match self.client.wait(id, "").await {
                Ok(exit) => return Some(exit),
                Err(error) if error.is_not_found() => return None,
                Err(error) => tracing::debug!(container_id = id, %error, "asking again for the exit"),
            }
            // A supervisor in another process may be restarting.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Listens in the background for containers that run out of memory. A hint for people: an exit does not wait for it.
    pub fn watch_memory(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        let client = self.client.clone();
        tokio::spawn(async move {
            loop {
                let notice = |id: &str| {
                    let Some(engine) = engine.upgrade() else { return };
                    let Ok(container) = engine.containers.find(id) else {
                        return;
                    };
                    if let Err(error) = container.update(|record| record.state.oom_killed = true) {
                        tracing::warn!(container_id = container.id, %error, "lack of memory not recorded");
                    }
                    engine.publish(&container, "oom", &[]);
                };
                if let Err(error) = client.out_of_memory(notice).await {
                    tracing::debug!(%error, "listening again for memory notices");
                }
                if engine.strong_count() == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// Takes note of an exit; `None` when nobody knows how it ended.
    pub async fn ended(self: &Arc<Self>, container: &Arc<Container>, exit: Option<Exit>) {
        let lifecycle = container.lifecycle.lock().await;
        if let Err(error) = self.client.delete_task(&container.id).await {
            tracing::warn!(container_id = container.id, %error, "task not deleted");
        }
        container.stdio.finish().await;
        // 255 is what Docker reports for a process it lost.
        let code = exit.map_or(255, |exit| i64::from(exit.status));
        let finished = exit
            .and_then(|exit| jiff::Timestamp::try_from(exit.at).ok())
            .unwrap_or_else(jiff::Timestamp::now);
        let auto_remove = container.with_record(|record| record.host.auto_remove);
        let change = |record: &mut Record| {
            record.state.phase = Phase::Exited;
            record.state.pid = 0;
            record.state.exit_code = code;
            record.state.finished = Some(finished);
            if exit.is_none() {
                "the process was lost; its exit status is not known".clone_into(&mut record.state.error);
            }
        };
        if let Err(error) = container.update(change) {
            tracing::warn!(container_id = container.id, %error, "exit not recorded");
        }
        container.announce(|progress| {
            progress.running = false;
            progress.ends += 1;
            progress.exit_code = code;
        });
        self.publish(container, "die", &[("exitCode", code.to_string())]);
        drop(lifecycle);
        if auto_remove && let Err(error) = self.remove_container(container, true).await {
            tracing::warn!(container_id = container.id, %error, "container not removed");
        }
    }
}

/// What the shim is told about stdio: the log is its own affair, and the FIFOs are beside it. A `lazy` log is not there
/// before there is something to log.
fn uris(fifos: &Fifos, terminal: bool, log: &Path, lazy: bool, host: &HostConfig) -> Result<StdioUris> {
    let (mut size, mut files) = ("", "");
    match host.log_config.r#type.as_str() {
        "" | "json-file" => {}
        other => return Err(Error::not_supported(format!("LogConfig: type {other:?}"))),
    }
    for (name, value) in &host.log_config.config {
        match name.as_str() {
            "max-size" => size = value,
            "max-file" => files = value,
            other => {
                return Err(Error::not_supported(format!(
                    "LogConfig: option {other:?} of json-file"
                )));
            }
        }
    }
    let size = log_size(size)?;
    let files: u32 = if files.is_empty() {
        Ok(DEFAULT_LOG_FILES)
    } else {
        files.parse()
    }
    .ok()
    .filter(|files| (1..=1000).contains(files))
    .ok_or_else(|| {
        Error::invalid(format!(
            "LogConfig: max-file {files:?} is not a number from 1 to 1000"
        ))
    })?;
    let output = |fifo: &Path| {
        let (log, fifo) = (encode(log), encode(fifo));
        let lazy = if lazy { "&lazy=1" } else { "" };
        format!("json-file://{log}?max-size={size}&max-file={files}{lazy}&fifo={fifo}")
    };
    Ok(StdioUris {
        stdin: fifos
            .stdin
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        stdout: output(&fifos.stdout),
        stderr: fifos.stderr.as_ref().map(|path| output(path)).unwrap_or_default(),
        terminal,
    })
}

/// Logs are rotated unless something else is asked for: a container must not fill the host's disk with words.
const DEFAULT_LOG_SIZE: u64 = 20 << 20;
const DEFAULT_LOG_FILES: u32 = 5;

fn log_size(text: &str) -> Result<u64> {
    if text.is_empty() {
        return Ok(DEFAULT_LOG_SIZE);
    }
    let (digits, unit) = text.split_at(
        text.find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        _ => 64,
    };
    let size = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1u64.checked_shl(shift)?));
    size.filter(|size| *size > 0)
        .ok_or_else(|| Error::invalid(format!("LogConfig: max-size {text:?} is not a size")))
}

// The state directory is the administrator's choice, and may have a character that means something in a query.
fn encode(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn start_error(error: &CallError) -> Error {
    Error::system(format!("failed to start container: {error}"))
}

// Docker's clients tell by these words whether to exit with 127, 126 or 125; the kind and the code follow dockerd.
pub(super) fn classify(error: Error) -> (Error, i64) {
    let text = error.to_string().to_ascii_lowercase();
    let contains = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if error.kind() != Kind::System {
        (error, 128)
    } else if contains(&["permission denied", "is a directory", "eacces", "eisdir"]) {
        let hint = if text.contains("permission denied") {
            ""
        } else {
            ": permission denied"
        };
        (Error::invalid(format!("{error}{hint}")), 126)
    } else if contains(&["executable file not found", "no such file or directory", "enoent"]) {
        let hint = if contains(&["executable file not found", "no such file or directory"]) {
            ""
        } else {
            ": no such file or directory"
        };
        (Error::invalid(format!("{error}{hint}")), 127)
    } else {
        (error, 128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_dockers_codes() {
        let code = |text: &str| classify(Error::system(text)).1;
        assert_eq!(code("exec: \"x\": executable file not found in $PATH"), 127);
        assert_eq!(code("exec /x: Permission denied"), 126);
        assert_eq!(code("exec /etc: is a directory"), 126);
        assert_eq!(code("mount proc on /proc: EPERM"), 128);
        assert!(
            classify(Error::system("execve /x: EACCES"))
                .0
                .to_string()
                .ends_with("permission denied")
        );
    }

    #[test]
    fn logs_are_rotated_by_default() {
        let fifos = Fifos {
            stdin: None,
            stdout: "/s/a b/out".into(),
            stderr: None,
        };
        let made = uris(&fifos, true, Path::new("/r/c.log"), false, &HostConfig::default()).unwrap();
        assert_eq!(
            made.stdout,
            "json-file:///r/c.log?max-size=20971520&max-file=5&fifo=/s/a%20b/out"
        );
        let mut host = HostConfig::default();
        host.log_config
            .config
            .insert("max-size".to_owned(), "10k".to_owned());
        assert!(
            uris(&fifos, true, Path::new("/l"), true, &host)
                .unwrap()
                .stdout
                .contains("max-size=10240&max-file=5&lazy=1&")
        );
        for bad in ["0", "-1", "ten", "1x", "99999999999999g"] {
            host.log_config
                .config
                .insert("max-size".to_owned(), bad.to_owned());
            assert!(uris(&fifos, true, Path::new("/l"), true, &host).is_err(), "{bad}");
        }
        host.log_config.r#type = "syslog".to_owned();
        assert!(uris(&fifos, true, Path::new("/l"), true, &host).is_err());
    }
}
