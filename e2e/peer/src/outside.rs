//! The host outside the cluster: HTTP on 80 and 8080, echo on 7000, and DNS for the zone `test.`.

use std::thread;

use crate::flags::Flags;
use crate::{Result, dns, serve};

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let address = flags.word("the address of outside.test")?;
    let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
    serve::http("outside", 80)?;
    serve::http("outside", 8080)?;
    serve::echo("outside", 7000)?;
    dns::server::start(address)?;
    loop {
        thread::park();
    }
}
