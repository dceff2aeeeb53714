//! Learning what changed: keys only, since what a reconciler does depends on the state, not on the event.

use std::sync::Arc;

use tokio::sync::broadcast;

/// A resource that was written or removed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// The resource's kind.
    pub kind: &'static str,
    /// The resource's key.
    pub key: String,
}

/// What a [`Watch`] gives.
#[derive(Debug, Clone)]
pub enum Changes {
    /// These keys changed, and the snapshots taken from now on show it.
    Keys(Arc<[Change]>),
    /// What changed is not known, be it that more changed than was kept for this watch: look at everything again.
    Lagged,
}

/// Follows the store from the moment it was made.
pub struct Watch(pub(crate) broadcast::Receiver<Changes>);

impl Watch {
    /// The next changes; `None` when the store is gone.
    pub async fn next(&mut self) -> Option<Changes> {
        match self.0.recv().await {
            Ok(changes) => Some(changes),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Changes::Lagged),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
