//! The table of transfers that have ended, bounded in number and in age.
//!
//! Rows are numbered as they come, so that how many there are is told by the first and the last one.

use rusqlite::{Connection, Row, params};

use crate::catalog::history::{Direction, Step, Transfer};

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

/// The step of the schema by which it tells who has cancelled a transfer.
pub(super) const MIGRATION_CANCELLED: &str = "ALTER TABLE transfer ADD COLUMN cancelled_by TEXT";

pub(super) fn insert(connection: &Connection, transfer: &Transfer) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO transfer (number, ended_ms, seconds, peer, key_name, dialect, direction, name, files, size,
         moved, digest, cause, cancelled_by)
         SELECT COALESCE(MAX(number), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 FROM transfer",
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
        transfer.cause,
        transfer.cancelled_by
    ])?;
    Ok(())
}

/// The newest transfers, the last one first.
pub(super) fn newest(connection: &Connection, most: u32) -> rusqlite::Result<Vec<Transfer>> {
    let step = Step { most, ..Step::default() };
    Ok(page(connection, &step)?.into_iter().map(|(_, transfer)| transfer).collect())
}

/// A step through the transfers, the last one first.
pub(super) fn page(connection: &Connection, step: &Step) -> rusqlite::Result<Vec<(i64, Transfer)>> {
    let mut select = connection.prepare_cached(
        "SELECT number, ended_ms, seconds, peer, key_name, dialect, direction, name, files, size, moved, digest,
         cause, cancelled_by
         FROM transfer WHERE number < $1 AND ended_ms >= $2 AND ended_ms < $3 ORDER BY number DESC LIMIT $4",
    )?;
    let before = step.before.unwrap_or(i64::MAX);
    let (since, until) = (step.since_ms.unwrap_or(i64::MIN), step.until_ms.unwrap_or(i64::MAX));
    let rows = select.query_map(params![before, since, until, step.most], read)?;
    rows.collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<(i64, Transfer)> {
    let direction: String = row.get(6)?;
    let unsigned = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
    let transfer = Transfer {
        ended_ms: row.get(1)?,
        seconds: row.get(2)?,
        peer: row.get(3)?,
        key: row.get(4)?,
        dialect: row.get(5)?,
        direction: Direction::parse(&direction).unwrap_or(Direction::Download),
        name: row.get(7)?,
        files: unsigned(8)?,
        size: unsigned(9)?,
        moved: unsigned(10)?,
        digest: row.get(11)?,
        cause: row.get(12)?,
        cancelled_by: row.get(13)?,
    };
    Ok((row.get(0)?, transfer))
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
        connection.execute_batch(MIGRATION_CANCELLED).unwrap();
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
            cancelled_by: None,
        }
    }

    #[test]
    fn a_transfer_is_told_as_it_was_noted_the_newest_first() {
        let table = table();
        let cut = Transfer {
            key: None,
            digest: None,
            cause: Some("lost".into()),
            cancelled_by: Some("owner".into()),
            direction: Direction::Download,
            ..transfer(2)
        };
        insert(&table, &transfer(1)).unwrap();
        insert(&table, &cut).unwrap();
        assert_eq!(newest(&table, 10).unwrap(), [cut.clone(), transfer(1)]);
        assert_eq!(newest(&table, 1).unwrap(), [cut]);
    }

    #[test]
    fn whoever_steps_through_them_sees_each_one_once_and_only_those_of_the_time() {
        let table = table();
        (0..25).for_each(|ended| insert(&table, &transfer(ended)).unwrap());
        let (mut step, mut seen) =
            (Step { since_ms: Some(3), until_ms: Some(20), before: None, most: 4 }, vec![]);
        loop {
            let rows = page(&table, &step).unwrap();
            assert!(rows.len() <= 4);
            let Some((number, _)) = rows.last() else { break };
            step.before = Some(*number);
            seen.extend(rows.into_iter().map(|(_, transfer)| transfer.ended_ms));
        }
        assert_eq!(seen, (3..20).rev().collect::<Vec<_>>());
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
