//! What a cluster of three nodes answers. The rows of one table follow one another.

use super::row::{Row, row};

/// Of a cluster that is well, and whose scheduler does nothing by itself.
pub const RUNNING: &[Row] = &[
    row("config set scheduler.enabled false", 0, "", ""),
    // One key.
    row("put k v", 0, "", ""),
    row("put k2 w -o json", 0, "{\"ts\":\"#\"}\n", ""),
    row("put piped -", 0, "", "").reads("two\nlines\n"),
    row("get piped", 0, "two\nlines\n\n", ""),
    row("delete piped", 0, "", ""),
    row("put k -7", 0, "", ""),
    row("get k", 0, "-7\n", ""),
    row("put k v", 0, "", ""),
    row("get k", 0, "v\n", ""),
    row("get 6b --hex", 0, "76\n", ""),
    row("get aw== --base64", 0, "dg==\n", ""),
    row("get k -o json", 0, "{\"key\":\"k\",\"ts\":\"#\",\"value\":\"v\"}\n", ""),
    row("get k --out $DIR/value", 0, "", ""),
    row("put copy --file $DIR/value", 0, "", ""),
    row("get copy", 0, "v\n", ""),
    row(
        "put copy --file $DIR/large",
        8,
        "",
        "isotherm: the value has more than 1048576 bytes, the limit\n",
    ),
    row("delete copy", 0, "", ""),
    row("delete copy -o json", 0, "{\"existed\":false,\"ts\":\"#\"}\n", ""),
    row("get copy", 4, "", "isotherm: copy: no such key\n"),
    row("get copy -o json", 4, "", "isotherm: copy: no such key\n"),
    row("get copy --at -1ms", 4, "", "isotherm: copy: no such key\n"),
    row("put '' v", 2, "", "isotherm: the key is empty…"),
    row("put ff --hex ff", 0, "", ""),
    row("get ff --hex -o json", 0, "{\"key\":\"ff\",\"ts\":\"#\",\"value\":\"ff\"}\n", ""),
    row("export --from k3 --format tsv", 1, "", "isotherm: the row of \\xff is not UTF-8…"),
    row("delete ff --hex", 0, "", ""),
    // Conditions.
    row("cas k v w", 0, "", ""),
    row("cas k v x", 5, "w\n", "isotherm: k: holds another value, nothing was set\n"),
    row(
        "cas k v x -o json",
        5,
        "{\"applied\":false,\"current\":\"w\",\"ts\":\"#\"}\n",
        "isotherm: k: holds…",
    ),
    row("cas none v x", 5, "", "isotherm: none: no such key, nothing was set\n"),
    row("cas n 1 --absent -o json", 0, "{\"applied\":true,\"ts\":\"#\"}\n", ""),
    row("cas n 1 --absent", 5, "1\n", "isotherm: n: holds another value, nothing was set\n"),
    row("incr n", 0, "2\n", ""),
    row("incr n -5", 0, "-3\n", ""),
    row("incr n 5 -o json", 0, "{\"ts\":\"#\",\"value\":2}\n", ""),
    row("incr n 9223372036854775807", 5, "", "isotherm: the sum does not fit into 64 bits\n"),
    row("incr k", 5, "", "isotherm: the value is not a decimal 64-bit integer\n"),
    // Spans.
    row("scan --prefix k", 0, "k\tw\nk2\tw\n", ""),
    row("scan --from k --to k2 -o json", 0, "{\"key\":\"k\",\"ts\":\"#\",\"value\":\"w\"}\n", ""),
    row("scan --prefix k --reverse --limit 1 --keys-only", 0, "k2\n", ""),
    row("scan --from k --to k", 0, "", ""),
    row("scan --prefix none", 0, "", ""),
    row(
        "export --prefix k",
        0,
        "{\"key\":\"k\",\"ts\":\"#\",\"value\":\"w\"}\n{\"key\":\"k2\",…}\n",
        "",
    ),
    row("export --prefix k --format csv", 0, "key,value\nk,w\nk2,w\n", ""),
    row("export --prefix k --format tsv", 0, "k\tw\nk2\tw\n", ""),
    row("export --from k --to k", 0, "", ""),
    row(
        "aggregate --prefix n --fn count,sum",
        0,
        "{\"at\":\"#\",\"ranges\":1,\"rows\":1,\"skipped\":0,\"count\":1,\"sum\":2,\"groups\":[{…}]}\n",
        "",
    ),
    row("aggregate --prefix n --fn sum -o table", 0, " FUNCTION  VALUE\n sum       2\n", ""),
    row("aggregate --prefix n --fn sum --number-strings", 0, "{…\"sum\":\"2\"…}\n", ""),
    row(
        "aggregate --prefix n --group-by prefix:1",
        0,
        "{…\"groups\":[{\"key\":\"n\",…\"count\":1}]}\n",
        "",
    ),
    row("aggregate --from k --to k", 0, "{…\"rows\":0,…}\n", ""),
    row("import -", 0, "{\"bad_lines\":0,\"rows\":2,…}\n", "").reads("im/a\t1\nim/b\t2\n"),
    row("import - -o table", 0, "1 rows in #.# s, # rows/s\n", "").reads("im/c\t3\n"),
    row(
        "import - --format jsonl",
        1,
        "{\"bad_lines\":1,\"rows\":1,…}\n",
        "line 2: …\nisotherm: 1 bad lines were left out\n",
    )
    .reads("{\"key\":\"im/d\",\"value\":\"4\"}\nnothing\n"),
    row(
        "import - --format csv --key who",
        1,
        "{\"bad_lines\":1,\"rows\":0,…}\n",
        "line 1: there is no column \"who\"; there are key, value\nisotherm: 1 bad lines were left out\n",
    )
    .reads("key,value\na,b\n"),
    row("delete --prefix im/ --yes", 0, "4 keys removed\n", ""),
    row("delete --prefix im/ --yes -o json", 0, "{\"all\":true,\"deleted\":0}\n", ""),
    // The cluster.
    row(
        "status",
        0,
        "{\"bootstrapped\":true,\"cluster_id\":\"#\",\"healthy\":true,\"meta\":{\"leader\":1,\"members\":[{…}]},\
         \"nodes\":[{\"address\":…}],\"problems\":[],\"ranges\":{\"total\":2,\"unavailable\":0,\
         \"under_replicated\":0}}\n",
        "",
    ),
    row(
        "status -o table",
        0,
        "healthy\nranges: 2 total, 0 unavailable, 0 under-replicated\n…\n n3…",
        "",
    ),
    row("node list", 0, "[{\"address\":…\"id\":3,…}]\n", ""),
    row("node show n2", 0, "{\"address\":…\"id\":2,…\"state\":\"up\",…}\n", ""),
    row("node show 99", 4, "", "isotherm: there is no node 99\n"),
    row("node drain 99", 4, "", "isotherm: there is no node n99\n"),
    row("node drain 2", 0, "{…\"intent\":\"draining\",…}\n", ""),
    row("node undrain 2", 0, "{…\"intent\":\"active\",…}\n", ""),
    row("node undrain 99", 4, "", "isotherm: there is no node n99\n"),
    row(
        "node drain 2 --wait --timeout 3s",
        7,
        "",
        "…isotherm: not done within 3s: node 2: # leadership…left; …the scheduler is switched off…\n",
    ),
    row("node undrain 2", 0, "{…\"intent\":\"active\",…}\n", ""),
    row(
        "node decommission 2",
        5,
        "",
        "isotherm: node n2 has replicas of ranges with 3, and only 2 …",
    ),
    row("node decommission 99", 4, "", "isotherm: there is no node n99\n"),
    row("node recommission 2", 0, "{…\"intent\":\"active\",…}\n", ""),
    row("node recommission 99", 4, "", "isotherm: there is no node n99\n"),
    row(
        "range list",
        0,
        "[{\"end\":…\"epoch\":{\"conf_ver\":1,\"version\":1},\"id\":1,…\"start\":\"\"},{…}]\n",
        "",
    ),
    row("range list --node 1 -o table", 0, " RANGE  START…\n r1     -inf…\n r2…", ""),
    row(
        "range show r2",
        0,
        "{\"end\":\"\",\"epoch\":{\"conf_ver\":1,\"version\":1},\"id\":2,\"leader\":#,\"load\":{…},\
         \"replicas\":[{\"id\":1,\"live\":true,\"node\":#,\"role\":\"voter\"},{…}],\"size\":#,\"start\":\"…\"}\n",
        "",
    ),
    row("range show 2", 0, "{\"end\":\"\",…\"id\":2,…}\n", ""),
    row("range show z", 0, "{\"end\":\"\",…\"id\":2,…}\n", ""),
    row("range show --key 2", 0, "{…\"id\":1,…\"start\":\"\"}\n", ""),
    row(
        "range show 999",
        4,
        "",
        "isotherm: there is no range 999; for the range of the key \"999\" say --key 999\n",
    ),
    row("range show r999", 4, "", "isotherm: there is no range r999; …"),
    row("range split m", 0, "[{\"end\":\"m\",…\"id\":2,…},{\"end\":\"\",…\"start\":\"m\"}]\n", ""),
    row("range split m", 5, "", "isotherm: a range begins at this key already\n"),
    row(
        "range merge r2 --wait",
        0,
        "{…\"kind\":\"merge\",\"range\":2,…\"state\":\"done\",…}\n",
        "…",
    ),
    row("range merge r2", 5, "", "isotherm: r2 is the last range: it has no right neighbour\n"),
    row("range merge r999", 4, "", "isotherm: there is no range r999\n"),
    row("range move r999 --from 1 --to 2", 4, "", "isotherm: there is no range r999\n"),
    row("range move r1 --from 1 --to 99", 4, "", "isotherm: there is no node n99\n"),
    row("range move r1 --from 99 --to 1", 4, "", "isotherm: there is no node n99\n"),
    row("range move r1 --from 1 --to 2", 5, "", "isotherm: r1 has a replica on n2 already\n"),
    row("range transfer-leader r999 --to 1", 4, "", "isotherm: there is no range r999\n"),
    row("range transfer-leader r1 --to 99", 5, "", "isotherm: r1 has no replica on n99\n"),
    row(
        "range checksum r1",
        0,
        "{\"applied_index\":#,\"equal\":true,\"range\":1,\"replicas\":[{…}]}\n",
        "",
    ),
    row("range checksum 999", 4, "", "isotherm: there is no range 999; …"),
    row(
        "range explain r1",
        0,
        "{\"decisions\":[…the scheduler is switched off…],…\"range\":1}\n",
        "",
    ),
    row("range explain 999", 4, "", "isotherm: there is no range 999; …"),
    row("operation list", 0, "[{…\"kind\":\"merge\",…\"state\":\"done\",…}]\n", ""),
    row("operation show 1", 0, "{…\"id\":1,\"kind\":\"merge\",…}\n", ""),
    row("operation show 99", 4, "", "isotherm: there is no operation 99\n"),
    row("operation cancel 99", 4, "", "isotherm: there is no operation 99\n"),
    row(
        "config show",
        0,
        "{\"balance.tolerance\":\"0.1\",…\"scheduler.enabled\":\"false\",…}\n",
        "",
    ),
    row(
        "config set nope 1",
        2,
        "",
        "isotherm: there is no setting \"nope\"; there are: balance.tolerance…",
    ),
    row(
        "config set scheduler.enabled maybe",
        2,
        "",
        "isotherm: setting scheduler.enabled: \"maybe\" is none of true, false\n",
    ),
    row(
        "upgrade status",
        0,
        "{\"blockers\":[],\"can_finalize\":false,\"cluster_version\":#,…}\n",
        "",
    ),
    row("upgrade finalize", 0, "nothing to do: the cluster is at version #\n", ""),
    row(
        "upgrade finalize -o json",
        0,
        "{\"cluster_version\":#,\"from\":#,\"replicas_behind\":0}\n",
        "",
    ),
    row("hot --once", 0, "[…]\n", ""),
    row(
        "bench put --seconds 1 --clients 2 --keys 10 --prefix b/ -o json",
        0,
        "{\"clients\":2,\"errors\":0,…\"latency_us\":{\"max\":#,\"p50\":#,\"p90\":#,\"p99\":#,\"p999\":#},…\
         \"ops\":#,\"ops_per_s\":#.#,…\"seconds\":#.#,\"timeline\":[…],\"workload\":\"put\"}\n",
        "…",
    ),
    row(
        "bench get --no-load --prefix none/ --seconds 1",
        4,
        "",
        "…isotherm: every read met a key that is not there: …",
    ),
];

/// Of a cluster that keeps history for a second.
pub const HISTORY: &[Row] = &[
    row(
        "get k --at -30d",
        8,
        "",
        "isotherm: -30d is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, timestamp #). Keep more with the setting history.retention\n",
    ),
    row(
        "get k --at -100years",
        8,
        "",
        "isotherm: -100years is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "get k --at 2020-01-31T12:00:00Z",
        8,
        "",
        "isotherm: 2020-01-31T12:00:00Z is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "get k --at 1969-07-20T20:17:40Z",
        8,
        "",
        "isotherm: 1969-07-20T20:17:40Z is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "get k --at 0",
        8,
        "",
        "isotherm: timestamp 0 is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "get k --at 1",
        8,
        "",
        "isotherm: timestamp 1 is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "scan --at -30d",
        8,
        "",
        "isotherm: -30d is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "scan --at 0",
        8,
        "",
        "isotherm: timestamp 0 is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "aggregate --at -30d",
        8,
        "",
        "isotherm: -30d is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "aggregate --at 0",
        8,
        "",
        "isotherm: timestamp 0 is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "export --at -30d",
        8,
        "",
        "isotherm: -30d is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "export --at 0",
        8,
        "",
        "isotherm: timestamp 0 is too long ago: history goes back to #-#-#T#:#:#Z (#s ago, …",
    ),
    row(
        "get k --at 2099-01-01T00:00:00Z",
        8,
        "",
        "isotherm: 2099-01-01T00:00:00Z is in the future: now is #-#-#T#:#:#Z (timestamp #)\n",
    ),
    row(
        "scan --at 2099-01-01T00:00:00Z",
        8,
        "",
        "isotherm: 2099-01-01T00:00:00Z is in the future: now is #-…",
    ),
    row(
        "aggregate --at 2099-01-01T00:00:00Z",
        8,
        "",
        "isotherm: 2099-01-01T00:00:00Z is in the future: now is #-…",
    ),
    row(
        "export --at 2099-01-01T00:00:00Z",
        8,
        "",
        "isotherm: 2099-01-01T00:00:00Z is in the future: now is #-…",
    ),
    row(
        "get k --at 18446744073709551615",
        8,
        "",
        "isotherm: timestamp 18446744073709551615 is in the future: now is #-…",
    ),
];

/// Of a cluster one of whose nodes stands still.
pub const HANGING: &[Row] = &[row(
    "range merge r1 --wait --timeout 1s",
    7,
    "",
    "…isotherm: not done within 1s: …What was ordered goes on…",
)];

/// Of a cluster one of whose nodes was killed, once that is known.
pub const UNHEALTHY: &[Row] = &[
    row("status", 6, "{…\"healthy\":false,…\"problems\":[\"…\"],…}\n", ""),
    row("status -o table", 6, "NOT HEALTHY\n  ! …", ""),
    row(
        "range checksum r1",
        6,
        "{…\"equal\":false,…}\n",
        "isotherm: the replicas differ, or one is missing\n",
    ),
    row("put still here --timeout 20s", 0, "", ""),
    row("get still", 0, "here\n", ""),
];

/// Ended by Ctrl-C, a second after they were begun.
pub const INTERRUPTED: &[Row] = &[
    row(
        "import -",
        130,
        "",
        "isotherm: interrupted; 1 rows were written, and all of the rows up to line 1: …",
    )
    .reads("k\tw\n"),
    row(
        "bench put --seconds 60 --clients 2 -o json",
        130,
        "{\"clients\":2,…}\n",
        "…isotherm: interrupted after #.# of 60 s\n",
    ),
];

/// A local cluster in `$DIR/local`, whose ports the environment says.
pub const LOCAL: &[Row] = &[
    row("down", 4, "", "isotherm: $DIR/local holds no cluster.json: nothing to stop\n"),
    row(
        "up --detach --nodes 1 --replicas 1 --ranges 1 -o json",
        0,
        "{\"cluster_id\":\"#\",\"dir\":\"$DIR/local\",\"meta\":[\"127.0.0.1:#\"],\"nodes\":[\"127.0.0.1:#\"],\
         \"ready\":true,\"started\":2}\n",
        "",
    ),
    row(
        "up --detach",
        0,
        "ready: 1 node, 1 meta, 0 started; --meta 127.0.0.1:#; data in $DIR/local\n",
        "",
    ),
    row("up --detach --nodes 2", 2, "", "isotherm: …--nodes 1, not 2…"),
    row("up --detach --dir $DIR/other", 5, "", "isotherm: 127.0.0.1:# is in use by process …"),
    row(
        "meta --data-dir $DIR/local/meta-1 --listen 127.0.0.1:7",
        1,
        "",
        "isotherm: …in use by another process…",
    ),
    row(
        "node --data-dir $DIR/local/node-1 --listen 127.0.0.1:7",
        1,
        "",
        "isotherm: …in use by another process…",
    ),
    row("down", 0, "2 processes stopped; the data stays in $DIR/local\n", ""),
    row("down -o json", 0, "{\"dir\":\"$DIR/local\",\"stopped\":0}\n", ""),
];
