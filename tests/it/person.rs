//! A person that runs `silt`: a home of their own, and what the command says to them.

use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// A person with a home of their own and nothing configured.
pub struct Person {
    pub home: tempfile::TempDir,
    /// Where the program is for users that may not run it where it was built.
    program: OnceLock<tempfile::TempDir>,
}

pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn ends_with(self, code: i32) -> Said {
        assert_eq!(self.code, code, "\n--- standard output\n{}--- standard error\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.out.trim()).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// The last of several JSON lines; all must be JSON.
    #[track_caller]
    pub fn last_event(&self) -> Value {
        let lines = self.out.lines().map(|line| serde_json::from_str(line).expect(line));
        lines.collect::<Vec<Value>>().pop().expect("there is a line")
    }
}

impl Person {
    pub fn new() -> Person {
        // Sources are saved at their real paths.
        let above = std::env::temp_dir().canonicalize().unwrap();
        Person { home: tempfile::tempdir_in(above).unwrap(), program: OnceLock::new() }
    }

    /// The program. If it was built below a directory that is closed to others, as the home of root is, other users get a copy.
    fn program(&self) -> PathBuf {
        let built = Path::new(env!("CARGO_BIN_EXE_silt"));
        let is_closed = |above: &Path| above.metadata().is_ok_and(|meta| meta.mode() & 0o001 == 0);
        if !built.ancestors().skip(1).any(is_closed) {
            return built.to_owned();
        }
        let make = || {
            let place = tempfile::tempdir().expect("a directory");
            std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode is set");
            let copy = place.path().join("silt");
            std::fs::hard_link(built, &copy).or_else(|_| std::fs::copy(built, &copy).map(drop)).expect("copied");
            place
        };
        self.program.get_or_init(make).path().join("silt")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(self.program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SILT_") {
                command.env_remove(name);
            }
        }
        command.args(words).current_dir(self.home.path()).env("HOME", self.home.path()).env("TZ", "UTC");
        command.env("XDG_DATA_HOME", self.path("data")).env("XDG_CONFIG_HOME", self.path("config"));
        command.env("XDG_CACHE_HOME", self.path("cache")).stdin(Stdio::null());
        command
    }

    pub fn silt(&self, words: &[&str]) -> Said {
        said(self.command(words).output().unwrap())
    }

    pub fn silt_with(&self, environment: &[(&str, &str)], words: &[&str]) -> Said {
        said(self.command(words).envs(environment.iter().copied()).output().unwrap())
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn make_source(&self) {
        self.write("source/text", "hello");
        self.write("source/empty", "");
        self.write(
            "source/below/large",
            (0..3_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect::<Vec<_>>(),
        );
        self.write("source/below/deep/er/x", [0xff; 10]);
        std::os::unix::fs::symlink("text", self.path("source/link")).unwrap();
        std::fs::hard_link(self.path("source/text"), self.path("source/same")).unwrap();
        std::fs::set_permissions(self.path("source/empty"), std::fs::Permissions::from_mode(0o4711)).unwrap();
    }

    pub fn snapshots(&self, more: &[&str]) -> Vec<Value> {
        let words = [&["snapshots", "--json"], more].concat();
        self.silt(&words).ends_with(0).json()["snapshots"].as_array().unwrap().clone()
    }
}

pub fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("silt prints text");
    Said { code: output.status.code().expect("no signal ended it"), out: text(output.stdout), err: text(output.stderr) }
}

/// Words that run a command on one processor, the first one that this process may use.
pub fn on_one_processor() -> [String; 3] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = allowed.map_or("", |list| list.trim().split([',', '-']).next().unwrap_or_default());
    ["taskset", "-c", if first.is_empty() { "0" } else { first }].map(str::to_owned)
}

/// A number that changes with every name and size below a folder, by which the work of a process is seen.
pub fn fingerprint(folder: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        // What is removed while it is looked at was a change, too.
        let Ok(entry) = entry else { continue };
        entry.path().hash(&mut hasher);
        entry.metadata().map_or(0, |metadata| if metadata.is_dir() { 0 } else { metadata.size() }).hash(&mut hasher);
    }
    hasher.finish()
}

/// Mode, time and bytes of all that is below a folder.
pub type Contents = BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>;

/// Everything below a folder that a restore must bring back.
pub fn contents(folder: &Path) -> Contents {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder).min_depth(1) {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let bytes = match entry.file_type() {
            kind if kind.is_symlink() => {
                std::fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
            }
            kind if kind.is_dir() => Vec::new(),
            // What a killed restore leaves is closed even to its owner.
            _ => match std::fs::read(entry.path()) {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => b"(closed)".to_vec(),
                bytes => bytes.unwrap(),
            },
        };
        let name = entry.path().strip_prefix(folder).unwrap().to_owned();
        found.insert(name, (meta.mode(), meta.mtime(), meta.mtime_nsec(), bytes));
    }
    found
}
