//! Spans and events of the limiter, with the feature `tracing`; without it, nothing.

/// A wait, from its place in the queue to its end.
#[derive(Debug)]
pub(crate) struct WaitSpan(#[cfg(feature = "tracing")] tracing::Span);

#[cfg(feature = "tracing")]
impl WaitSpan {
    pub(crate) fn new(resource: &str, n: u64) -> Self {
        Self(
            tracing::debug_span!(target: "tollgate", "tollgate.wait", resource, n, result = tracing::field::Empty),
        )
    }

    /// Closes it.
    pub(crate) fn end(self, result: &'static str) {
        self.0.record("result", result);
    }
}

#[cfg(not(feature = "tracing"))]
#[allow(clippy::unused_self)]
impl WaitSpan {
    pub(crate) fn new(_: &str, _: u64) -> Self {
        Self()
    }

    pub(crate) fn end(self, _: &'static str) {}
}

/// A change that observers are told of.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code))]
pub(crate) struct Change<'a> {
    pub(crate) resource: &'a str,
    pub(crate) kind: &'static str,
    pub(crate) agent_id: &'a str,
    pub(crate) is_ours: bool,
    pub(crate) reason: &'a str,
    pub(crate) burst: u64,
    pub(crate) per_window: u64,
}

#[cfg_attr(not(feature = "tracing"), allow(clippy::unused_self))]
impl Change<'_> {
    /// An event at level INFO.
    #[cfg_attr(not(feature = "tracing"), allow(clippy::unused_self))]
    pub(crate) fn event(self) {
        #[cfg(feature = "tracing")]
        {
            let Self { resource, kind, agent_id, is_ours, reason, burst, per_window } = self;
            tracing::info!(
                target: "tollgate",
                resource, kind, agent_id, is_ours, reason, burst, per_window,
                "a resource changed"
            );
        }
    }
}
