//! The other end of every test: servers that tell who answered and whom they saw, clients that count and check.
//! Standard library only, so that it links statically in seconds. Results are one JSON object on stdout.
#![forbid(unsafe_code)]

mod ask;
mod bench;
mod connect;
mod dns;
mod flags;
mod forbidden;
mod json;
mod names;
mod numbers;
mod outside;
mod resolve;
mod serve;
mod stream;
mod tally;
mod transfer;
mod udp;

use std::process::ExitCode;

use flags::Flags;

/// Errors are for a reader of a test log.
type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "usage: netkeel-e2e-peer COMMAND [--flag value]...
  serve     [--name NAME] [--http 8080] [--echo 7000]   HTTP; TCP and UDP echo behind a line `name client-address`;
                                                        `/received/ADDRESS` tells what the echo ports got from it
  outside   ADDRESS...                                  the host outside the cluster: serve, and DNS for `test.`
  pause                                                 do nothing
  connect   --to HOST:PORT [--count 1 | --seconds S] [--parallel 1] [--timeout 2000] [--pause 0]   count answers per backend
  udp       --to HOST:PORT [--count 1] [--size 64] [--connected true] [--timeout 1000] exchanges of datagrams
  transfer  --to HOST:PORT [--bytes 1048576] [--timeout 10000] [--pause 0 --seconds S] echo a payload, compare it; pause after each 32 KiB
  stream    --to HOST:PORT [--streams 1] [--seconds 5] [--interval 10] [--stall 5000]  long connections, sequence-checked
  numbers   --to HOST:PORT [--seconds 5] [--interval-us 1000]                          numbered datagrams, lost ones counted
  forbidden --to HOST:PORT [--seconds 5] [--parallel 4] [--timeout 200] [--pause 5]    count what must not get through
  resolve   NAME [--type A] [--server ADDRESS] [--tcp false] [--timeout 2000]          one DNS question
  ask       ADDRESS:PORT... [--timeout 5000]            lines `udp HEX` or `tcp HEX` of DNS questions, for every server; replies in hexadecimal
  names     NAME --expect ADDRESS [--server ADDRESS] [--socket fresh|kept|connected] [--threads 1] [--interval-us 500] [--timeout 2000]   questions while DNS servers come and go
  bench-names NAME --to HOST:PORT [--interval 1]        when each address was first answered, until standard input ends
  bench-questions FILE --to HOST:PORT [--rate 1000] [--from 127.0.0.1]   lines `NAME A`, so many a second, until standard input ends
  bench-reflect [--port 5300]                           UDP on 127.0.0.1: each DNS question comes back as its own answer
  bench-serve [--port 9000] [--attached false]          one request a connection; on the next port many; on the third none; the fourth takes bulk data
  bench-lane  --to HOST:PORT                            slices of either, as standard input orders them
  bench-probe --to HOST:PORT [--interval 2] [--timeout 40]   when connections were accepted, until standard input ends
  bench-crr --service HOST:PORT --direct HOST:PORT [--rounds 10] [--slice 1000]        connect, request, response, close
  bench-cni --plugin PATH [--count 200] [--parallel 1] [--beside 0]   ADD, then DEL, the configuration on standard input; so many other pods stay meanwhile
what has --seconds ends early when the file --stop FILE is there; times in milliseconds where not said otherwise; exit code 1 when anything failed";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(command, rest) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything that was tried came out well.
fn run(command: &str, arguments: &[String]) -> Result<bool> {
    let flags = Flags::parse(arguments)?;
    match command {
        "serve" => serve::run(&flags),
        "outside" => outside::run(&flags),
        "pause" => loop {
            std::thread::park();
        },
        "connect" => connect::run(&flags),
        "udp" => udp::run(&flags),
        "transfer" => transfer::run(&flags),
        "stream" => stream::run(&flags),
        "numbers" => numbers::run(&flags),
        "forbidden" => forbidden::run(&flags),
        "resolve" => resolve::run(&flags),
        "ask" => ask::run(&flags),
        "names" => names::run(&flags),
        "bench-names" => bench::names(&flags),
        "bench-questions" => bench::questions(&flags),
        "bench-reflect" => bench::reflect(&flags),
        "bench-serve" => bench::serve(&flags),
        "bench-lane" => bench::lane(&flags),
        "bench-probe" => bench::probe(&flags),
        "bench-crr" => bench::crr(&flags),
        "bench-cni" => bench::cni(&flags),
        _ => Err(USAGE.to_owned()),
    }
}
