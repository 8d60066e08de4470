//! Limiters with many names, one limit per name.

use std::sync::Arc;

use governor::DefaultKeyedRateLimiter;
use tollgate::MemoryLimiter;

use super::{Contender, Load};

/// The same names in every limiter.
pub(crate) struct Named {
    names: Arc<[String]>,
    governor: Arc<DefaultKeyedRateLimiter<String>>,
    /// Each name configured by itself.
    configured: MemoryLimiter,
    /// All names by one template.
    keyed: MemoryLimiter,
}

impl Named {
    pub(crate) fn new(load: Load, count: usize) -> Self {
        let names: Arc<[String]> = (0..count).map(|i| format!("resource-{i:07}")).collect();
        let governor = DefaultKeyedRateLimiter::<String>::keyed(load.quota());
        let (configured, keyed) = (MemoryLimiter::new(), MemoryLimiter::new());
        keyed.per_key("resource-", load.limit()).expect("a limit");
        // At least once, so that every name exists; by limiter, so that its memory is contiguous.
        let times = if load.drained { load.burst } else { 1 };
        let each = || names.iter().flat_map(|name| (0..times).map(move |_| name));
        for name in &*names {
            configured.configure(name, load.limit()).expect("a limit");
        }
        assert!(each().all(|name| configured.check(name).is_ok()));
        assert!(each().all(|name| keyed.check(name).is_ok()));
        assert!(each().all(|name| governor.check_key(name).is_ok()));
        Self { names, governor: Arc::new(governor), configured, keyed }
    }

    /// A check by name; `at` selects the name of a call.
    pub(crate) fn contenders(
        &self,
        at: impl Fn(u64) -> usize + Clone + Send + Sync + 'static,
    ) -> [Contender; 3] {
        let (names, governor, also_at) = (self.names.clone(), self.governor.clone(), at.clone());
        let governor = move |i| governor.check_key(&names[also_at(i)]);
        let ours = |limiter: &MemoryLimiter| {
            let (names, at, limiter) = (self.names.clone(), at.clone(), limiter.clone());
            move |i| limiter.check(&names[at(i)])
        };
        [
            Contender::new("governor keyed", governor),
            Contender::new("tollgate, name", ours(&self.configured)),
            Contender::new("tollgate, per key", ours(&self.keyed)),
        ]
    }
}
