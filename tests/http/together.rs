//! A client that reads what a server writes, with 50 ms between them and 50 requests at a time.

use std::collections::VecDeque;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tollgate::http::{Feedback, Profile, RateLimitHeaders};
use tollgate::{Limit, ManualClock, MemoryLimiter, Permit, Recovery, Resource};

const STEP: Duration = Duration::from_millis(5);
const STEPS: u32 = 4_000;
const ROUND_TRIP: u32 = 10;

/// An upstream, and its answer to a request in this step.
trait Server {
    fn answer(&mut self, step: u32) -> (StatusCode, HeaderMap);
}

/// A token bucket of ours.
struct Bucket(Resource, RateLimitHeaders);

impl Bucket {
    fn new(limiter: &MemoryLimiter, limit: Limit) -> Self {
        Self(limiter.configure("server", limit).unwrap(), RateLimitHeaders::new("api", &limit))
    }
}

impl Server for Bucket {
    fn answer(&mut self, _: u32) -> (StatusCode, HeaderMap) {
        let decision = self.0.decide(1);
        let status = match decision.outcome {
            Ok(()) => StatusCode::OK,
            Err(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        let mut headers = HeaderMap::new();
        self.1.write(&decision, &mut headers);
        (status, headers)
    }
}

/// A counter that starts again each window, with its end in whole seconds, as most upstreams have it.
struct Window {
    limit: u32,
    length: u32,
    used: u32,
    number: u32,
}

impl Window {
    fn new(limit: u32, length: Duration) -> Self {
        let length = length.as_millis() as u32 / STEP.as_millis() as u32;
        Self { limit, length, used: 0, number: 0 }
    }
}

impl Server for Window {
    fn answer(&mut self, step: u32) -> (StatusCode, HeaderMap) {
        if step / self.length != self.number {
            (self.number, self.used) = (step / self.length, 0);
        }
        let is_admitted = self.used < self.limit;
        self.used += u32::from(is_admitted);
        let reset = STEP.as_millis() as u32 * (self.length - step % self.length);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-ratelimit-limit", self.limit),
            ("x-ratelimit-remaining", self.limit - self.used),
            ("x-ratelimit-reset", reset.div_ceil(1_000)),
        ] {
            headers.insert(name, value.into());
        }
        (if is_admitted { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS }, headers)
    }
}

/// Of a client, and of another that the server does not tell apart from it and that sends a request every
/// `foreign` steps: requests that were admitted and refused, in [`STEPS`].
fn run(time: &ManualClock, mut server: impl Server, client: &Resource, foreign: u32) -> (u32, u32) {
    let mut unanswered: VecDeque<(u32, StatusCode, HeaderMap, Permit<'static>)> = VecDeque::new();
    let (mut admitted, mut refused) = (0, 0);
    for step in 0..STEPS {
        time.advance(STEP);
        if step % foreign == 0 {
            let _ = server.answer(step);
        }
        while unanswered.front().is_some_and(|(due, ..)| *due <= step) {
            let (_, status, headers, permit) = unanswered.pop_front().unwrap();
            if status == StatusCode::OK {
                admitted += 1;
            } else {
                refused += 1;
            }
            Feedback::new(Profile::Auto, status, &headers).apply_to(client, &permit);
        }
        while unanswered.len() < 50
            && let Ok(permit) = client.try_acquire()
        {
            let (status, headers) = server.answer(step);
            unanswered.push_back((step + ROUND_TRIP, status, headers, permit.into_owned()));
        }
    }
    (admitted, refused)
}

fn client_with(limit: Limit) -> (ManualClock, MemoryLimiter, Resource) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let client = limiter.configure("client", limit.recovery(Recovery::default())).unwrap();
    (time, limiter, client)
}

/// The client believes in twice the limit. Without feedback half of its requests are refused.
#[test]
fn a_client_with_too_high_a_limit_is_not_refused() {
    let of_rate = STEPS / 2; // 100 a second
    for (server, client) in [
        (Limit::per_second(100), Limit::per_second(200)),
        (Limit::per_second(100).burst(20), Limit::per_second(200).burst(20)),
        (Limit::per_minute(6_000), Limit::per_minute(12_000)),
    ] {
        let (time, limiter, client) = client_with(client);
        let bucket = Bucket::new(&limiter, server);
        let (admitted, refused) = run(&time, bucket, &client, u32::MAX);
        assert!(refused * 100 <= admitted, "{server}: {refused} refused, {admitted} admitted");
        assert!(admitted >= of_rate * 9 / 10, "{server}: {admitted} of {of_rate}");
    }
}

/// The other takes a third of the limit.
#[test]
fn a_client_beside_another_is_not_refused() {
    let of_rate = STEPS / 2 * 2 / 3;
    for limit in
        [Limit::per_second(100), Limit::per_second(100).burst(20), Limit::per_minute(6_000)]
    {
        let (time, limiter, client) = client_with(limit);
        let (admitted, refused) = run(&time, Bucket::new(&limiter, limit), &client, 6);
        assert!(refused * 100 <= admitted, "{limit}: {refused} refused, {admitted} admitted");
        assert!(admitted >= of_rate * 9 / 10, "{limit}: {admitted} of {of_rate}");
    }
}

/// Others use a third of the window, or more, or the client believes in twice its limit. Paced by what is left
/// until the window ends it is refused 0.07 % of its requests, and 0.5 % if each answer only lowers its bucket.
#[test]
fn a_client_of_a_window_is_not_refused() {
    let (mut admitted, mut refused, mut possible) = (0, 0, 0);
    for (seconds, believed) in [2, 5, 10].into_iter().flat_map(|s| [(s, 100), (s, 200)]) {
        for (burst, foreign) in [(5, 6), (50, 6), (200, 6), (50, 4), (50, 3), (50, u32::MAX)] {
            let (time, _limiter, client) = client_with(Limit::per_second(believed).burst(burst));
            let window = Window::new(100 * seconds, Duration::from_secs(seconds.into()));
            let (of_run, refused_of_run) = run(&time, window, &client, foreign);
            admitted += of_run;
            refused += refused_of_run;
            possible += STEPS / 2 - STEPS / foreign;
        }
    }
    assert!(refused * 1_000 <= admitted, "{refused} refused, {admitted} admitted");
    // Resets are in whole seconds, rounded up.
    assert!(admitted * 10 >= possible * 9, "{admitted} of {possible}");
}
