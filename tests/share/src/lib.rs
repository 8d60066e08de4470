//! The rules of a swarm's quota, as the library has them, in a simulated world and in a model. Here a rule can be
//! dropped: then something must break.
#![cfg_attr(not(test), allow(dead_code, reason = "used by tests alone"))]

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
mod judge;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod storms;
mod world;

use member::Rule;

thread_local! {
    static DROPPED: Cell<Option<Rule>> = const { Cell::new(None) };
}

fn is_dropped(rule: Rule) -> bool {
    DROPPED.get() == Some(rule)
}
