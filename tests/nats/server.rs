//! A NATS server of a test's own.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::watchdog::HANG;

/// A server on a port of its own, which ends with the value.
pub(crate) struct Server {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    log: PathBuf,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments for the server.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut said = String::new();
        for _ in 0..20 {
            let port = free_port();
            let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nats-{port}.log"));
            match launch(port, &arguments, &log) {
                Ok(child) => return Self { child, port, arguments, log },
                Err(log) => said = log,
            }
        }
        panic!("no nats-server after 20 attempts: {said}");
    }

    /// One that takes no larger payloads.
    pub(crate) fn start_with_max_payload(bytes: usize) -> Self {
        let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nats-{bytes}.conf"));
        fs::write(&config, format!("max_payload: {bytes}\n")).expect("a configuration");
        Self::start_with(&["--config", config.to_str().expect("a path in UTF-8")])
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// End it as a crash would: SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a server to kill");
        self.child.wait().expect("its end");
    }

    /// Let it fall silent, with its connections open: SIGSTOP.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Let it go on: SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("a signal").success(), "{signal}");
    }

    /// Start it again where it was. Returns when it accepts connections.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let since = Instant::now();
        self.child = loop {
            match launch(self.port, &self.arguments, &self.log) {
                Ok(child) => break child,
                Err(log) => assert!(since.elapsed() < HANG, "no server once more: {log}"),
            }
        };
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}

/// A server that says it is ready, or what it said instead.
fn launch(port: u16, arguments: &[String], log: &Path) -> Result<Child, String> {
    let mut child = Command::new(binary())
        .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log).expect("a log for the server"))
        .spawn()
        .expect("a nats-server that runs");
    let since = Instant::now();
    loop {
        let said = fs::read_to_string(log).expect("the server's log");
        if said.contains("Server is ready") {
            return Ok(child);
        }
        if child.try_wait().expect("the server's state").is_some() {
            return Err(said);
        }
        assert!(since.elapsed() < HANG, "the server is not ready: {said}");
        sleep(Duration::from_millis(2));
    }
}

/// Below those that systems give to outgoing connections, so that it is still free after a crash.
pub(crate) fn free_port() -> u16 {
    loop {
        let random = RandomState::new().hash_one(std::process::id());
        let port = 10_000 + u16::try_from(random % 20_000).expect("it fits");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/nats-server.sh");
        let found = Command::new("bash").arg(&script).output().expect("bash");
        let errors = String::from_utf8_lossy(&found.stderr);
        assert!(found.status.success(), "these tests need a nats-server: {errors}");
        PathBuf::from(String::from_utf8_lossy(&found.stdout).trim_end())
    })
}
