//! The tools that can be measured side by side: ourselves, tar with zstd, and what is found of others on the PATH.

use crate::bench::BenchStep;
use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A tool with its commands.
#[derive(Clone, Debug)]
pub struct Rival {
    name: String,
    program: PathBuf,
}

/// What `--against` knows.
const KNOWN: [&str; 7] = ["tar", "restic", "rustic", "borg", "bupstash", "kopia", "vykar"];

/// The tools of these names that are on the PATH, and the names that are not.
pub fn rivals_on_path(names: &[String]) -> Result<(Vec<Rival>, Vec<String>)> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        if !KNOWN.contains(&name.as_str()) {
            return Err(Error::invalid("measure against", name, format!("known are {}", KNOWN.join(", "))));
        }
        match find(name) {
            Some(program) => found.push(Rival { name: name.clone(), program }),
            None => missing.push(name.clone()),
        }
    }
    Ok((found, missing))
}

fn find(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Rival {
    /// Ourselves: the program at this path, run as a process like all others.
    pub fn silt(program: PathBuf) -> Self {
        Rival { name: "silt".to_owned(), program }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn repository(&self, folder: &Path) -> PathBuf {
        folder.join(format!("repository-{}", self.name))
    }

    fn out(&self, folder: &Path) -> PathBuf {
        folder.join(format!("restored-{}", self.name))
    }

    /// Where the restored tree is: some tools put the whole path below the target.
    pub(super) fn restored(&self, folder: &Path, tree: &Path) -> PathBuf {
        let out = self.out(folder);
        let below = out.join(tree.strip_prefix("/").unwrap_or(tree));
        if below.is_dir() { below } else { out }
    }

    pub(super) fn prepare(&self, folder: &Path) -> Result<()> {
        let (repo, cache) = (self.repository(folder), folder.join(format!("cache-{}", self.name)));
        std::fs::create_dir_all(&cache).map_err(|error| Error::io("make", cache.display(), error))?;
        let script = match self.name.as_str() {
            "silt" => "\"$P\" -q -r \"$R\" init",
            "restic" => "\"$P\" -q -r \"$R\" init",
            "rustic" => "\"$P\" --no-progress -r \"$R\" init",
            "borg" => "\"$P\" init -e repokey-blake2 \"$R\"",
            "bupstash" => "\"$P\" new-key -o \"$C/key\" && \"$P\" init -r \"$R\"",
            "kopia" => {
                "\"$P\" repository create filesystem --path \"$R\" && \"$P\" policy set --global --compression=zstd"
            }
            "vykar" => {
                "printf 'repositories:\\n  - label: r\\n    url: %s\\nsources:\\n  - path: %s\\n    label: t\\ncompression:\\n  algorithm: zstd\\n  zstd_level: 3\\n' \"$R\" \"$T\" > \"$C/vykar.yaml\" && \"$P\" --config \"$C/vykar.yaml\" init -R r"
            }
            _ => "mkdir -p \"$R\"",
        };
        self.shell(script, &repo, &cache, folder, &folder.join("tree"))
    }

    pub(super) fn run(&self, step: BenchStep, folder: &Path, tree: &Path) -> Result<()> {
        let restores = step == BenchStep::Restore;
        let script = match (self.name.as_str(), restores) {
            ("silt", false) => "\"$P\" -q -r \"$R\" backup \"$T\"",
            ("silt", true) => "\"$P\" -q -r \"$R\" restore latest --target \"$O\"",
            ("restic", false) => "\"$P\" -q -r \"$R\" backup \"$T\"",
            ("restic", true) => "\"$P\" -q -r \"$R\" restore latest --target \"$O\"",
            ("rustic", false) => "\"$P\" --no-progress -r \"$R\" backup \"$T\"",
            ("rustic", true) => "\"$P\" --no-progress -r \"$R\" restore \"latest:$T\" \"$O\"",
            ("borg", false) => "\"$P\" create -C zstd,3 \"$R\"::{now:%Y%m%dT%H%M%S.%f} \"$T\"",
            ("borg", true) => {
                "mkdir -p \"$O\" && cd \"$O\" && \"$P\" extract \"$R\"::$(\"$P\" list --last 1 --format '{archive}' \"$R\")"
            }
            ("bupstash", false) => "\"$P\" put -q -k \"$C/key\" -r \"$R\" name=t \"$T\"",
            ("bupstash", true) => {
                "mkdir -p \"$O\" && \"$P\" restore -q -k \"$C/key\" -r \"$R\" --into \"$O\" id=$(\"$P\" list -q -k \"$C/key\" -r \"$R\" --format jsonl1 | tail -1 | sed -E 's/.*\"id\": ?\"([0-9a-f]+)\".*/\\1/')"
            }
            ("kopia", false) => "\"$P\" snapshot create --no-progress \"$T\"",
            ("kopia", true) => "\"$P\" restore --no-progress \"$T\" \"$O\"",
            ("vykar", false) => "\"$P\" --config \"$C/vykar.yaml\" backup -R r",
            ("vykar", true) => "\"$P\" --config \"$C/vykar.yaml\" restore -R r latest \"$O\"",
            (_, false) => "tar -C \"$T\" -cf - . | zstd -q -3 -T0 -f -o \"$R/t.tar.zst\"",
            (_, true) => "mkdir -p \"$O\" && zstd -dcq \"$R/t.tar.zst\" | tar -C \"$O\" -xf -",
        };
        let cache = folder.join(format!("cache-{}", self.name));
        self.shell(script, &self.repository(folder), &cache, folder, tree)
    }

    fn shell(&self, script: &str, repo: &Path, cache: &Path, folder: &Path, tree: &Path) -> Result<()> {
        let mut command = Command::new("/bin/sh");
        command.arg("-ec").arg(script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env("P", &self.program).env("R", repo).env("C", cache).env("O", self.out(folder)).env("T", tree);
        for name in [
            "SILT_PASSWORD",
            "RESTIC_PASSWORD",
            "RUSTIC_PASSWORD",
            "BORG_PASSPHRASE",
            "KOPIA_PASSWORD",
            "VYKAR_PASSPHRASE",
        ] {
            command.env(name, "bench");
        }
        for name in [
            "SILT_CACHE_DIR",
            "RESTIC_CACHE_DIR",
            "RUSTIC_CACHE_DIR",
            "BORG_BASE_DIR",
            "KOPIA_CACHE_DIRECTORY",
            "XDG_CACHE_HOME",
            "HOME",
        ] {
            command.env(name, cache);
        }
        command.env("KOPIA_CONFIG_PATH", cache.join("repository.config")).env("KOPIA_CHECK_FOR_UPDATES", "false");
        let output = command.output().map_err(|error| Error::io("run", &self.name, error))?;
        if output.status.success() {
            Ok(())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rev().take(3).collect::<Vec<_>>().join(" / ");
            Err(Error::new(Kind::Failed, "run", &self.name).because(format!("{}: {last}", output.status)))
        }
    }
}
