//! The client: hyper's, with a layer that keeps it within the provider's limits.

use std::error::Error;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tollgate::http::{Feedback, Profile, Unit};
use tollgate::tower::client::{ClientLayer, ClientService, HeldPermits, ResponseBody};
use tollgate::{Limit, MemoryLimiter};
use tower::util::{MapRequest, MapRequestLayer};
use tower::{Layer, ServiceExt};

use crate::args::Args;

const PROMPT: RangeInclusive<u32> = 50..=350;
/// The most tokens of an answer. On average it has about half of them.
const MOST_OF_ANSWER: u32 = 550;

type LlmRequest = Request<Full<Bytes>>;
type Http = MapRequest<HttpClient, fn(LlmRequest) -> LlmRequest>;
type HttpClient = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;
type Failure = Box<dyn Error + Send + Sync>;

/// What a call is expected to take, in tokens.
#[derive(Clone, Copy)]
struct Estimate(u64);

/// When the request was sent.
#[derive(Clone, Default)]
struct SentAt(Arc<OnceLock<Instant>>);

/// What became of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Until it was sent.
    pub(crate) wait: Duration,
    /// What it has cost, in tokens. 0 if the provider does not say.
    pub(crate) tokens: u64,
}

/// All clones share the limits.
#[derive(Clone)]
pub(crate) struct Client {
    service: ClientService<Http, LlmRequest>,
    url: Uri,
    model: Arc<str>,
    estimate_factor: f64,
}

impl Client {
    pub(crate) fn new(args: &Args, url: Uri) -> Result<Self, Box<dyn Error>> {
        // A tenth of a minute's worth at once: the provider's bucket holds more, so that estimates may be wrong
        // for as long as the calls take.
        let limit = |per_window: u32, least: u64| {
            let burst = u64::from(per_window / 10).max(least);
            Limit::new(per_window.into(), args.window).burst(burst)
        };
        let limiter = MemoryLimiter::new();
        let requests = limiter.configure("requests", limit(args.requests, 1))?;
        let most = estimate(*PROMPT.end(), args.estimate_factor);
        let tokens = limiter.configure("tokens", limit(args.tokens, most))?;
        let layer = ClientLayer::new(requests)
            .and(tokens, Unit::Tokens, |request: &LlmRequest| {
                request.extensions().get().map_or(1, |Estimate(tokens)| *tokens)
            })
            .profile(Profile::OpenAi)
            .classify(|_head, _body, feedback| leave_some(feedback));
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .build_http::<Full<Bytes>>();
        let http = MapRequestLayer::new(note_sent as fn(_) -> _).layer(http);
        Ok(Self {
            service: layer.layer(http),
            url,
            model: args.model.as_str().into(),
            estimate_factor: args.estimate_factor,
        })
    }

    /// Calls the model once, and reads the answer to its end.
    pub(crate) async fn call(&self) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let prompt = fastrand::u32(PROMPT);
        let mut request = self.request(prompt)?;
        let sent_at = SentAt::default();
        request.extensions_mut().insert(Estimate(estimate(prompt, self.estimate_factor)));
        request.extensions_mut().insert(sent_at.clone());

        let response = self.service.clone().oneshot(request).await?;
        let status = response.status();
        let wait = sent_at.0.get().map_or(Duration::ZERO, |sent| *sent - begun);
        // Of a refusal they end with the body, as the layer does it.
        let permits = response.extensions().get().filter(|_| status.is_success());
        let permits = permits.and_then(HeldPermits::take);
        let tokens = read_usage(response).await?;
        // If the provider does not say, or this future is dropped meanwhile, the estimate stays spent.
        if let (Some(permits), true) = (permits, tokens > 0) {
            permits.settle(&[("tokens", tokens)])?;
        }
        Ok(Answer { status, wait, tokens })
    }

    fn request(&self, prompt: u32) -> Result<LlmRequest, Failure> {
        let content = "word ".repeat(prompt as usize);
        let body = serde_json::json!({
            "model": *self.model,
            "messages": [{ "role": "user", "content": content.trim_end() }],
            "max_tokens": MOST_OF_ANSWER,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))?;
        Ok(request)
    }
}

/// The tokens of a call with such a prompt.
#[allow(clippy::cast_sign_loss)] // a few thousand at most
fn estimate(prompt: u32, factor: f64) -> u64 {
    (f64::from(prompt + MOST_OF_ANSWER) * factor) as u64
}

/// Others may use the quota too, and take from what is left before our next request arrives. Leaves a twentieth.
fn leave_some(mut feedback: Feedback) -> Feedback {
    for quota in &mut feedback.quotas {
        let part = quota.limit.unwrap_or(0) / 20;
        quota.remaining = quota.remaining.map(|left| left.saturating_sub(part));
    }
    feedback
}

fn note_sent(request: LlmRequest) -> LlmRequest {
    if let Some(SentAt(at)) = request.extensions().get() {
        let _ = at.set(Instant::now());
    }
    request
}

/// Reads a stream of server-sent events. The last one before `[DONE]` tells the usage.
async fn read_usage<B>(response: Response<ResponseBody<B>>) -> Result<u64, Failure>
where
    B: axum::body::HttpBody<Data = Bytes> + Unpin,
    Failure: From<B::Error>,
{
    let mut body = Box::pin(response.into_body());
    let (mut tokens, mut line) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        for byte in data {
            if byte == b'\n' {
                tokens = usage(&line).unwrap_or(tokens);
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
    Ok(tokens)
}

fn usage(line: &[u8]) -> Option<u64> {
    let event: serde_json::Value = serde_json::from_slice(line.strip_prefix(b"data: ")?).ok()?;
    event["usage"]["total_tokens"].as_u64()
}
