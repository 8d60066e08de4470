//! What all resources of one limiter have in common.

use std::fmt;
use std::time::Duration;

use super::capacity::Observers;
use crate::adapt::Policy;

/// Who they belong to, how they react to a refusal, and who is told.
pub(crate) struct Context {
    pub(crate) agent_id: String,
    pub(crate) policy: Policy,
    pub(crate) observers: Observers,
    pub(crate) on_cut: Option<OnCut>,
}

/// Called with a resource's name after a cut of our own, outside all locks.
pub(crate) type OnCut = Box<dyn Fn(&str) + Send + Sync>;

impl Default for Context {
    fn default() -> Self {
        Self {
            agent_id: "local".to_string(),
            policy: Policy { reduce: 0.75, recovery: None, cooldown: Duration::from_secs(5) },
            observers: Observers::default(),
            on_cut: None,
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("agent_id", &self.agent_id).finish_non_exhaustive()
    }
}
