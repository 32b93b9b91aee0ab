//! The table of transfers that have ended, bounded in number and in age.
//!
//! Rows are numbered as they come, so that how many there are is told by the first and the last one.

use rusqlite::{Connection, params};

use crate::catalog::history::{Direction, Transfer};

/// The step of the schema that makes it.
pub(super) const MIGRATION: &str = "
    CREATE TABLE transfer (
        number BIGINT PRIMARY KEY,
        ended_ms BIGINT NOT NULL,
        seconds DOUBLE PRECISION NOT NULL,
        peer TEXT NOT NULL,
        key_name TEXT,
        dialect TEXT NOT NULL,
        direction TEXT NOT NULL,
        name BLOB NOT NULL,
        files BIGINT NOT NULL,
        size BIGINT NOT NULL,
        moved BIGINT NOT NULL,
        digest TEXT,
        cause TEXT
    );
    CREATE INDEX transfer_ended ON transfer (ended_ms);
";

pub(super) fn insert(connection: &Connection, transfer: &Transfer) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO transfer (number, ended_ms, seconds, peer, key_name, dialect, direction, name, files, size,
         moved, digest, cause)
         SELECT COALESCE(MAX(number), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM transfer",
    )?;
    insert.execute(params![
        transfer.ended_ms,
        transfer.seconds,
        transfer.peer,
        transfer.key,
        transfer.dialect,
        transfer.direction.name(),
        transfer.name,
        signed(transfer.files),
        signed(transfer.size),
        signed(transfer.moved),
        transfer.digest,
        transfer.cause
    ])?;
    Ok(())
}

/// The newest transfers, the last one first.
pub(super) fn newest(connection: &Connection, most: u32) -> rusqlite::Result<Vec<Transfer>> {
    let mut select = connection.prepare_cached(
        "SELECT ended_ms, seconds, peer, key_name, dialect, direction, name, files, size, moved, digest, cause
         FROM transfer ORDER BY number DESC LIMIT $1",
    )?;
    let rows = select.query_map([most], |row| {
        let direction: String = row.get(5)?;
        let unsigned = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
        Ok(Transfer {
            ended_ms: row.get(0)?,
            seconds: row.get(1)?,
            peer: row.get(2)?,
            key: row.get(3)?,
            dialect: row.get(4)?,
            direction: Direction::parse(&direction).unwrap_or(Direction::Download),
            name: row.get(6)?,
            files: unsigned(7)?,
            size: unsigned(8)?,
            moved: unsigned(9)?,
            digest: row.get(10)?,
            cause: row.get(11)?,
        })
    })?;
    rows.collect()
}

/// Forgets what is more than `most` rows, and what ended before `since_ms`.
pub(super) fn forget_oldest(connection: &Connection, most: u32, since_ms: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM transfer WHERE number <= (SELECT MAX(number) FROM transfer) - $1")?
        .execute([most])?;
    connection.prepare_cached("DELETE FROM transfer WHERE ended_ms < $1")?.execute([since_ms])?;
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATION).unwrap();
        connection
    }

    fn transfer(ended_ms: i64) -> Transfer {
        Transfer {
            ended_ms,
            seconds: 0.25,
            peer: "[::1]:5".into(),
            key: Some("anna".into()),
            dialect: "v2".into(),
            direction: Direction::Upload,
            name: b"a/\xff".to_vec(),
            files: 1,
            size: 7,
            moved: 5,
            digest: Some("blake3=00".into()),
            cause: None,
        }
    }

    #[test]
    fn a_transfer_is_told_as_it_was_noted_the_newest_first() {
        let table = table();
        let cut = Transfer {
            key: None,
            digest: None,
            cause: Some("lost".into()),
            direction: Direction::Download,
            ..transfer(2)
        };
        insert(&table, &transfer(1)).unwrap();
        insert(&table, &cut).unwrap();
        assert_eq!(newest(&table, 10).unwrap(), [cut.clone(), transfer(1)]);
        assert_eq!(newest(&table, 1).unwrap(), [cut]);
    }

    #[test]
    fn there_are_never_more_nor_older_ones_than_is_said() {
        let table = table();
        for ended in 0..50 {
            insert(&table, &transfer(ended)).unwrap();
            forget_oldest(&table, 20, ended - 10).unwrap();
            let rows = newest(&table, 100).unwrap();
            assert!(rows.len() <= 20 && rows.iter().all(|row| row.ended_ms >= ended - 10), "{ended}");
        }
        for _ in 0..50 {
            insert(&table, &transfer(50)).unwrap();
            forget_oldest(&table, 20, 0).unwrap();
        }
        let rows = newest(&table, 100).unwrap();
        assert_eq!(rows.len(), 20);
        assert!(rows.iter().all(|row| row.ended_ms == 50));
    }
}
