//! Progress as lines, for whatever is not a terminal: one for each ten percent.

use oneport::app::say;
use oneport::progress::Steps;
use oneport::units::Bytes;

use crate::view::Show;

/// Lines on standard error.
pub(crate) struct Plain {
    name: String,
    steps: Steps,
}

impl Plain {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), steps: Steps::new(0) }
    }
}

impl Show for Plain {
    fn started(&mut self, size: u64, have: u64) {
        self.steps = Steps::new(size);
        if have > 0 {
            // Those steps were told when their bytes arrived.
            let _ = self.steps.reached(have);
        }
    }

    fn progress(&mut self, done: u64, size: u64) {
        for percent in self.steps.reached(done) {
            say(&format!("{}: {percent}% ({} of {})", self.name, Bytes(done), Bytes(size)));
        }
    }

    fn say(&mut self, line: &str) {
        say(line);
    }

    fn ended(&mut self) {}
}
