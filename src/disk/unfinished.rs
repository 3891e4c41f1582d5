//! Names of what a restore has not finished: no user's file is mistaken for one, and each tells which process made it.
//!
//! `.silt-restore-PID-START-NUMBER-CHECK`: the process, its start time in ticks since boot, a counter and a checksum of
//! all before it, in lower-case hexadecimal digits of fixed length. A name that differs in one digit is not ours.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = ".silt-restore-";
/// Bytes of the whole name: prefix, 8, 16, 8 and 16 digits, three dashes.
const NAME_BYTES: usize = PREFIX.len() + 8 + 1 + 16 + 1 + 8 + 1 + 16;

/// A process, told apart from a later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MakerProcess {
    pid: u32,
    /// 0 where the system does not tell.
    start: u64,
}

fn this_process() -> MakerProcess {
    static THIS: OnceLock<MakerProcess> = OnceLock::new();
    *THIS.get_or_init(|| {
        let pid = std::process::id();
        MakerProcess { pid, start: start_of(pid).unwrap_or(0) }
    })
}

/// When a process was started; None where /proc does not say.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name of any bytes in parentheses; start time is the 22nd field.
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(&stat[after_name..]).ok()?;
    text.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn check(text: &[u8]) -> u64 {
    // FNV-1a: it tells our names from others, and does not have to withstand an attack.
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn name_of(maker: MakerProcess, number: u32) -> Vec<u8> {
    let mut name = format!("{PREFIX}{:08x}-{:016x}-{number:08x}-", maker.pid, maker.start).into_bytes();
    let check = check(&name);
    name.extend_from_slice(format!("{check:016x}").as_bytes());
    name
}

/// A name that nothing else in any directory has.
pub fn next_name() -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    name_of(this_process(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A name, which is not one of ours any more, for what had one of ours and must stay.
pub(crate) fn kept_name(unfinished: &[u8]) -> Vec<u8> {
    let rest = unfinished.strip_prefix(PREFIX.as_bytes()).unwrap_or(unfinished);
    [&b"silt-kept-"[..], rest].concat()
}

fn maker_of(name: &[u8]) -> Option<MakerProcess> {
    let fields = name.strip_prefix(PREFIX.as_bytes()).filter(|_| name.len() == NAME_BYTES)?;
    let text = std::str::from_utf8(fields).ok()?;
    let mut parts = text.split('-');
    let (pid, start, number) = (parts.next()?, parts.next()?, parts.next()?);
    let maker = MakerProcess { pid: u32::from_str_radix(pid, 16).ok()?, start: u64::from_str_radix(start, 16).ok()? };
    // Written again it must be the same, which also refuses signs and capitals.
    (name_of(maker, u32::from_str_radix(number, 16).ok()?) == name).then_some(maker)
}

/// Whether a name is one of ours, of any process.
pub(crate) fn is_unfinished(name: &[u8]) -> bool {
    maker_of(name).is_some()
}

/// Whether a name is one of ours and the process that made it has ended. A process of another machine or container
/// counts as ended: should it still run, it reports that its unfinished file is gone, and nothing else happens.
pub fn is_leftover(name: &[u8]) -> bool {
    maker_of(name).is_some_and(|maker| maker != this_process() && !is_alive(maker))
}

fn is_alive(maker: MakerProcess) -> bool {
    let Some(pid) = i32::try_from(maker.pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    // The number may be another process' by now.
    start_of(maker.pid).is_none_or(|start| start == maker.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_of_ended_processes_are_leftovers() {
        let own = next_name();
        assert!(own.len() == NAME_BYTES && is_unfinished(&own) && !is_leftover(&own));
        let gone = name_of(MakerProcess { pid: 0x7fff_fff0, start: 7 }, 3);
        assert!(is_leftover(&gone));
        // Our number, started at another time: that process has ended.
        assert!(is_leftover(&name_of(MakerProcess { start: 1, ..this_process() }, 3)));
        for at in 0..gone.len() {
            let mut other = gone.clone();
            other[at] = if other[at] == b'e' { b'f' } else { b'e' };
            assert!(!is_unfinished(&other), "{}", String::from_utf8_lossy(&other));
        }
        for other in [&b".silt-restore-"[..], b".silt-restore-notes", &gone.to_ascii_uppercase(), &gone[1..]] {
            assert!(!is_unfinished(other));
        }
        assert!(!is_unfinished(&[&gone[..], b"~"].concat()));
        assert!(!is_unfinished(&kept_name(&gone)) && kept_name(&gone).ends_with(&gone[PREFIX.len()..]));
    }
}
