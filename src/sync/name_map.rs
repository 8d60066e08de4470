//! A concurrent map by name. Models have another one, of loom's primitives, that behaves the same.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use papaya::Equivalent;

pub(crate) use side::{NameMap, borrow, new_map};

/// A name as a key. A `str` hashes an end mark after its bytes, which tells keys of several strings
/// apart and costs a second round.
#[derive(PartialEq, Eq)]
pub(crate) struct Name(pub(crate) Arc<str>);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

/// A name to look up.
pub(crate) struct NameRef<'a>(pub(crate) &'a str);

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

/// Equality. Names of usual lengths are compared in place, by their first and last bytes, which overlap
/// in the middle: a call of `memcmp` costs a tenth of a lookup.
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

#[cfg(not(loom))]
mod side {
    use foldhash::fast::RandomState;
    use papaya::{HashMapRef, LocalGuard};

    use super::{Name, NameRef};

    /// Strangers may choose names: the hash has a seed of this process, which they do not know. It is not
    /// cryptographic: a stranger who can see hashes, or time single lookups, might find names that
    /// collide.
    pub(crate) type NameMap<V> = papaya::HashMap<Name, V, RandomState>;

    pub(crate) type Pinned<'a, V> = HashMapRef<'a, Name, V, RandomState, LocalGuard<'a>>;

    pub(crate) fn new_map<V>() -> NameMap<V> {
        papaya::HashMap::with_hasher(RandomState::default())
    }

    /// A value, as long as the map is pinned.
    #[inline]
    pub(crate) fn borrow<'a, V>(pinned: &'a Pinned<'_, V>, name: &str) -> Option<&'a V> {
        pinned.get(&NameRef(name))
    }
}

#[cfg(loom)]
mod side {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::{Name, NameRef};
    use crate::sync::Mutex;

    /// Each call is one step. A count keeps what it returns alive.
    pub(crate) struct NameMap<V>(Mutex<BTreeMap<Arc<str>, Arc<V>>>);

    pub(crate) struct Pinned<'a, V>(&'a NameMap<V>);

    pub(crate) fn new_map<V>() -> NameMap<V> {
        NameMap(Mutex::new(BTreeMap::new()))
    }

    /// Nothing can be borrowed: callers look the value up by `get`.
    pub(crate) fn borrow<'a, V>(_: &'a Pinned<'_, V>, _: &str) -> Option<&'a V> {
        None
    }

    impl<V> NameMap<V> {
        pub(crate) fn pin(&self) -> Pinned<'_, V> {
            Pinned(self)
        }
    }

    impl<V> Pinned<'_, V> {
        pub(crate) fn get(&self, name: &NameRef<'_>) -> Option<Arc<V>> {
            self.0.0.lock().get(name.0).map(Arc::clone)
        }
        pub(crate) fn get_key_value(&self, name: &NameRef<'_>) -> Option<(Name, Arc<V>)> {
            let map = self.0.0.lock();
            let (name, value) = map.get_key_value(name.0)?;
            Some((Name(Arc::clone(name)), Arc::clone(value)))
        }
        pub(crate) fn insert(&self, name: Name, value: V) {
            let mut map = self.0.0.lock();
            map.remove(&name.0);
            map.insert(name.0, Arc::new(value));
        }
        pub(crate) fn remove(&self, name: &NameRef<'_>) -> Option<Arc<V>> {
            self.0.0.lock().remove(name.0)
        }
        pub(crate) fn iter(&self) -> impl Iterator<Item = (Name, Arc<V>)> {
            let map = self.0.0.lock();
            let pair =
                |(name, value): (&Arc<str>, &Arc<V>)| (Name(Arc::clone(name)), Arc::clone(value));
            map.iter().map(pair).collect::<Vec<_>>().into_iter()
        }
        pub(crate) fn values(&self) -> impl Iterator<Item = Arc<V>> {
            self.iter().map(|(_, value)| value)
        }
    }
}
