//! The public API from other languages: the programs of `docs/api/`, and increments that are counted once.
//!
//! They run where the language and its gRPC library are at hand: `make api-pages` puts them there. Elsewhere
//! they say that they were skipped.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_client::{Client, ClientOptions};
use isotherm_testkit::{ClusterOptions, ProcessCluster};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether `probe` succeeds; says that a test is skipped if not, and fails if that must not be.
fn is_at_hand(language: &str, probe: &mut Command) -> bool {
    let probed = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = probed.is_ok_and(|status| status.success());
    let is_wanted = std::env::var_os("ISOTHERM_API_PAGES").is_some();
    assert!(found || !is_wanted, "{language} or its gRPC library is missing: {probe:?}");
    if !found {
        eprintln!("SKIPPED: {language} with its gRPC library is not at hand: run `make api-pages`");
    }
    found
}

fn python() -> Command {
    let path = std::env::var_os("ISOTHERM_PYTHON").unwrap_or_else(|| "python3".into());
    Command::new(path)
}

fn has_python() -> bool {
    is_at_hand("Python", python().args(["-c", "import grpc, grpc_tools, grpc_status"]))
}

/// The stubs, as the page says that they are made.
fn python_stubs(into: &Path) {
    let protos = root().join("crates/proto/proto");
    let made = python()
        .args(["-m", "grpc_tools.protoc", "--python_out=.", "--grpc_python_out=.", "-I"])
        .arg(protos)
        .arg("isotherm/v1/kv.proto")
        .current_dir(into)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The program of a page, and what the page says that it prints.
fn page(name: &str, language: &str) -> (String, String) {
    let page = std::fs::read_to_string(root().join("docs/api").join(name)).unwrap();
    let block = |kind: &str| {
        let (_, rest) = page.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    (block(language), block("text"))
}

async fn start() -> (ProcessCluster, Vec<String>) {
    let mut cluster = ProcessCluster::start(&ClusterOptions::default()).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let address = |node| cluster.process(node).spec().listen.to_string();
    let addresses = cluster.nodes().into_iter().map(address).collect();
    (cluster, addresses)
}

fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_of_the_page_for_python_prints_what_the_page_says() {
    if !has_python() {
        return;
    }
    let (_cluster, addresses) = start().await;
    let dir = tempfile::tempdir().unwrap();
    python_stubs(dir.path());
    let (program, expected) = page("python.md", "python");
    std::fs::write(dir.path().join("example.py"), program).unwrap();
    let run = python().arg("example.py").args(&addresses).current_dir(dir.path()).output().unwrap();
    assert_eq!(printed(&run), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_of_the_page_for_node_prints_what_the_page_says() {
    let probe = "require('@grpc/grpc-js'); require('@grpc/proto-loader')";
    if !is_at_hand("Node.js", Command::new("node").args(["-e", probe])) {
        return;
    }
    let (_cluster, addresses) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let (program, expected) = page("node.md", "js");
    std::fs::write(dir.path().join("example.js"), program).unwrap();
    let run = Command::new("node")
        .arg("example.js")
        .args(&addresses)
        .env("PROTO_DIR", root().canonicalize().unwrap().join("crates/proto/proto"))
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(printed(&run), expected);
}

/// A command in `dir` that finds the packages in `path`, in `GOPATH` and in Debian's packages. It asks no server
/// for modules.
fn go(program: &str, path: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    let libraries = std::env::var("GOPATH").unwrap_or_default();
    let path = format!("{}:{libraries}:/usr/share/gocode", path.display());
    command.current_dir(dir).env("GOPATH", path).env("GO111MODULE", "off");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_of_the_page_for_go_prints_what_the_page_says() {
    let dir = tempfile::tempdir().unwrap();
    let example = dir.path().join("src/example");
    std::fs::create_dir_all(&example).unwrap();
    let probe = "protoc --version && command -v protoc-gen-go && command -v protoc-gen-go-grpc && \
                 go list google.golang.org/grpc google.golang.org/protobuf/proto \
                 google.golang.org/genproto/googleapis/rpc/errdetails";
    if !is_at_hand("Go", go("sh", dir.path(), &example).args(["-c", probe])) {
        return;
    }
    let (_cluster, addresses) = start().await;
    let (program, expected) = page("go.md", "go");
    std::fs::write(example.join("main.go"), program).unwrap();
    // The stubs, as the page says that they are made.
    let (commands, _) = page("go.md", "sh");
    let protoc = commands.lines().find(|line| line.starts_with("protoc ")).unwrap();
    let protos = root().canonicalize().unwrap().join("crates/proto/proto");
    let protoc = protoc.replace("crates/proto/proto", protos.to_str().unwrap());
    printed(&go("sh", dir.path(), &example).args(["-c", &protoc]).output().unwrap());
    printed(&go("go", dir.path(), &example).args(["vet", "."]).output().unwrap());
    let mut run = go("go", dir.path(), &example);
    let run = run.args(["run", "."]).args(&addresses).output().unwrap();
    assert_eq!(printed(&run), expected);
}

/// Every 2 s a node is killed and comes back, while 32 clients increment: what was answered is counted, what
/// was repeated under its `request_id` exactly once, and what is not known at most once.
#[tokio::test(flavor = "multi_thread")]
async fn increments_of_thin_clients_are_counted_once_while_nodes_are_killed() {
    if !has_python() {
        return;
    }
    let seconds = std::env::var("ISOTHERM_INCREMENT_SECONDS");
    let seconds: u64 = seconds.ok().map_or(10, |text| text.parse().unwrap());
    let (mut cluster, addresses) = start().await;
    let dir = tempfile::tempdir().unwrap();
    python_stubs(dir.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/increments.py");
    std::fs::copy(script, dir.path().join("increments.py")).unwrap();
    let clients = python()
        .arg("increments.py")
        .arg(seconds.to_string())
        .args(&addresses)
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(seconds);
    let nodes = cluster.nodes();
    for node in nodes.iter().cycle() {
        if Instant::now() > until {
            break;
        }
        cluster.kill(&[*node]).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.start_member(*node).unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    let answered = tokio::task::spawn_blocking(|| clients.wait_with_output()).await.unwrap();
    let answered = printed(&answered.unwrap());
    let answered: serde_json::Value = serde_json::from_str(&answered).unwrap();
    let meta = cluster.meta_addresses();
    let client = Client::connect(ClientOptions { meta, ..ClientOptions::default() }).unwrap();
    let counted = async |key: &'static str| -> u64 {
        let row = client.get(key).await.unwrap().unwrap();
        String::from_utf8_lossy(&row.value).parse().unwrap()
    };
    let (retried, plain) = (counted("retried").await, counted("plain").await);
    eprintln!("counted: retried {retried}, plain {plain}; answered: {answered}");
    let of = |name: &str| answered[name].as_u64().unwrap();
    assert_eq!(retried, of("retried"), "repeated increments count once");
    assert!(plain >= of("plain") && plain <= of("plain") + of("unknown"), "{plain}: {answered}");
    // Else nothing was lost on its way, and nothing is shown.
    assert!(of("repeated") > 0 && of("retried") > 100, "{answered}");
}
