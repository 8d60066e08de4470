//! State shared by all resources of a limiter.

use std::fmt;
use std::time::Duration;

use super::capacity::Observers;
use crate::adapt::{Policy, Recovery};

pub(crate) struct Context {
    pub(crate) agent_id: String,
    /// The default reaction to a refusal. A limit may override parts of it.
    pub(crate) policy: Policy,
    pub(crate) observers: Observers,
    pub(crate) on_cut: Option<NameCallback>,
    pub(crate) on_pause: Option<PauseCallback>,
    /// Whether pauses that the swarm tells are longer by a random part.
    pub(crate) pause_spread: bool,
    pub(crate) on_new: Option<NameCallback>,
}

/// Called with the name of a resource or a key, outside all locks: after a cut of our own, or when it is
/// new.
pub(crate) type NameCallback = Box<dyn Fn(&str) + Send + Sync>;

/// Called with the name of a resource or a key, outside all locks, after a pause of our own, or its end by
/// [`resume`](crate::MemoryLimiter::resume): with whether other agents should hear of it at once.
pub(crate) type PauseCallback = Box<dyn Fn(&str, bool) + Send + Sync>;

impl Default for Context {
    fn default() -> Self {
        Self {
            agent_id: "local".to_string(),
            policy: Policy {
                reduce: 0.75,
                recovery: Some(Recovery::default()),
                cooldown: Duration::from_secs(5),
                floor: 0.0,
            },
            observers: Observers::default(),
            on_cut: None,
            on_pause: None,
            pause_spread: false,
            on_new: None,
        }
    }
}

impl Context {
    pub(super) fn tell_new(&self, name: &str) {
        if let Some(on_new) = &self.on_new {
            on_new(name);
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("agent_id", &self.agent_id).finish_non_exhaustive()
    }
}
