//! Clients that do everything wrong at once, on nodes that are killed: no process ends by itself, no memory
//! grows, nothing acknowledged is lost, and all replicas are equal.
//!
//! `ISOTHERM_ABUSE_SECONDS` says how long (`make abuse`); memory is judged from ten minutes on.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use isotherm_client::aggregate::QueryText;
use isotherm_client::{
    AggregateOptions, Client, ClientError, ClientOptions, ErrorKind, ScanOptions, Write,
};
use isotherm_jepsen::aftermath;
use isotherm_testkit::{ClusterOptions, Member, ProcessCluster};
use isotherm_types::{KeyRange, Timestamp, limits};
use parking_lot::Mutex;

const MIB: usize = 1 << 20;
/// A run without a length of its own.
const SECONDS: u64 = 20;
/// Between two kills, and how long a node that was killed is away.
const KILL_EVERY: Duration = Duration::from_secs(12);
const AWAY: Duration = Duration::from_secs(2);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Memory is judged from this time on.
const WARM: Duration = Duration::from_secs(600);
const GROWTH_PERCENT_MAX: u64 = 20;
/// Rows that are written, removed, and scanned as they were before.
const MASS: usize = 20_000;
const OLD_SCANS: usize = 100;

/// What the abusers found.
#[derive(Default)]
struct Findings {
    stop: AtomicBool,
    /// How often each thing was done, and how it ended.
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// What must not be.
    faults: Mutex<Vec<String>>,
}

impl Findings {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().entry(what).or_default() += 1;
    }

    fn fault(&self, what: String) {
        let mut faults = self.faults.lock();
        if faults.len() < 20 {
            println!("FAULT {what}");
            faults.push(what);
        }
    }

    /// An error is one that a kill explains, or it is a fault.
    fn may_fail<T>(&self, what: &'static str, result: Result<T, ClientError>) -> Option<T> {
        self.count(what);
        match result {
            Ok(done) => Some(done),
            Err(error) if is_of_an_outage(&error) => None,
            Err(error) => {
                self.fault(format!("{what}: {:?}: {error}", error.kind));
                None
            }
        }
    }

    /// Refused for `kind`, unless a kill came first.
    fn must_be_refused<T>(
        &self,
        what: &'static str,
        kinds: &[ErrorKind],
        result: Result<T, ClientError>,
    ) {
        self.count(what);
        match result {
            Ok(_) => self.fault(format!("{what} was done")),
            Err(error) if kinds.contains(&error.kind) || is_of_an_outage(&error) => {}
            Err(error) => self.fault(format!("{what}: {:?}: {error}", error.kind)),
        }
    }
}

fn is_of_an_outage(error: &ClientError) -> bool {
    use ErrorKind::{Busy, Indeterminate, Unavailable, Unreachable};
    matches!(error.kind, Busy | Indeterminate | Unavailable | Unreachable)
}

fn client(meta: &[String]) -> Client {
    let options = ClientOptions { meta: meta.to_vec(), ..ClientOptions::default() };
    Client::connect(options).unwrap()
}

/// Polls `work` so many times, then drops it where it waits; whether it was dropped.
async fn dropped_after(polls: u32, work: impl Future) -> bool {
    let mut work = pin!(work);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(true);
        }
        left -= 1;
        work.as_mut().poll(cx).map(|_| false)
    })
    .await
}

/// Sizes at every limit and one beyond.
async fn odd_sizes(client: Client, findings: Arc<Findings>) {
    let too_large = [ErrorKind::TooLarge, ErrorKind::Invalid];
    let mut n = 0_usize;
    while findings.goes_on() {
        n += 1;
        let key = |bytes: usize| vec![b'k'; bytes];
        for bytes in [1, limits::KEY_BYTES_MAX - 1, limits::KEY_BYTES_MAX] {
            findings.may_fail("largest key", client.put(key(bytes), "v").await);
        }
        for bytes in [0, limits::KEY_BYTES_MAX + 1, 1 << 20] {
            let done = client.put(key(bytes), "v").await;
            findings.must_be_refused("key out of bounds", &too_large, done);
        }
        let name = format!("size/{}", n % 8);
        for bytes in [0, 1, limits::VALUE_BYTES_MAX - 1, limits::VALUE_BYTES_MAX] {
            let done = client.put(name.clone(), vec![b'v'; bytes]).await;
            if findings.may_fail("largest value", done).is_some()
                && let Some(Some(row)) = findings.may_fail("read", client.get(name.clone()).await)
                && row.value.len() != bytes
            {
                findings.fault(format!("{name} has {} bytes, not {bytes}", row.value.len()));
            }
        }
        let done = client.put(name.clone(), vec![b'v'; limits::VALUE_BYTES_MAX + 1]).await;
        findings.must_be_refused("value out of bounds", &too_large, done);
        let of = |count: usize| {
            (0..count).map(|i| Write::put(format!("many/{i:05}"), "v")).collect::<Vec<_>>()
        };
        findings.may_fail("largest batch", client.batch(of(limits::BATCH_OPS_MAX)).await);
        let done = client.batch(of(limits::BATCH_OPS_MAX + 1)).await;
        findings.must_be_refused("batch out of bounds", &too_large, done);
        let heavy = |count: usize| {
            let put = |i| Write::put(format!("heavy/{i}"), vec![b'v'; MIB - 64]);
            (0..count).map(put).collect::<Vec<_>>()
        };
        findings.may_fail("heaviest batch", client.batch(heavy(8)).await);
        let done = client.batch(heavy(9)).await;
        findings.must_be_refused("batch too heavy", &too_large, done);
    }
}

/// Conditions that do not hold, on a value of a MiB.
async fn lost_conditions(client: Client, findings: Arc<Findings>) {
    let lost =
        || Write::Cas { key: "storm".into(), expected: Some("no".into()), value: "new".into() };
    while findings.goes_on() {
        findings.may_fail("put", client.put("storm", vec![b'x'; MIB]).await);
        let storm = (0..16).map(|_| client.cas("storm", Some("no".into()), "new"));
        for outcome in futures::future::join_all(storm).await {
            if let Some(outcome) = findings.may_fail("lost cas", outcome)
                && outcome.applied
            {
                findings.fault("a condition that does not hold was met".to_owned());
            }
        }
        findings.may_fail("lost batch", client.batch((0..3).map(|_| lost()).collect()).await);
        for count in [5, 17, 16_384] {
            let done = client.batch((0..count).map(|_| lost()).collect()).await;
            findings.must_be_refused("lost batch too large", &[ErrorKind::TooLarge], done);
        }
    }
}

/// Drops each operation of the API at each place where it waits.
async fn dropped_callers(client: Client, findings: Arc<Findings>) {
    let mut polls = 0;
    while findings.goes_on() {
        polls = polls % 24 + 1;
        let key = |n: u32| format!("dropped/{n}");
        let span = KeyRange::prefix(b"m");
        let scan = || client.scan(ScanOptions { span: span.clone(), ..ScanOptions::default() });
        let sum = AggregateOptions {
            span: span.clone(),
            query: QueryText { functions: "count".to_owned(), ..QueryText::default() },
            ..AggregateOptions::default()
        };
        let batch = || (0..200).map(|n| Write::put(format!("{}", n % 97), "v")).collect::<Vec<_>>();
        let admin = client.admin();
        let mut dropped = 0_u64;
        let mut note = |was_dropped: bool| dropped += u64::from(was_dropped);
        note(dropped_after(polls, client.put(key(polls), "v")).await);
        note(dropped_after(polls, client.get(key(polls))).await);
        note(dropped_after(polls, client.delete(key(polls))).await);
        note(dropped_after(polls, client.incr("dropped-counter", 1)).await);
        note(dropped_after(polls, client.cas(key(polls), None, "v")).await);
        note(dropped_after(polls, client.batch(batch())).await);
        note(dropped_after(polls, client.write_all(batch())).await);
        note(dropped_after(polls, client.timestamp()).await);
        note(dropped_after(polls, scan().collect()).await);
        note(dropped_after(polls, client.aggregate(sum)).await);
        note(dropped_after(polls, admin.status()).await);
        note(dropped_after(polls, admin.ranges(&KeyRange::all())).await);
        note(dropped_after(polls, admin.split(key(polls))).await);
        if let Ok(ranges) = admin.ranges(&KeyRange::all()).await
            && let Some(range) = ranges.get(polls as usize % ranges.len().max(1))
        {
            let of = &range.descriptor;
            let to = of.replicas[polls as usize % of.replicas.len()].node;
            note(dropped_after(polls, admin.transfer_leader(of.id, to)).await);
            note(dropped_after(polls, admin.checksum(of.id)).await);
        }
        if let Ok(at) = client.timestamp().await {
            let held = async {
                let hold = client.hold(at).await?;
                tokio::task::yield_now().await;
                hold.release().await;
                Ok::<_, ClientError>(())
            };
            note(dropped_after(polls, held).await);
        }
        *findings.counts.lock().entry("callers dropped").or_default() += dropped;
    }
}

/// Connections that end in the middle: of a handshake, of a scan, of a large request.
async fn disconnecting(meta: Vec<String>, nodes: Vec<String>, findings: Arc<Findings>) {
    while findings.goes_on() {
        let own = client(&meta);
        let options = ScanOptions { span: KeyRange::prefix(b"m"), ..ScanOptions::default() };
        let mut scan = own.scan(options);
        let _ = scan.next_page().await;
        let large = own.put("cut", vec![b'v'; MIB]);
        let _ = tokio::time::timeout(Duration::from_millis(fastrand::u64(0..20)), large).await;
        drop((scan, own));
        let address = nodes[fastrand::usize(..nodes.len())].clone();
        let raw = move || {
            let Ok(mut stream) = std::net::TcpStream::connect(address) else { return };
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            let _ = stream.write_all(&preface[..fastrand::usize(..=preface.len())]);
            let noise: Vec<u8> = (0..fastrand::usize(..64)).map(|_| fastrand::u8(..)).collect();
            let _ = stream.write_all(&noise);
        };
        let _ = tokio::task::spawn_blocking(raw).await;
        findings.count("disconnects");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Writes many rows, removes them, and reads them as they were.
async fn old_scans(client: Client, findings: Arc<Findings>) {
    let mass = |n: usize| format!("mass/{n:06}");
    while findings.goes_on() {
        let puts = (0..MASS).map(|n| Write::put(mass(n), "some value")).collect();
        if !write_all(&client, &findings, puts).await {
            continue;
        }
        let Ok(at) = client.timestamp().await else { continue };
        let deletes = (0..MASS).map(|n| Write::delete(mass(n))).collect();
        if !write_all(&client, &findings, deletes).await {
            continue;
        }
        for first in (0..OLD_SCANS).step_by(10) {
            let scans =
                (first..first + 10).map(|n| old_scan(&client, &findings, at, mass(n * 190)));
            futures::future::join_all(scans).await;
            // And as of now, over what is not there any more.
            let span = KeyRange::prefix(b"mass/");
            let options = ScanOptions { span, limit: Some(1), ..ScanOptions::default() };
            let now = findings.may_fail("empty scan", client.scan(options).collect().await);
            if now.is_some_and(|rows| !rows.is_empty()) {
                findings.fault("a removed row is there".to_owned());
            }
            if !findings.goes_on() {
                return;
            }
        }
    }
}

/// Whether all of it was done.
async fn write_all(client: &Client, findings: &Findings, writes: Vec<Write>) -> bool {
    for batch in writes.chunks(limits::BATCH_OPS_MAX) {
        let done = client.write_all(batch.to_vec()).await;
        if findings.may_fail("mass write", done).is_none() {
            return false;
        }
    }
    true
}

async fn old_scan(client: &Client, findings: &Findings, at: Timestamp, start: String) {
    let span = KeyRange::new(start.clone(), "mass0").unwrap();
    let options = ScanOptions { span, limit: Some(10), at: Some(at), ..ScanOptions::default() };
    let Some(rows) = findings.may_fail("old scan", client.scan(options).collect().await) else {
        return;
    };
    if rows.len() != 10 || *rows[0].0 != *start.as_bytes() {
        findings.fault(format!("a scan of the past from {start} found {} rows", rows.len()));
    }
}

/// Increments; acknowledged ones count exactly once.
async fn count(client: Client, key: &'static str, findings: Arc<Findings>) -> (u64, u64) {
    let (mut done, mut unknown) = (0, 0);
    while findings.goes_on() {
        match client.incr(key, 1).await {
            Ok(_) => done += 1,
            Err(error) if error.kind == ErrorKind::Indeterminate => unknown += 1,
            Err(error) if is_of_an_outage(&error) => {}
            Err(error) => findings.fault(format!("increment: {:?}: {error}", error.kind)),
        }
        findings.count("increment");
    }
    (done, unknown)
}

/// Memory of each process over time, in MiB.
#[derive(Default)]
struct Curve(BTreeMap<Member, Vec<(u64, u64)>>);

impl Curve {
    fn sample(&mut self, cluster: &ProcessCluster, begun: Instant) {
        for member in cluster.members() {
            let Some(pid) = cluster.process(member).pid() else { continue };
            let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
                continue;
            };
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            if let Some(kib) = kib {
                let points = self.0.entry(member).or_default();
                points.push((begun.elapsed().as_secs(), kib >> 10));
            }
        }
    }

    /// The largest of each minute.
    fn print(&self) {
        for (member, points) in &self.0 {
            let mut minutes = BTreeMap::<u64, u64>::new();
            for (second, mib) in points {
                let most = minutes.entry(second / 60).or_default();
                *most = (*most).max(*mib);
            }
            let line: Vec<_> = minutes.values().map(u64::to_string).collect();
            println!("{member}: MiB by minute: {}", line.join(" "));
        }
    }

    /// After the warm-up nothing grows: neither the peak of the last fifth over all before it, nor, of a
    /// process that was never killed, the mean of the last fifth over that of the first.
    fn judge(&self, length: Duration, findings: &Findings) {
        if length < WARM * 2 {
            return;
        }
        let (warm, length) = (WARM.as_secs(), length.as_secs());
        let fifth = (length - warm) / 5;
        for (member, points) in &self.0 {
            let within = |from: u64, to: u64| {
                let within = points.iter().filter(move |(at, _)| (from..to).contains(at));
                within.map(|(_, mib)| *mib).collect::<Vec<_>>()
            };
            let peak = |from, to| within(from, to).into_iter().max().unwrap_or(0);
            let mean = |from, to| {
                let all = within(from, to);
                all.iter().sum::<u64>() / (all.len() as u64).max(1)
            };
            let mut pairs = vec![(peak(0, length - fifth), peak(length - fifth, u64::MAX), "peak")];
            if !matches!(member, Member::Node(1 | 2)) {
                let first = mean(warm, warm + fifth);
                pairs.push((first, mean(length - fifth, u64::MAX), "mean"));
            }
            for (before, last, what) in pairs {
                println!("{member}: {what} {before} MiB before, {last} in the last fifth");
                if last * 100 > before * (100 + GROWTH_PERCENT_MAX) {
                    findings
                        .fault(format!("the {what} of {member} grew from {before} to {last} MiB"));
                }
            }
        }
    }
}

/// Kills one of the nodes but the first, whose memory shows what grows over the whole run.
async fn kills(cluster: &mut ProcessCluster, length: Duration, findings: &Findings) -> Curve {
    let (begun, mut curve, mut round) = (Instant::now(), Curve::default(), 0);
    let mut next_kill = begun + KILL_EVERY / 2;
    while begun.elapsed() < length {
        tokio::time::sleep(SAMPLE_EVERY).await;
        curve.sample(cluster, begun);
        let ended = cluster.ended().unwrap();
        if !ended.is_empty() {
            findings.fault(format!("{ended:?} ended by themselves"));
            break;
        }
        if Instant::now() >= next_kill {
            next_kill += KILL_EVERY;
            round += 1;
            let node = Member::Node(1 + round % 2);
            cluster.kill(&[node]).unwrap();
            findings.count("kills");
            tokio::time::sleep(AWAY).await;
            cluster.start_member(node).unwrap();
        }
    }
    curve
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_everything_wrong_break_nothing() {
    let seconds = std::env::var("ISOTHERM_ABUSE_SECONDS").ok();
    let length = Duration::from_secs(seconds.map_or(SECONDS, |s| s.parse().unwrap()));
    let mut cluster = ProcessCluster::start(&ClusterOptions::default()).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let meta = cluster.meta_addresses();
    let address = |node: &Member| cluster.process(*node).spec().listen.to_string();
    let nodes: Vec<_> = cluster.nodes().iter().map(address).collect();
    let findings = Arc::new(Findings::default());
    let mut tasks = vec![
        tokio::spawn(odd_sizes(client(&meta), findings.clone())),
        tokio::spawn(lost_conditions(client(&meta), findings.clone())),
        tokio::spawn(dropped_callers(client(&meta), findings.clone())),
        tokio::spawn(old_scans(client(&meta), findings.clone())),
    ];
    for _ in 0..10 {
        let task = disconnecting(meta.clone(), nodes.clone(), findings.clone());
        tasks.push(tokio::spawn(task));
    }
    let counters: Vec<_> = ["count/a", "count/b"]
        .map(|key| (key, tokio::spawn(count(client(&meta), key, findings.clone()))))
        .into();

    let begun = Instant::now();
    let curve = kills(&mut cluster, length, &findings).await;
    findings.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        let ended = tokio::time::timeout(Duration::from_secs(60), task).await;
        ended.expect("every operation ends").unwrap();
    }
    curve.print();
    curve.judge(begun.elapsed(), &findings);
    println!("{:?}", findings.counts.lock());

    cluster.heal().unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let reader = client(&meta);
    for (key, counting) in counters {
        let (done, unknown) = counting.await.unwrap();
        let row = reader.get(key).await.unwrap().expect("it was counted");
        let value: u64 = std::str::from_utf8(&row.value).unwrap().parse().unwrap();
        println!("{key}: {value}, acknowledged {done}, unknown {unknown}");
        assert!((done..=done + unknown).contains(&value), "{key}: {value}");
    }
    aftermath::check(&reader, Instant::now() + Duration::from_secs(120)).await.unwrap();
    assert!(cluster.ended().unwrap().is_empty());
    let alarms = cluster.log_alarms().unwrap();
    assert!(alarms.is_empty(), "{alarms:?}");
    let faults = findings.faults.lock();
    assert!(faults.is_empty(), "{faults:#?}");
}
