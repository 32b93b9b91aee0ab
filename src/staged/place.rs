//! Where a file is staged and gets its name: a folder and the name in it.

use std::path::{Path, PathBuf};

use super::StageError;
use super::beside::{failed, folder_of};
use crate::fileops;

/// A place for a file that is still to come. Missing folders were made for it.
#[derive(Debug)]
pub struct Place {
    pub(super) target: PathBuf,
    pub(super) made: Vec<PathBuf>,
}

impl Place {
    /// The place that a path means, with missing folders made.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn at(target: &Path) -> Result<Self, StageError> {
        let folder = folder_of(target);
        let made = fileops::create_folders(folder).map_err(failed("create the folder", folder))?;
        Ok(Self { target: target.to_owned(), made })
    }
}
