//! Compiles the `.proto` files with protox, so that no `protoc` is needed on the machine.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "isotherm/v1/kv.proto",
        "isotherm/internal/v1/common.proto",
        "isotherm/internal/v1/range.proto",
        "isotherm/internal/v1/replica.proto",
        "isotherm/internal/v1/merge.proto",
        "isotherm/internal/v1/operation.proto",
        "isotherm/internal/v1/heat.proto",
        "isotherm/internal/v1/upgrade.proto",
        "isotherm/internal/v1/meta.proto",
        "isotherm/internal/v1/raft.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
