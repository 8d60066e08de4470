//! Random storms: whatever happens, no window admits more than the bound.

use crate::DROPPED;
use crate::member::{Rule, Terms};
use crate::quota::{BURST_UNITS, Quota};
use crate::table::{Position, Row, Table};
use crate::world::{Load, MILLI, Net, SECOND, World};

/// `TOLLGATE_SHARE_SEEDS` storms, or one of `TOLLGATE_SHARE_SEED`.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("TOLLGATE_SHARE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TOLLGATE_SHARE_SEEDS").unwrap_or(default),
    }
}

fn random_limit(rng: &mut fastrand::Rng) -> Quota {
    let rate = [50_000_000, 1_000_000_000, 20_000_000_000, 200_000_000_000][rng.usize(0..4)];
    Quota { rate, burst: rng.u32(2..40) * BURST_UNITS }
}

/// The worst excess over the bound.
fn storm(seed: u64) -> Option<f64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let terms = Terms { term: [1, 3, 10][rng.usize(0..3)] * SECOND, drift: 10_000 };
    let net = Net {
        latency: (MILLI / 2, [2, 50, 400][rng.usize(0..3)] * MILLI),
        loss: [0, 20, 200][rng.usize(0..3)],
        late: [0, 50, 300][rng.usize(0..3)],
        twice: [0, 50][rng.usize(0..2)],
        compares: rng.bool(),
    };
    let limit = random_limit(&mut rng);
    let mut world = World::new(seed, terms, net, limit, rng.bool());
    for _ in 0..rng.usize(1..9) {
        let load = match rng.u32(0..3) {
            0 => Load::Saturated(1),
            1 => Load::Poisson(rng.f64() * 100.0),
            _ => Load::Dump(rng.f64() * 5.0),
        };
        world.join(limit, load);
    }
    for _ in 0..rng.u32(20..80) {
        world.run_for(rng.u64(0..terms.term));
        let at = rng.usize(0..world.agents.len());
        match rng.u32(0..15) {
            0 | 1 => world.crash(at),
            2 | 3 if world.agents[at].rules.is_none() => world.start(at),
            2 => world.leave(at),
            3 if world.agents.len() < 12 => {
                world.join(world.agents[at].limit, Load::Dump(rng.f64() * 5.0));
            }
            4 | 5 => world.pause(at, rng.u64(0..2 * terms.term)),
            6 => world.cut_off(at, rng.u64(0..2 * terms.term)),
            7 => world.log_down(rng.u64(0..2 * terms.term)),
            8 => world.restore(rng.usize(0..20)),
            9 => world.truncate(rng.usize(1..5)),
            10 => world.append(vec![rng.u8(..); rng.usize(0..100)]),
            11 => world.append(too_much(&mut rng, limit).encode()),
            12 => world.drift(at),
            13 => {
                let limit = random_limit(&mut rng);
                for at in 0..world.agents.len() {
                    world.run_for(rng.u64(0..terms.term / 8));
                    world.limit(at, limit);
                }
            }
            _ => world.set_load(at, Load::Dump(rng.f64() * 20.0)),
        }
    }
    world.run_for(3 * terms.term);
    world.over
}

/// A table whose rows exceed its limit.
fn too_much(rng: &mut fastrand::Rng, limit: Quota) -> Table {
    let row = Row { label: rng.u64(..), nonce: rng.u64(..), quota: limit };
    let prev = Position { sequence: rng.u64(0..10), id: 0 };
    Table { id: rng.u128(..), prev, limit, rows: vec![row, row] }
}

#[test]
fn no_storm_admits_more_than_the_bound() {
    for seed in seeds(300) {
        let over = storm(seed);
        assert!(over.is_none(), "seed {seed} is over by {over:?} tokens");
    }
}

fn is_caught(rule: Rule) {
    DROPPED.set(Some(rule));
    let caught = seeds(300).find_map(|seed| storm(seed).map(|over| (seed, over)));
    DROPPED.set(None);
    println!("without {rule:?}: {caught:?}");
    assert!(caught.is_some(), "no storm shows that {rule:?} is needed");
}

#[test]
fn storms_break_what_has_no_lease() {
    is_caught(Rule::Lease);
}
#[test]
fn storms_break_what_has_no_window() {
    is_caught(Rule::Window);
}
#[test]
fn storms_break_what_has_no_empty_table() {
    is_caught(Rule::EmptyTable);
}
#[test]
fn storms_break_what_takes_any_row() {
    is_caught(Rule::OwnRow);
}
#[test]
fn storms_break_what_skips_a_bad_table() {
    is_caught(Rule::BadIsZero);
}
