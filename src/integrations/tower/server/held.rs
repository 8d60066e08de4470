//! The permits of a request that is being handled.

use http::response;

use super::rule::ForResponse;
use crate::limiter::Permit;

/// Until when the rules that [hold permits](super::Rule#permits) do so. A client that goes away, a handler
/// that panics and a timeout that drops the request end them at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// Until the last part of the body has been handed to the server, which sends it, or the body is dropped.
    #[default]
    Body,
    /// Until the service has returned the response, before its body is sent.
    Head,
}

/// The permits of a request; mostly none. Dropping it ends them.
#[derive(Default)]
pub(super) struct Held(Vec<HeldPermit>);

pub(super) struct HeldPermit {
    /// `None` once it has ended.
    permit: Option<Permit<'static>>,
    end: End,
    /// Decides how it ends, when the response is there.
    charge_if: Option<ForResponse>,
    is_for_body: bool,
}

#[derive(Clone, Copy)]
enum End {
    ByPolicy,
    Spend,
    Refund,
}

impl HeldPermit {
    pub(super) fn new(
        permit: Permit<'static>,
        charge_if: Option<ForResponse>,
        is_for_body: bool,
    ) -> Self {
        // Without a response it is charged: otherwise a client could go away in time to be charged for
        // nothing.
        let end = if charge_if.is_some() { End::Spend } else { End::ByPolicy };
        Self { permit: Some(permit), end, charge_if, is_for_body }
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        match (self.permit.take(), self.end) {
            (Some(permit), End::Spend) => permit.spend(),
            (Some(permit), End::Refund) => permit.refund(),
            (permit, End::ByPolicy) => drop(permit),
            (None, _) => {}
        }
    }
}

impl Held {
    pub(super) fn push(&mut self, permit: HeldPermit) {
        self.0.push(permit);
    }

    /// The head of the response is there: ends what need not be held any longer.
    pub(super) fn see(&mut self, response: &response::Parts, hold: Hold) {
        for held in &mut self.0 {
            if let Some(charge_if) = held.charge_if.take()
                && !charge_if(response)
            {
                held.end = End::Refund;
            }
        }
        self.0.retain(|held| hold == Hold::Body && held.is_for_body);
    }

    /// Ends them.
    pub(super) fn end(&mut self) {
        self.0.clear();
    }
}
