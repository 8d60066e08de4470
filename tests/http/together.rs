//! A client that reads what a server writes, with 50 ms between them and 50 requests at a time.

use std::collections::VecDeque;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tollgate::http::{Feedback, Profile, RateLimitHeaders};
use tollgate::{Limit, ManualClock, MemoryLimiter, Permit, Recovery};

const STEP: Duration = Duration::from_millis(5);
const STEPS: u32 = 4_000;
const ROUND_TRIP: u32 = 10;

/// Of a client, and of another that the server does not tell apart from it and that sends a request every
/// `foreign` steps: requests that were admitted and refused, in [`STEPS`].
fn run(server: Limit, client: Limit, foreign: u32) -> (u32, u32) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let tell = RateLimitHeaders::new("api", &server);
    let server = limiter.configure("server", server).unwrap();
    let client = limiter.configure("client", client.recovery(Recovery::default())).unwrap();
    let mut unanswered: VecDeque<(u32, StatusCode, HeaderMap, Permit<'static>)> = VecDeque::new();
    let (mut admitted, mut refused) = (0, 0);
    for step in 0..STEPS {
        time.advance(STEP);
        if step % foreign == 0 {
            let _ = server.check();
        }
        while unanswered.front().is_some_and(|(due, ..)| *due <= step) {
            let (_, status, headers, permit) = unanswered.pop_front().unwrap();
            if status == StatusCode::OK {
                admitted += 1;
            } else {
                refused += 1;
            }
            Feedback::new(Profile::Auto, status, &headers).apply_to(&client, &permit);
        }
        while unanswered.len() < 50
            && let Ok(permit) = client.try_acquire()
        {
            let decision = server.decide(1);
            let status = match decision.outcome {
                Ok(()) => StatusCode::OK,
                Err(_) => StatusCode::TOO_MANY_REQUESTS,
            };
            let mut headers = HeaderMap::new();
            tell.write(&decision, &mut headers);
            unanswered.push_back((step + ROUND_TRIP, status, headers, permit.into_owned()));
        }
    }
    (admitted, refused)
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
        let (admitted, refused) = run(server, client, u32::MAX);
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
        let (admitted, refused) = run(limit, limit, 6);
        assert!(refused * 100 <= admitted, "{limit}: {refused} refused, {admitted} admitted");
        assert!(admitted >= of_rate * 9 / 10, "{limit}: {admitted} of {of_rate}");
    }
}
