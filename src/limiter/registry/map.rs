//! The map of names. Models have another one, of loom's primitives, that does the same.

pub(in crate::limiter) use side::{Map, configured, new_map};

#[cfg(not(loom))]
mod side {
    use std::sync::Arc;

    use papaya::{HashMapRef, LocalGuard};

    use crate::limiter::entry::Entry;
    use crate::limiter::registry::Registration;
    use crate::limiter::registry::name::{Name, NameRef};

    /// Names may be chosen by strangers: the hash has a seed of this process, which they do not know. (It is no
    /// cryptographic one: who could see hashes, or time single look-ups, might find names that collide.)
    pub(in crate::limiter) type Map<V> = papaya::HashMap<Name, V, foldhash::fast::RandomState>;

    pub(in crate::limiter) fn new_map<V>() -> Map<V> {
        papaya::HashMap::with_hasher(foldhash::fast::RandomState::default())
    }

    type Pinned<'a> =
        HashMapRef<'a, Name, Registration, foldhash::fast::RandomState, LocalGuard<'a>>;

    /// The entry of a resource that was configured, as long as the map is pinned.
    #[inline]
    pub(in crate::limiter) fn configured<'a>(
        entries: &'a Pinned<'_>,
        name: &str,
    ) -> Option<&'a Arc<Entry>> {
        match entries.get(&NameRef(name))? {
            Registration::Configured(entry) => Some(entry),
            Registration::Promoted(_) | Registration::CompactBucket(_) => None,
        }
    }
}

#[cfg(loom)]
mod side {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use crate::limiter::entry::Entry;
    use crate::limiter::registry::Registration;
    use crate::limiter::registry::name::{Name, NameRef};
    use crate::sync::Mutex;

    /// Each call is one step, and what it hands out is kept alive by a count.
    pub(in crate::limiter) struct Map<V>(Mutex<BTreeMap<Arc<str>, Arc<V>>>);

    pub(in crate::limiter) fn new_map<V>() -> Map<V> {
        Map(Mutex::new(BTreeMap::new()))
    }

    /// Nothing is to be had without a count.
    pub(in crate::limiter) fn configured<'a>(
        _: &'a Pinned<'_, Registration>,
        _: &str,
    ) -> Option<&'a Arc<Entry>> {
        None
    }

    impl<V> Map<V> {
        pub(in crate::limiter) fn pin(&self) -> Pinned<'_, V> {
            Pinned(&self.0)
        }
    }

    pub(in crate::limiter) struct Pinned<'a, V>(&'a Mutex<BTreeMap<Arc<str>, Arc<V>>>);

    impl<V> Pinned<'_, V> {
        pub(in crate::limiter) fn get(&self, name: &NameRef<'_>) -> Option<Arc<V>> {
            self.0.lock().get(name.0).map(Arc::clone)
        }
        pub(in crate::limiter) fn get_key_value(
            &self,
            name: &NameRef<'_>,
        ) -> Option<(Name, Arc<V>)> {
            let map = self.0.lock();
            let (name, value) = map.get_key_value(name.0)?;
            Some((Name(Arc::clone(name)), Arc::clone(value)))
        }
        pub(in crate::limiter) fn insert(&self, name: Name, value: V) {
            let mut map = self.0.lock();
            map.remove(&name.0);
            map.insert(name.0, Arc::new(value));
        }
        pub(in crate::limiter) fn remove(&self, name: &NameRef<'_>) -> Option<Arc<V>> {
            self.0.lock().remove(name.0)
        }
        pub(in crate::limiter) fn values(&self) -> impl Iterator<Item = Arc<V>> {
            let all: Vec<_> = self.0.lock().values().map(Arc::clone).collect();
            all.into_iter()
        }
    }
}
