//! Servers of DNS are replaced under load.

use std::time::{Duration, Instant};

use anyhow::Result;
use netkeel_e2e::workload::prober::{Asked, Names, Probe, Prober};

use super::names;

/// Replaces every server of DNS, and waits until the new ones are ready and the old ones are told to end.
fn roll() -> Result<()> {
    let cluster = names().workload.cluster();
    cluster.kubectl(&["rollout", "restart", "-n", "kube-system", "deployment/netkeel-dns"])?;
    cluster.kubectl(&[
        "rollout",
        "status",
        "-n",
        "kube-system",
        "deployment/netkeel-dns",
        "--timeout=60s",
    ])?;
    Ok(())
}

/// Questions, those lost, those answered with SERVFAIL, those with another code or answer.
type Sum = [u64; 4];

/// What comes of questions from free and from connected sockets while the servers are rolled twice.
fn asked_while_rolling_twice(probers: &[Prober<'static>]) -> Result<[Sum; 2]> {
    let start = |socket, threads| {
        let asked = Asked { socket, threads, ..Asked::default() };
        let of =
            |prober: &Prober<'static>| prober.names("web.dns.svc.cluster.local", &names().service, asked);
        probers.iter().map(of).collect::<Result<Vec<_>>>()
    };
    let free = start("fresh", 3)?.into_iter().chain(start("kept", 1)?).collect();
    let bound = start("connected", 1)?;
    let began = Instant::now();
    let rolled = roll().and_then(|()| roll());
    // The last server of the old ones answers for 5 s more.
    std::thread::sleep(Duration::from_secs(6));
    let seconds = began.elapsed().as_secs();
    let sum = |all: Vec<Probe<Names>>| -> Result<Sum> {
        let ended: Vec<Names> = all.into_iter().map(Probe::end).collect::<Result<_>>()?;
        Ok(ended.iter().inspect(|seen| println!("{seen:?}")).fold([0; 4], |sum, seen| {
            let wrong = seen.wrong + seen.codes.values().sum::<u64>();
            [sum[0] + seen.asked, sum[1] + seen.lost, sum[2] + seen.servfail, sum[3] + wrong]
        }))
    };
    let sums = [sum(free)?, sum(bound)?];
    rolled?;
    for (sockets, [asked, lost, servfail, wrong]) in ["free", "connected"].iter().zip(sums) {
        println!(
            "rolled twice in {seconds} s: on {sockets} sockets {asked} questions, {lost} lost, {servfail} SERVFAIL, {wrong} wrong"
        );
    }
    Ok(sums)
}

#[test]
fn no_question_is_lost_or_answered_wrongly_while_the_servers_are_rolled_twice() {
    let probers = [0, 1].map(|index| names().workload.prober(&format!("client-{index}")).unwrap());
    let mut all = [0; 4];
    // On a busy machine two rolls do not see as many questions as it takes to say so.
    for _ in 0..4 {
        let [free, [asked, lost, servfail, wrong]] = asked_while_rolling_twice(&probers).unwrap();
        // A connected socket stays with its server, whose end it hears of: at most one question for each of the four servers that went.
        assert!(lost <= 8, "on connected sockets {lost} of {asked} lost");
        assert_eq!((servfail, wrong), (0, 0));
        all.iter_mut().zip(free).for_each(|(sum, more)| *sum += more);
        if all[0] >= 100_000 {
            break;
        }
    }
    let [asked, lost, servfail, wrong] = all;
    assert!(asked >= 100_000, "too few questions to say so: {asked}");
    assert!(lost <= asked / 100_000, "{lost} of {asked} lost");
    assert_eq!((servfail, wrong), (0, 0));
}
