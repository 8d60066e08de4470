//! Names as keys of the registry.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use papaya::Equivalent;

/// A resource's name as a key. A `str` would hash an end mark after its bytes, which sets keys of
/// several strings apart and costs a second round.
#[derive(PartialEq, Eq)]
pub(in crate::limiter) struct Name(pub(in crate::limiter) Arc<str>);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

/// A name as it is looked up.
pub(in crate::limiter) struct NameRef<'a>(pub(in crate::limiter) &'a str);

impl Hash for NameRef<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

impl Equivalent<Name> for NameRef<'_> {
    #[inline]
    fn equivalent(&self, name: &Name) -> bool {
        same(self.0.as_bytes(), name.0.as_bytes())
    }
}

/// Equality with names of usual lengths compared in place, by their first and last bytes which
/// overlap in the middle: a call of `memcmp` is a tenth of a look-up.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    fn ends<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N])> {
        Some((*bytes.first_chunk()?, *bytes.last_chunk()?))
    }
    a.len() == b.len()
        && match a.len() {
            8..16 => ends::<8>(a) == ends::<8>(b),
            16..=32 => ends::<16>(a) == ends::<16>(b),
            _ => a == b,
        }
}
