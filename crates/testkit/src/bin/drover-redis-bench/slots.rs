//! Which slot of a Redis Cluster a key belongs to.

/// How many slots there are.
pub const SLOTS: u16 = 16_384;

/// The slot of a key without braces.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(key) % SLOTS
}

/// For each of the first `count` slots a tag that belongs to it: keys that contain `{tag}` are in that slot.
pub fn tags(count: u16) -> Vec<String> {
    let mut tags = vec![None; count.into()];
    let mut left = tags.len();
    for n in 0u32.. {
        if left == 0 {
            break;
        }
        let tag = format!("{n:x}");
        if let Some(found @ None) = tags.get_mut(usize::from(slot_of(tag.as_bytes()))) {
            *found = Some(tag);
            left -= 1;
        }
    }
    tags.into_iter().flatten().collect()
}

/// CRC-16/XMODEM, as the cluster specification of Redis says.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12_182);
    }

    #[test]
    fn each_slot_has_a_tag() {
        let tags = tags(300);
        assert_eq!(tags.len(), 300);
        for (slot, tag) in tags.iter().enumerate() {
            assert_eq!(usize::from(slot_of(tag.as_bytes())), slot);
        }
    }
}
