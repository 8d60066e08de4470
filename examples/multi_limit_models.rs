//! Several models with one limit each: admissions, refusals and remaining tokens.
//!
//! ```text
//! cargo run --release --example multi_limit_models
//! ```

use std::error::Error;

use tollgate::{Limit, MemoryLimiter, TryAcquireError};

fn main() -> Result<(), Box<dyn Error>> {
    let limiter = MemoryLimiter::new();
    limiter.configure("openai-gpt4", Limit::per_minute(20))?;
    limiter.configure("openai-gpt3", Limit::per_minute(60))?;
    limiter.configure("embeddings", Limit::per_minute(200))?;

    println!("25 calls to each model:");
    for model in ["openai-gpt4", "openai-gpt3", "embeddings"] {
        let calls: Vec<_> = (0..25).map(|_| limiter.try_acquire(model)).collect();
        let admitted = calls.iter().flatten().count();
        println!("  {model}: {admitted} admitted, {} refused", calls.len() - admitted);
        if let Some(Err(refused)) = calls.last() {
            println!("    {}", advice(refused));
        }
        // The permits end with `calls`. Their tokens stay spent: these upstreams count calls.
    }

    println!("\nA batch takes all its tokens, or none:");
    for texts in [150, 150, 500] {
        match limiter.try_acquire_n("embeddings", texts) {
            Ok(permit) => println!("  {} texts: admitted", permit.tokens()),
            Err(refused) => println!("  {texts} texts: {}", advice(&refused)),
        }
    }

    println!("\nWhat is left:");
    for capacity in limiter.resources() {
        println!("  {capacity}");
    }
    Ok(())
}

/// What to do about a refusal: wait, ask for less, or fix the program.
fn advice(refused: &TryAcquireError) -> String {
    match refused.retry_after() {
        Some(wait) => format!("refused; the next attempt may succeed after {wait:.1?}"),
        None => format!("refused; {refused}"),
    }
}
