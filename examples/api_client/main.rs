//! Many tasks call an API that enforces a limit, with and without tollgate.
//!
//! ```text
//! cargo run --release --example api_client
//! cargo run --release --example api_client -- --upstream http://127.0.0.1:8080/ --seconds 10
//! ```
//!
//! The second form works with any server, for example nginx with this configuration:
//!
//! ```text
//! limit_req_zone $binary_remote_addr zone=api:1m rate=50r/s;
//! limit_req zone=api burst=10 nodelay;
//! limit_req_status 429;
//! ```
//!
//! With `--demand 200` there are 200 requests a second, whatever became of those before. Each waits for
//! its permit, for a second at most. `--rate` may then be far more than the server allows: refusals bring
//! the client's limit down to what the server has served. With `--adaptive` the client starts at `--rate`, and
//! finds the server's limit by itself.
//!
//! The last line is JSON for the phase with tollgate. `utilisation` is the share that succeeded of
//! what the server allows in that time: `burst + rate x seconds`. With `--demand`, `status_429_after_15s`
//! counts the refused of the `requests_after_15s` that were sent after the first 15 seconds.

mod args;
#[path = "../shared/http.rs"]
mod http;
#[path = "../shared/options.rs"]
mod options;
#[path = "../shared/server.rs"]
mod server;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use args::{Args, USAGE};
use http::{Answer, Client, Url};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout_at};
use tollgate::{Limit, MemoryLimiter, Permit, Recovery, Resource};

/// How long a request of `--demand` waits for its permit.
const PATIENCE: Duration = Duration::from_secs(1);
/// By then the client's limit has come down to what the server allows.
const SETTLED: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(stop) => return Ok(stop.exit(USAGE)),
    };
    let Args { rate, burst, tasks, .. } = args;
    match args.demand {
        None => println!(
            "{tasks} tasks call an API that allows {rate} requests a second, {burst} at once."
        ),
        Some(demand) => println!("{demand} requests a second, by a limit of {rate} a second."),
    }

    if args.upstream.is_none() && args.demand.is_none() {
        let url = server::start("127.0.0.1:0", rate, burst).await?;
        println!("\nWithout tollgate, on {url}:");
        run(&args, |end| send_at_will(Client::new(url.clone()), end)).await.print(&args);
    }

    let url = match &args.upstream {
        Some(url) => url.clone(),
        None => server::start("127.0.0.1:0", rate, burst).await?, // a new one, with a full bucket
    };
    println!("\nWith tollgate, on {url}:");
    if args.upstream.is_some() {
        println!("  (the only phase: somebody else's server is not flooded)");
    }
    let limiter = MemoryLimiter::new();
    let api = limiter.configure("api", client_limit(&args))?;
    let report = match args.demand {
        None => {
            // An adaptive limit finds a rate by itself.
            let pause = if args.adaptive { Duration::ZERO } else { Duration::from_secs(1) };
            run(&args, |end| send_by_permit(Client::new(url.clone()), api.clone(), pause, end))
                .await
        }
        Some(demand) => send_on_demand(&args, demand, &url, &api).await,
    };
    report.print(&args);
    println!("{}", report.json(&args));
    Ok(if report.answered() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The server's rate, with half of its burst.
///
/// Network jitter changes the spacing of requests: a delayed one arrives together with those sent
/// after it. With latencies that differ by up to `j` seconds, up to `rate x j` requests more than
/// the client's burst arrive at once. The client's burst must be smaller than the server's by that
/// much: here 5 of 10, which at 50/s allows for 100 ms. A server with a burst of 1 leaves no room
/// at all; then use a little less than its rate.
fn client_limit(args: &Args) -> Limit {
    let limit = Limit::per_second(args.rate.into()).burst((args.burst / 2).max(1).into());
    if args.adaptive {
        return limit.adaptive(1, u64::from(args.rate).max(20_000));
    }
    if args.demand.is_some() {
        return limit;
    }
    limit
        // After a 429 the limit is cut, and recovers by a tenth each second. The cooldown is
        // shorter than the recovery, so that repeated cuts reach a much lower rate.
        .cooldown(Duration::from_secs(1))
        .recovery(Recovery { interval: Duration::from_secs(1), ..Recovery::default() })
}

/// Acquires a permit before each request, and reacts to refusals of the server.
async fn send_by_permit(mut client: Client, api: Resource, pause: Duration, end: Instant) -> Tally {
    let mut tally = Tally::default();
    while let Some(left) = end.checked_duration_since(Instant::now())
        && let Ok(permit) = api.acquire().timeout(left).await
    {
        tally.note(exchange(&mut client, &api, permit, pause).await);
    }
    tally
}

/// Sends a request, and reports a refusal. `pause` is for one that does not say how long to wait.
async fn exchange(
    client: &mut Client,
    api: &Resource,
    permit: Permit<'_>,
    pause: Duration,
) -> io::Result<Answer> {
    let answer = client.get().await;
    if let Ok(Answer { status: 429, retry_after }) = answer {
        // Pause first: otherwise a request could be admitted between the two calls. All
        // refusals of one incident make one cut: the permit knows when its request was sent.
        api.pause_for(retry_after.unwrap_or(pause));
        permit.throttled("429 from the API");
    }
    answer
}

/// Connections that no request uses.
type Idle = Arc<Mutex<Vec<Client>>>;

/// Sends `demand` requests a second until the end of the phase.
async fn send_on_demand(args: &Args, demand: u32, url: &Url, api: &Resource) -> Report {
    let (start, idle) = (Instant::now(), Idle::default());
    let (mut tally, mut requests) = (Tally::default(), JoinSet::new());
    let mut ticks = interval(Duration::from_secs(1) / demand);
    while timeout_at(start + args.duration, ticks.tick()).await.is_ok() {
        requests.spawn(send_one(Arc::clone(&idle), url.clone(), api.clone(), start));
        while let Some(done) = requests.try_join_next() {
            tally = tally.plus(done.unwrap_or_default());
        }
    }
    tally = requests.join_all().await.into_iter().fold(tally, Tally::plus);
    Report { tally, seconds: start.elapsed().as_secs_f64() }
}

async fn send_one(idle: Idle, url: Url, api: Resource, start: Instant) -> Tally {
    let mut tally = Tally::default();
    let Ok(permit) = api.acquire().timeout(PATIENCE).await else {
        return Tally { dropped: 1, ..tally };
    };
    let is_late = start.elapsed() >= SETTLED;
    let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut client = kept.unwrap_or_else(|| Client::new(url));
    tally.note(exchange(&mut client, &api, permit, Duration::ZERO).await);
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    if is_late {
        (tally.late, tally.late_refused) = (1, tally.refused);
    }
    tally
}

/// Sends requests with a short pause between them, whatever the server answers.
async fn send_at_will(mut client: Client, end: Instant) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < end {
        tally.note(client.get().await);
        sleep(Duration::from_millis(20)).await;
    }
    tally
}

/// Runs the tasks until the end of the phase and sums up their tallies.
async fn run<F>(args: &Args, task: impl Fn(Instant) -> F) -> Report
where
    F: Future<Output = Tally> + Send + 'static,
{
    let start = Instant::now();
    let tasks: JoinSet<Tally> = (0..args.tasks).map(|_| task(start + args.duration)).collect();
    let tally = tasks.join_all().await.into_iter().fold(Tally::default(), Tally::plus);
    Report { tally, seconds: start.elapsed().as_secs_f64() }
}

/// Outcomes of requests.
#[derive(Default)]
struct Tally {
    ok: u32,
    refused: u32,
    other: u32,
    errors: u32,
    /// Not sent: no permit in time.
    dropped: u32,
    /// Sent after [`SETTLED`], and refused of these.
    late: u32,
    late_refused: u32,
    /// One of these errors.
    error: Option<io::Error>,
}

impl Tally {
    fn note(&mut self, answer: io::Result<Answer>) {
        match answer {
            Ok(Answer { status: 200, .. }) => self.ok += 1,
            Ok(Answer { status: 429, .. }) => self.refused += 1,
            Ok(_) => self.other += 1,
            Err(error) => {
                self.errors += 1;
                self.error = Some(error);
            }
        }
    }

    fn plus(self, more: Self) -> Self {
        Self {
            ok: self.ok + more.ok,
            refused: self.refused + more.refused,
            other: self.other + more.other,
            errors: self.errors + more.errors,
            dropped: self.dropped + more.dropped,
            late: self.late + more.late,
            late_refused: self.late_refused + more.late_refused,
            error: self.error.or(more.error),
        }
    }
}

/// The result of a phase.
struct Report {
    tally: Tally,
    seconds: f64,
}

impl Report {
    fn requests(&self) -> u32 {
        let Tally { ok, refused, other, errors, .. } = self.tally;
        ok + refused + other + errors
    }

    fn answered(&self) -> bool {
        self.requests() > self.tally.errors
    }

    /// The share that succeeded of what the server allows.
    fn utilisation(&self, args: &Args) -> f64 {
        let allowed = f64::from(args.burst) + f64::from(args.rate) * self.seconds;
        f64::from(self.tally.ok) / allowed
    }

    fn print(&self, args: &Args) {
        let Self { tally: Tally { ok, refused, other, errors, dropped, error, .. }, seconds } =
            self;
        println!("  {} requests in {seconds:.2} s", self.requests());
        println!("  {ok} x 200, {refused} x 429, {other} x another status, {errors} x no answer");
        if args.demand.is_some() {
            println!("  {dropped} not sent: no permit within {PATIENCE:?}");
        }
        if let Some(error) = error {
            println!("  no answer: {error}");
        }
        let throughput = f64::from(*ok) / seconds;
        let percent = 100.0 * self.utilisation(args);
        println!("  {throughput:.1} served a second, {percent:.1} % of what the server allows");
    }

    fn json(&self, args: &Args) -> String {
        let Tally { refused, late, late_refused, .. } = self.tally;
        let late = args.demand.map_or_else(String::new, |_| {
            format!(r#","requests_after_15s":{late},"status_429_after_15s":{late_refused}"#)
        });
        format!(
            r#"{{"requests":{},"status_429":{refused},"utilisation":{:.3}{late}}}"#,
            self.requests(),
            self.utilisation(args)
        )
    }
}
