//! What cannot be used, and what the errors say.

use super::*;
use crate::server::Server;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use tollgate::LedgerTerms;
use tollgate::async_nats::jetstream::stream::Config;

fn terms(seconds: u64) -> LedgerTerms {
    LedgerTerms { term: Duration::from_secs(seconds), ..LedgerTerms::DEFAULT }
}

#[tokio::test]
async fn other_terms_are_an_error_that_names_both() {
    let server = StreamServer::start();
    let ledger = open(&server, |config| config.terms = terms(10)).await.unwrap();
    assert_eq!(ledger.terms(), terms(10));
    open(&server, |config| config.terms = terms(10)).await.unwrap();
    let why = failed(open(&server, |_| {}).await);
    assert!(why.contains("term 10s, drift 0.01") && why.contains("term 3s, drift 0.01"), "{why}");
    let drift = LedgerTerms { drift: 0.02, ..terms(10) };
    let why = failed(open(&server, |config| config.terms = drift).await);
    assert!(why.contains("drift 0.02") && why.contains(STREAM), "{why}");
}

/// Also if that happens while we follow.
#[tokio::test]
async fn a_log_made_anew_with_other_terms_is_not_read() {
    let (server, ledger) = start().await;
    let mut reading = Reading::of(&ledger, "api");
    append_and_read(&mut reading, &["one"]).await;
    admin(&server.url()).await.delete_stream(STREAM).await.unwrap();
    let other = open(&server, |config| config.terms = terms(10)).await.unwrap();
    append(&other, "api", "one", 0).await;
    for last in [None, reading.last.clone()] {
        let why = failed(ledger.follow("api", last).await.map(drop));
        assert!(why.contains("term 10s") && why.contains("term 3s"), "{why}");
    }
}

#[tokio::test]
async fn a_stream_of_somebody_else_is_not_used() {
    let server = StreamServer::start();
    let admin = admin(&server.url()).await;
    let config = Config { name: STREAM.into(), subjects: vec!["x".into()], ..Config::default() };
    admin.create_stream(config.clone()).await.unwrap();
    let why = failed(open(&server, |_| {}).await);
    assert!(why.contains(STREAM) && why.contains("tollgate-term"), "{why}");
    admin.delete_stream(STREAM).await.unwrap();

    let subjects = vec!["tollgate.>".into()];
    admin.create_stream(Config { name: "other".into(), subjects, ..config }).await.unwrap();
    let why = failed(open(&server, |_| {}).await);
    assert!(why.contains("overlap"), "{why}");
}

#[tokio::test]
async fn options_are_checked() {
    let server = StreamServer::start();
    let long = "a".repeat(65);
    for swarm in ["", "a b", "a.b", "*", ">", "a/b", "ä", &long] {
        let why = failed(open(&server, |config| config.swarm = swarm.to_string()).await);
        assert!(why.contains(&format!("{swarm:?}")), "{why}");
    }
    let longest = "a".repeat(64);
    let ledger = open(&server, |config| config.swarm = longest).await.unwrap();
    ledger.follow(&"x".repeat(1_024), None).await.unwrap();
    for terms in [terms(0), terms(3_601), LedgerTerms { drift: f64::NAN, ..terms(1) }] {
        assert!(failed(open(&server, |config| config.terms = terms).await).contains("100 ms"));
    }
    let why = failed(open(&server, |config| config.replicas = 3).await);
    assert!(why.contains("replicas") && why.contains(STREAM), "{why}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_an_error() {
    let server = Server::start();
    let why = failed(JetStreamLedger::connect(&server.url(), SWARM).await);
    assert!(why.contains("JetStream") && why.contains("-js"), "{why}");

    let config = concat!(env!("CARGO_TARGET_TMPDIR"), "/nats-accounts.conf");
    let users = "accounts { A { users: [{ user: a, password: a }] } }\nno_auth_user: a\n";
    std::fs::write(config, users).unwrap();
    let server = StreamServer::start_with(&["--config", config]);
    let why = failed(open(&server, |_| {}).await);
    assert!(why.contains("jetstream: enabled"), "{why}");
}

/// One that says that it is 2.9, which had no metadata.
#[tokio::test]
async fn an_old_server_is_an_error_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let info =
            r#"INFO {"server_id":"x","version":"2.9.25","headers":true,"max_payload":1048576}"#;
        write!(stream, "{info}\r\n").unwrap();
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            if line.starts_with("PING") {
                stream.write_all(b"PONG\r\n").unwrap();
            }
        }
    });
    let why = failed(JetStreamLedger::connect(&format!("nats://{address}"), SWARM).await);
    assert!(why.contains("2.9.25") && why.contains("2.10"), "{why}");
}

#[tokio::test]
async fn an_entry_too_large_is_an_error_and_no_more() {
    let (_server, ledger) = start().await;
    let why = failed(ledger.append("api", vec![0; 2 * 1024 * 1024], 0).await);
    assert!(why.contains("payload"), "{why}");
    append(&ledger, "api", "one", 0).await;
    assert_eq!(Reading::of(&ledger, "api").text().await, "one");
}

#[tokio::test]
async fn nobody_there_is_an_error() {
    let mut server = StreamServer::start();
    let ledger = connect(&server.url()).await;
    server.kill();
    let error = JetStreamLedger::connect(&server.url(), SWARM).await.unwrap_err();
    assert!(matches!(&error, LedgerError::Unavailable(why) if why.contains("refused")), "{error}");
    let error = timeout(HANG, ledger.append("api", Vec::new(), 0)).await.unwrap().unwrap_err();
    assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
    let error = timeout(HANG, ledger.follow("api", None)).await.unwrap().map(drop).unwrap_err();
    assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
}
