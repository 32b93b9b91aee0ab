//! Files beneath a folder of the local disk.
//!
//! A name is walked component by component, each step relative to the open folder before it, and
//! no step follows a symbolic link by itself. So every component that is really passed through is
//! seen, whatever the links, the case rules or the mounts, and:
//!
//! 1. nothing above the root is reached: `..` in a link goes back along the folders walked;
//! 2. absolute links are refused, relative ones are followed, at most [`LINKS_MAX`] of them;
//! 3. folders that hold the server's own files are recognised by identity and refused.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, stat};
#[cfg(target_os = "linux")]
use rustix::fs::{ResolveFlags, openat2};
use rustix::io::Errno;

use super::{ChangeError, Identity, ListError, OpenError, Removed, Storage, StoredFile, Swept, Trail};
use crate::fileops;
use crate::limits::{DEPTH_MAX, LINKS_MAX};
use crate::listing::{Selection, Stretch};
use crate::names::{self, FileName};
use crate::staged::{NewFolders, Place as StagePlace};

mod change;
mod listing;
mod pushed;
mod removal;
mod survey;
mod sweep;
mod way;

/// A folder is opened only to go through it.
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A folder is opened only to go through it.
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Without waiting for a pipe's other end, and without taking over a terminal.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

/// A folder whose files are served.
#[derive(Debug)]
pub struct LocalDisk {
    root: PathBuf,
    hidden: Vec<PathBuf>,
    /// Where files lie that are on their way to receivers; they have names that no peer can say.
    pushed: Option<PathBuf>,
    /// Folders that were made here a moment ago.
    new: Arc<NewFolders>,
}

impl LocalDisk {
    /// Serves what is beneath `root`, except what is beneath one of the folders `hidden`. Both are
    /// looked up anew for each file, so that a folder may be replaced while it is served.
    ///
    /// # Errors
    /// If `root` cannot be listed, or lies within a hidden folder.
    pub fn new(root: &Path, hidden: &[&Path]) -> io::Result<Self> {
        std::fs::read_dir(root)?;
        let real = root.canonicalize()?;
        for folder in hidden {
            if folder.canonicalize().is_ok_and(|folder| real.starts_with(folder)) {
                return Err(io::Error::other(format!(
                    "it lies within the server's own folder {}",
                    folder.display()
                )));
            }
        }
        Ok(Self {
            root: std::path::absolute(root)?,
            hidden: hidden.iter().map(std::path::absolute).collect::<io::Result<_>>()?,
            pushed: None,
            new: Arc::default(),
        })
    }

    /// Keeps files that are on their way to receivers in this folder, which is made if it is missing. It should be one
    /// that nobody else can look into, and lie beneath a hidden one.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn with_pushed(self, folder: &Path) -> io::Result<Self> {
        match fileops::create_private_folder(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self { pushed: Some(std::path::absolute(folder)?), ..self }),
        }
    }

    /// Opens a file that lies in the root itself with one call instead of three. No folder is passed
    /// through but those that lead to the root, which the walk does not look at either; the last
    /// component is not followed if it is a link. Whatever is not a plain success is left to the walk.
    fn open_directly(&self, name: &FileName) -> Option<File> {
        let mut components = name.components();
        let (only, None) = (components.next()?, components.next()) else { return None };
        if names::is_reserved(only) {
            return None;
        }
        let path = self.root.join(OsStr::from_bytes(only));
        open_cached(CWD, path, FILE).ok().map(File::from)
    }

    /// Opens a file with one call where the trail leads to its folder. No link is followed, and whatever is
    /// not a plain success is left to the walk.
    fn open_beneath(&self, name: &FileName, trail: &mut Trail) -> Option<File> {
        if trail.root.is_none() {
            trail.root = Some(open_cached(CWD, self.root.as_path(), FOLDER).ok()?);
        }
        let mut components = name.components();
        let mut depth = 0;
        // What was taken last is the file, and never a folder of the trail.
        let mut component = components.next()?;
        for next in components {
            let is_known = trail.folders.get(depth).is_some_and(|(known, _)| known == component);
            if !is_known {
                trail.folders.truncate(depth);
                let folder = self.step_along(component, trail)?;
                trail.folders.push((component.to_vec(), folder));
            }
            (component, depth) = (next, depth + 1);
        }
        if names::is_reserved(component) {
            return None;
        }
        // Of a longer trail only what leads to this name is wanted.
        let here = if depth == 0 { trail.root.as_ref()? } else { &trail.folders.get(depth - 1)?.1 };
        open_cached(here, component, FILE).ok().map(File::from)
    }

    /// The folder of this name at the end of the trail, which may be entered.
    fn step_along(&self, component: &[u8], trail: &mut Trail) -> Option<OwnedFd> {
        if names::is_reserved(component) {
            return None;
        }
        let here = trail.folders.last().map(|(_, folder)| folder).or(trail.root.as_ref())?;
        let folder = open_cached(here, component, FOLDER | OFlags::NOFOLLOW).ok()?;
        let hidden = trail.hidden.get_or_insert_with(|| self.hidden_now().collect());
        let found = identity(&fstat(&folder).ok()?);
        (!hidden.contains(&found)).then_some(folder)
    }

    fn is_hidden(&self, folder: &OwnedFd) -> Result<bool, OpenError> {
        let found = identity(&fstat(folder).map_err(open_error)?);
        Ok(self.hidden_now().any(|hidden| hidden == found))
    }

    /// The hidden folders that there are now.
    fn hidden_now(&self) -> impl Iterator<Item = (u64, u64)> {
        self.hidden.iter().filter_map(|hidden| stat(hidden).ok()).map(|found| identity(&found))
    }
}

impl Storage for LocalDisk {
    fn open(&self, name: &FileName) -> Result<StoredFile, OpenError> {
        Walk::new(self, name, Patience::Waits)?.finish()
    }

    fn open_now(&self, name: &FileName) -> Option<Result<StoredFile, OpenError>> {
        if let Some(file) = self.open_directly(name) {
            return Some(stored(file));
        }
        match Walk::new(self, name, Patience::Never).and_then(Walk::finish) {
            Err(OpenError::Unavailable(_)) => None,
            told => Some(told),
        }
    }

    fn open_along(&self, name: &FileName, trail: &mut Trail) -> Option<Result<StoredFile, OpenError>> {
        match self.open_beneath(name, trail) {
            Some(file) => Some(stored(file)),
            None => self.open_now(name),
        }
    }

    fn list(
        &self,
        folder: Option<&FileName>,
        selection: &Selection,
        cursor: &[u8],
    ) -> Result<Stretch, ListError> {
        listing::list(self, folder, selection, cursor)
    }

    fn place(&self, name: &FileName) -> Result<StagePlace, ChangeError> {
        change::place(self, name)
    }

    fn make_folder_with(&self, name: &FileName, mode: u32) -> Result<(), ChangeError> {
        change::make_folder(self, name, mode)
    }

    fn remove(&self, name: &FileName, recursive: bool) -> Result<Removed, ChangeError> {
        removal::remove(self, name, recursive)
    }

    fn rename(&self, from: &FileName, to: &FileName, replace: bool) -> Result<(), ChangeError> {
        change::rename(self, from, to, replace)
    }

    fn settle(&self) -> io::Result<()> {
        // It may be another file system.
        if let Some(pushed) = &self.pushed {
            fileops::sync_file_system(&File::open(pushed)?)?;
        }
        fileops::sync_file_system(&File::open(&self.root)?)
    }

    fn sweep(&self, older_than: Duration, is_owned: &dyn Fn(&Identity) -> bool) -> io::Result<Swept> {
        sweep::sweep(self, older_than, is_owned)
    }

    fn sweep_pushed(&self, older_than: Duration, is_owned: &dyn Fn(&FileName) -> bool) -> io::Result<Swept> {
        self.pushed
            .as_deref()
            .map_or(Ok(Swept::default()), |folder| pushed::sweep(folder, older_than, is_owned))
    }

    fn large_files(&self, size: u64, count: usize) -> io::Result<Vec<FileName>> {
        survey::large_files(&self.root, &self.hidden, size, count)
    }
}

/// Whether a walk may wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Waits,
    Never,
}

/// Where a walk has led.
enum Place {
    /// To a regular file.
    File(Stat),
    /// To the last one of these folders, which lead there from the root.
    Folder(Vec<OwnedFd>),
}

/// The way from the root to a file.
struct Walk<'a> {
    disk: &'a LocalDisk,
    patience: Patience,
    /// The open folders from the root to where the walk stands; the root is never taken away.
    folders: Vec<OwnedFd>,
    /// The components still to be walked, the next one last.
    ahead: Vec<Vec<u8>>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn new(disk: &'a LocalDisk, name: &FileName, patience: Patience) -> Result<Self, OpenError> {
        Self::part_of(disk, name, usize::MAX, patience)
    }

    /// A walk along the first `count` components of a name.
    fn part_of(
        disk: &'a LocalDisk,
        name: &FileName,
        count: usize,
        patience: Patience,
    ) -> Result<Self, OpenError> {
        let components = name.components().take(count);
        match &disk.pushed {
            // Such a name begins with a component that stands for the folder where it lies.
            Some(pushed) if name.is_pushed() => Self::from(disk, pushed, components.skip(1), patience),
            _ => Self::along(disk, components, patience),
        }
    }

    /// A walk along components, each of which is one of a [`FileName`].
    fn along<'n>(
        disk: &'a LocalDisk,
        components: impl Iterator<Item = &'n [u8]>,
        patience: Patience,
    ) -> Result<Self, OpenError> {
        Self::from(disk, &disk.root, components, patience)
    }

    fn from<'n>(
        disk: &'a LocalDisk,
        root: &Path,
        components: impl Iterator<Item = &'n [u8]>,
        patience: Patience,
    ) -> Result<Self, OpenError> {
        let root = open(CWD, root, FOLDER, patience).map_err(open_error)?;
        let mut ahead: Vec<_> = components.map(<[u8]>::to_vec).collect();
        ahead.reverse();
        Ok(Self { disk, patience, folders: vec![root], ahead, links: 0 })
    }

    fn finish(mut self) -> Result<StoredFile, OpenError> {
        let file = loop {
            if let Some(file) = self.step()? {
                break file;
            }
        };
        stored(file)
    }

    /// Walks to the end, be it a file or a folder.
    fn arrive(mut self) -> Result<Place, OpenError> {
        while !self.ahead.is_empty() {
            let Some(file) = self.step()? else { continue };
            let found = fstat(&file).map_err(open_error)?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile => return Ok(Place::File(found)),
                FileType::Directory => drop(self.enter(file.into())?),
                _ => return Err(OpenError::Refused("it is not a regular file")),
            }
        }
        Ok(Place::Folder(self.folders))
    }

    /// Walks one component; the file, if it was the last one.
    fn step(&mut self) -> Result<Option<File>, OpenError> {
        let component = self.ahead.pop().ok_or(OpenError::Refused("it is a folder"))?;
        match component.as_slice() {
            b"" | b"." => return Ok(None),
            b".." => {
                self.folders.pop();
                return if self.folders.is_empty() { Err(LEADS_OUT) } else { Ok(None) };
            }
            reserved if names::is_reserved(reserved) => {
                return Err(OpenError::Refused("it leads to the server's own files"));
            }
            _ => {}
        }
        let here = self.folders.last().ok_or(LEADS_OUT)?;
        let last = self.ahead.is_empty();
        let flags = if last { FILE } else { FOLDER | OFlags::NOFOLLOW };
        match open(here, component.as_slice(), flags, self.patience) {
            Ok(file) if last => Ok(Some(file.into())),
            Ok(folder) => self.enter(folder),
            // A link answers LOOP where a file was wanted, NOTDIR where a folder was.
            Err(Errno::LOOP | Errno::NOTDIR) => self.follow(&component),
            Err(error) => Err(open_error(error)),
        }
    }

    fn enter(&mut self, folder: OwnedFd) -> Result<Option<File>, OpenError> {
        if self.folders.len() > DEPTH_MAX {
            return Err(OpenError::Refused("it lies too deep"));
        }
        if self.disk.is_hidden(&folder)? {
            return Err(OpenError::Refused("it leads to the server's own files"));
        }
        self.folders.push(folder);
        Ok(None)
    }

    fn follow(&mut self, link: &[u8]) -> Result<Option<File>, OpenError> {
        if self.patience == Patience::Never {
            // Where a link leads may have to be read from the disk.
            return Err(OpenError::Unavailable(Errno::AGAIN.into()));
        }
        let here = self.folders.last().ok_or(LEADS_OUT)?;
        let target = match readlinkat(here, link, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::INVAL) => return Err(OpenError::NotFound),
            Err(error) => return Err(open_error(error)),
        };
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(OpenError::Refused("there are too many symbolic links"));
        }
        if target.first() == Some(&b'/') {
            return Err(LEADS_OUT);
        }
        self.ahead.extend(target.rsplit(|&byte| byte == b'/').map(<[u8]>::to_vec));
        Ok(None)
    }
}

/// Device and inode.
#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "they differ from system to system")]
fn identity(found: &rustix::fs::Stat) -> (u64, u64) {
    (found.st_dev as u64, found.st_ino as u64)
}

fn stored(file: File) -> Result<StoredFile, OpenError> {
    StoredFile::new(file)
        .map_err(OpenError::Unavailable)?
        .ok_or(OpenError::Refused("it is not a regular file"))
}

const LEADS_OUT: OpenError = OpenError::Refused("a symbolic link leads out of the served folder");

/// One step; `AGAIN` if it would have to wait and must not.
fn open<P: rustix::path::Arg>(
    from: impl AsFd,
    name: P,
    flags: OFlags,
    patience: Patience,
) -> Result<OwnedFd, Errno> {
    match patience {
        Patience::Waits => openat(from, name, flags, Mode::empty()),
        Patience::Never => open_cached(from, name, flags),
    }
}

#[cfg(target_os = "linux")]
fn open_cached<P: rustix::path::Arg>(from: impl AsFd, name: P, flags: OFlags) -> Result<OwnedFd, Errno> {
    let told = openat2(from, name, flags, Mode::empty(), ResolveFlags::CACHED);
    // Old kernels and some sandboxes do not know the call.
    told.map_err(|error| {
        if matches!(error, Errno::NOSYS | Errno::INVAL | Errno::PERM) { Errno::AGAIN } else { error }
    })
}

/// Elsewhere there is no way to tell without waiting.
#[cfg(not(target_os = "linux"))]
fn open_cached<P: rustix::path::Arg>(_: impl AsFd, _: P, _: OFlags) -> Result<OwnedFd, Errno> {
    Err(Errno::AGAIN)
}

fn open_error(error: Errno) -> OpenError {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => OpenError::NotFound,
        Errno::ISDIR => OpenError::Refused("it is a folder"),
        Errno::NXIO | Errno::NODEV => OpenError::Refused("it is not a regular file"),
        Errno::ACCESS | Errno::PERM => OpenError::Refused("permission denied"),
        Errno::LOOP => OpenError::Refused("there are too many symbolic links"),
        error => OpenError::Unavailable(error.into()),
    }
}

#[cfg(test)]
#[path = "local/tests.rs"]
mod tests;
