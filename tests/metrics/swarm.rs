//! A limiter in a swarm.

use std::sync::Arc;
use std::time::Duration;

use tollgate::metrics::Exporter;
use tollgate::{DistributedConfig, DistributedLimiter, Limit, MemoryBus, MessageBus};

use crate::recorder::Kept;

#[tokio::test(flavor = "current_thread")]
async fn messages_and_what_others_told() {
    let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new());
    let join = async |id: &str| {
        let agent = DistributedLimiter::new(DistributedConfig::new(Arc::clone(&bus), id)).await;
        let agent = agent.unwrap();
        agent.configure("api", Limit::per_second(100)).unwrap();
        agent
    };
    let (one, other) = (join("one").await, join("other").await);
    one.announce_reduced("api", "429");
    one.pause_for("api", Duration::from_secs(60));
    while other.capacity("api").unwrap().paused_until.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let scraped = |limiter: &DistributedLimiter| {
        let (exporter, kept) = (Exporter::of_swarm(limiter), Kept::default());
        kept.scrape(&exporter);
        (exporter, kept)
    };
    let ((exporter, of_one), (_, of_other)) = (scraped(&one), scraped(&other));
    let messages = |kept: &Kept, result: &str| {
        kept.count(&format!("tollgate_swarm_messages_total{{result={result}}}"))
    };
    assert!(messages(&of_one, "sent") > 0 && messages(&of_other, "heard") > 0);
    assert_eq!((messages(&of_other, "ignored"), messages(&of_other, "dropped")), (0, 0));
    assert_eq!(of_one.gauge("tollgate_swarm_connected"), 1.0);
    for (kept, origin) in [(&of_one, "local"), (&of_other, "swarm")] {
        for name in ["cuts", "pauses"] {
            let name = format!("tollgate_{name}_total{{origin={origin},resource=api}}");
            assert_eq!(kept.count(&name), 1, "{name}");
        }
    }
    one.close().await;
    of_one.scrape(&exporter);
    assert_eq!(of_one.gauge("tollgate_swarm_connected"), 0.0);
}
