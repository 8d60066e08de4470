//! A mock of a provider: it counts by itself, without tollgate.
//!
//! Requests and tokens each have a bucket that holds a minute's worth and fills evenly, and every answer tells
//! `x-ratelimit-limit-*`, `-remaining-*` and `-reset-*`, the time until the bucket is full, as `OpenAI`
//! does. It knows what an answer will cost, and takes that when it begins. A call that finds too little is refused
//! with 429.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::channel::{Channel, Sender};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::args::Args;

const PATH: &str = "/v1/chat/completions";
/// Tokens of a chunk, and how long the model takes for them.
const CHUNK: u32 = 20;
const CHUNK_TIME: Duration = Duration::from_millis(20);
/// From the request to the first token, in milliseconds.
const HEAD_MILLIS: std::ops::RangeInclusive<u64> = 20..=80;

pub(crate) struct Provider {
    state: Mutex<Quota>,
    tells_retry_after: bool,
}

struct Quota {
    requests: Bucket,
    tokens: Bucket,
    served: Served,
}

/// What was served in all, to this client and to the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
    pub(crate) foreign: u64,
    pub(crate) foreign_refused: u64,
}

impl Provider {
    /// Serves until the program ends, from full buckets.
    pub(crate) async fn start(args: &Args) -> io::Result<(Arc<Self>, Uri)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}{PATH}", listener.local_addr()?);
        let provider = Arc::new(Self {
            state: Mutex::new(Quota {
                requests: Bucket::new(args.requests.into(), args.window),
                tokens: Bucket::new(args.tokens.into(), args.window),
                served: Served::default(),
            }),
            tells_retry_after: args.tells_retry_after,
        });
        let routes = Router::new().route(PATH, post(answer)).with_state(Arc::clone(&provider));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok((provider, url.parse().map_err(io::Error::other)?))
    }

    pub(crate) fn served(&self) -> Served {
        self.state().served.clone()
    }

    fn state(&self) -> MutexGuard<'_, Quota> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request of this many tokens. The error is the time until it would be admitted. The headers are those
    /// of the answer.
    fn take(&self, tokens: u32, is_foreign: bool) -> (Result<(), Duration>, HeaderMap) {
        let mut state = self.state();
        let Quota { requests, tokens: all_tokens, served } = &mut *state;
        let now = Instant::now();
        let wait = requests.wait(1, now).max(all_tokens.wait(tokens, now));
        let taken = if wait.is_zero() {
            requests.take(1);
            all_tokens.take(tokens);
            served.requests += 1;
            served.tokens += u64::from(tokens);
            served.foreign += u64::from(is_foreign);
            Ok(())
        } else {
            served.foreign_refused += u64::from(is_foreign);
            Err(wait)
        };
        let mut headers = HeaderMap::new();
        requests.tell("requests", &mut headers);
        all_tokens.tell("tokens", &mut headers);
        (taken, headers)
    }
}

async fn answer(State(provider): State<Arc<Provider>>, body: Bytes) -> Response {
    let Ok(call) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let words =
        |message: &Value| message["content"].as_str().map_or(0, |text| text.split(' ').count());
    let prompt = call["messages"].as_array().map_or(0, |all| all.iter().map(words).sum());
    let prompt = u32::try_from(prompt).unwrap_or(u32::MAX / 2);
    let most = call["max_tokens"].as_u64().and_then(|most| u32::try_from(most).ok());
    let completion = fastrand::u32(50..=most.unwrap_or(550).clamp(50, 100_000));
    let (taken, mut headers) = provider.take(prompt + completion, false);
    sleep(Duration::from_millis(fastrand::u64(HEAD_MILLIS))).await;
    if let Err(wait) = taken {
        if provider.tells_retry_after {
            headers.insert("retry-after-ms", HeaderValue::from(wait.as_millis() as u64 + 1));
        }
        let error = json!({ "error": { "code": "rate_limit_exceeded" } });
        return (StatusCode::TOO_MANY_REQUESTS, headers, error.to_string()).into_response();
    }
    headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
    let (sender, body) = Channel::<Bytes>::new(4);
    tokio::spawn(generate(sender, prompt, completion));
    (headers, Body::new(body)).into_response()
}

/// Sends an answer in chunks. Ends early, with `None`, if the client is gone.
async fn generate(mut sender: Sender<Bytes>, prompt: u32, completion: u32) -> Option<()> {
    let mut left = completion;
    while left > 0 {
        let tokens = left.min(CHUNK);
        left -= tokens;
        sleep(CHUNK_TIME).await;
        let content = " word".repeat(tokens as usize);
        let event = json!({ "choices": [{ "index": 0, "delta": { "content": content } }] });
        sender.send_data(format!("data: {event}\n\n").into()).await.ok()?;
    }
    let usage = json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    });
    let event = json!({ "choices": [], "usage": usage });
    sender.send_data(format!("data: {event}\n\ndata: [DONE]\n\n").into()).await.ok()
}

/// Another client of the same account, which uses this part of the tokens. It calls at random times, about as
/// large calls as ours, and does not heed its refusals.
pub(crate) async fn foreign_client(provider: Arc<Provider>, part: f64) {
    const MEAN_CALL: f64 = 500.0;
    if part <= 0.0 {
        return;
    }
    let rate = provider.state().tokens.rate * part / MEAN_CALL;
    let mut next = Instant::now();
    loop {
        // The times between calls are exponential.
        next += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
        tokio::time::sleep_until(next).await;
        let _ = provider.take(fastrand::u32(100..=900), true);
    }
}

/// A plain token bucket.
struct Bucket {
    limit: f64,
    /// A second.
    rate: f64,
    left: f64,
    last: Instant,
}

impl Bucket {
    fn new(limit: f64, window: Duration) -> Self {
        Self { limit, rate: limit / window.as_secs_f64(), left: limit, last: Instant::now() }
    }

    /// The time from `now` until it holds `n`.
    fn wait(&mut self, n: u32, now: Instant) -> Duration {
        let elapsed = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        self.left = (self.left + elapsed * self.rate).min(self.limit);
        Duration::from_secs_f64((f64::from(n) - self.left).max(0.0) / self.rate)
    }

    fn take(&mut self, n: u32) {
        self.left -= f64::from(n);
    }

    fn tell(&self, unit: &str, headers: &mut HeaderMap) {
        let until_full = (self.limit - self.left).max(0.0) / self.rate;
        let figures = [
            ("limit", format!("{:.0}", self.limit)),
            ("remaining", format!("{:.0}", self.left.floor())),
            ("reset", go_duration(Duration::from_secs_f64(until_full))),
        ];
        for (figure, value) in figures {
            let name = format!("x-ratelimit-{figure}-{unit}");
            let name = name.parse::<axum::http::HeaderName>().expect("a header's name");
            headers.insert(name, value.parse().expect("a header's value"));
        }
    }
}

/// As Go writes it: `6m0.000s`, `1.250s`, `20ms`.
fn go_duration(time: Duration) -> String {
    let (millis, minutes) = (time.as_millis(), time.as_secs() / 60);
    let seconds = |millis| format!("{}.{:03}s", millis / 1_000, millis % 1_000);
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => seconds(millis),
        _ => format!("{minutes}m{}", seconds(millis % 60_000)),
    }
}
