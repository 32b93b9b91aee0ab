//! The table of who has stored which file, and how large it was.
//!
//! Unlike the other tables it forgets nothing by itself: it has a row for each file that a key has stored and
//! that was not removed since. Names are bytes; what lies beneath a folder is found as a range of them.

use rusqlite::{Connection, OptionalExtension, params};

use crate::catalog::{OwnedChange, OwnedFile, Shift};
use crate::names::FileName;
use crate::token::KeyId;

/// The step of the schema that makes it. The index tells the sum of a key, and its names in order.
pub(super) const MIGRATION: &str = "
    CREATE TABLE owned (
        name BLOB NOT NULL,
        key_id TEXT NOT NULL,
        size BIGINT NOT NULL,
        serial BIGINT NOT NULL,
        PRIMARY KEY (name)
    );
    CREATE INDEX owned_key ON owned (key_id, name, size, serial);
";

/// Bytes that a key has stored.
pub(super) fn total(connection: &Connection, key: &KeyId) -> rusqlite::Result<u64> {
    let mut select =
        connection.prepare_cached("SELECT COALESCE(SUM(size), 0) FROM owned WHERE key_id = $1")?;
    let total: i64 = select.query_row([key.to_string()], |row| row.get(0))?;
    Ok(u64::try_from(total).unwrap_or_default())
}

/// Files of a key whose names are behind `after`, in order.
pub(super) fn page(
    connection: &Connection,
    key: &KeyId,
    after: &[u8],
    count: usize,
) -> rusqlite::Result<Vec<OwnedFile>> {
    let mut select = connection.prepare_cached(
        "SELECT name, size, serial FROM owned WHERE key_id = $1 AND name > $2 ORDER BY name LIMIT $3",
    )?;
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let rows = select.query_map(params![key.to_string(), after, count], |row| {
        let (name, size): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
        Ok((name, u64::try_from(size).unwrap_or_default(), row.get(2)?))
    })?;
    let file = |(name, size, serial): (Vec<u8>, u64, i64)| {
        FileName::parse(&name).ok().map(|name| OwnedFile { name, size, serial })
    };
    rows.filter_map(|row| row.map(file).transpose()).collect()
}

/// Makes a change; whose sums it shifts is added to `shifts`.
pub(super) fn apply(
    connection: &Connection,
    change: &OwnedChange,
    serial: i64,
    shifts: &mut Vec<Shift>,
) -> rusqlite::Result<()> {
    match change {
        OwnedChange::Stored { name, key, size } => {
            take(connection, name.as_bytes(), shifts)?;
            if let Some(key) = key {
                insert(connection, name.as_bytes(), key, *size, serial)?;
                shifts.push(Shift { key: *key, gained: *size, lost: 0 });
            }
            Ok(())
        }
        OwnedChange::Removed(name) => take_all(connection, name.as_bytes(), shifts),
        OwnedChange::Renamed { from, to } => rename(connection, from.as_bytes(), to.as_bytes(), shifts),
        OwnedChange::Gone { name, serial } => {
            let mut delete = connection
                .prepare_cached("DELETE FROM owned WHERE name = $1 AND serial = $2 RETURNING key_id, size")?;
            let lost = delete.query_row(params![name.as_bytes(), serial], lost).optional()?;
            shifts.extend(lost.flatten());
            Ok(())
        }
    }
}

fn insert(connection: &Connection, name: &[u8], key: &KeyId, size: u64, serial: i64) -> rusqlite::Result<()> {
    let mut insert = connection
        .prepare_cached("INSERT INTO owned (name, key_id, size, serial) VALUES ($1, $2, $3, $4)")?;
    // A size is at most 16 TiB.
    insert.execute(params![name, key.to_string(), i64::try_from(size).unwrap_or(i64::MAX), serial])?;
    Ok(())
}

/// Takes out the row of a name.
fn take(connection: &Connection, name: &[u8], shifts: &mut Vec<Shift>) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM owned WHERE name = $1 RETURNING key_id, size")?;
    let lost = delete.query_row([name], lost).optional()?;
    shifts.extend(lost.flatten());
    Ok(())
}

/// Takes out the row of a name, and those of what is beneath it.
fn take_all(connection: &Connection, name: &[u8], shifts: &mut Vec<Shift>) -> rusqlite::Result<()> {
    take(connection, name, shifts)?;
    let (first, end) = beneath(name);
    let mut sums = connection.prepare_cached(
        "SELECT key_id, CAST(SUM(size) AS BIGINT) FROM owned WHERE name >= $1 AND name < $2 GROUP BY key_id",
    )?;
    let lost: Vec<Option<Shift>> = sums.query_map([&first, &end], lost)?.collect::<rusqlite::Result<_>>()?;
    shifts.extend(lost.into_iter().flatten());
    connection.prepare_cached("DELETE FROM owned WHERE name >= $1 AND name < $2")?.execute([&first, &end])?;
    Ok(())
}

fn rename(connection: &Connection, from: &[u8], to: &[u8], shifts: &mut Vec<Shift>) -> rusqlite::Result<()> {
    if from == to {
        return Ok(());
    }
    take_all(connection, to, shifts)?;
    // SQLite counts parameters in the order in which they appear, whatever their numbers.
    connection.prepare_cached("UPDATE owned SET name = $1 WHERE name = $2")?.execute([to, from])?;
    let (first, end) = beneath(from);
    // Both sides of `||` are bytes; SQLite calls the result a text, whatever is in it.
    let mut update = connection.prepare_cached(
        "UPDATE owned SET name = CAST($1 || SUBSTR(name, $2) AS BLOB) WHERE name >= $3 AND name < $4",
    )?;
    let rest = i64::try_from(from.len() + 1).unwrap_or(i64::MAX);
    update.execute(params![to, rest, first, end])?;
    Ok(())
}

/// The names that begin with a folder's name and a slash: from the first one on, below the second one.
fn beneath(folder: &[u8]) -> (Vec<u8>, Vec<u8>) {
    ([folder, b"/"].concat(), [folder, &[b'/' + 1]].concat())
}

/// What the owner of a row loses with it; nothing if the row says no key.
fn lost(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Shift>> {
    let (key, size): (String, i64) = (row.get(0)?, row.get(1)?);
    let lost = u64::try_from(size).unwrap_or_default();
    Ok(KeyId::parse(&key).map(|key| Shift { key, gained: 0, lost }))
}

#[cfg(test)]
#[path = "owned/tests.rs"]
mod tests;
