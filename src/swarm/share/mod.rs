//! One quota for a swarm: the rules, without I/O and without a clock.
//!
//! Agents share a limit of `R` tokens a second and a burst of `B`. An ordered log carries whole allocation
//! [tables](table): a rate and a burst for each agent. An agent may spend the least that its own rows say, over all
//! tables that it read within the last term. And it may spend only while a table that it read echoes a report
//! that it sent less than a term ago. So a share shrinks at once, and grows a term later, when everybody else has
//! shrunk. Any agent may write any table: a wrong one costs use, never the bound.
//!
//! | part | decides | a fault of it |
//! | --- | --- | --- |
//! | [`member`] | what an agent may spend | breaks the bound |
//! | [`planner`] | what the next table says | wastes a part of the limit |
//! | [`participant`] | when to report and to write | wastes a part of the limit |
//!
//! # The bound
//!
//! Assume that all agents follow one log, in one order, which is that of its appends, with no gap that goes unnoticed; that
//! an entry which some agent has read is lost, if ever, no sooner than a term after it was appended; that all have the
//! same term `V`, and clocks that run within a drift `d` of real time, also while a machine is suspended. Then at each
//! instant the shares sum to at most `(R, B)`, and in any time `t` at most `B + R (1 + d) t` is admitted. `R` and `B` are
//! the largest limit of an agent that spends.
//!
//! *Proof.* At an instant, let `e` be the oldest among the newest tables of the agents that spend, and `a` an
//! agent whose newest table it is. Each of these tables was appended less than `V` ago, as step 1 says of `e`: so none
//! of them is lost, and one of them is the oldest.
//!
//! 1. By [rule 3](member#rules) a report of `a` was sent less than `V` ago, and was echoed in a table that `a` read. By
//!    rule 4, `a` counted its last empty table (rule 5) at least `V` ago, before that report was sent; or it has read the
//!    log from its first entry. So from the echo to `e` it has followed without a gap: `e` is the table with the echo or a
//!    later one, and was appended less than `V` ago.
//! 2. Let `b` spend. If `b` had counted its last empty table after `e` was appended, it would have done so
//!    less than `V` ago, and rule 4 would leave it nothing. So it has followed the log without a gap since before `e`.
//! 3. The newest table of `b` is `e` or a later one. So `b` read `e`, after it was appended: less than `V` ago, and
//!    less than `V (1 + d)` by its own clock. By rule 4 its share is at most its row in `e`.
//! 4. Rows are keyed by reports, each of one agent (rule 1). So the shares sum to at most the rows of `e`, which by
//!    rule 2 are at most its limit; and that is at most the limit of `a`.
//! 5. A bucket holds at most its share of the burst, and accrues at most at its share of the rate (rule 6). So all
//!    hold at most `B`, and gain at most `R (1 + d)` a second. ∎

mod demand;
mod member;
mod participant;
mod planner;
mod quota;
mod report;
mod table;

pub(super) use demand::{Meter, Seen};
pub(super) use member::Terms;
pub(super) use participant::{Action, Demand, Participant};
pub(super) use quota::{BURST_UNITS, Quota};
pub(super) use report::Report;
pub(super) use table::{Table, id_of};

/// Every rule holds. The package `tests/share` has these files with another `is_dropped`.
#[inline]
const fn is_dropped(_: member::Rule) -> bool {
    false
}
