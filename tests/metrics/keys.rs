//! Templates: all keys of one count together, whatever becomes of them.

use std::time::Duration;

use tollgate::metrics::Exporter;
use tollgate::{Limit, ManualClock, MemoryLimiter};

use crate::common::{Dice, cases};
use crate::recorder::Kept;

fn admitted(kept: &Kept, template: &str) -> u64 {
    kept.count(&format!("tollgate_admitted_tokens_total{{template={template}}}"))
}

/// Compact keys, promoted ones, hot ones, and those that are evicted and come again.
#[test]
fn a_template_counts_all_its_keys() {
    for seed in 0..cases(20) {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        limiter.per_key_at_most("user:", Limit::per_second(2_000).burst(4_096), 50).unwrap();
        limiter.per_key("several:", Limit::per_second(10).and(Limit::per_hour(50))).unwrap();
        let (exporter, kept) = (Exporter::new(&limiter), Kept::default());
        let (mut users, mut several, mut denied, mut refused) = (0, 0, 0, 0);
        let mut dice = Dice(seed);
        let mut held = Vec::new();
        for _ in 0..400 {
            let name = format!("user:{}", dice.roll(70));
            let n = if dice.roll(4) == 0 { dice.roll(5_000) + 1 } else { 1 };
            let outcome = match dice.roll(8) {
                0..4 => limiter.check_n(&name, n),
                4 => limiter.decide(&name, n).outcome,
                5 => limiter.try_acquire_n(&name, n).map(|permit| held.push(permit)),
                6 => {
                    // Hot: with open stripes.
                    for _ in 0..40 {
                        time.set(time.now().next_multiple_of(1 << 10) + (1 << 10));
                        users += u64::from(limiter.try_acquire(&name).map(drop).is_ok());
                    }
                    continue;
                }
                _ => {
                    let name = format!("several:{}", dice.roll(5));
                    several += u64::from(limiter.check(&name).is_ok());
                    time.advance(Duration::from_secs(dice.roll(20)));
                    held.clear();
                    continue;
                }
            };
            match outcome {
                Ok(()) => users += n,
                Err(tollgate::TryAcquireError::TooManyKeys { .. }) => refused += 1,
                Err(_) => denied += 1,
            }
        }
        let _ = (denied, refused);
        kept.scrape(&exporter);
        assert_eq!(admitted(&kept, "user:"), users);
        assert_eq!(admitted(&kept, "several:"), several);
        assert_eq!(kept.gauge("tollgate_keys{template=user:}"), limiter.key_count("user:") as f64);
        for name in kept.names() {
            assert!(!name.contains("user:1") && !name.contains("several:1"), "{name} tells a key");
        }
    }
}

#[test]
fn keys_are_evicted_and_refused() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.per_key_at_most("user:", Limit::per_second(10), 2).unwrap();
    let (exporter, kept) = (Exporter::new(&limiter), Kept::default());
    let count = |name: &str| {
        kept.scrape(&exporter);
        kept.count(name)
    };
    limiter.check("user:1").unwrap();
    limiter.check("user:2").unwrap();
    assert!(limiter.check("user:3").is_err());
    assert!(limiter.try_acquire("user:4").is_err());
    assert!(limiter.decide("user:5", 1).outcome.is_err());
    assert_eq!(count("tollgate_keys_refused_total{template=user:}"), 3);
    assert_eq!(count("tollgate_denied_total{reason=keys,template=user:}"), 3);
    assert_eq!(kept.gauge("tollgate_keys{template=user:}"), 2.0);
    assert_eq!(count("tollgate_keys_evicted_total{template=user:}"), 0);
    time.advance(Duration::from_secs(60));
    limiter.check("user:3").unwrap();
    assert!(count("tollgate_keys_evicted_total{template=user:}") >= 1);
    assert_eq!(admitted(&kept, "user:"), 3);
    assert!(limiter.check_n("user:3", 11).is_err());
    assert!(limiter.check_n("user:3", 10).is_err());
    assert_eq!(count("tollgate_denied_total{reason=exceeds_capacity,template=user:}"), 1);
    assert_eq!(count("tollgate_denied_total{reason=exhausted,template=user:}"), 1);
}

/// A key with a limit of its own is a resource, and begins from 0. What it had stays its template's.
#[test]
fn a_key_that_leaves_its_template_counts_for_itself() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.per_key("user:", Limit::per_second(5_000).burst(5_000)).unwrap();
    let (exporter, kept) = (Exporter::new(&limiter), Kept::default());
    let heat = |name: &str| {
        for _ in 0..100 {
            time.set(time.now().next_multiple_of(1 << 10) + (1 << 10));
            drop(limiter.try_acquire(name).unwrap());
        }
    };
    heat("user:ann"); // with open stripes
    limiter.configure("user:ann", Limit::per_second(5_000)).unwrap();
    heat("user:ann");
    limiter.check("user:ann").unwrap();
    kept.scrape(&exporter);
    assert_eq!(admitted(&kept, "user:"), 100);
    assert_eq!(kept.count("tollgate_admitted_tokens_total{resource=user:ann}"), 101);
}

/// Keys that get another template count there from then on, promoted and compact ones; a new limit for the same
/// prefix changes nothing.
#[test]
fn keys_that_migrate_count_where_they_are() {
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    limiter.per_key("", Limit::per_hour(5_000)).unwrap();
    let (exporter, kept) = (Exporter::new(&limiter), Kept::default());
    let take = || {
        limiter.check("vip:compact").unwrap();
        limiter.check_n("vip:promoted", 10).unwrap();
    };
    drop(limiter.try_acquire("vip:promoted").unwrap());
    take();
    limiter.per_key("vip:", Limit::per_hour(6_000)).unwrap();
    take();
    kept.scrape(&exporter);
    assert_eq!((admitted(&kept, ""), admitted(&kept, "vip:")), (12, 11));
    limiter.per_key("vip:", Limit::per_hour(7_000)).unwrap();
    take();
    kept.scrape(&exporter);
    assert_eq!((admitted(&kept, ""), admitted(&kept, "vip:")), (12, 22));
    limiter.remove_per_key("vip:");
    take();
    kept.scrape(&exporter);
    assert_eq!((admitted(&kept, ""), admitted(&kept, "vip:")), (23, 22));
    assert_eq!(kept.gauge("tollgate_keys{template=vip:}"), 0.0);
}
