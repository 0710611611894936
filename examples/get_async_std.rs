//! Gets a record on async-std and prints its value:
//! `cargo run -p kadence-tests --example get_async_std -- ADDRESS KEY`. The address is one that `kadence node` prints.

use std::{env::args, error::Error, time::Duration};

use kadence_async_std::{NodeConfig, node};

fn main() -> Result<(), Box<dyn Error>> {
    async_std::task::block_on(async {
        let (peer, key) = args().nth(1).zip(args().nth(2)).ok_or("usage: ADDRESS KEY")?;
        let node = node(NodeConfig::default().bootstrap_peers([peer.parse()?])).await?;
        node.ready(Duration::from_secs(10)).await?;
        let answer = node.client().get_record(key.into_bytes()).await?;
        println!("{}", String::from_utf8_lossy(answer.value()));
        Ok(())
    })
}
