//! Serves a slice read from a file, without a platform: for benchmarks and for trying rules out.
//! `cargo run --release -p balancer --example serve_slice -- slice.json`, where the file holds an array of slice items.

use std::{env, error::Error, fs, net::Ipv4Addr, sync::Arc};

use balancer::{
    cookie::{Key, SECRET},
    plane,
};
use domain::balancing::slice::SliceItem;
use tokio::sync::{mpsc, watch};

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("usage: serve SLICE.json [WORKERS]")?;
    let workers = env::args().nth(2).map_or(Ok(2), |count| count.parse())?;
    let items: Vec<SliceItem> = serde_json::from_str(&fs::read_to_string(path)?)?;
    let (_sender, slices) = watch::channel(Arc::new(items.into_iter().map(Arc::new).collect::<Vec<_>>()));
    let (reports, mut inbox) = mpsc::channel(16);
    let surroundings = plane::Surroundings {
        bind: Ipv4Addr::LOCALHOST,
        provider: None,
        workers,
        limit: 4096,
        seed: 1,
        key: Arc::new(Key::new(&[1; SECRET])),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let printer = async {
            while let Some(report) = inbox.recv().await {
                eprintln!("{report:?}");
            }
        };
        tokio::select! {
            ended = plane::run(surroundings, slices, reports) => ended,
            () = printer => Ok(()),
        }
    })?;
    Ok(())
}
