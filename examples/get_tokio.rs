//! The smallest get on tokio: `cargo run --example get_tokio -- ADDRESS KEY`, with an address that `kadence node` prints.

use std::{env::args, error::Error, time::Duration};

use kadence_tokio::{NodeConfig, node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (peer, key) = args().nth(1).zip(args().nth(2)).ok_or("which address, and which key?")?;
    let node = node(NodeConfig::default().bootstrap_peers([peer.parse()?])).await?;
    node.ready(Duration::from_secs(10)).await?;
    let answer = node.client().get_record(key.into_bytes()).await?;
    println!("{}", String::from_utf8_lossy(answer.value()));
    Ok(())
}
