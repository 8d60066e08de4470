//! The processes of the agents, and what they say.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::args::Args;

/// For an agent that is to leave.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an agent says.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) agent: usize,
    /// Microseconds since 1970.
    pub(crate) at: u64,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// The answer to a request that was sent at this time; 0 for none.
    Status(u16),
    /// It has another share: tokens a second.
    Share(f64),
}

impl What {
    fn parse(words: &str) -> Option<Self> {
        match words.strip_prefix("share ") {
            Some(share) => share.split_once(' ')?.0.parse().ok().map(Self::Share),
            None => words.parse().ok().map(Self::Status),
        }
    }
}

/// All agents, and where they hear of their upstream and of each other.
pub(crate) struct Crew {
    arguments: Vec<String>,
    agents: Vec<Option<Child>>,
    say: UnboundedSender<Said>,
}

impl Crew {
    pub(crate) fn new(
        args: &Args,
        nats: &str,
        upstream: &str,
        swarm: &str,
    ) -> (Self, UnboundedReceiver<Said>) {
        let (say, said) = unbounded_channel();
        let mut arguments: Vec<String> =
            ["--nats", nats, "--upstream", upstream, "--swarm", swarm].map(String::from).into();
        for (name, number) in [("--limit", args.limit), ("--burst", args.burst)] {
            arguments.extend([name.to_string(), number.to_string()]);
        }
        arguments.extend(["--jitter".into(), args.jitter.to_string()]);
        arguments.extend(["--term".into(), args.term.as_secs().to_string()]);
        if !args.is_shared {
            arguments.push("--no-share".into());
        }
        (Self { arguments, agents: Vec::new(), say }, said)
    }

    /// Starts another one.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let agent = self.agents.len();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--agent", &name(agent)])
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let Some(output) = child.stdout.take() else { return Ok(()) };
        let say = self.say.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let said = line.split_once(' ').and_then(|(at, words)| {
                    Some(Said { agent, at: at.parse().ok()?, what: What::parse(words)? })
                });
                // The last line of an agent that was killed may be a part of one.
                if said.is_some_and(|said| say.send(said).is_err()) {
                    return;
                }
            }
        });
        self.agents.push(Some(child));
        Ok(())
    }

    /// Kills the first that is there: it is the one that writes the tables. Returns which one.
    pub(crate) async fn kill(&mut self) -> io::Result<Option<usize>> {
        let Some(agent) = self.agents.iter().position(Option::is_some) else { return Ok(None) };
        if let Some(mut child) = self.agents[agent].take() {
            child.kill().await?;
        }
        Ok(Some(agent))
    }

    /// Lets one of those in the middle leave. Returns which one.
    pub(crate) fn leave(&mut self) -> Option<usize> {
        let there: Vec<_> =
            (0..self.agents.len()).filter(|at| self.agents[*at].is_some()).collect();
        let agent = *there.get(there.len() / 2)?;
        if let Some(child) = self.agents[agent].take() {
            tokio::spawn(end(child));
        }
        Some(agent)
    }

    /// Lets all leave, and waits for it.
    pub(crate) async fn end(self) {
        let ends: Vec<_> =
            self.agents.into_iter().flatten().map(|child| tokio::spawn(end(child))).collect();
        for end in ends {
            let _ = end.await;
        }
    }
}

pub(crate) fn name(agent: usize) -> String {
    format!("agent-{}", agent + 1)
}

/// The agent leaves when its standard input ends.
async fn end(mut child: Child) {
    drop(child.stdin.take());
    if timeout(PATIENCE, child.wait()).await.is_err() {
        eprintln!("an agent does not leave, and is killed");
        let _ = child.kill().await;
    }
}
