//! Lines that are written together: under load one write serves many.

/// Size at which a batch is written though more lines wait, in bytes.
pub(super) const BATCH_MAX: usize = 64 << 10;

/// Lines one behind the other, none of them empty.
#[derive(Debug, Default)]
pub(super) struct Batch {
    text: Vec<u8>,
    /// Where each line ends in the text.
    ends: Vec<usize>,
}

impl Batch {
    /// Adds a line.
    pub(super) fn push(&mut self, line: &[u8]) {
        self.text.extend_from_slice(line);
        self.ends.push(self.text.len());
    }

    /// All lines as one text.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many lines there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many of the lines lie wholly within the first `count` bytes, and where the last of them ends.
    pub(super) fn within(&self, count: usize) -> (usize, usize) {
        let whole = self.ends.partition_point(|&end| end <= count);
        (whole, whole.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0))
    }

    /// The lines from the one with this number on.
    pub(super) fn lines_from(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).skip(first).filter_map(|(start, &end)| self.text.get(start..end))
    }

    /// Forgets the lines and keeps the room.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_again_by_number_and_by_the_bytes_that_were_written() {
        let mut batch = Batch::default();
        for line in ["one\n", "two two\n", "3\n"] {
            batch.push(line.as_bytes());
        }
        assert_eq!(batch.text(), b"one\ntwo two\n3\n");
        assert_eq!(batch.lines_from(1).collect::<Vec<_>>(), [b"two two\n".as_slice(), b"3\n"]);
        assert_eq!(batch.lines_from(3).count(), 0);
        let within: Vec<_> = [0, 3, 4, 5, 12, 13, 14].into_iter().map(|count| batch.within(count)).collect();
        assert_eq!(within, [(0, 0), (0, 0), (1, 4), (1, 4), (2, 12), (2, 12), (3, 14)]);
        batch.clear();
        assert_eq!((batch.len(), batch.within(9)), (0, (0, 0)));
    }
}
