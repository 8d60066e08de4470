//! The configuration in `docs` is enough for an agent, and each of its lines is needed.

use std::fs;
use std::sync::Arc;

use super::*;
use tollgate::async_nats::{Client, ConnectOptions};
use tollgate::{DistributedConfig, DistributedLimiter, Limit, MessageBus};

const CONFIG: &str = include_str!("../../../docs/nats-permissions.conf");

/// A server with the configuration without this line, and with a folder of the test's own.
fn start_without(line: &str, name: &str) -> StreamServer {
    let mut config = CONFIG.to_string();
    for line in ["store_dir: \"nats-data\"\n", line] {
        assert!(config.contains(line), "{line}");
        config = config.replacen(line, "\n", 1);
    }
    let path = format!("{}/nats-{name}.conf", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, config).expect("a configuration");
    StreamServer::start_with(&["--config", &path])
}

fn options() -> ConnectOptions {
    NatsBus::options().user_and_password("agent".into(), "change me".into())
}

async fn client(server: &StreamServer) -> Client {
    options().connect(server.url()).await.expect("a connection")
}

async fn ledger(server: &StreamServer) -> Result<JetStreamLedger, LedgerError> {
    JetStreamLedger::new(client(server).await, JetStreamConfig::new("billing")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_can_do_all_with_what_the_docs_give_it() {
    let server = start_without("", "permissions");
    let ledger = ledger(&server).await.unwrap();
    for resource in ["api", "a/b c"] {
        let mut reading = Reading::of(&ledger, resource);
        append_and_read(&mut reading, &["one", "two"]).await;
        assert_eq!(ledger.append(resource, "x".into(), 0).await, Err(LedgerError::Outrun));
        // Again, from where it was.
        reading.follower = None;
        append_and_read(&mut reading, &["three"]).await;
    }

    // The bus on the same connection. Subscribing waits for an echo, and is quick if it is allowed.
    let bus: Arc<dyn MessageBus> = Arc::new(NatsBus::from(client(&server).await));
    let agents = [
        DistributedLimiter::new(DistributedConfig::new(Arc::clone(&bus), "a")).await.unwrap(),
        DistributedLimiter::new(DistributedConfig::new(bus, "b")).await.unwrap(),
    ];
    for agent in &agents {
        agent.configure("api", Limit::per_second(100)).unwrap();
    }
    agents[0].announce_reduced("api", "429");
    let heard = async {
        while agents[1].capacity("api").unwrap().burst != 50 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, heard).await.unwrap();

    // And no more than that.
    let mut admin = jetstream::new(client(&server).await);
    admin.set_timeout(Duration::from_secs(1));
    let other = jetstream::stream::Config { name: "other".into(), ..Default::default() };
    assert!(admin.create_stream(other).await.is_err());
    assert!(admin.delete_stream("TOLLGATE_billing").await.is_err());
    let error = JetStreamLedger::connect(&server.url(), "billing").await.unwrap_err();
    assert!(error.to_string().contains("authorization"), "{error}");
}

/// The permission to publish to `subject` is left out, by which `step` fails.
async fn without(subject: &str, step: &str) {
    let server = start_without(&format!("\"{subject}\"\n"), step);
    let attempt = async || {
        let ledger = ledger(&server).await?;
        let mut reading = Reading::of(&ledger, "api");
        reading.follow().await?;
        match ledger.append("api", "one".into(), 0).await {
            Ok(()) | Err(LedgerError::Outrun) => {}
            Err(error) => return Err(error),
        }
        assert_eq!(reading.text().await, "one");
        reading.follow().await
    };
    let named = subject.split('*').next().unwrap();
    let since = Instant::now();
    loop {
        let why = attempt().await.unwrap_err().to_string();
        if why.contains(named) && why.contains("may not publish") {
            return;
        }
        // On a busy machine another answer may be late.
        assert!(since.elapsed() < HANG, "{subject}: {why}");
    }
}

#[tokio::test]
async fn without_a_permission_an_error_says_which() {
    tokio::join!(
        without("$JS.API.STREAM.INFO.TOLLGATE_billing", "info"),
        without("$JS.API.STREAM.CREATE.TOLLGATE_billing", "create"),
        without("$JS.API.STREAM.MSG.GET.TOLLGATE_billing", "get"),
        without("$JS.API.CONSUMER.CREATE.TOLLGATE_billing.*.tollgate.quota.billing.*", "follow"),
        without("tollgate.quota.billing.*", "append"),
    );
}

/// Then an administrator creates it: the metadata is all that an agent looks for.
#[tokio::test]
async fn an_agent_that_may_not_create_the_stream_can_use_one() {
    let (server, _) = start().await;
    let admin = admin(&server.url()).await;
    let stream = jetstream::stream::Config {
        name: "TOLLGATE_by-hand".into(),
        subjects: vec!["tollgate.quota.by-hand.*".into()],
        metadata: [("tollgate-term", "3s"), ("tollgate-drift", "0.01")]
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .into(),
        ..Default::default()
    };
    admin.create_stream(stream).await.unwrap();
    let ledger = JetStreamLedger::connect(&server.url(), "by-hand").await.unwrap();
    append_and_read(&mut Reading::of(&ledger, "api"), &["one"]).await;
}
