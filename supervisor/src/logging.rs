//! How the daemon logs: on stderr, for people, for programs, or for systemd's journal.
//!
//! The journal takes each line that a service prints. A line that begins with `<N>` has that priority (`sd-daemon(3)`), and
//! the time is the journal's own. That is chosen by itself when stderr is connected to the journal (`JOURNAL_STREAM`).

use std::{fmt, io::IsTerminal as _, os::unix::fs::MetadataExt as _};

use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    fmt::{
        FmtContext,
        format::{Format as Lines, FormatEvent, FormatFields, Full, Writer},
    },
    registry::LookupSpan,
};

use crate::error::{Error, Result};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Text,
    Json,
    Journal,
}

/// Starts logging.
///
/// # Errors
///
/// `InvalidArgument`: `level` is none, or `format` is neither `text` nor `json` nor `journal`. `None` is `text`, or
/// `journal` when that is what reads.
pub fn start(level: &str, format: Option<&str>) -> Result<()> {
    let level: LevelFilter = level
        .parse()
        .map_err(|_| Error::invalid(format!("log level {level:?}: error, warn, info, debug or trace")))?;
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr);
    match style(format, is_journal())? {
        Style::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        Style::Json => builder.json().flatten_event(true).init(),
        Style::Journal => builder
            .with_ansi(false)
            .event_format(Prioritised(Lines::default().without_time().with_level(false)))
            .init(),
    }
    Ok(())
}

fn style(format: Option<&str>, journal: bool) -> Result<Style> {
    match format {
        None if journal => Ok(Style::Journal),
        None | Some("text") => Ok(Style::Text),
        Some("json") => Ok(Style::Json),
        Some("journal") => Ok(Style::Journal),
        Some(other) => Err(Error::invalid(format!(
            "log format {other:?}: text, json or journal"
        ))),
    }
}

/// Whether stderr is what systemd connected to the journal: it may have been redirected since.
fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Lines with their priority before them.
struct Prioritised(Lines<Full, ()>);

impl<S, N> FormatEvent<S, N> for Prioritised
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// syslog's number for a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_chosen_by_itself_and_nothing_else_is_guessed() {
        assert_eq!(style(None, true).unwrap(), Style::Journal);
        assert_eq!(style(None, false).unwrap(), Style::Text);
        assert_eq!(style(Some("json"), true).unwrap(), Style::Json);
        assert!(style(Some("xml"), false).is_err());
        assert!(start("loud", None).is_err());
    }
}
