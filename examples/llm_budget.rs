//! An LLM client within its budgets: requests and tokens per minute, and tokens per day. A call's
//! cost is known only when it ends: the client takes an estimate and settles the count.
//!
//! ```text
//! cargo run --release --example llm_budget
//! ```
//!
//! Time is scaled: a minute lasts 0.25 s and a day 60 s. First the budgets per minute limit the
//! calls, then the budget per day. The last line is JSON; `utilisation` is the share spent of what
//! the tightest budget allows in that time: `burst + rate x time`.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tollgate::{Capacity, Limit, MemoryLimiter};

const MINUTE: Duration = Duration::from_millis(250);
const DAY: Duration = Duration::from_secs(60);
const TASKS: u64 = 32;
const RUN: Duration = Duration::from_secs(3);
/// Most answers are shorter, in tokens.
const ANSWER: u64 = 500;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let start = Instant::now();
    let limiter = MemoryLimiter::new();
    limiter.configure("llm/requests", Limit::new(35, MINUTE).burst(20))?;
    let tokens = Limit::new(20_000, MINUTE).and(Limit::new(200_000, DAY));
    let tokens = limiter.configure("llm/tokens", tokens)?;
    println!("{TASKS} tasks call a model, and settle what each call cost.");

    let tasks: JoinSet<Tally> =
        (0..TASKS).map(|seed| work(limiter.clone(), seed, start + RUN)).collect();
    let tally = tasks.join_all().await.into_iter().fold(Tally::default(), Tally::plus);
    // If the last calls cost more than estimated, wait until time has paid off the debt.
    tokens.acquire().await?.refund();
    let took = start.elapsed();

    let mut budgets = Vec::new();
    for resource in limiter.resources() {
        let spent = if resource.resource == "llm/tokens" { tally.tokens } else { tally.calls };
        budgets.extend(Budget::of(&resource, spent, took));
    }
    println!("After {:.2} s:", took.as_secs_f64());
    budgets.iter().for_each(Budget::print);
    tally.print();
    println!("{}", tally.json(&budgets));
    let is_kept = tally.calls > 0 && budgets.iter().all(Budget::is_kept);
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes one call after another, until the next one cannot be admitted before `end`.
async fn work(limiter: MemoryLimiter, seed: u64, end: Instant) -> Tally {
    let mut rng = Rng::with_seed(seed);
    let mut tally = Tally::default();
    loop {
        let prompt = rng.u64(100..=400);
        let estimate = prompt + ANSWER;
        let wanted = [("llm/requests", 1), ("llm/tokens", estimate)];
        let left = end.saturating_duration_since(Instant::now());
        let Ok(permits) = limiter.acquire_all(&wanted).timeout(left).await else {
            return tally;
        };
        let cost = call_model(prompt, &mut rng).await;
        // If this task is cancelled during the call, the estimate stays spent: see `OnRelease`.
        permits.settle(&[("llm/tokens", cost)]).expect("there is a permit of this name");
        tally.note(estimate, cost);
    }
}

/// Returns the cost: most answers are shorter than estimated, one in ten is longer.
async fn call_model(prompt: u64, rng: &mut Rng) -> u64 {
    let answer = if rng.u8(0..10) == 0 { ANSWER..=2 * ANSWER } else { 20..=ANSWER };
    let answer = rng.u64(answer);
    sleep(Duration::from_micros(20 * answer)).await;
    prompt + answer
}

/// Estimated and actual costs of calls, in tokens.
#[derive(Clone, Copy, Default)]
struct Tally {
    calls: u64,
    tokens: u64,
    estimated: u64,
    /// Sums of the overestimates; `charged` sums the underestimates.
    given_back: u64,
    charged: u64,
    dearer: u64,
}

impl Tally {
    fn note(&mut self, estimate: u64, cost: u64) {
        *self = self.plus(Self {
            calls: 1,
            tokens: cost,
            estimated: estimate,
            given_back: estimate.saturating_sub(cost),
            charged: cost.saturating_sub(estimate),
            dearer: u64::from(cost > estimate),
        });
    }

    fn plus(self, more: Self) -> Self {
        Self {
            calls: self.calls + more.calls,
            tokens: self.tokens + more.tokens,
            estimated: self.estimated + more.estimated,
            given_back: self.given_back + more.given_back,
            charged: self.charged + more.charged,
            dearer: self.dearer + more.dearer,
        }
    }

    fn print(&self) {
        let Self { calls, tokens, estimated, given_back, charged, dearer } = self;
        println!("  {calls} calls were estimated at {estimated} tokens and cost {tokens};");
        println!("  {dearer} of them cost more than was estimated");
        println!("  settling gave {given_back} back and charged {charged}: room for");
        let saved = given_back.saturating_sub(*charged);
        println!("  {} of these calls", saved * calls / estimated.max(&1));
    }

    fn json(&self, budgets: &[Budget]) -> String {
        let Self { calls, tokens, given_back, charged, .. } = self;
        let utilisation = budgets.iter().map(Budget::part).fold(0.0, f64::max);
        let exceeded = budgets.iter().filter(|budget| !budget.is_kept()).count();
        format!(
            r#"{{"calls":{calls},"tokens":{tokens},"given_back":{given_back},"charged":{charged},"exceeded":{exceeded},"utilisation":{utilisation:.3}}}"#
        )
    }
}

/// Tokens spent, and those that one window of a limit allows in that time.
struct Budget {
    name: String,
    window: Duration,
    spent: u64,
    allowed: f64,
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
impl Budget {
    fn of(resource: &Capacity, spent: u64, time: Duration) -> impl Iterator<Item = Self> {
        resource.windows.iter().map(move |window| Self {
            name: resource.resource.clone(),
            window: window.window,
            spent,
            allowed: window.configured_burst as f64
                + window.per_window as f64 * time.div_duration_f64(window.window),
        })
    }

    fn is_kept(&self) -> bool {
        self.spent as f64 <= self.allowed
    }

    fn part(&self) -> f64 {
        self.spent as f64 / self.allowed
    }

    fn print(&self) {
        let Self { name, window, spent, allowed } = self;
        let percent = 100.0 * self.part();
        println!("  {name}, window {window:?}: {spent} spent of {allowed:.0}, {percent:.1} %");
    }
}
