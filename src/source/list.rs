//! Read the lists of paths to save, and make them whole: absolute, clean, sorted, each thing once.

use crate::entry::PATH_BYTES_MAX;
use crate::error::{Error, Kind, Result};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// How many bytes of paths one list may hold: millions of paths, yet an endless reader ends.
const LIST_BYTES_MAX: usize = 256 << 20;

/// What some editors put before a text; no part of the first path.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads one path a line; blank lines and lines that begin with `#` are skipped (`./#x` names such a file). A list
/// whose first line ends in CR LF, as on Windows, is read so to its end; a byte order mark is not a part of it.
/// `origin` names the list in errors.
pub fn read_lines(reader: impl Read, origin: &str) -> Result<Vec<PathBuf>> {
    read_list(reader, origin, b'\n')
}

/// Reads paths of any bytes, each ended by a NUL byte (`find … -print0`).
pub fn read_raw(reader: impl Read, origin: &str) -> Result<Vec<PathBuf>> {
    read_list(reader, origin, 0)
}

fn read_list(reader: impl Read, origin: &str, end: u8) -> Result<Vec<PathBuf>> {
    let mut reader = BufReader::new(reader);
    let (mut paths, mut total, mut piece) = (Vec::new(), 0, Vec::new());
    // Of a list written on Windows each line ends so; elsewhere it is a part of a name.
    let mut ends_with_cr = false;
    let unit = if end == 0 { "path" } else { "line" };
    for number in 1_usize.. {
        piece.clear();
        let limit = PATH_BYTES_MAX as u64 + 1 + (BYTE_ORDER_MARK.len() + 1) as u64;
        let read = reader.by_ref().take(limit).read_until(end, &mut piece);
        if read.map_err(|e| Error::io("read the list of paths", origin, e))? == 0 {
            break;
        }
        let refuse =
            |why: String| Err(Error::invalid("read the list of paths", format_args!("{origin}, {unit} {number}"), why));
        let path = match piece.split_last() {
            Some((last, path)) if *last == end => path,
            _ => &piece[..],
        };
        let path = match end {
            b'\n' if number == 1 => path.strip_prefix(BYTE_ORDER_MARK).unwrap_or(path),
            _ => path,
        };
        if end == b'\n' && number == 1 {
            ends_with_cr = path.ends_with(b"\r");
        }
        let path = if ends_with_cr { path.strip_suffix(b"\r").unwrap_or(path) } else { path };
        if path.len() > PATH_BYTES_MAX {
            return refuse(format!("the path is longer than {PATH_BYTES_MAX} bytes"));
        }
        if end == b'\n' {
            if path.trim_ascii().is_empty() || path.starts_with(b"#") {
                continue;
            }
            if path.contains(&0) {
                return refuse("it holds a NUL byte".to_owned())
                    .map_err(|e| e.hint("use --files-from-raw for a list with NUL bytes between the paths"));
            }
        } else if path.is_empty() {
            return refuse("the path is empty".to_owned());
        }
        total += path.len() + 1;
        if total > LIST_BYTES_MAX {
            return refuse(format!("the list is larger than {} MiB", LIST_BYTES_MAX >> 20))
                .map_err(|e| e.with_kind(Kind::Full));
        }
        paths.push(PathBuf::from(OsString::from_vec(path.to_vec())));
    }
    Ok(paths)
}

/// What `link/` and `link/.` mean: the folder that the link points to, by its own path. All other
/// paths stay as they are. A link that leads nowhere (its disk is not mounted) is an error: the link is not what was meant.
pub fn follow_slash(path: &Path) -> Result<PathBuf> {
    let bytes = path.as_os_str().as_bytes();
    let mut name = bytes;
    while let Some(shorter) = name.strip_suffix(b"/").or_else(|| name.strip_suffix(b"/.")) {
        name = shorter;
    }
    let link = Path::new(OsStr::from_bytes(name));
    let is_link = name.len() < bytes.len() && link.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    if !is_link {
        return Ok(path.to_owned());
    }
    let real = link.canonicalize().map_err(|error| Error::io("follow the symbolic link", path.display(), error))?;
    if is_same_place(link, &real) {
        return Ok(real);
    }
    Err(Error::invalid(
        "follow the symbolic link",
        path.display(),
        "what it leads to has another path here, as links in /proc do",
    )
    .hint("name the directories in it instead, as in /proc/1/root/etc"))
}

/// Whether two paths lead to the same directory. The text of a link in /proc can be a path in another mount namespace.
pub fn is_same_place(one: &Path, other: &Path) -> bool {
    let number = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    let one = number(one);
    one.is_some() && one == number(other)
}

/// Absolute paths without `.`, `..` and double slashes, sorted by component, each once. Where `..` follows a symbolic link, the
/// path is refused: the system takes it for what is above the target of the link, a reader for what is above the link.
pub fn normalize<P: AsRef<Path>>(paths: &[P], folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_absolute() {
        return Err(Error::invalid("use the current directory", folder.display(), "its path is not absolute"));
    }
    let mut clean = Vec::with_capacity(paths.len());
    for path in paths {
        clean.push(absolute(path.as_ref(), folder)?);
    }
    // By component: "/a/b" follows "/a" at once, although "-" sorts before "/" and "/a-b" would else come between.
    clean.sort();
    clean.dedup();
    if !clean.is_empty() {
        Ok(clean)
    } else {
        Err(Error::invalid("save anything", "", "no path was given").hint("name at least one file or directory"))
    }
}

fn absolute(path: &Path, folder: &Path) -> Result<PathBuf> {
    let refuse = |why: &str| Err(Error::invalid("use the path", path.display(), why));
    if path.as_os_str().is_empty() {
        return refuse("it is empty");
    }
    if path.as_os_str().as_bytes().contains(&0) {
        return refuse("it holds a NUL byte");
    }
    let mut clean = PathBuf::from("/");
    for component in folder.join(path).components() {
        match component {
            Component::Normal(name) => clean.push::<&OsStr>(name),
            Component::ParentDir => {
                if clean.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
                    let link = clean.display();
                    return refuse(&format!("`..` follows the symbolic link {link}, so it could mean two directories"))
                        .map_err(|error| error.hint("write the path of the directory without `..`"));
                }
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean.as_os_str().len() > PATH_BYTES_MAX { refuse("it is longer than the system allows") } else { Ok(clean) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_line_by_line_or_between_nul_bytes() {
        let paths = read_lines(&b"a\n\n# no\n  \n./#x\n/b c \n\xff"[..], "l").unwrap();
        let expected: Vec<&OsStr> = [&b"a"[..], b"./#x", b"/b c ", b"\xff"].map(OsStr::from_bytes).to_vec();
        assert_eq!(paths, expected);
        let paths = read_raw(&b"a\n\0#b\0\xff\0"[..], "l").unwrap();
        assert_eq!(paths, [&b"a\n"[..], b"#b", b"\xff"].map(OsStr::from_bytes));
        assert!(read_raw(&b""[..], "l").unwrap().is_empty());
        let full = b"x".repeat(PATH_BYTES_MAX);
        assert_eq!(read_raw(&full[..], "l").unwrap().len(), 1);
        assert_eq!(read_lines(&[&full[..], b"\ny"].concat()[..], "l").unwrap().len(), 2);
    }

    /// A list written on Windows was not understood: its names seemed to end in CR, the first to begin with a mark.
    #[test]
    fn a_list_from_windows_names_what_it_says() {
        let paths = read_lines(&b"\xef\xbb\xbfa.txt\r\n# no\r\n\r\nb c\r\n"[..], "l").unwrap();
        assert_eq!(paths, ["a.txt", "b c"].map(PathBuf::from));
        // A name of Unix may end so.
        let paths = read_lines(&b"a\nb\r\n"[..], "l").unwrap();
        assert_eq!(paths, ["a", "b\r"].map(PathBuf::from));
        let full = [BYTE_ORDER_MARK, &b"x".repeat(PATH_BYTES_MAX), b"\r\ny\r\n"].concat();
        assert_eq!(read_lines(&full[..], "l").unwrap().len(), 2);
    }

    /// Of a source that was written with a slash at its end only the link was saved, without a word.
    #[test]
    fn a_slash_behind_a_link_means_what_it_points_to() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        std::fs::create_dir(top.join("real")).unwrap();
        std::os::unix::fs::symlink("real", top.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", top.join("broken")).unwrap();
        for (given, meant) in
            [("link", "link"), ("link/", "real"), ("link/.", "real"), ("link//./", "real"), ("real/", "real/")]
        {
            assert_eq!(follow_slash(&top.join(given)).unwrap(), top.join(meant), "{given}");
        }
        assert!(follow_slash(&top.join("broken/")).unwrap_err().is(Kind::NotFound));
    }

    #[test]
    fn errors_name_the_position() {
        let long = b"x".repeat(PATH_BYTES_MAX + 1);
        let error = read_lines(&[b"a\n\n", &long[..]].concat()[..], "list").unwrap_err();
        assert!(error.is(Kind::Invalid) && error.to_string().contains("list, line 3"), "{error}");
        let error = read_raw(&[b"a\0", &long[..]].concat()[..], "list").unwrap_err();
        assert!(error.to_string().contains("list, path 2"), "{error}");
        assert!(read_raw(&b"a\0\0b"[..], "list").unwrap_err().to_string().contains("path 2"));
        assert!(read_lines(&b"a\0b"[..], "list").unwrap_err().advice().is_some());
    }

    #[test]
    fn paths_are_cleaned_and_sorted() {
        let table: &[(&[&str], &[&str])] = &[
            (&["."], &["/w/d"]),
            (&["x", "./x/", "/w//d/x/."], &["/w/d/x"]),
            (&["..", "../../..", "/a"], &["/", "/a", "/w"]),
            (&["/a/b", "/a-b", "/a", "/a/b"], &["/a", "/a/b", "/a-b"]),
            (&["/b/../a", "/c"], &["/a", "/c"]),
            (&["/ab", "/a/c/d", "/a/c"], &["/a/c", "/a/c/d", "/ab"]),
        ];
        for (paths, expected) in table {
            let got = normalize(paths, Path::new("/w/d")).unwrap();
            assert_eq!(got, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{paths:?}");
        }
        assert!(normalize::<&str>(&[], Path::new("/")).is_err());
        assert!(normalize(&[""], Path::new("/")).is_err());
        assert!(normalize(&["a"], Path::new("w")).is_err());
    }

    #[test]
    fn whatever_the_bytes_the_result_is_clean() {
        let alphabet = b"./a\xff\n";
        for seed in 0..5_u32.pow(6) {
            let mut rest = seed;
            let path: Vec<u8> =
                std::iter::repeat_with(|| (rest % 5, rest /= 5).0).take(6).map(|i| alphabet[i as usize]).collect();
            let got = normalize(&[OsStr::from_bytes(&path)], Path::new("/w")).unwrap();
            let bytes = got[0].as_os_str().as_bytes();
            let clean =
                bytes == b"/" || bytes[0] == b'/' && bytes[1..].split(|b| *b == b'/').all(crate::entry::is_valid_name);
            assert!(clean, "{} gave {}", path.escape_ascii(), bytes.escape_ascii());
        }
    }
}
