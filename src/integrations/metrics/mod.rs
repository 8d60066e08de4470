//! Counters, gauges and the times of waits. Feature `metrics`.
