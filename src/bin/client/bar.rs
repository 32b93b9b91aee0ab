//! The progress bar of a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use oneport::text::shortened;

use crate::view::Show;

/// Longest name shown beside the bar, in bytes.
const NAME_SHOWN: usize = 30;
/// How often the bar is drawn, at most, per second.
const DRAWS_PER_SECOND: u8 = 10;
const TEMPLATE: &str = "{msg} {percent:>3}% [{wide_bar}] {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, ETA {eta}";
const COLORED: &str = "{msg} {percent:>3}% [{wide_bar:.green}] {decimal_bytes} of {decimal_total_bytes}, \
                       {decimal_bytes_per_sec}, ETA {eta}";

/// A bar that is drawn on standard error.
pub(crate) struct Bar {
    name: String,
    bar: Option<ProgressBar>,
}

impl Bar {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: shortened(name, NAME_SHOWN), bar: None }
    }
}

impl Show for Bar {
    fn started(&mut self, size: u64, have: u64) {
        self.ended();
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(Some(size), target).with_message(self.name.clone());
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        // The templates are fixed: if one did not parse, a default bar would be shown.
        if let Ok(style) = ProgressStyle::with_template(if plain { TEMPLATE } else { COLORED }) {
            bar.set_style(style.progress_chars("=> "));
        }
        // What is here already says nothing about the speed.
        bar.set_position(have);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn progress(&mut self, done: u64, _size: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    fn say(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| oneport::app::say(line)),
            None => oneport::app::say(line),
        }
    }

    fn ended(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}
