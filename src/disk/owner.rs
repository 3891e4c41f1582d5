//! Names of users and groups for their numbers, and back.
//!
//! Read from /etc/passwd and /etc/group by ourselves: a static binary cannot load the modules of the name service
//! switch, so users of LDAP, SSSD or systemd-homed have numbers only. Numbers are always kept, so nothing is lost.

use crate::error::Result;
use std::collections::HashMap;
use std::path::Path;

/// Larger files of accounts are a mistake or an attack.
const ACCOUNTS_BYTES_MAX: u64 = 64 << 20;

/// The users and groups of this machine at one moment: read them once per run.
#[derive(Debug, Default)]
pub struct Owners {
    users: OwnerTable,
    groups: OwnerTable,
}

#[derive(Debug, Default)]
struct OwnerTable {
    names: HashMap<u32, String>,
    numbers: HashMap<String, u32>,
}

impl OwnerTable {
    /// Lines of `name:password:number:…`; what does not look so (NIS' `+` lines, comments) is skipped.
    fn parse(text: &[u8]) -> OwnerTable {
        let mut table = OwnerTable::default();
        for line in text.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b':');
            let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next()) else { continue };
            let (Ok(name), Ok(number)) = (std::str::from_utf8(name), std::str::from_utf8(number)) else { continue };
            let Ok(number) = number.parse() else { continue };
            if name.is_empty() || name.starts_with(['+', '-', '#']) {
                continue;
            }
            // The first one counts, as everywhere: `root` before `toor`.
            table.names.entry(number).or_insert_with(|| name.to_owned());
            table.numbers.entry(name.to_owned()).or_insert(number);
        }
        table
    }

    fn load(path: &str) -> Result<OwnerTable> {
        match super::whole::read_bounded(Path::new(path), ACCOUNTS_BYTES_MAX) {
            Ok(text) => Ok(OwnerTable::parse(&text)),
            // A container may have none.
            Err(error) if error.is(crate::error::Kind::NotFound) => Ok(OwnerTable::default()),
            Err(error) => Err(error),
        }
    }
}

impl Owners {
    /// Those of this machine; empty where it has no such files.
    pub fn load() -> Result<Owners> {
        Ok(Owners { users: OwnerTable::load("/etc/passwd")?, groups: OwnerTable::load("/etc/group")? })
    }

    #[cfg(test)]
    pub(super) fn parse(passwd: &[u8], group: &[u8]) -> Owners {
        Owners { users: OwnerTable::parse(passwd), groups: OwnerTable::parse(group) }
    }

    /// Empty for a user without name.
    #[inline]
    pub fn user_name(&self, uid: u32) -> &str {
        self.users.names.get(&uid).map_or("", String::as_str)
    }

    #[inline]
    pub(crate) fn group_name(&self, gid: u32) -> &str {
        self.groups.names.get(&gid).map_or("", String::as_str)
    }

    pub(crate) fn uid(&self, name: &str) -> Option<u32> {
        self.users.numbers.get(name).copied()
    }

    pub(crate) fn gid(&self, name: &str) -> Option<u32> {
        self.groups.numbers.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_both_ways() {
        let passwd = b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n+@nis\nbad\nx:y:z\nann:x:1000:1000::/:\n";
        let owners = Owners::parse(passwd, b"wheel:x:10:ann\n");
        assert_eq!((owners.user_name(0), owners.user_name(1000), owners.user_name(7)), ("root", "ann", ""));
        assert_eq!((owners.uid("toor"), owners.uid("nobody")), (Some(0), None));
        assert_eq!((owners.gid("wheel"), owners.group_name(10)), (Some(10), "wheel"));
    }
}
