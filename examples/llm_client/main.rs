//! Many tasks call a language model whose provider limits requests and tokens a minute, and says in headers what
//! is left. Each call takes one request and an estimate of its tokens, both or none, and settles the real number
//! when the stream of its answer ends.
//!
//! ```text
//! cargo run --release --features web --example llm_client
//! cargo run --release --features web --example llm_client -- --estimate-factor 3 --foreign 0.33
//! cargo run --release --features web --example llm_client -- --upstream http://127.0.0.1:8000/v1/chat/completions
//! ```
//!
//! The provider is a mock, with a minute of 10 s: see `provider.rs`. With `--foreign` another client uses a part of the
//! same quota, of which this one learns by the headers alone. The third form sends to a server that speaks the same
//! protocol, such as vLLM, over plain HTTP.
//!
//! `client.rs` is what an application needs: a `ClientLayer` around hyper's client.
//!
//! The last line is JSON. `requests` are those that were answered, `status_429` of them those that were refused.
//! `utilisation` is what the provider served, to this client and the other, as a part of what the tighter
//! of its limits allows in that time. It may be above 1, because the provider starts with a full bucket. The
//! waits are for permits.

mod args;
mod client;
#[path = "../shared/options.rs"]
mod options;
mod provider;
mod report;

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use args::{Args, USAGE};
use client::Client;
use provider::Provider;
use report::Tally;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(stop) => return Ok(stop.exit(USAGE)),
    };
    let (provider, url) = if let Some(url) = &args.upstream {
        (None, url.clone())
    } else {
        let (provider, url) = Provider::start(&args).await?;
        (Some(provider), url)
    };
    println!("{} tasks call the model at {url}.", args.tasks);
    let client = Client::new(&args, url)?;
    let start = Instant::now();
    let end = start + args.duration;
    if let Some(provider) = &provider {
        tokio::spawn(provider::foreign_client(Arc::clone(provider), args.foreign));
    }

    let tally = Arc::new(Mutex::new(Tally::default()));
    let tasks: JoinSet<()> =
        (0..args.tasks).map(|_| work(client.clone(), Arc::clone(&tally), end)).collect();
    tasks.join_all().await;
    let served = provider.map(|provider| provider.served());

    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.print(&args, served.as_ref());
    println!("{}", tally.json(&args, served.as_ref(), start.elapsed()));
    Ok(if tally.is_answered() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Calls the model again and again until `end`. A call that was refused is not repeated: the next one waits for as
/// long as this one would have.
async fn work(client: Client, tally: Arc<Mutex<Tally>>, end: Instant) {
    // What is under way at the end is dropped: a wait then takes nothing.
    while let Ok(answer) = timeout_at(end, client.call()).await {
        let failed = answer.is_err();
        tally.lock().unwrap_or_else(PoisonError::into_inner).note(answer);
        if failed {
            sleep(Duration::from_millis(100)).await;
        }
    }
}
