//! Limiters that know many names, each with a limit of its own.

use std::sync::Arc;

use governor::DefaultKeyedRateLimiter;
use tollgate::{Limit, MemoryLimiter};

use super::{Contender, Load};

/// The same names, in each limiter.
pub(crate) struct Named {
    names: Arc<[String]>,
    governor: Arc<DefaultKeyedRateLimiter<String>>,
    ours: MemoryLimiter,
}

impl Named {
    pub(crate) fn new(load: Load, count: usize) -> Self {
        let names: Arc<[String]> = (0..count).map(|i| format!("resource-{i:07}")).collect();
        let governor = DefaultKeyedRateLimiter::<String>::keyed(load.quota());
        let ours = keyed(&names, load.limit());
        // Once at least, so that each name is known.
        for name in names.iter() {
            for _ in 0..if load.drained { load.burst } else { 1 } {
                assert!(governor.check_key(name).is_ok() && ours.check(name).is_ok());
            }
        }
        Self { names, governor: Arc::new(governor), ours }
    }

    /// A check by name; `at` says which name a call is for.
    pub(crate) fn contenders(
        &self,
        at: impl Fn(u64) -> usize + Clone + Send + Sync + 'static,
    ) -> [Contender; 2] {
        let (names, governor, also_at) = (self.names.clone(), self.governor.clone(), at.clone());
        let governor = move |i| governor.check_key(&names[also_at(i)]);
        let (names, ours) = (self.names.clone(), self.ours.clone());
        [
            Contender::new("governor keyed", governor),
            Contender::new("tollgate, name", move |i| ours.check(&names[at(i)])),
        ]
    }
}

fn keyed(names: &[String], limit: Limit) -> MemoryLimiter {
    let limiter = MemoryLimiter::new();
    for name in names {
        limiter.configure(name, limit).expect("a limit");
    }
    limiter
}
