//! The task of one quota.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::feed::{self, Incoming, Owned, PATIENCE};
use super::seen::Looks;
use crate::adapt::Segment;
use crate::bus::MessageBus;
use crate::clock::{ArmError, Clock};
use crate::ledger::{Ledger, LedgerError, LedgerItem};
use crate::swarm::guard::guarded;
use crate::swarm::share::{Action, Participant, Quota, Report, Table, Terms, id_of};

/// Looks at the use of a share in each period of reports.
const LOOKS: u64 = 4;
/// What may come in before it is handled.
const BACKLOG: usize = 256;
/// Periods in which an agent that leaves waits for a table without it.
const FAREWELL: u64 = 4;
/// For what is still being sent when a task ends.
const FLUSH: Duration = Duration::from_secs(1);

pub(super) struct Task {
    shared: Shared,
    ledger: Arc<dyn Ledger>,
    bus: Arc<dyn MessageBus>,
    clock: Clock,
    rules: Participant,
    looks: Looks,
    period: u64,
    next_look: u64,
    looked: u64,
    /// When to end at the latest, of an agent that leaves.
    ends: Option<u64>,
    sending: JoinSet<()>,
}

impl Task {
    /// `label` is [random](random).
    pub(super) fn new(
        shared: Shared,
        label: u64,
        (terms, limit): (Terms, Quota),
        (ledger, bus): (Arc<dyn Ledger>, Arc<dyn MessageBus>),
        clock: Clock,
    ) -> Self {
        let now = clock.now();
        let rules = Participant::new(terms, limit, label, false, fastrand::u64(..), now);
        let period = terms.period();
        let (looks, sending) = (Looks::default(), JoinSet::new());
        Self {
            shared,
            ledger,
            bus,
            clock,
            rules,
            looks,
            period,
            next_look: now,
            looked: 0,
            ends: None,
            sending,
        }
    }

    pub(super) async fn run(mut self) {
        let (to, mut incoming) = mpsc::channel(BACKLOG);
        let (ledger, bus) = (Arc::clone(&self.ledger), Arc::clone(&self.bus));
        let _followed = Owned::spawn(feed::follow(ledger, self.shared.name.clone(), to.clone()));
        let _heard = Owned::spawn(feed::hear(bus, subject(self.rules.label()), to));
        let control = Arc::clone(&self.shared.control);
        loop {
            let due = self.rules.due().min(self.next_look).min(self.ends.unwrap_or(u64::MAX));
            tokio::select! {
                biased;
                () = control.changed.notified() => {}
                Some(first) = incoming.recv() => {
                    let mut is_news = self.on_incoming(first);
                    while let Ok(next) = incoming.try_recv() {
                        is_news |= self.on_incoming(next);
                    }
                    if is_news {
                        self.apply();
                    }
                }
                () = until(&self.clock, due) => {}
            }
            if !self.go_on() {
                break;
            }
        }
        drop(self.shared);
        // What is being sent, the farewell above all.
        let sent = async {
            while self.sending.join_next().await.is_some() {}
            let _ = guarded(self.bus.flush()).await;
        };
        let _ = timeout(FLUSH, sent).await;
    }

    /// Does what is due. `false` if the task is to end.
    fn go_on(&mut self) -> bool {
        while self.sending.try_join_next().is_some() {}
        let now = self.clock.now();
        let orders = *self.shared.control.orders.lock();
        if self.rules.limit() != orders.limit {
            self.rules.set_limit(orders.limit, now);
            self.apply();
        }
        let mut is_over = orders.stop;
        if now >= self.next_look {
            self.next_look = now.saturating_add((self.period / LOOKS).max(1));
            let seen = self.shared.resource.look_at_share();
            is_over |= seen.is_over;
            self.looks.look(seen, now);
            self.looked += 1;
            if self.looked.is_multiple_of(LOOKS) {
                let demand = self.looks.demand(orders.limit.rate, now);
                self.rules.demands(demand, now);
            }
        }
        if is_over && self.ends.is_none() {
            self.ends = Some(now.saturating_add(FAREWELL * self.period));
            self.rules.leaves(now);
        }
        let mut has_failed = false;
        let actions = self.rules.poll(now, || {
            random().unwrap_or_else(|| {
                has_failed = true;
                0
            })
        });
        if has_failed {
            tracing::error!(
                resource = self.shared.name,
                "a quota ends: the system has no random numbers"
            );
            return false;
        }
        for action in actions {
            self.send(action);
        }
        self.ends.is_none_or(|end| now < end && !self.rules.has_left())
    }

    /// Returns whether the share may be another.
    fn on_incoming(&mut self, incoming: Incoming) -> bool {
        let now = self.clock.now();
        match incoming {
            Incoming::Item(LedgerItem::New) => self.rules.log_is_new(now),
            Incoming::Item(LedgerItem::Gap) => self.rules.interrupted(),
            Incoming::Item(LedgerItem::Entry(entry)) => {
                let table = Table::decode(&entry.bytes);
                if table.is_none() {
                    let (resource, sequence) = (&self.shared.name, entry.sequence);
                    tracing::warn!(resource, sequence, "an entry of a quota's ledger is no table");
                }
                let table = table.ok_or_else(|| id_of(&entry.bytes));
                self.rules.read(entry.sequence, table, fastrand::u64(..), now);
                return true;
            }
            Incoming::Report(bytes) => {
                if let Some(report) = Report::decode(&bytes) {
                    self.rules.hear(report);
                }
            }
        }
        false
    }

    /// Lets the bucket follow what was read.
    fn apply(&mut self) {
        let now = self.clock.now();
        let segment = |(Quota { rate, burst }, until)| Segment { rate, burst, until };
        let segments: Vec<_> = self.rules.segments(now).into_iter().map(segment).collect();
        self.shared.resource.allot(&segments);
        self.rules.applied();
    }

    fn send(&mut self, action: Action) {
        match action {
            Action::Report { report, to } => {
                let bytes = report.encode();
                for label in to {
                    let (bus, bytes) = (Arc::clone(&self.bus), bytes.clone());
                    self.sending.spawn(async move {
                        // A lost report is made up for by the next.
                        let _ = timeout(PATIENCE, bus.publish(&subject(label), bytes)).await;
                    });
                }
            }
            Action::Append { table, after } => {
                let (ledger, name) = (Arc::clone(&self.ledger), self.shared.name.clone());
                self.sending.spawn(async move {
                    let appended = ledger.append(&name, table.encode(), after);
                    match timeout(PATIENCE, appended).await {
                        Ok(Ok(()) | Err(LedgerError::Outrun)) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(resource = name, %error, "a quota's ledger takes no entry");
                        }
                        Err(_) => {
                            tracing::warn!(resource = name, "a quota's ledger does not answer");
                        }
                    }
                });
            }
        }
    }
}

/// A number that nobody else has. From the operating system, because a copy of this process, by a fork or from a snapshot
/// of its machine, has a copy of the state of any other generator.
pub(super) fn random() -> Option<u64> {
    getrandom::u64().ok()
}

/// Where the agent with this label hears reports.
fn subject(label: u64) -> String {
    format!("ratelimit.quota.{label:016x}")
}

/// Waits until the clock reads `at`.
async fn until(clock: &Clock, at: u64) {
    const NO_TIMER: Duration = Duration::from_millis(10);

    let mut alarm = None;
    let mut armed_for = None;
    loop {
        let is_armed = poll_fn(|context| {
            if clock.now() >= at {
                return Poll::Ready(true);
            }
            if armed_for.as_ref().is_some_and(|waker| context.waker().will_wake(waker)) {
                return Poll::Pending;
            }
            match clock.arm(at, 0, context.waker().clone()) {
                Ok(armed) => {
                    alarm = Some(armed);
                    armed_for = Some(context.waker().clone());
                    Poll::Pending
                }
                Err(ArmError::Due) => Poll::Ready(true),
                Err(ArmError::NoTimer) => Poll::Ready(false),
            }
        })
        .await;
        if is_armed {
            drop(alarm);
            return;
        }
        sleep(NO_TIMER).await;
    }
}
