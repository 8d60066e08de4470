//! Ten agents on one bus, and their upstream.
//!
//! Time is tokio's, and stands still while anything runs. It counts in milliseconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tollgate::{Clock, DistributedConfig, DistributedLimiter, Limit, MemoryBus, MessageBus};

use crate::clients::{Demand, World};
use crate::common::SECOND;
use crate::local::{laws, seeds};
use crate::report::{Line, Report, Table};
use crate::upstreams::{Answer, Upstream};

const AGENTS: usize = 10;
/// More than each agent may ever want.
const LIMIT: Limit = Limit::per_second(1_000);

/// What the agents talk over.
pub(crate) enum Over {
    /// In simulated time.
    Memory(MemoryBus),
    /// A server at this address, in real time.
    #[cfg(feature = "nats")]
    Nats(String),
}

impl Over {
    fn memory() -> Self {
        Self::Memory(MemoryBus::new())
    }

    /// A bus for one agent, and its clock.
    #[allow(clippy::unused_async)] // without NATS
    async fn connect(&self) -> (Arc<dyn MessageBus>, Clock) {
        match self {
            Self::Memory(bus) => (Arc::new(bus.clone()), Clock::tokio()),
            #[cfg(feature = "nats")]
            Self::Nats(url) => {
                let bus = tollgate::NatsBus::connect(url).await.expect("a server");
                (Arc::new(bus), Clock::system())
            }
        }
    }

    /// Ten agents, with a demand each, for this many seconds.
    fn run(
        &self,
        upstream: Upstream,
        demands: &[Demand],
        patience: Duration,
        length: u64,
        seed: u64,
    ) -> Vec<Report> {
        fastrand::seed(seed); // what the agents draw from
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(matches!(self, Self::Memory(_)))
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new(upstream, seed);
            let mut agents = Vec::new();
            for (i, demand) in demands.iter().enumerate() {
                let (bus, clock) = self.connect().await;
                let config =
                    DistributedConfig { clock, ..DistributedConfig::new(bus, i.to_string()) };
                let agent = DistributedLimiter::new(config).await.expect("an agent");
                world.add(agent.configure("api", LIMIT).expect("a limit"), *demand, patience);
                agents.push(agent);
            }
            sleep(Duration::from_secs(3)).await; // until all have asked what is cut
            let start = Instant::now();
            for second in 0..length {
                let end = (second + 1) * SECOND;
                while let Some(at) = world.next().filter(|at| *at < end) {
                    sleep_until(start + Duration::from_nanos(at)).await;
                    world.run_due(start.elapsed().as_nanos() as u64);
                }
                sleep_until(start + Duration::from_nanos(end)).await;
                world.sample(second);
            }
            world.reports
        })
    }
}

/// Ten demands of `least`, the last of which is `times` of it; by another law in every other pair of seeds.
fn demands(least: f64, times: f64, seed: u64) -> (&'static str, Vec<Demand>) {
    let law = (seed / 2 % 2) as usize;
    let (name, demand) = laws(least)[law];
    let mut demands = vec![demand; AGENTS];
    demands[AGENTS - 1] = laws(times * least)[law].1;
    (name, demands)
}

/// What the upstream allows is a third of the demand, and all of it from second `raised` on.
pub(crate) fn share(
    over: &Over,
    table: &mut Table,
    seed: u64,
    least: f64,
    times: f64,
    raised: u64,
) {
    /// More than the line says, by as long as the served are counted.
    const AFTER: u64 = 480;
    let sum = least * (AGENTS as f64 - 1.0 + times);
    // A max-min fair part: all want more.
    let (allowed, fair) = (sum / 3.0, sum / 3.0 / AGENTS as f64);
    let (law, demands) = demands(least, times, seed);
    let upstream = Upstream::bucket(allowed, 20.0).changed(raised, 5.0 * sum);
    let agents = over.run(upstream, &demands, Duration::ZERO, raised + AFTER, seed);
    let all = Report::sum(&agents);
    all.trace();
    let what = |of: &str| format!("{least}/s, the last x{times}, {law}: {of}");
    let mut add = |of, found, line| table.add(seed, &what(of), found, line);

    add("% refused after 15 s", all.refused(15..raised), Line::Below(2.0));
    add("% used", all.served(15..raised, allowed), Line::AtLeast(50.0));
    let parts = agents.iter().map(|agent| agent.served(15..raised, fair));
    add("% of a fair part", parts.fold(f64::INFINITY, f64::min), Line::AtLeast(5.0));
    let rates = (0..AGENTS).map(|i| if i == AGENTS - 1 { times * least } else { least });
    let back = agents.iter().zip(rates).map(|(agent, rate)| agent.back_after(raised, 0.9, rate));
    add("s until all are back", back.fold(0.0, f64::max), Line::AtMost(420.0));
}

/// One is told to wait for two seconds, by a 429 or a 503. All that wait at the end of a pause would like to go at once.
pub(crate) fn hold(
    over: &Over,
    table: &mut Table,
    seed: u64,
    rate: f64,
    patience: u64,
    status: u32,
) {
    const TOLD: u64 = 30;
    const PAUSE: u64 = 2 * SECOND;
    let retry_after = Duration::from_nanos(PAUSE);
    let answer = if status == 429 {
        Answer::Refused { retry_after: Some(retry_after) }
    } else {
        Answer::Unavailable { retry_after }
    };
    let (law, demands) = demands(rate, 1.0, seed);
    let upstream = Upstream::bucket(100_000.0, 10_000.0).tells_one(TOLD, answer);
    let agents = over.run(upstream, &demands, Duration::from_secs(patience), TOLD + 10, seed);
    let told = agents.iter().find_map(|agent| agent.told).expect("one was told");
    let all = Report::sum(&agents);
    all.trace();
    let what = |of: &str| format!("{status}, {rate}/s each, {law}, patience {patience} s: {of}");
    let before = |at: u64| all.sent_at.partition_point(|sent| *sent < at);
    let count = |from: u64, to: u64| (before(to) - before(from)) as f64;

    let end = told + PAUSE;
    let early = count(told + SECOND / 10, end);
    table.add(seed, &what("sent too early"), early, Line::AtMost(0.0));
    // From each request of the first second after it.
    let share = |at: u64| 100.0 * count(at, at + SECOND / 20) / count(at, at + SECOND);
    let starts = &all.sent_at[before(end)..before(end + SECOND)];
    let most = starts.iter().map(|at| share(*at)).fold(0.0, f64::max);
    table.add(seed, &what("% of a second in 50 ms"), most, Line::AtMost(20.0));
    // The backlog leaves at the rate of before. A limit is measured over a second, in which Poisson's law
    // may have more than its mean.
    let after = 100.0 * count(end, end + SECOND) / (rate * AGENTS as f64);
    table.add(seed, &what("% of the rate of before"), after, Line::AtMost(150.0));
}

#[test]
fn ten_agents_share_what_the_upstream_allows() {
    let mut table = Table::default();
    for seed in seeds() {
        for (least, times) in [(4.0, 1.0), (4.0, 10.0), (20.0, 1.0), (20.0, 10.0)] {
            share(&Over::memory(), &mut table, seed, least, times, 300 + 7 * (seed % 5));
        }
    }
    table.judge("ten agents over a third of their demand");
}

#[test]
fn a_retry_after_that_one_is_told_holds_for_all() {
    let mut table = Table::default();
    for seed in seeds() {
        for rate in [10.0, 20.0, 100.0] {
            for patience in [0, 10] {
                for status in [429, 503] {
                    hold(&Over::memory(), &mut table, seed, rate, patience, status);
                }
            }
        }
    }
    table.judge("a Retry-After of two seconds");
}
