//! A tour. Part 1 is one limiter: try, wait, release, a reduced capacity, and concurrent callers.
//! Part 2 is two agents of a swarm: a 429 to one of them slows both down.
//!
//! ```text
//! cargo run --release --example rate_limiting
//! cargo run --release --features nats --example rate_limiting -- nats://127.0.0.1:4222
//! ```
//!
//! In the first form the agents communicate within the process, in the second over a NATS server.

mod local;
mod swarm;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use tollgate::{MemoryBus, MessageBus};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let bus: Arc<dyn MessageBus> = match (words.next(), words.next()) {
        (None, _) => Arc::new(MemoryBus::new()),
        #[cfg(feature = "nats")]
        (Some(url), None) if !url.starts_with('-') => {
            let bus = tollgate::NatsBus::connect(&url).await;
            Arc::new(bus.map_err(|error| format!("no NATS at {url}: {error}"))?)
        }
        #[cfg(not(feature = "nats"))]
        (Some(url), None) if !url.starts_with('-') => {
            return Ok(refuse("NATS needs the feature `nats`: cargo run --features nats ..."));
        }
        _ => return Ok(refuse("usage: rate_limiting [nats://host:port]")),
    };

    println!("=== Rate Limiting Example ===\n");
    println!("--- Part 1: MemoryLimiter (Local Rate Limiting) ---\n");
    local::tour().await?;
    println!("\n--- Part 2: DistributedLimiter (Swarm Coordination) ---\n");
    swarm::tour(bus).await?;
    println!("\n=== Example Complete ===");
    Ok(ExitCode::SUCCESS)
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}
