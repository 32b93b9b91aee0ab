//! Where a file is staged and gets its name: an open folder and the name in it.
//!
//! Whatever becomes of the folder's own name meanwhile, everything happens in the folder that was opened: nothing is
//! looked up by a path again. Who may write where is decided by whoever finds the place. Paths are kept to be shown.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Stat, fstat};

use super::StageError;
use super::beside::{self, failed, folder_of};
use super::made::{self, Chain, Made};
use crate::fileops;

/// A place for a file that is still to come, in an open folder. Missing folders were made for it; if it comes to
/// nothing, they go when this is dropped, as far as they are empty.
#[derive(Debug)]
pub struct Place {
    folder: Arc<File>,
    name: OsString,
    path: PathBuf,
    made: Chain,
}

/// What has the name of a place already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// When it was modified: seconds since 1970, and nanoseconds.
        modified: (i64, u32),
        /// Its permission bits: the lowest nine of its mode.
        mode: u32,
    },
    /// A symbolic link, wherever it leads.
    Link,
    /// A folder.
    Folder,
    /// Neither of these.
    Other,
}

/// A hidden name beside a target.
#[derive(Clone, Debug)]
pub(super) struct Hidden {
    pub(super) name: OsString,
    /// What is shown of it.
    pub(super) path: PathBuf,
}

impl Place {
    /// The place that a path means, with missing folders made.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn at(target: &Path) -> Result<Self, StageError> {
        let folder = folder_of(target);
        let made = fileops::create_folders(folder).map_err(failed("create the folder", folder))?;
        let opened = Self::opened(target, folder, &made);
        opened.inspect_err(|_| fileops::remove_folders(&made))
    }

    fn opened(target: &Path, folder: &Path, made: &[PathBuf]) -> Result<Self, StageError> {
        let open = |path| fileops::open_folder(path).map(Arc::new).map_err(failed("open the folder", path));
        let mut known = Vec::with_capacity(made.len());
        for made in made {
            let above = folder_of(made);
            let id = made::id(&fstat(&*open(made)?).map_err(|error| failed("look at", made)(error.into()))?);
            known.push((open(above)?, made.file_name().unwrap_or_default(), id, above));
        }
        let folder = open(folder)?;
        let mut made = Chain::default();
        known.into_iter().for_each(|(above, name, id, path)| made.push(Made::new(above, name, id, path)));
        // A path that ends in `..` means a folder, which is noticed when the name is looked at.
        let name = target.file_name().unwrap_or(OsStr::new("."));
        Ok(Self { folder, name: name.to_owned(), path: target.to_owned(), made })
    }

    /// A place in an open folder. `path` is shown, and its last component is the name.
    pub(crate) fn within(folder: Arc<File>, path: PathBuf, made: Chain) -> Self {
        let name = path.file_name().unwrap_or(OsStr::new(".")).to_owned();
        Self { folder, name, path, made }
    }

    /// The open folder, in which whatever is staged here lies. It is opened so that it can be flushed.
    #[must_use]
    pub fn folder(&self) -> &Arc<File> {
        &self.folder
    }

    /// The name that the file gets in the folder.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// What is shown of the place. It may lead elsewhere by now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What has the name now. It is not followed if it is a link.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn holds(&self) -> Result<Option<Held>, StageError> {
        Ok(self.found()?.as_ref().map(Held::of))
    }

    /// Waits until what happened to the names in the folder is on the disk, and every folder that was made for it.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync(&self) -> Result<(), StageError> {
        let folder = folder_of(&self.path);
        fileops::sync_open_folder(&self.folder).map_err(failed("flush the folder", folder))?;
        self.made.flush()
    }

    /// As [`Self::sync`], for who has flushed the whole file system himself since the place was found, and the names
    /// were given.
    pub fn synced(&self) {
        self.made.flushed();
    }

    /// Says that something came of it: the folders that were made for it stay.
    pub fn keep(&self) {
        self.made.keep();
    }

    pub(super) fn found(&self) -> Result<Option<Stat>, StageError> {
        beside::find(self, &self.name).map_err(failed("look at", &self.path))
    }

    pub(super) fn hidden(&self, ending: &str) -> Hidden {
        let name = beside::hidden_name(Path::new(&self.name), ending);
        Hidden { path: folder_of(&self.path).join(&name), name: name.into() }
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Held {
    // The fields have other types on other systems.
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast, clippy::cast_sign_loss)]
    pub(super) fn of(found: &Stat) -> Self {
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => Self::File {
                size: u64::try_from(found.st_size).unwrap_or_default(),
                modified: (found.st_mtime as i64, found.st_mtime_nsec as u32),
                mode: found.st_mode as u32 & beside::MODE,
            },
            FileType::Symlink => Self::Link,
            FileType::Directory => Self::Folder,
            _ => Self::Other,
        }
    }
}
