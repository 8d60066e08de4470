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
    pause: Duration,
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn rule() -> impl Strategy<Value = AnyRule> {
    let strict = (1..30_u64, millis(100..20_000));
    let parts = (1..20_u64, millis(1..5_000), proptest::option::of(1..10_u64));
    (parts, proptest::option::of(strict), any::<bool>(), any::<bool>()).prop_map(
        |((tokens, window, burst), strict, is_keyed, charges)| {
            let limit = Limit::new(tokens, window);
            let limit = burst.map_or(limit, |burst| limit.burst(burst));
            let limit = strict.map_or(limit, |(n, window)| limit.and(Limit::at_most(n, window)));
            AnyRule { limit, is_keyed, charges }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let costs = proptest::array::uniform3(0..4_u64);
    (costs, any::<bool>(), millis(0..1_000)).prop_map(|(costs, obeys, pause)| Step {
        costs,
        obeys,
        pause,
    })
}

/// Tokens of each rule.
fn available(limiter: &MemoryLimiter, rules: &[AnyRule]) -> Vec<u64> {
    let name = |(index, rule): (usize, &AnyRule)| {
        format!("rule-{index}{}", if rule.is_keyed { ":192.0.2.1" } else { "" })
    };
    let available = |name: String| limiter.capacity(&name).expect("a resource").available;
    rules.iter().enumerate().map(name).map(available).collect()
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
        for Step { costs, obeys, pause } in steps {
            let request = || -> Request<()> {
                let mut request = from("192.0.2.1");
                request.extensions_mut().insert(costs);
                request
            };
            let mut left = available(&limiter, &rules);
            let answer = server.answer(request());
            let after = available(&limiter, &rules);
            if answer.status() == StatusCode::OK {
                left.iter_mut().zip(costs).for_each(|(left, cost)| *left -= cost);
            }
            prop_assert_eq!(left, after, "{:?}", costs);
            match answer.headers().get("retry-after") {
                Some(seconds) => {
                    prop_assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
                    if obeys {
                        let seconds = seconds.to_str().unwrap().parse().unwrap();
                        time.advance(Duration::from_secs(seconds));
                        prop_assert_eq!(server.status(request()), StatusCode::OK);
                    }
                }
                None => prop_assert!(matches!(
                    answer.status(),
                    StatusCode::OK | StatusCode::PAYLOAD_TOO_LARGE
                )),
            }
            time.advance(pause);
        }
    }
}
