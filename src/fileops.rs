//! Every mutation of the file system, one function each.
//!
//! Whatever makes, writes, renames or removes a file on behalf of a transfer calls these and nothing
//! else, so that faults can be injected in one place, and the differences between operating systems
//! live in one place. They do not decide anything.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RawMode, RenameFlags, Timespec, Timestamps, openat,
};
use rustix::io::{Errno, retry_on_intr};

/// How a file is opened that is being received: what lies there in its place is neither followed nor waited for.
const STAGED: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// The permission bits of a new file, less those that the process's mask takes away.
const NEW_FILE: RawMode = 0o666;

/// Opens a file for reading and writing, or makes it; never through a symbolic link.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Opens a file in an open folder for reading and writing, or makes it; never through a symbolic link.
pub(crate) fn open_or_create_at(folder: impl AsFd, name: &OsStr) -> io::Result<File> {
    let (folder, flags) = (folder.as_fd(), STAGED | OFlags::CREATE);
    let open = || openat(folder, name, flags, Mode::from_raw_mode(NEW_FILE));
    Ok(retry_on_intr(open)?.into())
}

/// Opens a file that exists in an open folder for reading and writing; never through a symbolic link.
pub(crate) fn open_existing_at(folder: impl AsFd, name: &OsStr) -> io::Result<File> {
    let folder = folder.as_fd();
    Ok(retry_on_intr(|| openat(folder, name, STAGED, Mode::empty()))?.into())
}

/// Opens a folder so that files can be made in it and it can be flushed.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    open_folder_as(CWD, path.as_os_str(), OFlags::empty())
}

/// Opens a folder in an open one, for the same; never through a symbolic link.
pub(crate) fn open_folder_at(folder: impl AsFd, name: &OsStr) -> io::Result<File> {
    open_folder_as(folder, name, OFlags::NOFOLLOW)
}

fn open_folder_as(folder: impl AsFd, name: &OsStr, more: OFlags) -> io::Result<File> {
    let (folder, flags) = (folder.as_fd(), OFlags::DIRECTORY | OFlags::CLOEXEC | more);
    let open = |way| retry_on_intr(|| openat(folder, name, flags | way, Mode::empty()));
    match open(OFlags::RDONLY) {
        // One that may be written to and not read. Only flushing it fails.
        #[cfg(target_os = "linux")]
        Err(Errno::ACCESS) => Ok(open(OFlags::PATH)?.into()),
        opened => Ok(opened?.into()),
    }
}

/// Makes a file in an open folder that must not have it yet, for writing, with these permission bits less
/// those that the process's mask takes away.
pub(crate) fn create_new_at(folder: &File, name: &OsStr, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(mode as rustix::fs::RawMode))?.into())
}

/// Makes a file without a name in the folder for temporary files; it is gone when it is closed.
pub(crate) fn create_nameless() -> io::Result<File> {
    tempfile::tempfile()
}

/// Makes a file empty.
pub(crate) fn truncate(file: &File) -> io::Result<()> {
    file.set_len(0)
}

/// Makes a file shorter, or longer with zeros that take no room.
pub(crate) fn set_length(file: &File, size: u64) -> io::Result<()> {
    file.set_len(size)
}

/// Reserves room for `size` bytes and makes the file that long; does nothing where the file system
/// cannot.
pub(crate) fn reserve(file: &File, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file system of an open file keeps everything in memory, as far as can be told.
#[cfg(target_os = "linux")]
pub(crate) fn is_in_memory(file: &File) -> bool {
    // From linux/magic.h.
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    rustix::fs::fstatfs(file)
        .is_ok_and(|found| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&(found.f_type.cast_unsigned() & 0xffff_ffff)))
}

/// Whether the file system of an open file keeps everything in memory, as far as can be told.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_in_memory(_file: &File) -> bool {
    false
}

/// Writes all of `bytes` at a position.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Makes a stretch of a file read as zeros and take no room, without changing the file's length;
/// `false` where the file system cannot.
#[cfg(target_os = "linux")]
pub(crate) fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    match rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes a stretch of a file read as zeros and take no room; `false` where the system cannot.
#[cfg(not(target_os = "linux"))]
pub(crate) fn punch_hole(_file: &File, _offset: u64, _len: u64) -> io::Result<bool> {
    Ok(false)
}

/// Waits until the bytes and the attributes of a file are on the disk.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Waits until the bytes of a file, and what is needed to find them, are on the disk.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Waits until the entries of a folder are on the disk.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Waits until the entries of an open folder are on the disk.
pub(crate) fn sync_open_folder(folder: &File) -> io::Result<()> {
    match rustix::fs::fsync(folder) {
        // It was opened only to go through it.
        Err(Errno::BADF) => open_for_reading(folder)?.sync_all(),
        flushed => Ok(flushed?),
    }
}

fn open_for_reading(folder: &File) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(folder, ".", flags, Mode::empty())?.into())
}

/// Sets the permission bits of an open file.
pub(crate) fn set_permissions(file: &File, permissions: Permissions) -> io::Result<()> {
    file.set_permissions(permissions)
}

/// Sets the permission bits of what lies at a path.
pub(crate) fn set_permissions_of(path: &Path, permissions: Permissions) -> io::Result<()> {
    std::fs::set_permissions(path, permissions)
}

/// Sets the permission bits of what lies in an open folder.
pub(crate) fn set_mode_at(folder: &File, name: &OsStr, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
    Ok(rustix::fs::chmodat(folder, name, mode, AtFlags::empty())?)
}

/// Sets the permission bits of an open file or folder.
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode as rustix::fs::RawMode))?)
}

/// Gives an open file to another user and group, which only the superuser may.
pub(crate) fn set_owner(file: &File, user: u32, group: u32) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(user), Some(group))
}

/// Sets the time of the last modification of an open file or folder: seconds since 1970, which may be
/// negative, and nanoseconds. The file system rounds it as it must.
pub(crate) fn set_modified(file: &File, modified: (i64, u32)) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified.0, tv_nsec: modified.1.into() },
    };
    Ok(rustix::fs::futimens(file, &times)?)
}

/// Waits until everything on the file system of an open folder is on the disk, and tells what could not
/// be written since the folder was opened, or since this was called last.
#[cfg(target_os = "linux")]
pub(crate) fn sync_file_system(folder: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(folder)?)
}

/// Nothing to wait for here: [`sync_by_itself`] has done so for every file. Only the folder is left.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_file_system(folder: &File) -> io::Result<()> {
    folder.sync_all()
}

/// Waits until a file is on the disk, where [`sync_file_system`] cannot wait for many of them at once.
#[cfg(target_os = "linux")]
pub(crate) fn sync_by_itself(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Waits until a file is on the disk, because this system cannot wait for many of them at once.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_by_itself(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Gives a file another name in one step, replacing what had it.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// Gives a folder another name in one step, unless something has it already.
pub(crate) fn rename_folder_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system without the flag: a folder replaces nothing but an empty folder anyway.
        Err(Errno::INVAL | Errno::NOSYS) => rename(from, to),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file in an open folder another name there, replacing what had it.
pub(crate) fn rename_at(folder: &File, from: &OsStr, to: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::renameat(folder, from, folder, to)?)
}

/// Gives a file in an open folder another name there, unless something has it already.
pub(crate) fn rename_at_to_new(folder: &File, from: &OsStr, to: &OsStr) -> io::Result<()> {
    match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system without the flag (an old NFS, for example): a second name that must be new does the same
        // in two steps. A name that cannot be is refused as well.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(folder, from, folder, to, AtFlags::empty())?;
            remove_file_at(folder, from)
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives a file in an open folder another name in another one, replacing what had it.
pub(crate) fn move_at(folder: &File, from: &OsStr, other: &File, to: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::renameat(folder, from, other, to)?)
}

/// Gives a file or folder in an open folder another name in another one, unless something has it already.
pub(crate) fn move_at_to_new(folder: &File, from: &OsStr, other: &File, to: &OsStr) -> io::Result<()> {
    match rustix::fs::renameat_with(folder, from, other, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // As in `rename_at_to_new` and `rename_folder_to_new`.
        Err(Errno::INVAL | Errno::NOSYS) if is_folder_at(folder, from) => move_at(folder, from, other, to),
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(folder, from, other, to, AtFlags::empty())?;
            remove_file_at(folder, from)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_folder_at(folder: &File, name: &OsStr) -> bool {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// Removes a file's name in an open folder.
pub(crate) fn remove_file_at(folder: &File, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?)
}

/// Removes an empty folder in an open folder.
pub(crate) fn remove_folder_at(folder: &File, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

/// Makes a folder in an open folder, with these permission bits less those that the process's mask
/// takes away.
pub(crate) fn create_folder_at(folder: &File, name: &OsStr, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(mode as rustix::fs::RawMode))?)
}

/// Makes a folder that nobody else can enter.
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Removes an empty folder.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    std::fs::remove_dir(path)
}

/// Removes a file's name.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// Makes a folder and what is missing above it; returns what it made, outermost first. If it fails
/// it takes back what it had made.
pub(crate) fn create_folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut missing: Vec<&Path> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.is_dir())
        .collect();
    missing.reverse();
    let mut made = Vec::new();
    for folder in missing {
        match DirBuilder::new().create(folder) {
            Ok(()) => made.push(folder.to_owned()),
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) => {
                remove_folders(&made);
                return Err(error);
            }
        }
    }
    Ok(made)
}

/// Removes folders, the last one first, as long as they are empty: one that is in use by now stays.
pub(crate) fn remove_folders(folders: &[PathBuf]) {
    for folder in folders.iter().rev() {
        if std::fs::remove_dir(folder).is_err() {
            break;
        }
    }
}
