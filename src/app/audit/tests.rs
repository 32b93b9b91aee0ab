use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::names::FileName;

const MIB: u64 = 1 << 20;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The fields of an event's line in JSON.
fn line(event: &Event<'_>) -> serde_json::Value {
    let sink = Sink::default();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(sink.clone()).finish();
    tracing::subscriber::with_default(subscriber, || Audit::new().observe(event));
    let written = sink.0.lock().unwrap().clone();
    serde_json::from_slice(&written).unwrap()
}

#[test]
fn a_resumed_transfer_says_what_it_saved_and_another_does_not() {
    let (peer, name) = ("10.0.0.1:7".parse().unwrap(), FileName::parse(b"f").unwrap());
    let (name, size, root) = (&name, 3 * MIB, Root::of(b"x"));
    let (elapsed, digest) = (Duration::from_secs(1), Some(Digest::Blake3(root)));

    let started = line(&Event::Started { peer, key: None, name, size, have: MIB });
    let text = "Sending file 'f' (3145728 bytes) to 10.0.0.1:7, of which 1048576 bytes are there already";
    assert_eq!((&started["message"], &started["have"]), (&text.into(), &MIB.into()));
    let started = line(&Event::Started { peer, key: None, name, size, have: 0 });
    assert_eq!(started["message"], "Sending file 'f' (3145728 bytes) to 10.0.0.1:7");
    assert_eq!(started.get("have"), None);

    let finished = line(&Event::Finished { peer, key: None, name, size, have: MIB, elapsed, digest });
    let text = format!(
        "File 'f' sent successfully to 10.0.0.1:7: 3145728 bytes in 1.000 s ({}), BLAKE3 {root}, \
         1048576 bytes were there already",
        Rate::new(2 * MIB, elapsed)
    );
    assert_eq!(finished["message"], text);
    assert_eq!((&finished["blake3"], finished.get("md5")), (&root.to_string().into(), None));
    let md5 = Md5::of(b"x");
    let digest = Some(Digest::Md5(md5));
    let finished = line(&Event::Finished { peer, key: None, name, size, have: 0, elapsed, digest });
    assert_eq!((&finished["md5"], finished.get("blake3")), (&md5.to_string().into(), None));
    assert!(finished["message"].as_str().unwrap().ends_with(&format!("), MD5 {md5}")));

    let cut = line(&Event::Cut { peer, key: None, name, done: 2 * MIB, size, have: MIB, cause: "reset" });
    let text = "Transfer of 'f' to 10.0.0.1:7 cut after 2097152 of 3145728 bytes, 1048576 bytes were there \
                already: reset";
    assert_eq!(cut["message"], text);
}

#[test]
fn the_summary_counts_only_what_was_moved() {
    let (peer, name) = ("10.0.0.1:7".parse().unwrap(), FileName::parse(b"f").unwrap());
    let (name, audit, elapsed) = (&name, Audit::new(), Duration::from_secs(1));
    audit.observe(&Event::Finished { peer, key: None, name, size: 10, have: 4, elapsed, digest: None });
    audit.observe(&Event::Cut { peer, key: None, name, done: 7, size: 10, have: 4, cause: "reset" });
    assert_eq!(audit.bytes.load(Ordering::Relaxed), 6 + 3);
}

#[test]
fn a_small_file_has_one_line_with_all_that_is_known_of_it() {
    let (peer, name) = ("10.0.0.1:7".parse().unwrap(), FileName::parse(b"50%\nx").unwrap());
    let root = Root::of(b"x");
    let sent = line(&Event::Sent { peer, key: None, name: &name, size: 4096, root });
    assert_eq!(sent["message"], format!("Sent '50\\x25\\nx' to 10.0.0.1:7: 4096 bytes, BLAKE3 {root}"));
    assert_eq!((&sent["event"], &sent["size"]), (&"sent".into(), &4096.into()));
    assert_eq!((&sent["blake3"], &sent["target"]), (&root.to_string().into(), &FILE_ONLY.into()));
    let audit = Audit::new();
    audit.observe(&Event::Sent { peer, key: None, name: &name, size: 4096, root });
    assert_eq!((audit.sent.load(Ordering::Relaxed), audit.bytes.load(Ordering::Relaxed)), (1, 4096));
}
