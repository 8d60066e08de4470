//! A NATS server for this run.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// For a server to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that ends with the value, and a folder of its own.
pub(crate) struct Server {
    _child: Child,
    folder: PathBuf,
    pub(crate) url: String,
}

impl Server {
    pub(crate) async fn start() -> Result<Self, Box<dyn Error>> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/nats-server.sh");
        let found = Command::new("bash").arg(script).stderr(Stdio::inherit()).output().await?;
        let program = String::from_utf8(found.stdout)?;
        if !found.status.success() {
            return Err("there is no nats-server: give the address of one by --nats".into());
        }
        let folder = std::env::temp_dir().join(format!("swarm-quota-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let child = Command::new(program.trim_end())
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream"])
            .arg("--store_dir")
            .arg(&folder)
            .arg("--ports_file_dir")
            .arg(&folder)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut server = Self { _child: child, folder, url: String::new() };
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(url) = address(&server.folder) {
                server.url = url;
                return Ok(server);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err("the nats-server does not start".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// By the file that the server writes when it is ready.
fn address(folder: &Path) -> Option<String> {
    let files = fs::read_dir(folder).ok()?.flatten();
    let mut ports =
        files.map(|file| file.path()).filter(|path| path.extension() == Some("ports".as_ref()));
    let ports: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(ports.next()?).ok()?).ok()?;
    ports["nats"][0].as_str().map(String::from)
}
