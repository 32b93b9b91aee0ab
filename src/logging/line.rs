//! How a line looks: text or JSON, its time, its level.
//!
//! The formatter of the subscriber; the journal uses it for notes of its own. Callers have made
//! peers' text safe (`text::logged`); as a last defence no character that could break a line or
//! steer a terminal leaves here, whatever a message holds. Nothing is written to a file here.

use std::fmt::{self, Write};
use std::time::SystemTime;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::Format;
use crate::text;

/// Width of a level in the text format, in bytes: the longest is `ERROR`.
pub(super) const LEVEL_WIDTH: usize = 5;

/// The wall clock in the local time zone, which is looked up once.
#[derive(Clone, Debug)]
pub(super) struct Clock(TimeZone);

impl Clock {
    fn timestamp() -> Timestamp {
        Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The local time.
    pub(super) fn local(&self) -> Zoned {
        Self::timestamp().to_zoned(self.0.clone())
    }

    /// Writes the local time with its offset (RFC 3339, section 5.6), to the microsecond.
    fn write(&self, out: &mut dyn Write) -> fmt::Result {
        let now = Self::timestamp();
        write!(out, "{:.6}", now.display_with_offset(self.0.to_offset(now)))
    }
}

/// Makes lines.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    format: Format,
    clock: Clock,
}

impl Lines {
    /// Lines of one format, in local time.
    pub(super) fn new(format: Format) -> Self {
        Self { format, clock: Clock(TimeZone::system()) }
    }

    /// The clock that the lines carry.
    pub(super) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// A whole line that no event stands behind.
    pub(super) fn note(&self, level: Level, message: &str) -> String {
        let mut line = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut line, level, &mut |out| match self.format {
            Format::Text => Plain(out).write_str(message),
            Format::Json => {
                out.write_str(",\"message\":")?;
                quoted(out, &message)
            }
        });
        line
    }

    fn write(
        &self,
        out: &mut dyn Write,
        level: Level,
        rest: &mut dyn FnMut(&mut dyn Write) -> fmt::Result,
    ) -> fmt::Result {
        match self.format {
            Format::Text => {
                self.clock.write(out)?;
                write!(out, " {:<LEVEL_WIDTH$} ", level.as_str())?;
                rest(out)?;
                out.write_str("\n")
            }
            Format::Json => {
                out.write_str("{\"timestamp\":\"")?;
                self.clock.write(out)?;
                write!(out, "\",\"level\":\"{}\"", level.as_str())?;
                rest(out)?;
                out.write_str("}\n")
            }
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        self.write(&mut writer, *event.metadata().level(), &mut |out| {
            let mut result = Ok(());
            match self.format {
                Format::Text => event.record(&mut Message { out, result: &mut result }),
                Format::Json => event.record(&mut Fields { out, result: &mut result }),
            }
            result
        })
    }
}

/// Shows the message of an event and nothing else.
struct Message<'a> {
    out: &'a mut dyn Write,
    result: &'a mut fmt::Result,
}

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" && self.result.is_ok() {
            *self.result = write!(Plain(self.out), "{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Shows all fields of an event as members of a JSON object that has some already.
struct Fields<'a> {
    out: &'a mut dyn Write,
    result: &'a mut fmt::Result,
}

impl Fields<'_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        if self.result.is_ok() {
            let name = field.name();
            // A member of an object stands once.
            let prefix = if matches!(name, "timestamp" | "level") { "field_" } else { "" };
            *self.result = self
                .out
                .write_str(",")
                .and_then(|()| quoted(self.out, &format_args!("{prefix}{name}")))
                .and_then(|()| self.out.write_str(":"))
                .and_then(|()| value(self.out));
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |out| quoted(out, &format_args!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |out| quoted(out, &value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.member(field, |out| quoted(out, &value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities and no NaN.
        self.member(field, |out| match value.is_finite() {
            true => write!(out, "{value:?}"),
            false => out.write_str("null"),
        });
    }
}

/// Writes a JSON string that no terminal acts on.
fn quoted(out: &mut dyn Write, value: &dyn fmt::Display) -> fmt::Result {
    out.write_str("\"")?;
    write!(InQuotes(out), "{value}")?;
    out.write_str("\"")
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Passes text on, with what steers escaped. Almost all text has nothing to escape.
struct Plain<'a>(&'a mut dyn Write);

impl Write for Plain<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        match is_printable(part) {
            true => self.0.write_str(part),
            false => write!(self.0, "{}", text::shown(part.as_bytes())),
        }
    }
}

/// Passes text on as it stands inside a JSON string.
struct InQuotes<'a>(&'a mut dyn Write);

impl Write for InQuotes<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if is_printable(part) && !part.contains(['"', '\\']) {
            return self.0.write_str(part);
        }
        let json = serde_json::to_string(part).map_err(|_| fmt::Error)?;
        let safe = text::json_for_terminal(&json);
        let inner = safe.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        self.0.write_str(inner.ok_or(fmt::Error)?)
    }
}
