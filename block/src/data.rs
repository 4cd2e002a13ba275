//! The bytes of requests, where direct input and output wants them, in memory that is used again and again.

use parking_lot::Mutex;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// What the bytes begin at a multiple of: satisfies every device of the host's.
pub(crate) const ALIGN: usize = 4096;
/// Most memory that is kept for later.
const KEPT: usize = 4 << 20;
/// Most pieces of it.
const PIECES: usize = 64;

/// Memory for later.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// `len` bytes, whatever is in them.
    pub fn take(self: &Arc<Self>, len: usize) -> Data {
        let room = len + ALIGN;
        let found = {
            let mut all = self.0.lock();
            let fits = all.iter().enumerate().filter(|(_, v)| v.len() >= room).min_by_key(|(_, v)| v.len());
            fits.map(|(n, _)| n).map(|n| all.swap_remove(n))
        };
        let bytes = found.unwrap_or_else(|| vec![0; room]);
        let at = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Data { bytes, at, len, home: Some(self.clone()) }
    }

    fn put(&self, bytes: Vec<u8>) {
        let mut all = self.0.lock();
        all.push(bytes);
        while all.len() > PIECES || all.iter().map(Vec::len).sum::<usize>() > KEPT {
            all.remove(0);
        }
    }
}

/// The bytes of a request: dereferences to them.
#[derive(Default)]
pub struct Data {
    bytes: Vec<u8>,
    at: usize,
    len: usize,
    home: Option<Arc<Spare>>,
}

impl Data {
    /// The bytes, in a vector of their own.
    pub fn into_vec(mut self) -> Vec<u8> {
        match self.home {
            None => std::mem::take(&mut self.bytes),
            Some(_) => self.to_vec(),
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.put(std::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for Data {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.get(self.at..self.at + self.len).unwrap_or_default()
    }
}

impl DerefMut for Data {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.at..self.at + self.len).unwrap_or_default()
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len(), bytes, at: 0, home: None }
    }
}

impl Clone for Data {
    fn clone(&self) -> Self {
        self.to_vec().into()
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl Eq for Data {}

impl PartialEq<Vec<u8>> for Data {
    fn eq(&self, other: &Vec<u8>) -> bool {
        **self == **other
    }
}

impl PartialEq<Data> for Vec<u8> {
    fn eq(&self, other: &Data) -> bool {
        **self == **other
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_bounded() {
        let spare = Arc::new(Spare::default());
        let mut data = spare.take(1000);
        assert!(data.len() == 1000 && data.as_ptr().addr().is_multiple_of(ALIGN));
        data.fill(7);
        let place = data.as_ptr();
        assert_eq!(data.clone(), vec![7; 1000]);
        drop(data);
        let again = spare.take(10);
        assert_eq!((again.as_ptr(), &again[..]), (place, &[7; 10][..]));
        assert_eq!(again.into_vec(), [7; 10]);
        let many: Vec<Data> = (0..20).map(|_| spare.take(1 << 20)).collect();
        drop(many);
        assert!(spare.0.lock().iter().map(Vec::len).sum::<usize>() <= KEPT);
        assert_eq!(Data::from(vec![1, 2]).into_vec(), [1, 2]);
    }
}
