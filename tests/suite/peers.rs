//! Strangers to this project's code: programs that were written from `docs/protocol.md` alone, in
//! `tests/peers`. What they and our programs both understand is what the page says.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Place, Run};
use crate::machine::skipped;
use crate::original::{Files, Original};

/// What the reader ends with when the server speaks version 1.
const SPEAKS_VERSION_1: i32 = 70;

/// The reader of version 2 with these arguments; `None`, and a line that says so, where Python is
/// missing.
pub(crate) fn reader<'a>(test: &str, place: &'a Place, arguments: &[OsString]) -> Option<Run<'a>> {
    let check = "import sys; sys.exit(sys.version_info < (3, 11))";
    let python = Command::new("python3").args(["-c", check]).stderr(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        skipped(test, "Python 3.11 is missing");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/reader_v2.py");
    // Nothing is to be left beside the sources.
    Some(place.program(&[OsStr::new("python3"), OsStr::new("-B"), script.as_os_str()], arguments))
}

#[test]
fn a_reader_written_from_the_page_agrees_with_all_of_its_examples() {
    let place = Place::new();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let test = "a_reader_written_from_the_page_agrees_with_all_of_its_examples";
    let Some(run) = reader(test, &place, &["vectors".into(), page.into()]) else { return };
    let ended = run.end().expect(0);
    assert!(ended.stdout().ends_with(" passed, 0 failed\n"), "{}", ended.stdout());
}

#[test]
fn a_reader_of_version_2_learns_from_the_first_byte_that_a_server_speaks_version_1() {
    let place = Place::new();
    let server = Original::serving(Files::from([("x".to_owned(), b"hello".to_vec())]));
    let test = "a_reader_of_version_2_learns_from_the_first_byte_that_a_server_speaks_version_1";
    let arguments = [&*server.address.ip().to_string(), &server.address.port().to_string(), "get", "x"];
    let Some(run) = reader(test, &place, &arguments.map(OsString::from)) else { return };
    let ended = run.end().expect(SPEAKS_VERSION_1).says("speak version 1");
    assert_eq!(ended.stdout(), "");
}
