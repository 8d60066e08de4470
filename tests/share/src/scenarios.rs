//! How much of a limit is used, and how soon.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // figures to read

use crate::member::Terms;
use crate::quota::{BURST_UNITS, Quota};
use crate::world::{Load, MILLI, Net, SECOND, World};

/// Runs of each scenario.
const SEEDS: u64 = 32;

fn terms(seconds: u64) -> Terms {
    Terms { term: seconds * SECOND, drift: 10_000 }
}

/// Machines of a region.
fn net() -> Net {
    Net {
        latency: (MILLI, 20 * MILLI),
        loss: 2,
        late: 0,
        twice: 0,
        compares: true,
        plans: true,
        wobble: SECOND,
    }
}

fn quota(rate: f64, burst: u32) -> Quota {
    Quota { rate: (rate * 1e9) as u64, burst: burst * BURST_UNITS }
}

fn world(seed: u64, seconds: u64, limit: Quota, agents: usize, load: Load) -> World {
    let mut world = World::new(seed, terms(seconds), net(), limit, false);
    for _ in 0..agents {
        world.join(limit, load);
        let later = world.rng.u64(0..SECOND / 10);
        world.run_for(later);
    }
    world
}

/// The part of the limit that is used in so many seconds.
fn used(world: &mut World, limit: Quota, seconds: u64) -> f64 {
    let before = world.judge.admitted;
    world.run_for(seconds * SECOND);
    assert_eq!(world.over, None);
    (world.judge.admitted - before) as f64 / (limit.rate as f64 / 1e9 * seconds as f64)
}

/// The worst of some seeds.
fn worst(name: &str, least: f64, run: impl Fn(u64) -> f64) {
    let parts: Vec<f64> = (0..SEEDS).map(run).collect();
    let worst = parts.iter().copied().fold(f64::INFINITY, f64::min);
    let mean = parts.iter().sum::<f64>() / SEEDS as f64;
    println!("{name}: at least {:.2} % (mean {:.2})", worst * 100.0, mean * 100.0);
    assert!(worst >= least, "{name}: {worst:.4}, not {least}");
}

/// The longest of some seeds, in seconds.
fn latest(name: &str, most: f64, run: impl Fn(u64) -> f64) {
    let times: Vec<f64> = (0..SEEDS).map(run).collect();
    let worst = times.iter().copied().fold(0.0, f64::max);
    println!("{name}: at most {worst:.2} s (mean {:.2})", times.iter().sum::<f64>() / SEEDS as f64);
    assert!(worst <= most, "{name}: {worst:.2} s, not {most}");
}

/// Until `is_done`, in seconds.
fn until(world: &mut World, is_done: impl Fn(&World) -> bool) -> f64 {
    let begin = world.now;
    while !is_done(world) && world.now - begin < 60 * SECOND {
        world.run_for(10 * MILLI);
    }
    (world.now - begin) as f64 / 1e9
}

fn eight(seed: u64, seconds: u64) -> (World, Quota) {
    let limit = quota(200.0, 20);
    let mut world = world(seed, seconds, limit, 8, Load::Saturated(1));
    world.run_for(4 * seconds * SECOND);
    (world, limit)
}

#[test]
fn steady() {
    worst("steady", 0.99, |seed| {
        let (mut world, limit) = eight(seed, 3);
        used(&mut world, limit, 60)
    });
}

#[test]
fn two_crashes_in_a_minute() {
    worst("two crashes", 0.97, |seed| {
        let (mut world, limit) = eight(seed, 3);
        let first = used(&mut world, limit, 10);
        world.crash((seed % 8) as usize);
        let second = used(&mut world, limit, 20);
        world.crash(((seed + 3) % 8) as usize);
        (10.0 * first + 20.0 * second + 30.0 * used(&mut world, limit, 30)) / 60.0
    });
}

#[test]
fn the_log_is_down_for_five_seconds() {
    for (seconds, least) in [(3, 0.93), (10, 0.98)] {
        worst(&format!("log down, V = {seconds}"), least, |seed| {
            let (mut world, limit) = eight(seed, seconds);
            let first = used(&mut world, limit, 10);
            world.log_down(5 * SECOND);
            (10.0 * first + 50.0 * used(&mut world, limit, 50)) / 60.0
        });
    }
}

#[test]
fn a_joiner_has_its_part() {
    latest("joiner at 90 % of its part", 4.0, |seed| {
        let (mut world, limit) = eight(seed, 3);
        world.run_for(seed * SECOND / 32);
        let at = world.join(limit, Load::Saturated(1));
        until(&mut world, |world| world.rate(at) >= limit.rate / 10)
    });
}

/// All that is left is spent.
fn is_whole(world: &World, limit: Quota) -> bool {
    let sum: u64 = (0..world.agents.len())
        .filter(|at| world.agents[*at].rules.is_some())
        .map(|at| world.rate(at))
        .sum();
    sum >= limit.rate / 1_000 * 999
}

/// It spends until it reads that it has no row: what is idle begins there.
#[test]
fn a_leavers_part_is_given_on() {
    let longest = std::cell::Cell::new(0.0_f64);
    latest("leaver, from its last token", 3.0, |seed| {
        let (mut world, limit) = eight(seed, 3);
        world.run_for(seed * SECOND / 32);
        let at = (seed % 8) as usize;
        world.leave(at);
        let leaving = until(&mut world, |world| world.agents[at].rules.is_none());
        longest.set(longest.get().max(leaving));
        until(&mut world, |world| is_whole(world, limit))
    });
    println!("it takes {:.2} s at most to leave", longest.get());
    assert!(longest.get() < 1.5);
}

#[test]
fn a_crashed_agents_part_is_given_on() {
    for (name, most, writer) in [("crash", 5.0, false), ("writer's crash", 6.0, true)] {
        latest(name, most, |seed| {
            let (mut world, limit) = eight(seed, 3);
            world.run_for(seed * SECOND / 32);
            let at = world.at_rank(if writer { 0 } else { 5 });
            world.crash(at);
            until(&mut world, |world| is_whole(world, limit))
        });
    }
}

#[test]
fn a_fresh_log_gives_after_a_term() {
    for (name, most, is_memory) in [("fresh log", 4.0, false), ("fresh log in memory", 0.1, true)] {
        latest(name, most, |seed| {
            let limit = quota(200.0, 20);
            let net = Net { loss: if is_memory { 0 } else { 2 }, ..net() };
            let mut world = World::new(seed, terms(3), net, limit, is_memory);
            for _ in 0..if is_memory { 1 } else { 8 } {
                world.join(limit, Load::Saturated(1));
            }
            until(&mut world, |world| world.judge.admitted > 0)
        });
    }
}

#[test]
fn more_agents_than_tokens_take_turns() {
    let longest_of_all = std::cell::Cell::new(0);
    worst("3 a minute for 10", 0.85, |seed| {
        let limit = quota(0.05, 3);
        let mut world = world(seed, 3, limit, 10, Load::Saturated(1));
        world.run_for(60 * SECOND);
        let used = used(&mut world, limit, 3_600);
        let now = world.now;
        let longest =
            |agent: &crate::world::Agent| agent.longest_without.max(now - agent.last_token);
        let longest = world.agents.iter().map(longest).max().unwrap_or(0) / SECOND;
        longest_of_all.set(longest_of_all.get().max(longest));
        used
    });
    println!("nobody is without a token for {} s", longest_of_all.get());
    assert!(longest_of_all.get() < 20 * 60);
    worst("40 agents on a burst of 20", 0.76, |seed| {
        let limit = quota(200.0, 20);
        let mut world = world(seed, 3, limit, 40, Load::Saturated(1));
        world.run_for(30 * SECOND);
        used(&mut world, limit, 120)
    });
    worst("10 agents on 100 a minute", 0.95, |seed| {
        let limit = quota(100.0 / 60.0, 20);
        let mut world = world(seed, 3, limit, 10, Load::Saturated(1));
        world.run_for(30 * SECOND);
        used(&mut world, limit, 600)
    });
}

#[test]
fn a_call_for_more_than_a_share_has_its_turn() {
    latest("15 of a burst of 20, beside 7", 60.0, |seed| {
        let (mut world, _) = eight(seed, 3);
        world.set_load(3, Load::Saturated(15));
        world.run_for(SECOND);
        let before = world.agents[3].spent;
        until(&mut world, |world| world.agents[3].spent >= before + 45)
    });
}

/// One wants 130 a second, and seven 5 each, of 200: 165. The one is another each half minute or so.
#[test]
fn demand_moves_between_agents() {
    worst("80 % of the load on one of eight", 0.82, |seed| {
        let limit = quota(200.0, 20);
        let mut world = world(seed, 3, limit, 8, Load::Poisson(5.0));
        world.set_load(2, Load::Poisson(130.0));
        world.run_for(20 * SECOND);
        used(&mut world, limit, 60)
    });
    worst("and it moves", 0.78, |seed| {
        let limit = quota(200.0, 20);
        let mut world = world(seed, 3, limit, 8, Load::Poisson(5.0));
        world.set_load(7, Load::Poisson(130.0));
        world.run_for(20 * SECOND);
        let (mut sum, mut seconds) = (0.0, 0);
        for at in 0..8 {
            let time = world.rng.u64(10..50);
            let last = if at == 0 { 7 } else { at - 1 };
            world.set_load(last, Load::Poisson(5.0));
            world.set_load(at, Load::Poisson(130.0));
            sum += used(&mut world, limit, time) * time as f64;
            seconds += time;
        }
        sum / seconds as f64
    });
}

#[test]
fn a_thousand_agents() {
    let limit = quota(10_000.0, 10_000);
    let mut world = world(1, 20, limit, 1_000, Load::Saturated(1));
    world.run_for(60 * SECOND);
    let (writes, messages) = (world.writes, world.messages);
    let used = used(&mut world, limit, 60);
    let per = |count: u64| count as f64 / 60.0;
    let (writes, messages) = (per(world.writes - writes), per(world.messages - messages));
    println!(
        "1,000 agents: {:.2} %, {writes:.2} writes, {messages:.0} messages a second",
        used * 100.0
    );
    assert!(used >= 0.99 && writes <= 3.0 && messages <= 3_000.0);
}

/// Eight agents that are replaced by others, one a second.
#[test]
fn a_swarm_is_replaced() {
    worst("all eight replaced", 0.90, |seed| {
        let (mut world, limit) = eight(seed, 3);
        let mut sum = used(&mut world, limit, 10);
        for at in 0..8 {
            world.join(limit, Load::Saturated(1));
            sum += used(&mut world, limit, 1) / 10.0;
            world.leave(at);
        }
        (10.0 * sum + 42.0 * used(&mut world, limit, 42)) / 60.0
    });
}
