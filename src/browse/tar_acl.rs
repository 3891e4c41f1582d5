//! POSIX ACLs from the kernel's bytes to the text that archives carry.

/// Version of the kernel's form, its header's whole content.
const VERSION: u32 = 2;

/// `user::rw-,user:1000:r--,…` with numbers for names; None for what is not the kernel's form.
pub(super) fn acl_text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 || entries.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    for entry in entries.chunks_exact(8) {
        let (tag, bits) = (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let bit = |mask: u16, letter: char| if bits & mask != 0 { letter } else { '-' };
        parts.push(format!("{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')));
    }
    Some(parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag() {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, bits, id) in [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 5, u32::MAX), (0x10, 7, 0), (0x20, 0, 0)] {
            value.extend([tag.to_le_bytes(), bits.to_le_bytes()].concat());
            value.extend(id.to_le_bytes());
        }
        assert_eq!(acl_text(&value).unwrap(), "user::rw-,user:1000:r--,group::r-x,mask::rwx,other::---");
        assert_eq!(acl_text(&value[..7]), None);
        assert_eq!(acl_text(b""), None);
    }
}
