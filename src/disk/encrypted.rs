//! Directories that their file system encrypts (fscrypt: ext4, f2fs, UBIFS, CephFS). While the key is not there, the kernel makes up names for what
//! is in them, and refuses to open the files ("No-key access" in the kernel's fscrypt.rst).

use super::read_dir::Directory;
use super::stat::Stat;
use crate::error::{Error, Kind, Result};
use rustix::fd::AsFd;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `struct fscrypt_get_policy_ex_arg`, as far as policies are known.
#[repr(C)]
struct PolicyQuery {
    /// Bytes of the policy that there is room for, then of the policy.
    size: u64,
    policy: [u8; 24],
}

/// `struct fscrypt_get_key_status_arg`.
#[repr(C)]
struct KeyStatusQuery {
    /// 2: a key is named by an identifier of 16 bytes.
    kind: u32,
    reserved: u32,
    key: [u8; 32],
    more_reserved: [u32; 6],
    status: u32,
    status_flags: u32,
    users: u32,
    rest: [u32; 13],
}

/// Its number encodes the size of the first field and one byte more.
const GET_POLICY: Opcode = opcode::read_write::<[u8; 9]>(b'f', 22);
const GET_KEY_STATUS: Opcode = opcode::read_write::<KeyStatusQuery>(b'f', 26);
const POLICY_VERSION: u8 = 2;
const IDENTIFIER_AT: usize = 8;
const KEY_BY_IDENTIFIER: u32 = 2;
const KEY_IS_ABSENT: u32 = 1;

/// A directory whose names are those that it has; an error if the kernel makes them up.
pub(crate) fn unlocked(directory: Directory, stat: &Stat) -> Result<Directory> {
    if !stat.is_encrypted || !is_locked(&directory) {
        return Ok(directory);
    }
    let why = "its file system encrypts it, and its key is not there (its user may not be logged in)";
    Err(Error::new(Kind::Denied, "read", "its names").because(why))
}

/// Whether a directory is encrypted and its key is not there. Keys of policies of version 1 can also be where this does not show; their
/// directories count as unlocked.
fn is_locked(directory: impl AsFd) -> bool {
    let mut policy = PolicyQuery { size: 24, policy: [0; 24] };
    // SAFETY: the kernel writes the size and at most as many bytes of a policy as the size says there is room for.
    let asked = unsafe { ioctl(&directory, Updater::<GET_POLICY, PolicyQuery>::new(&mut policy)) };
    if asked.is_err() || policy.policy[0] != POLICY_VERSION {
        return false;
    }
    let mut key = [0; 32];
    key[..16].copy_from_slice(&policy.policy[IDENTIFIER_AT..]);
    let mut status = KeyStatusQuery {
        kind: KEY_BY_IDENTIFIER,
        reserved: 0,
        key,
        more_reserved: [0; 6],
        status: 0,
        status_flags: 0,
        users: 0,
        rest: [0; 13],
    };
    // SAFETY: the number of this request has the size of the structure that the kernel reads and writes.
    let asked = unsafe { ioctl(&directory, Updater::<GET_KEY_STATUS, KeyStatusQuery>::new(&mut status)) };
    asked.is_ok() && status.status == KEY_IS_ABSENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_numbers_of_the_kernel() {
        assert_eq!((size_of::<PolicyQuery>(), size_of::<KeyStatusQuery>()), (32, 128));
        // On processors whose numbers of requests are built as on most.
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
        assert_eq!((GET_POLICY, GET_KEY_STATUS), (0xc009_6616, 0xc080_661a));
        assert!(!is_locked(std::fs::File::open("/").expect("it opens")));
    }
}
