use std::sync::Mutex;

use netkeel_telemetry::metrics::Registry;

use super::*;

fn line(size: usize) -> Line {
    let asked = Some((Name::from_ascii("www.example.com.").unwrap(), RecordType::A));
    let client = SocketAddr::from(([10, 1, 0, 7], 4000));
    let (code, transport, took) = (Some(ResponseCode::NoError), Transport::Udp, Duration::from_micros(7));
    Line { client, asked, code, transport, took, size }
}

fn counter() -> Counter {
    Registry::new("dns", "0").counter("dropped", "Dropped")
}

#[test]
fn questions_are_chosen_by_their_answer() {
    use LoggedQueries::{All, Denials, Errors};
    use ResponseCode::{FormErr, NXDomain, NoError, NotImp, Refused, ServFail};
    let codes =
        [Some(NoError), Some(NXDomain), Some(ServFail), Some(Refused), Some(FormErr), Some(NotImp), None];
    for (queries, expected) in [
        (LoggedQueries::None, [false; 7]),
        (Errors, [false, false, true, true, true, true, true]),
        (Denials, [false, true, true, true, true, true, true]),
        (All, [true; 7]),
    ] {
        assert_eq!(codes.map(|code| Logged { queries, ratio: 1.0 }.wants(code)), expected, "{queries:?}");
        assert_eq!(codes.map(|code| Logged { queries, ratio: 0.0 }.wants(code)), [false; 7], "{queries:?}");
    }
    let some = Logged { queries: All, ratio: 0.25 };
    let count = (0..10_000).filter(|_| some.wants(Some(NoError))).count();
    assert!((2000..3000).contains(&count), "{count} of 10000 for a quarter");
}

/// Held by the test while the writer must not get on; and what it wrote.
static STUCK: Mutex<()> = Mutex::new(());
static WRITTEN: Mutex<Vec<Line>> = Mutex::new(vec![]);

#[test]
fn a_log_that_cannot_be_written_costs_lines_and_no_time() {
    fn slow(line: Line) {
        drop(STUCK.lock());
        WRITTEN.lock().unwrap().push(line);
    }
    let (dropped, stuck) = (counter(), STUCK.lock().unwrap());
    let log = QueryLog::to(dropped.clone(), slow);
    let all = WAITING + 500;
    let (done, all_put) = std::sync::mpsc::channel();
    thread::spawn(move || {
        (0..all).for_each(|size| log.put(line(size)));
        done.send(())
    });
    all_put.recv_timeout(Duration::from_secs(10)).expect("putting a line waits for the writer");
    let lost = usize::try_from(dropped.get()).unwrap();
    assert!(
        (499..=500).contains(&lost),
        "the writer holds one line at most, the queue {WAITING}: {lost} lost"
    );
    drop(stuck);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while WRITTEN.lock().unwrap().len() < all - lost {
        assert!(std::time::Instant::now() < deadline, "lines of the queue are not written");
        thread::yield_now();
    }
    let written: Vec<usize> = WRITTEN.lock().unwrap().iter().map(|line| line.size).collect();
    assert!(
        written.is_sorted() && written.starts_with(&(0..WAITING).collect::<Vec<_>>()),
        "in their order: {written:?}"
    );
}
