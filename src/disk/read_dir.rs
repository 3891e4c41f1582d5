//! Open directories and list them: the names of one directory in an arena, sorted by their bytes.

use super::refused::{refused, refused_name};
use crate::error::{Error, Kind, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, openat};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

/// The longest path that the kernel takes in one call, its NUL included.
const PATH_CALL_BYTES_MAX: usize = 4096;

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    /// O_NOATIME was refused for a child: it belongs to another user, and its siblings most likely too.
    atime_refused: AtomicBool,
}

impl AsFd for Directory {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Directory {
    fn from(fd: OwnedFd) -> Self {
        Directory { fd, atime_refused: AtomicBool::new(false) }
    }
}

impl Directory {
    const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    /// Opens the directory at a path of any length, relative to the working directory; symbolic links in it are
    /// followed, since a person names the root.
    pub fn open_path(path: &[u8]) -> Result<Directory> {
        let failed = |errno| refused("open the directory", path, errno);
        if path.is_empty() || path.contains(&0) {
            return Err(failed(Errno::INVAL));
        }
        let mut from: Option<OwnedFd> = None;
        let mut rest = path;
        while rest.len() >= PATH_CALL_BYTES_MAX {
            // The longest part of whole components that one call takes.
            let cut = rest[..PATH_CALL_BYTES_MAX - 1].iter().rposition(|byte| *byte == b'/').filter(|cut| *cut > 0);
            let (head, tail) = rest.split_at(cut.ok_or_else(|| failed(Errno::NAMETOOLONG))?);
            let fd = match &from {
                None => openat(CWD, head, Self::FLAGS, Mode::empty()),
                Some(above) => openat(above, head, Self::FLAGS, Mode::empty()),
            };
            from = Some(fd.map_err(failed)?);
            let slashes = tail.iter().take_while(|byte| **byte == b'/').count();
            rest = &tail[slashes..];
        }
        let rest = if rest.is_empty() { b"." } else { rest };
        let fd = match &from {
            None => openat(CWD, rest, Self::FLAGS, Mode::empty()),
            Some(above) => openat(above, rest, Self::FLAGS, Mode::empty()),
        };
        fd.map(Directory::from).map_err(failed)
    }

    /// Opens a directory in this one; a symbolic link is refused (`Conflict`).
    #[inline]
    pub fn open_child(&self, name: impl Arg + Copy) -> Result<Directory> {
        let flags = Self::FLAGS | OFlags::NOFOLLOW;
        self.open_without_atime(name, flags)
            .map(Directory::from)
            .map_err(|errno| refused_name("open the directory", name, errno))
    }

    /// Opens a directory that may be searched and not be read, like a `/home` of mode 711: enough to open and to change what
    /// is in it by name. It cannot be listed; a symbolic link is refused (`Conflict`).
    pub(crate) fn open_child_to_search(&self, name: impl Arg + Copy) -> Result<Directory> {
        let failed = |errno| refused_name("open the directory", name, errno);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = openat(self, name, flags, Mode::empty()).map(Directory::from).map_err(failed)?;
        // The call asks for no right to the directory itself.
        accessat(&opened, c".", Access::EXEC_OK, AtFlags::EACCESS).map_err(failed)?;
        Ok(opened)
    }

    /// Reading should not leave traces: O_NOATIME, which only the owner of a file and root may use.
    #[inline]
    pub(super) fn open_without_atime(&self, name: impl Arg + Copy, flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.atime_refused.load(Ordering::Relaxed) {
            return openat(self, name, flags, Mode::empty());
        }
        match openat(self, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => {
                let fd = openat(self, name, flags, Mode::empty())?;
                self.atime_refused.store(true, Ordering::Relaxed);
                Ok(fd)
            }
            other => other,
        }
    }

    /// Whether nothing is in the directory.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        let failed = |errno| refused("list a directory", b"", errno);
        // A descriptor lists once; this one stays as it is.
        let again = self.open_child(c".")?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = rustix::fs::RawDir::new(&again, &mut buffer);
        loop {
            match entries.next() {
                None => return Ok(true),
                Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Some(Ok(_)) => return Ok(false),
                Some(Err(Errno::INTR)) => {}
                Some(Err(errno)) => return Err(failed(errno)),
            }
        }
    }

    /// Fills `names` with what is in the directory, `.` and `..` left out, sorted, each once. Reads from wherever the descriptor
    /// stands: call it once on a directory.
    pub fn names(&self, names: &mut NameList, buffer: &mut ListBuffer) -> Result<()> {
        names.clear();
        let mut entries = rustix::fs::RawDir::new(self, &mut buffer.0);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name().to_bytes_with_nul();
                    // Asked for by bytes: comparing slices would call memcmp for each entry.
                    if name[0] == b'.' && (name[1] == 0 || (name[1] == b'.' && name[2] == 0)) {
                        continue;
                    }
                    names.push(name, entry.file_type())?;
                }
                Err(Errno::INTR) => (),
                Err(errno) => return Err(refused("list a directory", b"", errno)),
            }
        }
        names.sort();
        Ok(())
    }
}

/// What the kernel writes directory entries to; one per thread. Large, since each call for a network file system is a
/// round trip.
pub struct ListBuffer(Vec<MaybeUninit<u8>>);

impl ListBuffer {
    const BYTES: usize = 256 << 10;
}

impl Default for ListBuffer {
    fn default() -> Self {
        let mut buffer = Vec::with_capacity(Self::BYTES);
        // Not touched until the kernel needs it: small directories cost one page.
        buffer.resize_with(Self::BYTES, MaybeUninit::uninit);
        ListBuffer(buffer)
    }
}

/// The type that a directory entry says it has, without asking the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpenHint {
    /// The file system does not tell.
    Unknown,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Devices, FIFOs, sockets.
    Other,
}

#[derive(Clone, Copy)]
struct NameRef {
    offset: u32,
    length: u16,
    hint: OpenHint,
}

/// The names of one directory: one arena, 9 bytes an entry beside the names themselves.
#[derive(Default)]
pub struct NameList {
    /// Each with its NUL, so that system calls take it without a copy.
    bytes: Vec<u8>,
    refs: Vec<NameRef>,
    /// Whether the order of arrival was the sorted one.
    sorted: bool,
}

impl NameList {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.refs.clear();
        self.sorted = true;
    }

    pub(crate) fn len(&self) -> usize {
        self.refs.len()
    }

    /// The name at `index`, which must be less than `len()`.
    #[inline]
    pub fn get(&self, index: usize) -> &CStr {
        let at = self.refs[index];
        let from = at.offset as usize;
        let bytes = &self.bytes[from..from + at.length as usize + 1];
        debug_assert!(CStr::from_bytes_with_nul(bytes).is_ok());
        // SAFETY: `push` takes only what the kernel gave as a NUL-terminated name, its length found by its first NUL, and
        // what `of` made of a name without NUL.
        unsafe { CStr::from_bytes_with_nul_unchecked(bytes) }
    }

    /// These names, sorted, each once, whatever they name.
    pub(crate) fn of<'a>(given: impl Iterator<Item = &'a [u8]>) -> Result<NameList> {
        let mut names = NameList::default();
        let mut piece = Vec::new();
        for name in given {
            if !crate::entry::is_valid_name(name) {
                return Err(refused("use the name", name, Errno::INVAL));
            }
            piece.clear();
            piece.extend_from_slice(name);
            piece.push(0);
            names.push(&piece, rustix::fs::FileType::Unknown)?;
        }
        names.sort();
        Ok(names)
    }

    /// A name by its bytes, where it is one of these.
    pub(crate) fn find(&self, name: &[u8]) -> Option<&CStr> {
        debug_assert!(self.sorted);
        let bytes = |at: &NameRef| &self.bytes[at.offset as usize..at.offset as usize + at.length as usize];
        self.refs.binary_search_by(|at| bytes(at).cmp(name)).ok().map(|index| self.get(index))
    }

    /// The type that the directory states for the name at `index`, which must be less than the number of names.
    #[inline]
    pub fn hint(&self, index: usize) -> OpenHint {
        self.refs[index].hint
    }

    /// All names with their types, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&CStr, OpenHint)> {
        (0..self.len()).map(|index| (self.get(index), self.hint(index)))
    }

    fn push(&mut self, name_and_nul: &[u8], kind: rustix::fs::FileType) -> Result<()> {
        use rustix::fs::FileType;
        let (Ok(offset), Ok(length)) = (u32::try_from(self.bytes.len()), u16::try_from(name_and_nul.len() - 1)) else {
            return Err(Error::new(Kind::Failed, "list a directory", "").because("its names take more than 4 GiB"));
        };
        let hint = match kind {
            FileType::RegularFile => OpenHint::File,
            FileType::Directory => OpenHint::Directory,
            FileType::Symlink => OpenHint::Symlink,
            FileType::Unknown => OpenHint::Unknown,
            _ => OpenHint::Other,
        };
        if self.sorted
            && let Some(last) = self.refs.last()
        {
            let from = last.offset as usize;
            self.sorted = self.bytes[from..from + last.length as usize] < name_and_nul[..name_and_nul.len() - 1];
        }
        self.bytes.extend_from_slice(name_and_nul);
        self.refs.push(NameRef { offset, length, hint });
        Ok(())
    }

    fn sort(&mut self) {
        if self.sorted {
            return;
        }
        let bytes = &self.bytes;
        let name = |at: &NameRef| &bytes[at.offset as usize..at.offset as usize + at.length as usize];
        self.refs.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        // A network file system may list a name twice if the directory changes meanwhile, a damaged one always.
        self.refs.dedup_by(|a, b| name(a) == name(b));
        self.sorted = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn names_come_sorted_by_bytes_and_without_dots() {
        let folder = tempfile::tempdir().unwrap();
        for name in [&b"b"[..], b"a", b"\xff", b"B", b"..c", b".d", b"a b"] {
            std::fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), b"").unwrap();
        }
        let directory = Directory::open_path(folder.path().as_os_str().as_bytes()).unwrap();
        let mut names = NameList::default();
        directory.names(&mut names, &mut ListBuffer::default()).unwrap();
        let listed: Vec<_> = names.iter().map(|(name, _)| name.to_bytes()).collect();
        assert_eq!(listed, [&b"..c"[..], b".d", b"B", b"a", b"a b", b"b", b"\xff"]);
    }

    /// No page that has a name twice can be read, so all entries in it were lost.
    #[test]
    fn a_name_that_is_listed_twice_counts_once() {
        for given in [&[b"a", b"a"][..], &[b"b", b"a", b"b"], &[b"a", b"b", b"b", b"c"]] {
            let names = NameList::of(given.iter().map(|name| &name[..])).unwrap();
            let listed: Vec<_> = names.iter().map(|(name, _)| name.to_bytes()).collect();
            assert!(listed.len() == given.len() - 1 && listed.is_sorted(), "{listed:?}");
        }
    }

    #[test]
    fn a_link_is_not_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        let directory = Directory::open_path(folder.path().as_os_str().as_bytes()).unwrap();
        assert_eq!(directory.open_child(c"link").unwrap_err().kind(), Kind::Conflict);
        assert_eq!(directory.open_child(c"none").unwrap_err().kind(), Kind::NotFound);
        assert!(directory.open_child(&b"a\0b"[..]).is_err());
    }

    #[test]
    fn an_entry_costs_eight_bytes_and_its_name() {
        assert_eq!(size_of::<NameRef>(), 8);
    }
}
