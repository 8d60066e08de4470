//! What the run comes to.

use std::error::Error;
use std::time::Duration;

use axum::http::StatusCode;

use crate::args::Args;
use crate::client::Answer;
use crate::provider::Served;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    requests: u64,
    refused: u64,
    tokens: u64,
    waits: Vec<Duration>,
    failed: u64,
    first_error: Option<String>,
}

impl Tally {
    pub(crate) fn note(&mut self, answer: Result<Answer, Box<dyn Error + Send + Sync>>) {
        match answer {
            Ok(Answer { status, wait, tokens }) => {
                self.requests += 1;
                self.refused += u64::from(status == StatusCode::TOO_MANY_REQUESTS);
                self.tokens += tokens;
                self.waits.push(wait);
                if !status.is_success() && status != StatusCode::TOO_MANY_REQUESTS {
                    self.failed += 1;
                    self.first_error.get_or_insert_with(|| status.to_string());
                }
            }
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.requests > self.failed
    }

    /// The wait that this part of the requests did not exceed, in milliseconds.
    fn wait_ms(&self, percent: usize) -> f64 {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let wait = waits.get((waits.len() * percent / 100).min(waits.len().saturating_sub(1)));
        wait.map_or(0.0, |wait| (wait.as_secs_f64() * 10_000.0).round() / 10.0)
    }

    /// What was served as a part of what the tighter limit allows in this time.
    #[allow(clippy::cast_precision_loss)] // counts
    fn utilisation(&self, args: &Args, served: Option<&Served>, took: Duration) -> f64 {
        let windows = took.as_secs_f64() / args.window.as_secs_f64();
        let (requests, tokens) = match served {
            Some(served) => (served.requests, served.tokens),
            None => (self.requests - self.refused, self.tokens),
        };
        let of = |n: u64, limit: u32| n as f64 / (f64::from(limit) * windows);
        let part = of(requests, args.requests).max(of(tokens, args.tokens));
        (part * 10_000.0).round() / 10_000.0
    }

    pub(crate) fn print(&self, args: &Args, served: Option<&Served>) {
        let Self { requests, refused, tokens, .. } = self;
        println!(
            "{requests} requests were answered, {refused} of them with 429, and cost {tokens} tokens."
        );
        if let Some(Served { foreign, foreign_refused, .. }) = served
            && args.foreign > 0.0
        {
            println!(
                "The other client was served {foreign} requests, and refused {foreign_refused}."
            );
        }
        if let Some(error) = &self.first_error {
            println!("{} requests failed; the first: {error}", self.failed);
        }
    }

    pub(crate) fn json(&self, args: &Args, served: Option<&Served>, took: Duration) -> String {
        format!(
            r#"{{"requests":{},"status_429":{},"utilisation":{},"p50_wait_ms":{},"p99_wait_ms":{}}}"#,
            self.requests,
            self.refused,
            self.utilisation(args, served, took),
            self.wait_ms(50),
            self.wait_ms(99),
        )
    }
}
