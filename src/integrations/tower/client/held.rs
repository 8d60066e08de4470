//! The permits of an answered request, until its body ends or somebody settles them.

use std::fmt;
use std::sync::Arc;

use crate::limiter::Permits;
use crate::sync::Mutex;

/// The permits of a request that was answered, in the extensions of its response. All clones share them, and
/// [`take`](Self::take) hands them out once. If nobody takes them, they end with the response's body: when it
/// has been read, has failed, or is dropped.
///
/// ```
/// use tollgate::tower::client::HeldPermits;
///
/// fn settle(response: &http::Response<()>, used: u64) {
///     if let Some(permits) = response.extensions().get().and_then(HeldPermits::take) {
///         permits.settle(&[("tokens", used)]).expect("the layer has a resource of this name");
///     }
/// }
/// ```
#[derive(Clone)]
pub struct HeldPermits(Arc<Mutex<Option<Permits>>>);

impl HeldPermits {
    pub(super) fn new(permits: Permits) -> Self {
        Self(Arc::new(Mutex::new(Some(permits))))
    }

    /// The permits, for [`settle`](Permits::settle) with what the request has cost. `None` if they were taken
    /// before, or the body has ended.
    ///
    /// They are the caller's then, and count as in flight until they end, even if the body ends earlier.
    /// Where the cost is told at the end of a stream, take them before the stream is read, and settle them
    /// after it.
    #[must_use = "dropping the permits ends them at their estimated cost"]
    pub fn take(&self) -> Option<Permits> {
        self.0.lock().take()
    }
}

impl fmt::Debug for HeldPermits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldPermits").field(&*self.0.lock()).finish()
    }
}
