//! The table of BLAKE3 trees: the root and the blocks' values of a version of a file.
//!
//! What is between the values and the root is computed anew when a row is read, and a row whose values
//! do not merge to its root, or that are not as many as the file has blocks, is corrupt and as good
//! as none. The table is bounded in rows and in bytes of values.

use rusqlite::{Connection, OptionalExtension, params};

use super::{now_s, row_of};
use crate::storage::Identity;
use crate::tree::{HASH_LEN, Root, Tree, Value, block_count};

/// The step of the schema that makes it. The index tells how much there is without a look at the rows.
pub(super) const MIGRATION: &str = "
    CREATE TABLE tree (
        device BIGINT NOT NULL,
        inode BIGINT NOT NULL,
        size BIGINT NOT NULL,
        modified_s BIGINT NOT NULL,
        modified_ns BIGINT NOT NULL,
        changed_s BIGINT NOT NULL,
        changed_ns BIGINT NOT NULL,
        noted_s BIGINT NOT NULL,
        bytes BIGINT NOT NULL,
        root BLOB NOT NULL,
        block_values BLOB NOT NULL,
        PRIMARY KEY (device, inode)
    );
    CREATE INDEX tree_noted ON tree (noted_s, bytes);
";

/// A row as it was read: the root and the values.
pub(super) type Row = (Vec<u8>, Vec<u8>);

pub(super) fn select(connection: &Connection, identity: &Identity) -> rusqlite::Result<Option<Row>> {
    let mut select = connection.prepare_cached(
        "SELECT root, block_values FROM tree WHERE device = $1 AND inode = $2 AND size = $3 AND modified_s = $4
         AND modified_ns = $5 AND changed_s = $6 AND changed_ns = $7",
    )?;
    select.query_row(row_of(identity), |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// The tree of a row; `None` if it is corrupt.
pub(super) fn parse(identity: &Identity, (root, values): Row) -> Option<Tree> {
    let root = Root::from_bytes(root.try_into().ok()?);
    let blocks = block_count(identity.size);
    if blocks == 1 {
        return values.is_empty().then(|| Tree::sole(root));
    }
    let (values, []) = values.as_chunks::<HASH_LEN>() else { return None };
    if values.len() as u64 != blocks {
        return None;
    }
    let tree = Tree::over(values.iter().copied().map(Value::from_bytes).collect())?;
    (tree.root() == root).then_some(tree)
}

/// Bytes that the values of a tree take in the table.
pub(super) fn bytes(tree: &Tree) -> u64 {
    (HASH_LEN * tree.values().len()) as u64
}

pub(super) fn insert(connection: &Connection, identity: &Identity, tree: &Tree) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO tree (device, inode, size, modified_s, modified_ns, changed_s, changed_ns, noted_s, bytes,
         root, block_values) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (device, inode) DO UPDATE SET size = excluded.size,
         modified_s = excluded.modified_s, modified_ns = excluded.modified_ns,
         changed_s = excluded.changed_s, changed_ns = excluded.changed_ns,
         noted_s = excluded.noted_s, bytes = excluded.bytes,
         root = excluded.root, block_values = excluded.block_values",
    )?;
    let [device, inode, size, modified_s, modified_ns, changed_s, changed_ns] = row_of(identity);
    let values: Vec<u8> = tree.values().iter().flat_map(Value::as_bytes).copied().collect();
    insert.execute(params![
        device,
        inode,
        size,
        modified_s,
        modified_ns,
        changed_s,
        changed_ns,
        now_s(),
        i64::try_from(values.len()).unwrap_or(i64::MAX),
        tree.root().as_bytes().as_slice(),
        values
    ])?;
    Ok(())
}

/// Keeps the table below `rows` rows and `bytes` bytes of values: when one is exceeded, the oldest go
/// until nine tenths of it are left.
pub(super) fn forget_oldest(connection: &Connection, rows: u32, bytes: u64) -> rusqlite::Result<()> {
    let (rows, bytes) = (i64::from(rows), i64::try_from(bytes).unwrap_or(i64::MAX));
    let (found_rows, found_bytes): (i64, i64) =
        connection.query_row("SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM tree", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if found_rows <= rows && found_bytes <= bytes {
        return Ok(());
    }
    let kept = |max: i64, found: i64| if found > max { max - max / 10 } else { max };
    connection.execute(
        "DELETE FROM tree WHERE (device, inode) IN
         (SELECT device, inode FROM
          (SELECT device, inode,
           ROW_NUMBER() OVER (ORDER BY noted_s DESC, device, inode) AS newest_rows,
           SUM(bytes) OVER (ORDER BY noted_s DESC, device, inode ROWS UNBOUNDED PRECEDING) AS newest_bytes
           FROM tree) AS sums
          WHERE newest_rows > $1 OR newest_bytes > $2)",
        [kept(rows, found_rows), kept(bytes, found_bytes)],
    )?;
    Ok(())
}

#[cfg(test)]
#[path = "trees/tests.rs"]
mod tests;
