//! Servers with `JetStream`.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::{Server, free_port};

/// One that keeps its streams in a folder of its own.
pub(crate) struct StreamServer {
    server: Server,
    store: Store,
}

impl StreamServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments for the server.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let store = Store::new();
        let mut all = vec!["--jetstream", "--store_dir", store.path()];
        all.extend(arguments);
        Self { server: Server::start_with(&all), store }
    }

    /// Copy what is stored. The server must not run.
    pub(crate) fn copy_store(&self) -> Store {
        let copy = Store::new();
        copy.replace_by(&self.store);
        copy
    }

    /// Put an earlier copy in the place of what is stored. The server must not run.
    pub(crate) fn restore(&self, copy: &Store) {
        self.store.replace_by(copy);
    }
}

impl Deref for StreamServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for StreamServer {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// Three servers that keep their streams together.
pub(crate) struct Cluster(Vec<(String, StreamServer)>);

impl Cluster {
    pub(crate) fn start() -> Self {
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let routes: Vec<String> = ports.iter().map(|p| format!("nats://127.0.0.1:{p}")).collect();
        let all = routes.join(",");
        let servers = ports.iter().zip(&routes).map(|(port, route)| {
            let name = format!("n{port}");
            let mut arguments = vec!["--server_name", &name, "--cluster_name", "c"];
            arguments.extend(["--cluster", route, "--routes", &all]);
            let server = StreamServer::start_with(&arguments);
            (name, server)
        });
        Self(servers.collect())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.0.iter().map(|(_, server)| server.url()).collect()
    }

    pub(crate) fn server(&mut self, name: &str) -> &mut StreamServer {
        &mut self.0.iter_mut().find(|(other, _)| other == name).expect("a server of this name").1
    }
}

/// A folder of streams, removed with the value.
pub(crate) struct Store(PathBuf);

impl Store {
    fn new() -> Self {
        let name = format!("store-{:016x}", RandomState::new().hash_one(()));
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    fn replace_by(&self, other: &Self) {
        let _ = fs::remove_dir_all(&self.0);
        let copied = Command::new("cp").args(["-R", other.path(), self.path()]).status();
        assert!(copied.expect("cp").success());
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
