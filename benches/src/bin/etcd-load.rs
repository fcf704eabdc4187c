//! `etcd-load ADDRESS,… put|get CLIENTS SECONDS`: the loads of `isotherm bench` on etcd: a closed loop of
//! so many clients over 100,000 keys of 16 bytes, values of 128. Clients are spread over the members, 32
//! to a connection, as etcd's own benchmark does it; reads are linearizable.

use anyhow::{Context, ensure};
use etcd::kv_client::KvClient;
use etcd::{PutRequest, RangeRequest};
use hdrhistogram::Histogram;
use std::io::Write;
use std::time::{Duration, Instant};

#[allow(missing_docs)]
mod etcd {
    tonic::include_proto!("etcdserverpb");
}

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 128;
const CLIENTS_PER_CONNECTION: usize = 32;
const USAGE: &str = "usage: etcd-load ADDRESS,… put|get CLIENTS SECONDS";

type Client = KvClient<tonic::transport::Channel>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addresses, load, clients, seconds] = args.as_slice() else { anyhow::bail!(USAGE) };
    ensure!(matches!(load.as_str(), "put" | "get"), USAGE);
    let (reads, clients) = (load == "get", clients.parse::<usize>().context(USAGE)?);
    let limit = Duration::from_secs(seconds.parse().context(USAGE)?);
    let mut connections = Vec::new();
    for address in
        addresses.split(',').cycle().take(clients.div_ceil(CLIENTS_PER_CONNECTION).max(3))
    {
        connections.push(KvClient::connect(address.to_owned()).await?);
    }
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|n| {
            let client = connections[n % connections.len()].clone();
            tokio::spawn(run(client, reads, started + limit))
        })
        .collect();
    let mut latencies = Histogram::<u64>::new(3)?;
    for task in tasks {
        latencies.add(task.await??)?;
    }
    let line = serde_json::json!({
        "ops_per_s": latencies.len() as f64 / started.elapsed().as_secs_f64(),
        "latency_us": {"p50": latencies.value_at_quantile(0.5), "p99": latencies.value_at_quantile(0.99)},
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// One client, until `deadline`; the latencies in microseconds.
async fn run(mut client: Client, reads: bool, deadline: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = Histogram::new(3)?;
    while Instant::now() < deadline {
        let key = format!("{:016}", fastrand::u64(..KEYS)).into();
        let begun = Instant::now();
        if reads {
            client.range(RangeRequest { key, ..RangeRequest::default() }).await?;
        } else {
            let mut value = vec![0; VALUE_BYTES];
            fastrand::fill(&mut value);
            client.put(PutRequest { key, value: value.into() }).await?;
        }
        latencies.record(begun.elapsed().as_micros() as u64)?;
    }
    Ok(latencies)
}
