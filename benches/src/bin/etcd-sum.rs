//! `etcd-sum ADDRESS load FILE`, `etcd-sum ADDRESS sum`: the same rows in etcd, and the only way to
//! total them there: read all of them at one revision and add them up here. In one answer: pages
//! would be far slower, because etcd counts the whole rest of the span for each of them.

use anyhow::{Context, bail};
use etcd::kv_client::KvClient;
use etcd::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op};
use futures::StreamExt;
use std::io::{BufRead, BufReader, Write};
use std::time::Instant;

#[allow(missing_docs)]
mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// What one transaction may hold by etcd's default.
const TXN_OPS: usize = 128;
const TXNS_AT_ONCE: usize = 64;
const ANSWER_BYTES_MAX: usize = 2 << 30;
/// Numbers are summed as hundredths.
const SCALE: i128 = 100;

type Client = KvClient<tonic::transport::Channel>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let address = args.first().context("usage: etcd-sum ADDRESS load FILE | sum")?;
    let client = KvClient::connect(address.clone()).await?;
    let client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("load"), Some(file)) => load(client, file).await,
        (Some("sum"), None) => sum(client).await,
        _ => bail!("usage: etcd-sum ADDRESS load FILE | sum"),
    }
}

async fn load(client: Client, file: &str) -> anyhow::Result<()> {
    let mut lines = BufReader::new(std::fs::File::open(file)?).lines();
    let transactions = std::iter::from_fn(|| {
        let mut success = Vec::new();
        for line in lines.by_ref().take(TXN_OPS) {
            let Ok(line) = line else { break };
            let (key, value) = line.split_once('\t')?;
            let put = PutRequest { key: key.to_owned().into(), value: value.to_owned().into() };
            success.push(RequestOp { request: Some(request_op::Request::RequestPut(put)) });
        }
        (!success.is_empty()).then_some(TxnRequest { success })
    });
    let writes = transactions.map(|txn| {
        let mut client = client.clone();
        async move { client.txn(txn).await }
    });
    let mut running = futures::stream::iter(writes).buffer_unordered(TXNS_AT_ONCE);
    while let Some(written) = running.next().await {
        written?;
    }
    Ok(())
}

async fn sum(mut client: Client) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (mut rows, mut total) = (0_u64, 0_i128);
    let (mut min, mut max) = (i128::MAX, i128::MIN);
    // From the first key to the last, in etcd's words.
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into() };
    for row in client.range(all).await?.into_inner().kvs {
        let hundredths = hundredths(&row.value)?;
        rows += 1;
        total += hundredths;
        (min, max) = (min.min(hundredths), max.max(hundredths));
    }
    let shown = |n: i128| n as f64 / SCALE as f64;
    let line = serde_json::json!({
        "rows": rows,
        "sum": shown(total),
        "min": shown(min),
        "max": shown(max),
        "seconds": begun.elapsed().as_secs_f64(),
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn hundredths(value: &[u8]) -> anyhow::Result<i128> {
    let text = std::str::from_utf8(value)?;
    let negative = text.starts_with('-');
    let (whole, fraction) = text.trim_start_matches('-').split_once('.').unwrap_or((text, "0"));
    let number = whole.parse::<i128>()? * SCALE + format!("{fraction:0<2}").parse::<i128>()?;
    Ok(if negative { -number } else { number })
}
