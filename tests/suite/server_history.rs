//! What the catalog keeps of transfers that have ended.

use std::fs;

use oneport::codec::v2::Put;
use rusqlite::Connection;

use crate::holders::add;
use crate::putting::{Came, Putter};
use crate::raw::{fetch_whole, noise};
use crate::serving::Site;
use crate::v2_peer::{Asker, MIB, get};

/// A row: dialect, direction, name, files, size, bytes moved, the beginning of the digest, whether it is whole, key.
type Row = (String, String, String, u64, u64, u64, String, bool, Option<String>);

fn rows(site: &Site) -> Vec<Row> {
    let catalog = Connection::open(site.path().join("state/catalog.db")).unwrap();
    let mut select = catalog
        .prepare(
            "SELECT dialect, direction, name, files, size, moved, COALESCE(digest, ''), cause IS NULL, key_name
             FROM transfer ORDER BY number",
        )
        .unwrap();
    let read = |row: &rusqlite::Row<'_>| {
        let name: Vec<u8> = row.get(2)?;
        let digest: String = row.get(6)?;
        let name = String::from_utf8(name).unwrap();
        let digest = digest.split('=').next().unwrap_or_default().to_owned();
        let number = |index| row.get::<_, i64>(index).map(|number| number.unsigned_abs());
        let (files, size, moved) = (number(3)?, number(4)?, number(5)?);
        Ok((row.get(0)?, row.get(1)?, name, files, size, moved, digest, row.get(7)?, row.get(8)?))
    };
    select.query_map([], read).unwrap().map(Result::unwrap).collect()
}

#[test]
fn every_transfer_that_has_ended_stands_in_the_catalog() {
    let site = Site::new();
    let key = add(&site, "ann", &["--allow", "read,write"]);
    let large = noise(1, 3 * MIB);
    site.file("large", &large);
    site.file("small", b"hello");
    let mut server = site.serve(&[]);
    assert_eq!(fetch_whole(server.address, "small"), b"hello");
    let mut asker = Asker::new(&server, "");
    asker.send(&[get(1, "small")]);
    asker.hear_all(1).unwrap();
    asker.send(&[get(2, "large")]);
    asker.hear_all(2).unwrap();
    drop(asker);
    server.wait_log("'large' sent successfully");
    let mut putter = Putter::new(&server, &key, &large);
    let put = putter.put("up", 1);
    assert!(matches!(putter.offer(1, put), Came::Ended(1, Some(_))));
    drop(putter);
    let mut putter = Putter::new(&server, &key, &large);
    putter.most = MIB + 5;
    let put = Put { transfer: [8; 16], ..putter.put("cut", 1) };
    assert_eq!(putter.offer(1, put), Came::Enough);
    putter.close();
    server.wait_log("Upload of 'cut' from");
    server.signal(rustix::process::Signal::TERM);
    server.wait_exit();
    let found = rows(&site);
    let row = |dialect: &str,
               direction: &str,
               name: &str,
               size: usize,
               moved: usize,
               digest: &str,
               key: Option<&str>| {
        let whole = !digest.is_empty();
        let (dialect, direction, name) = (dialect.to_owned(), direction.to_owned(), name.to_owned());
        (
            dialect,
            direction,
            name,
            1,
            size as u64,
            moved as u64,
            digest.to_owned(),
            whole,
            key.map(str::to_owned),
        )
    };
    let full = 3 * MIB;
    for expected in [
        row("v1", "download", "small", 5, 5, "md5", None),
        row("v2", "download", "large", full, full, "blake3", None),
        row("v2", "download", "small", 5, 5, "blake3", None),
        row("v2", "upload", "up", full, full, "blake3", Some("ann")),
        row("v2", "upload", "cut", full, MIB, "", Some("ann")),
    ] {
        assert!(found.contains(&expected), "{expected:?} is not among {found:?}");
    }
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(fs::read(site.root("up")).unwrap() == large);
}
