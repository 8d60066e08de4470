//! Any rules and any requests: a request takes the tokens of all rules or of none, and whoever obeys
//! `Retry-After` is admitted.

use std::time::Duration;

use http::{Request, StatusCode};
use proptest::prelude::*;
use tollgate::tower::server::{Key, RateLimitLayer, RateLimitLayerBuilder, Rule};
use tollgate::{Limit, MemoryLimiter};

use super::{Server, from, limiter};
use crate::common::cases;

const RULES: usize = 3;

#[derive(Clone, Debug)]
struct AnyRule {
    limit: Limit,
    is_keyed: bool,
    /// By a permit, and not by a look.
    charges: bool,
}

impl AnyRule {
    fn rule(&self, index: usize) -> Rule {
        let rule = Rule::new(&format!("rule-{index}"), self.limit)
            .cost(move |request| request.extensions.get::<[u64; RULES]>().expect("costs")[index]);
        let rule = if self.is_keyed { rule.per(Key::peer_ip()) } else { rule };
        if self.charges { rule.charge_if(|_| true) } else { rule }
    }
}

#[derive(Clone, Debug)]
struct Step {
    costs: [u64; RULES],
    /// Whether a client that is refused waits as long as it is told.
    obeys: bool,
    /// Whether the answer stays in flight until the end.
    is_slow: bool,
    pause: Duration,
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn rule() -> impl Strategy<Value = AnyRule> {
    let strict = (1..30_u64, millis(100..20_000));
    let parts = (1..20_u64, millis(1..5_000), proptest::option::of(1..10_u64));
    let in_flight = proptest::option::of(1..6_u64);
    (parts, proptest::option::of(strict), in_flight, any::<bool>(), any::<bool>()).prop_map(
        |((tokens, window, burst), strict, in_flight, is_keyed, charges)| {
            let limit = Limit::new(tokens, window);
            let limit = in_flight.map_or(limit, |most| limit.max_in_flight(most));
            let limit = burst.map_or(limit, |burst| limit.burst(burst));
            let limit = strict.map_or(limit, |(n, window)| limit.and(Limit::at_most(n, window)));
            AnyRule { limit, is_keyed, charges }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let costs = proptest::array::uniform3(0..4_u64);
    (costs, any::<bool>(), any::<bool>(), millis(0..1_000))
        .prop_map(|(costs, obeys, is_slow, pause)| Step { costs, obeys, is_slow, pause })
}

/// Tokens of each rule, and its requests in flight.
fn standing(limiter: &MemoryLimiter, rules: &[AnyRule]) -> Vec<(u64, u64)> {
    let name = |(index, rule): (usize, &AnyRule)| {
        format!("rule-{index}{}", if rule.is_keyed { ":192.0.2.1" } else { "" })
    };
    let standing = |name: String| {
        let capacity = limiter.capacity(&name).expect("a resource");
        (capacity.available, capacity.in_flight)
    };
    rules.iter().enumerate().map(name).map(standing).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(256) as u32))]

    #[test]
    fn all_or_none_and_whoever_obeys_is_admitted(
        rules in proptest::collection::vec(rule(), 1..=RULES),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let (time, limiter) = limiter();
        let builder = RateLimitLayer::builder(&limiter);
        let add = |builder: RateLimitLayerBuilder, (index, rule): (usize, &AnyRule)| {
            builder.rule(rule.rule(index))
        };
        let server = Server::new(rules.iter().enumerate().fold(builder, add));
        let mut slow = Vec::new();
        for Step { costs, obeys, is_slow, pause } in steps {
            let request = || -> Request<()> {
                let mut request = from("192.0.2.1");
                request.extensions_mut().insert(costs);
                request
            };
            let mut expected = standing(&limiter, &rules);
            let answer = server.answer(request());
            if answer.status() == StatusCode::OK {
                for ((rule, (left, in_flight)), cost) in rules.iter().zip(&mut expected).zip(costs) {
                    *left -= cost;
                    *in_flight += u64::from(cost > 0 && rule.limit.get_max_in_flight().is_some());
                }
            }
            prop_assert_eq!(expected, standing(&limiter, &rules), "{:?}", costs);
            match answer.headers().get("retry-after") {
                Some(seconds) => {
                    prop_assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
                    if obeys {
                        slow.clear(); // nobody knows when a place in flight is free
                        let seconds = seconds.to_str().unwrap().parse().unwrap();
                        time.advance(Duration::from_secs(seconds));
                        prop_assert_eq!(server.status(request()), StatusCode::OK);
                    }
                }
                None if answer.status() == StatusCode::OK => {
                    slow.extend(Some(answer).filter(|_| is_slow));
                }
                // In flight: 429 of a key, 503 of all.
                None => prop_assert!(matches!(answer.status().as_u16(), 413 | 429 | 503)),
            }
            time.advance(pause);
        }
        drop(slow);
        prop_assert!(standing(&limiter, &rules).iter().all(|(_, in_flight)| *in_flight == 0));
    }
}
