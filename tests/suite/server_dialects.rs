//! Connections that begin in another dialect: closed after one line in the log, nothing said back.

use std::io::Write;
use std::net::Shutdown;

use crate::raw::{fetch_whole, is_ended, read_all};
use crate::serving::Site;

#[test]
fn other_dialects_are_closed_after_one_log_line_and_nothing_is_echoed() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--tls", "off"]);
    let cases: [(&[u8], &str); 9] = [
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (b"POST /upload HTTP/1.1\r\n\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
        (b"CNDT\x01\x00\x00\x01", "Conduit"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "proxy header"),
        (b"\r\n\r\n\0\r\nQUIT\n", "proxy header"),
        (b"\x01\x00\x00\x01a", "unknown"),
        (b"\xff\xfb\x01", "unknown"),
    ];
    for (bytes, dialect) in cases {
        let mut stream = server.connect();
        let peer = stream.local_addr().unwrap();
        stream.write_all(bytes).unwrap();
        assert_eq!(read_all(&mut stream), b"", "{}", bytes.escape_ascii());
        let log = server.wait_log(&format!("Connection closed with {peer}"));
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&peer.to_string())).collect();
        assert_eq!(lines.len(), 2, "opened and closed: {lines:?}");
        assert!(lines[1].ends_with(&format!("not served: {dialect}")), "{}", lines[1]);
    }
    assert_eq!(fetch_whole(server.address, "a"), b"a");
}

#[test]
fn a_dialect_is_told_from_bytes_that_come_one_at_a_time() {
    let site = Site::new();
    let server = site.serve(&[]);
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap();
    for byte in b"CNDT" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(is_ended(&mut stream));
    server.wait_log(&format!("Connection closed with {peer}: not served: Conduit"));
}

#[test]
fn a_connection_that_says_nothing_is_told_as_such() {
    let site = Site::new();
    let server = site.serve(&[]);
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(is_ended(&mut stream));
    server.wait_log(&format!("Connection closed with {peer}: closed without a request"));
}
