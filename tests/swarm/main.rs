//! Limiters that tell each other of cuts, over a bus within the process.

#[path = "../common/mod.rs"]
mod common;

mod agents;
mod crowds;
mod failing_buses;
mod go_agents;
mod idle_shares;
mod measured;
mod memory_bus;
mod network;
mod pauses;
mod peers;
mod shares;
mod simulation;
