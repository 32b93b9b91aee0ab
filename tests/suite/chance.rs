//! Chance that can be repeated: the seed of a failed test is in its output, and `ONEPORT_TEST_SEED` sets it.

use crate::proxy::Fault;

/// The variable that sets the seed.
const SEED: &str = "ONEPORT_TEST_SEED";

/// The seed of this run, which is printed.
pub(crate) fn seed() -> u64 {
    let set = std::env::var(SEED).ok().map(|text| text.parse().expect("a seed is a number"));
    let seed = set.unwrap_or_else(|| fastrand::u64(..));
    println!("{SEED}={seed}");
    seed
}

/// The generator of one of many parts of a test, which does not depend on what the others draw.
pub(crate) fn part(seed: u64, part: usize) -> fastrand::Rng {
    let mut mixed = fastrand::Rng::with_seed(seed);
    fastrand::Rng::with_seed(mixed.u64(..) ^ part as u64)
}

/// A fault that breaks a connection off.
pub(crate) fn break_off(chance: &mut fastrand::Rng) -> Fault {
    if chance.bool() { Fault::Cut } else { Fault::Reset }
}
