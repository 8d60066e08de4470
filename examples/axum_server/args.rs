//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tollgate::tower::server::IpNet;

use crate::options::{Stop, mistake, number, seconds};

pub(crate) const USAGE: &str = "\
usage: axum_server [options]
  --listen ADDRESS        address and port (127.0.0.1:8080); port 0 takes a free one
  --rate N                requests per second and client address (10)
  --burst N               requests at once, of an address or an API key (20)
  --api-key-rate N        requests per second and API key (50)
  --trusted-proxies LIST  addresses or networks, with commas between them: their X-Forwarded-For says who
                          the client is (none)
  --grace N               seconds for requests in flight to finish after a signal (30)";

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) listen: SocketAddr,
    pub(crate) rate: u32,
    pub(crate) burst: u32,
    pub(crate) api_key_rate: u32,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) grace: Duration,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Stop> {
        let mut args = Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            rate: 10,
            burst: 20,
            api_key_rate: 50,
            trusted_proxies: Vec::new(),
            grace: Duration::from_secs(30),
        };
        while let Some(name) = words.next() {
            let mut value = || words.next().ok_or_else(|| mistake(&name, "needs a value"));
            match name.as_str() {
                "--listen" => {
                    let value = value()?;
                    let wrong = |_| mistake(&name, format!("needs address:port, not {value:?}"));
                    args.listen = value.parse().map_err(wrong)?;
                }
                "--rate" => args.rate = number(&name, &value()?, 1..=1_000_000)?,
                "--burst" => args.burst = number(&name, &value()?, 1..=1_000_000)?,
                "--api-key-rate" => args.api_key_rate = number(&name, &value()?, 1..=1_000_000)?,
                "--trusted-proxies" => {
                    args.trusted_proxies = value()?
                        .split(',')
                        .map(|text| network(&name, text))
                        .collect::<Result<_, _>>()?;
                }
                "--grace" => args.grace = seconds(&name, &value()?)?,
                "--help" | "-h" => return Err(Stop::Help),
                _ => return Err(mistake(&name, "is not an option")),
            }
        }
        Ok(args)
    }
}

/// A network, such as `10.0.0.0/8`, or a single address.
fn network(name: &str, text: &str) -> Result<IpNet, Stop> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| single()).map_err(|_| {
        mistake(name, format!("needs addresses or networks such as 10.0.0.0/8, not {text:?}"))
    })
}
