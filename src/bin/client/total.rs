//! How far many files have come: one bar for all of them and one for each large file that is arriving, or a
//! line now and then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use oneport::client::Totals;
use oneport::text::shown as safe;
use oneport::units::Bytes;

use crate::args::{Job, Progress};
use crate::view::is_smart_terminal;

/// How often the bars are drawn, at most, per second.
const DRAWS_PER_SECOND: u8 = 10;
/// Time between two lines where there is no bar.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// What does not fit into a line is cut off, however narrow the terminal is.
const TOTAL: &str = "{percent:>3}% [{wide_bar}] {decimal_bytes_per_sec}, ETA {eta}\n     {wide_msg}";
const ONE: &str = "{percent:>3}% of {decimal_total_bytes}  {wide_msg}";

/// A way to show it.
pub(crate) trait Total: Send {
    /// So far all have come.
    fn total(&mut self, totals: &Totals);
    /// So many bytes of a large file are here.
    fn progress(&mut self, name: &[u8], done: u64, size: u64);
    /// A file is here, or will not be.
    fn file(&mut self, name: &[u8]);
    /// A line that must be seen, in between.
    fn say(&mut self, line: &str);
    /// Nothing more comes.
    fn ended(&mut self);
}

/// The way that the user wants, or that fits.
pub(crate) fn shown(job: &Job) -> Box<dyn Total> {
    match (job.progress, job.quiet) {
        (_, true) | (Progress::None, _) => Box::new(Silent),
        (Progress::Bar, _) => Box::new(Bars::new()),
        (Progress::Auto, _) if is_smart_terminal() => Box::new(Bars::new()),
        (Progress::Auto | Progress::Plain, _) => Box::new(Lines { told: Instant::now() }),
    }
}

struct Silent;

impl Total for Silent {
    fn total(&mut self, _totals: &Totals) {}

    fn progress(&mut self, _name: &[u8], _done: u64, _size: u64) {}

    fn file(&mut self, _name: &[u8]) {}

    fn say(&mut self, line: &str) {
        oneport::app::say(line);
    }

    fn ended(&mut self) {}
}

/// A line now and then.
struct Lines {
    told: Instant,
}

impl Total for Lines {
    fn total(&mut self, totals: &Totals) {
        if self.told.elapsed() >= LINE_INTERVAL {
            self.told = Instant::now();
            oneport::app::say(&of_all(totals));
        }
    }

    fn progress(&mut self, _name: &[u8], _done: u64, _size: u64) {}

    fn file(&mut self, _name: &[u8]) {}

    fn say(&mut self, line: &str) {
        oneport::app::say(line);
    }

    fn ended(&mut self) {}
}

/// What is done of what is known; more may be found.
fn of_all(totals: &Totals) -> String {
    let Totals { files, files_done, bytes, bytes_done, is_complete, .. } = *totals;
    let more = if is_complete { "" } else { "+" };
    format!("{files_done} of {files}{more} files, {} of {}{more}", Bytes(bytes_done), Bytes(bytes))
}

/// Bars on standard error.
struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    large: BTreeMap<Vec<u8>, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        let total = all.add(ProgressBar::new(0));
        // The template is fixed: if it did not parse, a default bar would be shown.
        if let Ok(style) = ProgressStyle::with_template(TOTAL) {
            total.set_style(style.progress_chars("=> "));
        }
        Self { all, total, large: BTreeMap::new() }
    }
}

impl Total for Bars {
    fn total(&mut self, totals: &Totals) {
        self.total.set_length(totals.bytes);
        self.total.set_position(totals.bytes_done);
        self.total.set_message(of_all(totals));
    }

    fn progress(&mut self, name: &[u8], done: u64, size: u64) {
        let bar = self.large.entry(name.to_vec()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(size));
            if let Ok(style) = ProgressStyle::with_template(ONE) {
                bar.set_style(style);
            }
            bar.with_message(safe(name).to_string())
        });
        bar.set_position(done);
    }

    fn file(&mut self, name: &[u8]) {
        if let Some(bar) = self.large.remove(name) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    fn say(&mut self, line: &str) {
        self.all.suspend(|| oneport::app::say(line));
    }

    fn ended(&mut self) {
        for bar in std::mem::take(&mut self.large).into_values() {
            bar.finish_and_clear();
        }
        self.total.abandon();
    }
}
