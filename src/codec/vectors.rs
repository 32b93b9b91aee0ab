//! The examples of `docs/protocol.md`, which are the tests' vectors.

/// The specification.
pub(crate) const SPECIFICATION: &str = include_str!("../../docs/protocol.md");

/// The bytes of the block ```` ```hex LABEL ```` of the specification.
pub(crate) fn vector(label: &str) -> Vec<u8> {
    let opening = format!("```hex {label}\n");
    let start = SPECIFICATION.find(&opening).unwrap_or_else(|| panic!("no vector {label}")) + opening.len();
    let block = &SPECIFICATION[start..start + SPECIFICATION[start..].find("```").unwrap()];
    let digits: String = block
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}
