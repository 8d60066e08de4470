//! Spans of waits, and events of what changes a resource.
#![allow(clippy::ignored_unit_patterns)]

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tollgate::{Limit, ManualClock, MemoryLimiter};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

type Fields = BTreeMap<String, String>;

/// Keeps spans and events of this crate.
#[derive(Clone, Default)]
struct Kept(Arc<Inner>);

#[derive(Default)]
struct Inner {
    ids: AtomicU64,
    open: Mutex<BTreeMap<u64, Fields>>,
    closed: Mutex<Vec<Fields>>,
    events: Mutex<Vec<Fields>>,
}

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_string(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_string(), value.to_string());
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tollgate"
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.0.ids.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fields = Fields::from([("span".into(), span.metadata().name().into())]);
        span.record(&mut Visitor(&mut fields));
        self.0.open.lock().unwrap().insert(id, fields);
        Id::from_u64(id)
    }
    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut open = self.0.open.lock().unwrap();
        values.record(&mut Visitor(open.get_mut(&span.into_u64()).unwrap()));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        self.0.events.lock().unwrap().push(fields);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn try_close(&self, id: Id) -> bool {
        let fields = self.0.open.lock().unwrap().remove(&id.into_u64());
        self.0.closed.lock().unwrap().extend(fields);
        true
    }
}

impl Kept {
    /// Resource, tokens and result of the spans that were closed.
    fn waits(&self) -> Vec<[String; 4]> {
        let closed = self.0.closed.lock().unwrap();
        let wait = |of: &Fields| ["span", "resource", "n", "result"].map(|name| of[name].clone());
        closed.iter().map(wait).collect()
    }
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn waits_are_spans() {
    let kept = Kept::default();
    let _default = tracing::subscriber::set_default(kept.clone());
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    limiter.configure("api", Limit::per_second(1)).unwrap();
    limiter.configure("tokens", Limit::per_second(10)).unwrap();
    // Granted at once: no span.
    assert!(poll(pin!(limiter.acquire("api"))).is_ready());
    assert!(kept.0.open.lock().unwrap().is_empty() && kept.waits().is_empty());
    let mut wait = Box::pin(limiter.acquire("api"));
    assert!(poll(wait.as_mut()).is_pending());
    assert_eq!(kept.0.open.lock().unwrap().len(), 1);
    time.advance(Duration::from_secs(1));
    assert!(poll(wait.as_mut()).is_ready());
    assert_eq!(kept.waits(), [["tollgate.wait", "api", "1", "granted"]]);
    let mut wait = Box::pin(limiter.acquire_all(&[("api", 1), ("tokens", 7)]));
    assert!(poll(wait.as_mut()).is_pending());
    drop(wait);
    assert_eq!(
        kept.waits()[1..],
        [["tollgate.wait", "api", "1", "cancelled"], ["tollgate.wait", "tokens", "7", "cancelled"]]
    );
}

#[test]
fn changes_are_events() {
    let kept = Kept::default();
    let _default = tracing::subscriber::set_default(kept.clone());
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", Limit::per_second(100)).unwrap();
    api.check().unwrap();
    api.announce_reduced("429");
    api.pause_for(Duration::from_secs(1));
    api.resume();
    time.advance(Duration::from_secs(30));
    api.check().unwrap();
    let events = kept.0.events.lock().unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| ["kind", "resource", "burst", "reason", "is_ours"].map(|name| &*event[name]))
        .collect();
    assert_eq!(
        told,
        [
            ["cut", "api", "75", "429", "true"],
            ["pause", "api", "75", "paused", "true"],
            ["resume", "api", "75", "resumed", "true"],
            ["recovery", "api", "82", "recovery", "true"],
        ]
    );
}
