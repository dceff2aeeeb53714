//! The registry's face alone, on loopback, for working on it: no platform around it, one repository, one token.
//!
//! ```text
//! cargo run --release -p registry --example serve -- /tmp/registry 127.0.0.1:5001 demo
//! ```
//! Prints the password of the user `AWS` as its only line.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use domain::{
    Clock, Scope,
    repositories::{Image, ImageTag, Layer, Repository},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use iam::{AccessKey, Authority, Principal, SealingKey};
use registry::Registry;
use store::{Kinds, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: serve DIRECTORY ADDRESS REPOSITORY…";
    let directory = PathBuf::from(arguments.next().ok_or(usage)?);
    let listener = tokio::net::TcpListener::bind(arguments.next().ok_or(usage)?).await?;

    let kinds = Kinds::new().durable::<Repository>().durable::<Image>().durable::<ImageTag>().durable::<Layer>();
    let store = Store::open(store::embedded::open(&directory)?, kinds)?;
    let registry = Registry::open(&directory.join("blobs"), store.clone(), Clock::system())?;
    tokio::spawn(registry.clone().sweep_forever());

    let scope = Scope { account: "123456789012".parse()?, region: "us-east-1".parse()? };
    let key = AccessKey { access_key_id: "AKIAEXAMPLE".into(), secret_access_key: "secret".into() };
    let sealing = SealingKey::generate().and_then(|bytes| SealingKey::new(&bytes)).ok_or("no randomness")?;
    let authority = Arc::new(Authority::new(scope.account.clone(), key.clone(), key, sealing));
    for name in arguments {
        let repository = Repository {
            scope: scope.clone(),
            name,
            created: Clock::system().now(),
            mutability: Default::default(),
            tags: Default::default(),
            policy: None,
        };
        let put = |tx: &mut store::Transaction| {
            tx.put(repository);
            Ok::<_, String>(())
        };
        store.transact(put).await?;
    }
    let root = Principal::Root { account: scope.account.clone() };
    let token = authority.issue_registry_token(&root, &scope.account, Clock::system().now()).ok_or("no randomness")?;
    println!("{}", token.0);

    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let (registry, authority, scope) = (registry.clone(), authority.clone(), scope.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (registry, authority, default) = (registry.clone(), authority.clone(), scope.clone());
                async move {
                    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
                    let scope = registry::host_scope(host, &default);
                    Ok::<_, Infallible>(registry::handle(&registry, &authority, &scope, request).await)
                }
            });
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http1().max_buf_size(1 << 20);
            if let Err(error) = builder.serve_connection(TokioIo::new(connection), service).await {
                tracing::debug!(error, "a connection broke");
            }
        });
    }
}
