//! The host outside the cluster: HTTP on 80 and 8080, echo on 7000, and DNS for the zone `test.`.

use std::net::IpAddr;
use std::thread;

use crate::flags::Flags;
use crate::{Result, dns, serve};

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    flags.word("an address of outside.test")?;
    let parsed = |text: &String| text.parse::<IpAddr>().map_err(|error| format!("{text}: {error}"));
    let addresses: Vec<IpAddr> = flags.words().iter().map(parsed).collect::<Result<_>>()?;
    serve::http("outside", 80)?;
    serve::http("outside", 8080)?;
    serve::echo("outside", 7000)?;
    dns::server::start(addresses)?;
    loop {
        thread::park();
    }
}
