//! What goes wrong with a connection, and where exactly: offsets count the bytes as their sender sent
//! them, whatever pieces they travel in.

use std::collections::VecDeque;
use std::io;

/// Something that goes wrong once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Both sides are closed in order, once the bytes before the offset were given to the receiver.
    Cut,
    /// Both sides are reset, once the receiver can read the bytes before the offset.
    Reset,
    /// Nothing more is given to the receiver; the connection stays open until the receiver gives up.
    Stall,
    /// One bit (0 to 7) of the byte at the offset is another.
    Flip { bit: u8 },
    /// The bytes from the offset on come twice: so many, or as many as there are.
    Duplicate { len: usize },
}

impl Fault {
    fn ends(self) -> bool {
        matches!(self, Self::Cut | Self::Reset | Self::Stall)
    }
}

/// What goes wrong in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// The faults and where they come, in any order.
    pub(crate) faults: Vec<(u64, Fault)>,
    /// The bytes before this offset are given to the receiver one by one.
    pub(crate) one_by_one_until: u64,
}

/// What goes wrong with one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// From the client to the server.
    pub(crate) up: Flow,
    /// From the server to the client.
    pub(crate) down: Flow,
}

impl Plan {
    /// Nothing goes wrong.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// One fault on the way to the server.
    pub(crate) fn up(at: u64, fault: Fault) -> Self {
        Self { up: Flow { faults: vec![(at, fault)], ..Flow::default() }, ..Self::default() }
    }

    /// One fault on the way to the client.
    pub(crate) fn down(at: u64, fault: Fault) -> Self {
        Self { down: Flow { faults: vec![(at, fault)], ..Flow::default() }, ..Self::default() }
    }

    /// Every byte goes alone, both ways.
    pub(crate) fn one_by_one() -> Self {
        let flow = Flow { one_by_one_until: u64::MAX, ..Flow::default() };
        Self { up: flow.clone(), down: flow }
    }
}

/// How far a step came.
pub(super) enum Step {
    /// So many bytes of the input are done with.
    Took(usize),
    /// There is nothing to do without more input.
    Hungry,
    /// A fault that ends the direction is there, now and at each further step.
    Ends(Fault),
}

/// Carries out the plan of one direction.
pub(super) struct Filter {
    faults: VecDeque<(u64, Fault)>,
    one_by_one_until: u64,
    /// Bytes of the sender that were passed on.
    passed: u64,
    /// What is being noted to be sent again: how many bytes are missing, and those that are not.
    runs: Vec<(usize, Vec<u8>)>,
    /// What is sent again before anything else.
    again: VecDeque<u8>,
}

impl Filter {
    pub(super) fn new(flow: Flow) -> Self {
        let mut faults = flow.faults;
        // What ends the direction comes before what needs the byte at the same place.
        faults.sort_by_key(|&(at, fault)| (at, !fault.ends()));
        let one_by_one_until = flow.one_by_one_until;
        Self { faults: faults.into(), one_by_one_until, passed: 0, runs: Vec::new(), again: VecDeque::new() }
    }

    /// Writes what comes next, in at most one write.
    pub(super) fn step(
        &mut self,
        input: &mut [u8],
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Step> {
        let one_by_one = self.passed < self.one_by_one_until;
        if !self.again.is_empty() {
            let (again, _) = self.again.as_slices();
            let written = write(if one_by_one { &again[..1] } else { again })?;
            self.again.drain(..written);
            return Ok(Step::Took(0));
        }
        while let Some(&(_, fault)) = self.faults.front().filter(|(at, _)| *at <= self.passed) {
            match (fault, input.first_mut()) {
                (Fault::Cut | Fault::Reset | Fault::Stall, _) => return Ok(Step::Ends(fault)),
                (_, None) => break,
                (Fault::Flip { bit }, Some(byte)) => *byte ^= 1 << (bit % 8),
                (Fault::Duplicate { len }, Some(_)) => self.runs.extend((len > 0).then(|| (len, Vec::new()))),
            }
            self.faults.pop_front();
        }
        if input.is_empty() {
            return Ok(Step::Hungry);
        }
        let written = write(&input[..if one_by_one { 1 } else { self.undisturbed(input.len()) }])?;
        self.passed += written as u64;
        self.note(&input[..written]);
        Ok(Step::Took(written))
    }

    /// How many of the next bytes can go in one write.
    fn undisturbed(&self, len: usize) -> usize {
        let next = self.faults.front().map_or(u64::MAX, |(at, _)| at - self.passed);
        let len = len.min(usize::try_from(next).unwrap_or(len));
        self.runs.iter().fold(len, |len, (missing, _)| len.min(*missing))
    }

    fn note(&mut self, written: &[u8]) {
        for (missing, run) in &mut self.runs {
            run.extend_from_slice(written);
            *missing -= written.len();
        }
        for (_, run) in self.runs.extract_if(.., |(missing, _)| *missing == 0) {
            self.again.extend(run);
        }
    }

    /// The sender has said all, so what was to be sent again is as long as it is; whether something is
    /// left to be written.
    pub(super) fn finish(&mut self) -> bool {
        for (_, run) in self.runs.drain(..) {
            self.again.extend(run);
        }
        !self.again.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `data` in pieces through a filter whose receiver takes a few bytes at a time: what arrives,
    /// the lengths of the writes, and the fault at the end.
    fn through(flow: &Flow, data: &[u8], chance: &mut fastrand::Rng) -> (Vec<u8>, Vec<usize>, Option<Fault>) {
        let mut filter = Filter::new(flow.clone());
        let (mut got, mut writes, mut data) = (Vec::new(), Vec::new(), data.to_vec());
        let (mut start, mut end) = (0, 0);
        loop {
            let most = chance.usize(1..50);
            let step = filter.step(&mut data[start..end], |bytes| {
                writes.push(bytes.len());
                got.extend_from_slice(&bytes[..bytes.len().min(most)]);
                Ok(bytes.len().min(most))
            });
            match step.unwrap() {
                Step::Took(count) => start += count,
                Step::Ends(fault) => return (got, writes, Some(fault)),
                Step::Hungry if end < data.len() => end = (end + chance.usize(1..50)).min(data.len()),
                Step::Hungry if filter.finish() => {}
                Step::Hungry => return (got, writes, None),
            }
        }
    }

    #[test]
    fn faults_do_not_depend_on_the_pieces() {
        let data: Vec<u8> = (0..200).collect();
        let faults = vec![
            (150, Fault::Reset),
            (150, Fault::Flip { bit: 0 }),
            (120, Fault::Duplicate { len: 100 }),
            (30, Fault::Duplicate { len: 20 }),
            (40, Fault::Duplicate { len: 20 }),
            (35, Fault::Flip { bit: 7 }),
            (35, Fault::Flip { bit: 6 }),
            (0, Fault::Flip { bit: 0 }),
        ];
        let mut sent = data.clone();
        sent[35] ^= 0xc0;
        sent[0] ^= 1;
        let expected = [&sent[..50], &sent[30..50], &sent[50..60], &sent[40..60], &sent[60..150]].concat();
        let mut chance = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let flow = Flow { faults: faults.clone(), one_by_one_until: chance.u64(..250) };
            let (got, _, end) = through(&flow, &data, &mut chance);
            assert_eq!((got, end), (expected.clone(), Some(Fault::Reset)), "{flow:?}");
        }
    }

    #[test]
    fn bytes_go_one_by_one_up_to_an_offset() {
        let flow = Flow { one_by_one_until: 100, ..Flow::default() };
        let (got, writes, _) = through(&flow, &[5; 200], &mut fastrand::Rng::with_seed(2));
        assert_eq!(got, [5; 200]);
        assert_eq!(writes[..100], [1; 100]);
        assert!(writes.len() < 200, "{writes:?}");
    }
}
