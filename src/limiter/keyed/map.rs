//! The map of names. Models have another one, of loom's primitives, that does the same.

pub(in crate::limiter) use side::{Map, new_map};

#[cfg(not(loom))]
mod side {
    use crate::limiter::name::Name;

    /// Its hash is seeded for each process.
    pub(in crate::limiter) type Map<V> = papaya::HashMap<Name, V, foldhash::fast::RandomState>;

    pub(in crate::limiter) fn new_map<V>() -> Map<V> {
        papaya::HashMap::with_hasher(foldhash::fast::RandomState::default())
    }
}

#[cfg(loom)]
mod side {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use crate::limiter::name::{Asked, Name};
    use crate::sync::Mutex;

    /// Each call is one step, and what it hands out is kept alive by a count.
    pub(in crate::limiter) struct Map<V>(Mutex<BTreeMap<Arc<str>, Arc<V>>>);

    pub(in crate::limiter) fn new_map<V>() -> Map<V> {
        Map(Mutex::new(BTreeMap::new()))
    }

    impl<V> Map<V> {
        pub(in crate::limiter) fn pin(&self) -> &Self {
            self
        }
        pub(in crate::limiter) fn get(&self, name: &Asked<'_>) -> Option<Arc<V>> {
            self.0.lock().get(name.0).map(Arc::clone)
        }
        pub(in crate::limiter) fn get_key_value(&self, name: &Asked<'_>) -> Option<(Name, Arc<V>)> {
            let map = self.0.lock();
            let (name, value) = map.get_key_value(name.0)?;
            Some((Name(Arc::clone(name)), Arc::clone(value)))
        }
        pub(in crate::limiter) fn insert(&self, name: Name, value: V) {
            let mut map = self.0.lock();
            map.remove(&name.0);
            map.insert(name.0, Arc::new(value));
        }
        pub(in crate::limiter) fn remove(&self, name: &Asked<'_>) -> Option<Arc<V>> {
            self.0.lock().remove(name.0)
        }
        pub(in crate::limiter) fn values(&self) -> impl Iterator<Item = Arc<V>> {
            let all: Vec<_> = self.0.lock().values().map(Arc::clone).collect();
            all.into_iter()
        }
    }
}
