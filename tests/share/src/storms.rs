//! Random storms: whatever happens, no window admits more than the bound. And without any one of the rules and
//! assumptions, some window does.

use crate::bucket::Level;
use crate::member::{Rule, Terms};
use crate::quota::{BURST_UNITS, Quota};
use crate::world::{Load, MILLI, Net, SECOND, World};
use crate::{Premise, without};

/// `TOLLGATE_SHARE_SEEDS` storms, or one of `TOLLGATE_SHARE_SEED`.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("TOLLGATE_SHARE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TOLLGATE_SHARE_SEEDS").unwrap_or(default),
    }
}

const KINDS: usize = 23;
/// What makes agents read one table and miss another, and tables that are void.
const ALONE: [usize; 14] = [1, 4, 5, 7, 8, 8, 9, 9, 11, 12, 17, 18, 19, 20];

/// What came of a storm, or of several.
#[derive(Debug, Default)]
struct Outcome {
    /// The worst excess over the bound, in tokens.
    over: Option<f64>,
    /// Whether the shares ever summed to more than the limit.
    is_shared_twice: bool,
    admitted: u64,
    kinds: [u64; KINDS],
}

fn random_limit(rng: &mut fastrand::Rng) -> Quota {
    let rate = [50_000_000, 1_000_000_000, 20_000_000_000, 200_000_000_000][rng.usize(0..4)];
    Quota { rate, burst: rng.u32(2..40) * BURST_UNITS }
}

fn random_load(rng: &mut fastrand::Rng) -> Load {
    match rng.u32(0..4) {
        0 | 1 => Load::Saturated(1),
        2 => Load::Poisson(rng.f64() * 100.0),
        _ => Load::Dump(rng.f64() * 20.0),
    }
}

/// Of two kinds: in one, agents plan well and anything may go wrong. In the other, of odd seeds, tables are at random,
/// and the limit such that shares of more than it are soon seen.
fn storm(seed: u64) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(seed);
    let plans = seed.is_multiple_of(2);
    let term = [1, 3, 10][rng.usize(0..if plans { 3 } else { 2 })] * SECOND;
    let terms = Terms { term, drift: [10_000, 200_000][rng.usize(0..2)] };
    let net = Net {
        latency: (MILLI / 2, [2, 50, 400][rng.usize(0..if plans { 3 } else { 1 })] * MILLI),
        loss: [0, 20, 200][rng.usize(0..if plans { 3 } else { 1 })],
        late: [0, 50, 300][rng.usize(0..3)],
        twice: [0, 50][rng.usize(0..2)],
        compares: rng.bool(),
        plans,
        wobble: [0, term / 4, 3 * term][rng.usize(0..3)],
    };
    let limit = random_limit(&mut rng);
    let limit =
        if plans { limit } else { Quota { rate: 200_000_000_000, burst: 10 * BURST_UNITS } };
    let mut world = World::new(seed, terms, net, limit, rng.bool());
    world.sums_shares = true;
    let mut kinds = [0; KINDS];
    for _ in 0..if plans { rng.usize(1..9) } else { rng.usize(2..5) } {
        let at = world.join(limit, random_load(&mut rng));
        world.agents[at].is_old = rng.u32(0..4) == 0;
    }
    world.run_for(term); // until some have reported
    // Either all that there is, or a few things again and again.
    let any: Vec<usize> = if plans { (0..KINDS).collect() } else { ALONE.to_vec() };
    let few: Vec<usize> = (0..rng.usize(1..5)).map(|_| any[rng.usize(0..any.len())]).collect();
    let kinds_of = if rng.bool() { any } else { few };
    for _ in 0..rng.u32(20..80) {
        if plans {
            world.run_for(rng.u64(0..term));
        } else {
            write_at_random(&mut world, &mut rng, limit);
            if rng.bool() {
                world.truncate(1);
            }
        }
        let kind = kinds_of[rng.usize(0..kinds_of.len())];
        kinds[kind] += 1;
        let at = rng.usize(0..world.agents.len());
        disturb(&mut world, &mut rng, kind, at);
    }
    world.run_for(3 * term);
    let World { over, is_shared_twice, .. } = world;
    Outcome { over, is_shared_twice, admitted: world.judge.admitted, kinds }
}

/// For about a term, a table each now and then: mostly of the same rows. Their writer may be of a newer version.
fn write_at_random(world: &mut World, rng: &mut fastrand::Rng, limit: Quota) {
    let is_newer = rng.u32(0..3) == 0;
    for _ in 0..rng.usize(1..12) {
        let same = if rng.u32(0..8) > 0 { world.same_table() } else { None };
        let mut bytes = same.unwrap_or_else(|| world.any_table(limit)).encode();
        if is_newer {
            bytes.push(0);
        }
        world.append_at_once(bytes);
        world.run_for(rng.u64(0..world.terms.term / 4));
    }
}

fn disturb(world: &mut World, rng: &mut fastrand::Rng, kind: usize, at: usize) {
    let (term, limit) = (world.terms.term, world.agents[at].limit);
    let is_alive = world.agents[at].rules.is_some();
    let other = rng.usize(0..world.agents.len());
    let may_grow = world.agents.len() < 12;
    match kind {
        0 => world.crash(at),
        1..=3 if !is_alive => world.start_as(at, rng.u64(..), rng.u64(0..term)),
        1 if rng.bool() => world.leave(at),
        1 => {
            world.crash(at);
            world.start_as(at, rng.u64(..), rng.u64(0..term));
        }
        2 if may_grow => {
            world.join(limit, random_load(rng));
        }
        3 => {
            if let Some(rules) = &world.agents[other].rules {
                let label = rules.label();
                world.crash(at);
                world.start_as(at, label, 0);
            }
        }
        4 if may_grow => world.fork(at),
        5 | 6 => world.pause(at, rng.u64(0..2 * term)),
        7 => world.cut_off(at, rng.u64(0..2 * term)),
        8 => world.unfollow(at, rng.u64(0..2 * term)),
        9 => world.slow_down(at, rng.u64(0..2 * term)),
        10 => world.log_down(rng.u64(0..2 * term)),
        11 => {
            let most = [3, 20][rng.usize(0..2)];
            world.restore(rng.usize(1..most));
        }
        12 => world.truncate(rng.usize(1..5)),
        13 => world.append(vec![rng.u8(..); rng.usize(0..100)]),
        14..=16 => {
            let table = world.any_table(limit);
            world.append(table.encode());
        }
        17 => {
            let table = world.any_table(Quota { rate: 2 * limit.rate, burst: 2 * limit.burst });
            world.append(table.encode());
        }
        18 => {
            let mut table = world.any_table(limit);
            table.rows.iter_mut().for_each(|row| row.quota = limit);
            world.append(table.encode());
        }
        19 => {
            let mut bytes = world.any_table(limit).encode();
            bytes.push(0); // of a newer version
            world.append(bytes);
        }
        20 => world.drift(at),
        21 => {
            let limit = random_limit(rng);
            for at in 0..world.agents.len() {
                world.run_for(rng.u64(0..term / 8));
                world.limit(at, limit);
            }
        }
        _ => world.set_load(at, random_load(rng)),
    }
}

#[test]
fn no_storm_admits_more_than_the_bound() {
    let seeds = seeds(300);
    let mut all = Outcome::default();
    for seed in seeds.clone() {
        let outcome = storm(seed);
        let Outcome { over, is_shared_twice, .. } = outcome;
        assert!(over.is_none(), "seed {seed} is over by {over:?} tokens");
        assert!(!is_shared_twice, "seed {seed}: shares of more than the limit");
        all.admitted += outcome.admitted;
        std::iter::zip(&mut all.kinds, outcome.kinds).for_each(|(sum, count)| *sum += count);
    }
    let storms = seeds.end - seeds.start;
    println!("{storms} storms: {} tokens within the bound; faults: {:?}", all.admitted, all.kinds);
    if storms >= 300 {
        assert!(all.admitted / storms > 1_000, "agents hardly spend");
        assert!(all.kinds.iter().all(|count| *count > 0), "some fault never happens");
    }
}

/// What storms show. The model or a trace shows the rest: what the caller has already seen in these storms, as the
/// sequence that goes back; and what takes more luck than a storm has.
const SHOWN: [Premise; 16] = [
    Premise::Rule(Rule::OwnRow),
    Premise::Rule(Rule::UnreadableIsZero),
    Premise::Rule(Rule::ExcessIsZero),
    Premise::Rule(Rule::LimitIsKnown),
    Premise::Rule(Rule::Lease),
    Premise::Rule(Rule::LeaseDrift),
    Premise::Rule(Rule::Window),
    Premise::Rule(Rule::WindowDrift),
    Premise::Rule(Rule::EmptyAtStart),
    Premise::Rule(Rule::EmptyAfterInterruption),
    Premise::Level(Level::StartsAtZero),
    Premise::Level(Level::IsVoidWithoutLease),
    Premise::CommonTerm,
    Premise::ForkBeginsAnew,
    Premise::ClockWithinDrift,
    Premise::ClockCountsSuspend,
];

#[test]
fn storms_show_what_is_needed() {
    for premise in SHOWN {
        let is_shown = |seed: &u64| {
            let outcome = without(Some(premise), || storm(*seed));
            outcome.over.is_some() || outcome.is_shared_twice
        };
        let seed = (1..6_000).step_by(2).find(is_shown);
        println!("without {premise:?}: seed {seed:?}");
        assert!(seed.is_some(), "no storm shows that {premise:?} is needed");
    }
}
