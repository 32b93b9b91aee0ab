//! The catalog in an SQLite file of the state folder.
//!
//! 1. The schema has a number; older ones are migrated, a newer one is refused: an older program
//!    would not know what it destroys.
//! 2. Any other trouble (a corrupt, locked, read-only or deleted file) is warned of once and then
//!    the catalog is left alone for [`CATALOG_RETRY`], so that no reader waits for it again and again.
//! 3. What is to be remembered goes through a bounded queue to a thread that commits many at once;
//!    readers have a connection of their own and never wait for a commit.
//! 4. Who has stored what is not queued: whoever has to know waits for the commit, and is told if there is none.
//! 5. The number of rows of the others is bounded; the ones noted the longest ago are forgotten. Trees are
//!    bounded in bytes as well (`sqlite/trees.rs`).
//!
//! The SQL keeps to what PostgreSQL understands too, where a BLOB is a BYTEA.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tracing::warn;

use super::history::{Step, Transfer};
use super::{Catalog, CatalogError, OwnedChange, OwnedFile, Shift};
use crate::digest::Md5;
use crate::limits::{
    CATALOG_BUSY_TIMEOUT, CATALOG_DIGESTS_MAX, CATALOG_QUEUE, CATALOG_RETRY, CATALOG_TREES_MAX,
    CATALOG_VALUES_MAX, HISTORY_AGE_MAX, HISTORY_MAX,
};
use crate::storage::Identity;
use crate::token::KeyId;
use crate::tree::Tree;

mod owned;
mod transfers;
mod trees;

/// Name of the file in the state folder.
const FILE: &str = "catalog.db";

/// Each step takes the schema from the number of its place to the next.
const MIGRATIONS: [&str; 5] = [
    "
    CREATE TABLE md5 (
        device BIGINT NOT NULL,
        inode BIGINT NOT NULL,
        size BIGINT NOT NULL,
        modified_s BIGINT NOT NULL,
        modified_ns BIGINT NOT NULL,
        changed_s BIGINT NOT NULL,
        changed_ns BIGINT NOT NULL,
        md5 TEXT NOT NULL,
        noted_s BIGINT NOT NULL,
        PRIMARY KEY (device, inode)
    );
    CREATE INDEX md5_noted ON md5 (noted_s);
",
    trees::MIGRATION,
    owned::MIGRATION,
    transfers::MIGRATION,
    transfers::MIGRATION_CANCELLED,
];

/// Why a catalog must not be used. All other trouble is lived with.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} was written by a newer oneport (schema {found}, this program knows {known}); use that program, \
     or another state folder with --state"
)]
pub struct NewerSchema {
    path: String,
    found: i64,
    known: i64,
}

/// A catalog in a file.
pub struct SqliteCatalog {
    reader: Mutex<Handle>,
    /// For who has stored what.
    owners: Mutex<Handle>,
    /// Gone once the catalog is being dropped: that ends the thread.
    notes: Option<SyncSender<Note>>,
    writer: Option<JoinHandle<()>>,
}

/// What is on its way into the catalog.
enum Note {
    Md5(Identity, Md5),
    Tree(Identity, Arc<Tree>),
    Transfer(Box<Transfer>),
}

/// One connection, as long as it works.
struct Handle {
    path: PathBuf,
    state: State,
}

enum State {
    Open(Connection),
    /// Not usable; to be tried again then.
    Closed {
        retry: Instant,
    },
}

/// What can go wrong while a catalog is opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Newer(#[from] NewerSchema),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl SqliteCatalog {
    /// Opens the catalog of a state folder, or makes it.
    ///
    /// # Errors
    /// Only if the schema is newer than this program; with any other trouble the catalog starts
    /// closed and is tried again later.
    pub fn open(state_folder: &Path) -> Result<Self, NewerSchema> {
        let path = state_folder.join(FILE);
        let mut reader = Handle { path: path.clone(), state: State::Closed { retry: Instant::now() } };
        match connect(&path) {
            Ok(connection) => reader.state = State::Open(connection),
            Err(OpenError::Newer(newer)) => return Err(newer),
            Err(OpenError::Sqlite(error)) => drop(reader.close(&error)),
        }
        let (notes, queue) = sync_channel(CATALOG_QUEUE);
        let owners = Handle { path: path.clone(), state: State::Closed { retry: Instant::now() } };
        let handle = Handle { path, state: State::Closed { retry: Instant::now() } };
        let writer =
            std::thread::Builder::new().name("catalog".into()).spawn(move || write_notes(handle, &queue));
        let (reader, owners) = (Mutex::new(reader), Mutex::new(owners));
        Ok(Self { reader, owners, notes: Some(notes), writer: writer.ok() })
    }
}

/// What is on its way is written before the catalog is gone.
impl Drop for SqliteCatalog {
    fn drop(&mut self) {
        self.notes = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Handle {
    /// Runs `work` if the catalog can be used; `None` if it cannot or `work` fails.
    fn with<T>(&mut self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Option<T> {
        self.try_with(work).ok()
    }

    /// As [`Self::with`], and tells what was wrong.
    fn try_with<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CatalogError> {
        if let State::Closed { retry } = self.state {
            if Instant::now() < retry {
                return Err(CatalogError("it could not be used a moment ago".to_owned()));
            }
            match connect(&self.path) {
                Ok(connection) => self.state = State::Open(connection),
                Err(error) => return Err(self.close(&error)),
            }
        }
        let State::Open(connection) = &mut self.state else {
            return Err(CatalogError("it is closed".to_owned()));
        };
        work(connection).map_err(|error| self.close(&error))
    }

    fn close(&mut self, error: &dyn std::error::Error) -> CatalogError {
        let path = self.path.display();
        warn!(
            event = "catalog", %error,
            "The catalog {path} cannot be used now ({error}); files are served all the same, their digests are \
             computed anew. If it is broken: stop the server, remove the file, start the server"
        );
        self.state = State::Closed { retry: Instant::now() + CATALOG_RETRY };
        CatalogError(error.to_string())
    }
}

impl Catalog for SqliteCatalog {
    fn md5(&self, identity: &Identity) -> Option<Md5> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let hex = reader.with(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT md5 FROM md5 WHERE device = $1 AND inode = $2 AND size = $3 AND modified_s = $4
                 AND modified_ns = $5 AND changed_s = $6 AND changed_ns = $7",
            )?;
            select.query_row(row_of(identity), |row| row.get::<_, String>(0)).optional()
        });
        Md5::parse_hex(hex??.as_bytes())
    }

    fn remember_md5(&self, identity: &Identity, md5: Md5) {
        if let Some(notes) = &self.notes {
            // A full queue forgets: the digest can always be computed again.
            let _ = notes.try_send(Note::Md5(*identity, md5));
        }
    }

    fn tree(&self, identity: &Identity) -> Option<Tree> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let row = reader.with(|connection| trees::select(connection, identity))?;
        drop(reader);
        trees::parse(identity, row?)
    }

    fn remember_tree(&self, identity: &Identity, tree: &Arc<Tree>) {
        let fits = trees::bytes(tree) <= CATALOG_VALUES_MAX;
        if let Some(notes) = self.notes.as_ref().filter(|_| fits) {
            let _ = notes.try_send(Note::Tree(*identity, Arc::clone(tree)));
        }
    }

    fn note_transfer(&self, transfer: Transfer) {
        if let Some(notes) = &self.notes {
            // The log has it in any case.
            let _ = notes.try_send(Note::Transfer(Box::new(transfer)));
        }
    }

    fn transfers(&self, most: u32) -> Result<Vec<Transfer>, CatalogError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let read = reader.with(|connection| transfers::newest(connection, most));
        read.ok_or_else(|| CatalogError("it cannot be read now".to_owned()))
    }

    fn history(&self, step: &Step) -> Result<Vec<(i64, Transfer)>, CatalogError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let read = reader.with(|connection| transfers::page(connection, step));
        read.ok_or_else(|| CatalogError("it cannot be read now".to_owned()))
    }

    fn write_owned(&self, changes: &[OwnedChange]) -> Result<Vec<Shift>, CatalogError> {
        self.with_owners(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let (mut shifts, serial) = (Vec::new(), now_ns());
            for change in changes {
                owned::apply(&transaction, change, serial, &mut shifts)?;
            }
            transaction.commit()?;
            Ok(shifts)
        })
    }

    fn owned_bytes(&self, key: &KeyId) -> Result<u64, CatalogError> {
        self.with_owners(|connection| owned::total(connection, key))
    }

    fn owned_files(&self, key: &KeyId, after: &[u8], count: usize) -> Result<Vec<OwnedFile>, CatalogError> {
        self.with_owners(|connection| owned::page(connection, key, after, count))
    }
}

impl SqliteCatalog {
    fn with_owners<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CatalogError> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).try_with(work)
    }
}

/// Commits what is in the queue, all that waits at once, until the catalog is dropped.
fn write_notes(mut handle: Handle, queue: &Receiver<Note>) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Note> = std::iter::once(first).chain(queue.try_iter().take(CATALOG_QUEUE)).collect();
        handle.with(|connection| write_batch(connection, &batch));
    }
}

fn write_batch(connection: &mut Connection, batch: &[Note]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (mut has_md5, mut has_tree, mut has_transfer) = (false, false, false);
    for note in batch {
        match note {
            Note::Md5(identity, md5) => {
                has_md5 = true;
                insert_md5(&transaction, identity, *md5)?;
            }
            Note::Tree(identity, tree) => {
                has_tree = true;
                trees::insert(&transaction, identity, tree)?;
            }
            Note::Transfer(transfer) => {
                has_transfer = true;
                transfers::insert(&transaction, transfer)?;
            }
        }
    }
    if has_md5 {
        forget_oldest(&transaction, CATALOG_DIGESTS_MAX)?;
    }
    if has_tree {
        trees::forget_oldest(&transaction, CATALOG_TREES_MAX, CATALOG_VALUES_MAX)?;
    }
    if has_transfer {
        let age_ms = i64::try_from(HISTORY_AGE_MAX.as_millis()).unwrap_or(i64::MAX);
        let now_ms = now_s().saturating_mul(1000);
        transfers::forget_oldest(&transaction, HISTORY_MAX, now_ms.saturating_sub(age_ms))?;
    }
    transaction.commit()
}

fn insert_md5(connection: &Connection, identity: &Identity, md5: Md5) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO md5 (device, inode, size, modified_s, modified_ns, changed_s, changed_ns, md5, noted_s)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (device, inode) DO UPDATE SET size = excluded.size,
         modified_s = excluded.modified_s, modified_ns = excluded.modified_ns,
         changed_s = excluded.changed_s, changed_ns = excluded.changed_ns,
         md5 = excluded.md5, noted_s = excluded.noted_s",
    )?;
    let [device, inode, size, modified_s, modified_ns, changed_s, changed_ns] = row_of(identity);
    insert.execute(params![
        device,
        inode,
        size,
        modified_s,
        modified_ns,
        changed_s,
        changed_ns,
        md5.to_string(),
        now_s()
    ])?;
    Ok(())
}

/// Keeps the table below `max` rows by forgetting the oldest tenth when it is full.
fn forget_oldest(connection: &Connection, max: u32) -> rusqlite::Result<()> {
    let count: u32 = connection.query_row("SELECT COUNT(*) FROM md5", [], |row| row.get(0))?;
    if count <= max {
        return Ok(());
    }
    connection.execute(
        "DELETE FROM md5 WHERE (device, inode) IN
         (SELECT device, inode FROM md5 ORDER BY noted_s LIMIT $1)",
        [count - max + max / 10],
    )?;
    Ok(())
}

/// An identity as SQL's signed integers, bit for bit, in the order of the columns.
fn row_of(identity: &Identity) -> [i64; 7] {
    [
        identity.device.cast_signed(),
        identity.inode.cast_signed(),
        identity.size.cast_signed(),
        identity.modified.0,
        identity.modified.1,
        identity.changed.0,
        identity.changed.1,
    ]
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(CATALOG_BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("CREATE TABLE IF NOT EXISTS schema_number (number BIGINT NOT NULL)", [])?;
    let found: i64 =
        transaction.query_row("SELECT COALESCE(MAX(number), 0) FROM schema_number", [], |row| row.get(0))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(NewerSchema { path: path.display().to_string(), found, known }.into());
    }
    let applied = usize::try_from(found).unwrap_or(0);
    for migration in &MIGRATIONS[applied..] {
        transaction.execute_batch(migration)?;
    }
    transaction.execute("DELETE FROM schema_number", [])?;
    transaction.execute("INSERT INTO schema_number VALUES ($1)", [known])?;
    transaction.commit()?;
    Ok(())
}

/// Nanoseconds since 1970: two transactions of one catalog do not have the same.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "sqlite/tests.rs"]
mod tests;
