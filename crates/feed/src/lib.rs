//! Following one's own slice of desired state over a Unix socket.
//!
//! The server is the [`Publisher`]: for each consumer (`host`, `balancer/{arn}`) it holds the newest slice, a map from
//! keys to JSON items. A consumer is a [`Follower`]: it gets the whole slice, then what changes, acknowledges the
//! revision it has acted upon, keeps the last slice on disk so that it starts without the server, and sends reports
//! back, each again until the server has confirmed it.
//!
//! Nothing queues. The publisher keeps one item per key with the revision at which it changed, and sends each
//! connection what is newer than what that connection has; a consumer that reads slowly gets fewer, larger steps.
//!
//! [`sockets`] is the other thing two processes of the platform hand each other: listening sockets. What the items
//! mean is not known here: see `domain::network::host` and the balancer.

mod cache;
mod follower;
mod message;
mod publisher;
mod slice;
pub mod sockets;

pub use follower::{FollowOptions, Follower};
pub use publisher::{ConsumerStatus, IncomingReport, PublishError, Publisher};
pub use slice::Slice;

/// The longest line either side takes, in bytes.
pub const MAX_LINE: usize = 4 << 20;

/// The longest key and the longest consumer name, in bytes.
pub const MAX_KEY: usize = 1024;
