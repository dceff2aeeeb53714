//! WebSocket tunnels: after both sides have switched protocols, bytes go through unseen until one side ends, the idle
//! timeout passes without a byte, or the target is gone.

use std::{rc::Rc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::client::Client;

/// Waits until both sides have switched and carries bytes between them.
pub async fn run(client: Rc<Client>, from_client: OnUpgrade, from_target: OnUpgrade) {
    let (Ok(near), Ok(far)) = (from_client.await, from_target.await) else { return };
    let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        () = silence(&client) => {}
    }
}

/// Ends when no byte has gone to or come from the client for the idle timeout.
async fn silence(client: &Client) {
    loop {
        let idle = client.worker.idle_timeout();
        let quiet = Duration::from_millis(client.activity.elapsed().saturating_sub(client.activity.last()));
        match idle.checked_sub(quiet) {
            Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
            _ => return,
        }
    }
}
