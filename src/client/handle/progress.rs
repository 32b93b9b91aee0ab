//! How far a file is, in numbers that a person wants: percent, bytes, rate, and the time that is left.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client::{Event, Observer};
use crate::limits::PROGRESS_RATE_SPAN;
use crate::text;

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// What the server calls the file, made safe to show.
    pub name: &'a str,
    /// How much of it was moved, in percent of its size: 0 to 100. An empty file is at 100.
    pub percent: f64,
    /// Bytes of it that are at their place, those of earlier attempts among them.
    pub transferred: u64,
    /// Its size in bytes.
    pub total: u64,
    /// Bytes per second, as measured over the last [`PROGRESS_RATE_SPAN`]; 0 at the beginning.
    pub speed: f64,
    /// The time that is left at this rate; `None` while nothing moves.
    pub eta: Option<Duration>,
}

/// What is told of it.
pub(super) type OnProgress = dyn Fn(&Progress<'_>) + Send + Sync;

/// Turns the events of one call into progress, and passes them on.
pub(super) struct Meter {
    name: String,
    told: Option<Arc<OnProgress>>,
    observer: Option<Arc<dyn Observer>>,
    rate: Mutex<Rate>,
}

/// Moments, and how many bytes were moved by then: the oldest one first.
#[derive(Debug, Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Meter {
    pub(super) fn new(
        name: &[u8],
        told: Option<Arc<OnProgress>>,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        Self { name: text::shown(name).to_string(), told, observer, rate: Mutex::default() }
    }

    fn tell(&self, transferred: u64, total: u64, is_beginning: bool) {
        let Some(told) = &self.told else { return };
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if is_beginning {
            rate.0.clear();
        }
        let speed = rate.add(Instant::now(), transferred);
        drop(rate);
        told(&progress(&self.name, transferred, total, speed));
    }
}

impl Observer for Meter {
    fn observe(&self, event: &Event<'_>) {
        if let Some(observer) = &self.observer {
            observer.observe(event);
        }
        match *event {
            Event::Started { size, have, .. } => self.tell(have, size, true),
            Event::Progress { done, size } => self.tell(done, size, false),
            _ => {}
        }
    }
}

impl Rate {
    /// So many bytes were moved at this moment; the rate, in bytes per second.
    fn add(&mut self, now: Instant, transferred: u64) -> f64 {
        self.0.push_back((now, transferred));
        // One that is older stays, so that the span is never shorter.
        while self.0.get(1).is_some_and(|&(moment, _)| now - moment >= PROGRESS_RATE_SPAN) {
            self.0.pop_front();
        }
        let Some(&(since, before)) = self.0.front() else { return 0.0 };
        let seconds = (now - since).as_secs_f64();
        if seconds > 0.0 { as_float(transferred.saturating_sub(before)) / seconds } else { 0.0 }
    }
}

fn progress(name: &str, transferred: u64, total: u64, speed: f64) -> Progress<'_> {
    let percent = if total == 0 { 100.0 } else { as_float(transferred) / as_float(total) * 100.0 };
    let left = as_float(total.saturating_sub(transferred));
    let eta = match left {
        0.0 => Some(Duration::ZERO),
        _ if speed > 0.0 => Duration::try_from_secs_f64(left / speed).ok(),
        _ => None,
    };
    Progress { name, percent, transferred, total, speed, eta }
}

/// Counts of bytes lose nothing that anybody sees.
#[expect(clippy::cast_precision_loss, reason = "53 bits are enough for a percentage and a rate")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_the_rest_follows_from_it() {
        let (mut rate, began) = (Rate::default(), Instant::now());
        assert_eq!(rate.add(began, 500).to_bits(), 0.0_f64.to_bits(), "one moment is no span");
        let mut speed = 0.0;
        for second in 1..=100_u64 {
            // A thousand bytes a second at first, and a hundred from then on.
            let moved = if second <= 50 { second * 1000 } else { 50_000 + (second - 50) * 100 };
            speed = rate.add(began + Duration::from_secs(second), 500 + moved);
            assert!(rate.0.len() <= 2 + usize::try_from(PROGRESS_RATE_SPAN.as_secs()).unwrap());
        }
        assert!((speed - 100.0).abs() < 1e-6, "{speed}");
        let told = progress("x", 250, 1000, 100.0);
        assert_eq!((told.percent.round(), told.eta), (25.0, Some(Duration::from_millis(7500))));
        assert_eq!(progress("x", 250, 1000, 0.0).eta, None, "nothing moves");
        let ended = progress("x", 0, 0, 0.0);
        assert_eq!((ended.percent.round(), ended.eta), (100.0, Some(Duration::ZERO)), "an empty file");
    }
}
