//! Quotas on real servers that come and go. The agents are processes of their own.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // figures of a few digits

mod agents;
mod crowd;
mod faults;
mod judge;

use std::time::Duration;

use agents::Swarm;

/// Short, so that the tests are.
const TERM: Duration = Duration::from_secs(1);
