//! Read and write the small binary forms of the format: bounded, without panics, whatever the bytes.

use crate::error::{Error, Result};

/// Appends to a byte vector.
pub(crate) trait PutWire {
    /// LEB128: seven bits a byte, lowest first.
    fn put_number(&mut self, number: u64);
    /// Zigzag, then [`put_number`](Self::put_number).
    fn put_signed(&mut self, number: i64) {
        self.put_number(((number << 1) ^ (number >> 63)) as u64);
    }
    /// Length, then the bytes.
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl PutWire for Vec<u8> {
    fn put_number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_number(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }
}

/// Takes from a byte slice; every failure is of kind `Corrupt` and names what was read.
pub(crate) struct TakeWire<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> TakeWire<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        TakeWire { rest: bytes, what }
    }

    pub(crate) fn bad(&self, why: impl std::fmt::Display) -> Error {
        Error::corrupt("read the", self.what, why)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.bad("it is truncated"))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if shift == 63 && byte > 1 { Err(self.bad("a number is out of range")) } else { Ok(number) };
            }
        }
        Err(self.bad("a number is out of range"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A number of at most `max`.
    pub(crate) fn number_to(&mut self, max: u64) -> Result<u64> {
        let number = self.number()?;
        if number <= max {
            Ok(number)
        } else {
            Err(self.bad(format!("a number is {number}, more than the maximum {max}")))
        }
    }

    /// How many items follow, where each takes at least `bytes_each`: never more than there are bytes for.
    pub(crate) fn count(&mut self, bytes_each: usize) -> Result<usize> {
        let most = self.rest.len() / bytes_each.max(1);
        Ok(self.number_to(most as u64)? as usize)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        if length > self.rest.len() {
            return Err(self.bad("it is truncated"));
        }
        let (slice, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(slice)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.slice(N)?.try_into().expect("the slice has that length"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.count(1)?;
        self.slice(length)
    }

    /// Tagged values: how many, then each tag and its bytes. Tags rise strictly, so that each value has one place. `known` takes those
    /// that it knows; a reader skips all others.
    pub(crate) fn tagged(&mut self, known: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut last = None;
        for _ in 0..self.count(2)? {
            let (tag, value) = (self.number()?, self.bytes()?);
            if last.is_some_and(|last| tag <= last) {
                return Err(self.bad("its tagged values are out of order"));
            }
            last = Some(tag);
            known(tag, value)?;
        }
        Ok(())
    }

    /// What may follow everything else: tagged values of newer writers, which may be ignored. Nothing may be left after them.
    pub(crate) fn end_with_tagged(mut self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        self.tagged(&mut |_, _| Ok(()))?;
        self.end()
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.bad("it is followed by bytes that do not belong to it")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_hostile_ones_are_refused() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_number(number);
            bytes.put_signed(number as i64);
            let mut take = TakeWire::new("test", &bytes);
            assert_eq!(take.number().unwrap(), number);
            assert_eq!(take.signed().unwrap(), number as i64);
            take.end().unwrap();
        }
        assert!(TakeWire::new("test", &[0xff; 11]).number().is_err());
        assert!(TakeWire::new("test", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number().is_err());
        assert!(TakeWire::new("test", &[5, 1, 2]).bytes().is_err());
        assert!(TakeWire::new("test", &[200, 1]).count(1).is_err());
    }

    #[test]
    fn tagged_values_that_nobody_knows_are_skipped() {
        let ends = |bytes: &[u8]| TakeWire::new("test", bytes).end_with_tagged().is_ok();
        assert!(ends(&[]) && ends(&[0]) && ends(&[1, 9, 2, 7, 7]) && ends(&[2, 8, 0, 9, 1, 7]));
        // Too few bytes, out of order, twice, followed by more.
        assert!(!ends(&[1, 9, 2, 7]) && !ends(&[2, 9, 0, 8, 0]) && !ends(&[2, 9, 0, 9, 0]) && !ends(&[1, 9, 0, 0]));
        let mut found = Vec::new();
        let mut keep = |tag, value: &[u8]| {
            found.push((tag, value.to_vec()));
            Ok(())
        };
        TakeWire::new("test", &[2, 3, 1, 5, 4, 0]).tagged(&mut keep).unwrap();
        assert_eq!(found, [(3, vec![5]), (4, vec![])]);
    }
}
