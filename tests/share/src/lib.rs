//! The rules of a swarm's quota, as the library has them, in a simulated world and in a model. Here a rule can be
//! dropped: then something must break.
#![allow(dead_code, reason = "the library and the tests each use a part of the rules")]

use std::cell::Cell;

#[path = "../../../src/swarm/share/demand.rs"]
mod demand;
#[path = "../../../src/swarm/share/member.rs"]
mod member;
#[path = "../../../src/swarm/share/participant.rs"]
mod participant;
#[path = "../../../src/swarm/share/planner.rs"]
mod planner;
#[path = "../../../src/swarm/share/quota.rs"]
mod quota;
#[path = "../../../src/swarm/share/report.rs"]
mod report;
#[path = "../../../src/swarm/share/table.rs"]
mod table;

mod bucket;
#[cfg(test)]
mod bytes;
mod judge;
#[cfg(test)]
mod model;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod storms;
#[cfg(test)]
mod traces;
mod world;

use bucket::Level;
use member::Rule;

/// What the proof needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Premise {
    Rule(Rule),
    Level(Level),
    // What is assumed, or what the caller sees to:
    CommonTerm,
    /// A child of a forked process begins anew.
    ForkBeginsAnew,
    /// Entries that were read by some are lost no sooner than a term after they were appended.
    LossAfterTerm,
    ClockWithinDrift,
    ClockCountsSuspend,
}

thread_local! {
    static DROPPED: Cell<Option<Premise>> = const { Cell::new(None) };
}

fn is_dropped(rule: Rule) -> bool {
    DROPPED.get() == Some(Premise::Rule(rule))
}

/// Runs something without one of the premises, or with all.
fn without<T>(premise: Option<Premise>, run: impl FnOnce() -> T) -> T {
    DROPPED.set(premise);
    let result = run();
    DROPPED.set(None);
    result
}
