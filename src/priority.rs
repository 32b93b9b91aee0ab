//! Which of several transfers gets the bandwidth first.

use std::fmt;
use std::str::FromStr;

/// How urgent a transfer is: 0 to 10, and the higher ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(u8);

/// A word that is no priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a priority is a whole number from 0 to 10")]
pub struct PriorityError;

impl Priority {
    /// The least one.
    pub const LEAST: Self = Self(0);
    /// The highest one.
    pub const MOST: Self = Self(10);
    /// How many there are.
    pub const COUNT: usize = 11;

    /// The one of this number; the highest one for a number that is higher still.
    #[must_use]
    pub fn at_most(number: u8) -> Self {
        Self(number.min(Self::MOST.0))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// The one of whoever asks for none.
impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl FromStr for Priority {
    type Err = PriorityError;

    fn from_str(text: &str) -> Result<Self, PriorityError> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_number && *number <= Self::MOST.0);
        number.map(Self).ok_or(PriorityError)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_a_whole_number_from_0_to_10() {
        assert_eq!("10".parse(), Ok(Priority::MOST));
        assert_eq!("0".parse(), Ok(Priority::LEAST));
        assert_eq!("5".parse(), Ok(Priority::default()));
        for wrong in ["", "11", "-1", "+1", "1.5", "high", "256"] {
            assert_eq!(wrong.parse::<Priority>(), Err(PriorityError), "{wrong}");
        }
        assert_eq!(Priority::at_most(200), Priority::MOST);
    }
}
