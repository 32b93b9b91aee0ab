//! How far a transfer has come, in steps of ten percent.
//!
//! Server log, client lines and later listeners share this arithmetic, so that they all speak of
//! the same moments.

use crate::limits::PROGRESS_MIN;

/// The steps of one transfer: ten for a file of at least [`PROGRESS_MIN`] bytes, one for a smaller.
#[derive(Clone, Debug)]
pub struct Steps {
    size: u64,
    next_percent: u8,
    stride: u8,
}

impl Steps {
    /// Steps of a transfer of `size` bytes of which none has been moved.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let stride = if size >= PROGRESS_MIN { 10 } else { 100 };
        Self { size, next_percent: stride, stride }
    }

    /// The count of bytes at which a percentage is reached; the whole size for more than 100.
    #[must_use]
    pub fn mark(&self, percent: u8) -> u64 {
        mark(self.size, percent.min(100))
    }

    /// The percentages reached now that `done` bytes have been moved, each one once.
    pub fn reached(&mut self, done: u64) -> impl Iterator<Item = u8> + use<> {
        let first = self.next_percent;
        while self.next_percent <= 100 && done >= mark(self.size, self.next_percent) {
            self.next_percent += self.stride;
        }
        (first..self.next_percent).step_by(usize::from(self.stride))
    }
}

/// The least count of bytes that is at least `percent` of `size`.
fn mark(size: u64, percent: u8) -> u64 {
    let part = (u128::from(size) * u128::from(percent)).div_ceil(100);
    u64::try_from(part).unwrap_or(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(size: u64, stride: u64) -> Vec<(u8, u64)> {
        let mut steps = Steps::new(size);
        let mut seen: Vec<_> = steps.reached(0).map(|percent| (percent, 0)).collect();
        let mut done = 0;
        while done < size {
            done = size.min(done.saturating_add(stride));
            seen.extend(steps.reached(done).map(|percent| (percent, done)));
        }
        seen
    }

    #[test]
    fn a_large_file_has_exactly_ten_steps_however_it_is_cut() {
        for size in [PROGRESS_MIN, PROGRESS_MIN + 1, 5 << 30, u64::MAX] {
            for stride in [size / 1000 + 1, size / 7, size] {
                let percents: Vec<u8> = all(size, stride).into_iter().map(|(p, _)| p).collect();
                assert_eq!(percents, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
            }
        }
    }

    #[test]
    fn a_small_file_has_one_step_and_an_empty_one_has_it_at_once() {
        assert_eq!(all(PROGRESS_MIN - 1, 1000).len(), 1);
        assert_eq!(all(1, 1), [(100, 1)]);
        assert_eq!(all(0, 1), [(100, 0)]);
    }

    #[test]
    fn at_its_mark_a_step_is_reached_and_not_before() {
        let mut steps = Steps::new(10_000_019);
        for percent in (10..=100).step_by(10) {
            let mark = steps.mark(percent);
            assert_eq!(steps.reached(mark - 1).count(), 0);
            assert_eq!(steps.reached(mark).collect::<Vec<_>>(), [percent]);
        }
        assert_eq!(steps.mark(u8::MAX), 10_000_019);
        assert_eq!(steps.reached(u64::MAX).count(), 0);
    }
}
