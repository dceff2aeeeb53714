//! What an instance has printed. Volatile: `host` keeps it and tells it again.

use serde::{Deserialize, Serialize};

use crate::{Resource, Timestamp};

/// The end of an instance's console output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleOutput {
    /// `i-…`.
    pub instance_id: String,
    /// The last 64 KiB, base64.
    pub output: String,
    /// When it was reported.
    pub at: Timestamp,
}

impl Resource for ConsoleOutput {
    const KIND: &'static str = "ec2/console-output";
    fn key(&self) -> String {
        self.instance_id.clone()
    }
}
