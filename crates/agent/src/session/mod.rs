//! The agent's two WebSocket sessions: ACS (what to run) and TCS (telemetry).
//!
//! Mirrors Amazon's agent: header-signed handshake, text frames, reconnection at once after an orderly close and with
//! a growing pause otherwise, an own close after half an hour, and giving up on a silent server.

pub mod acs;
#[cfg(test)]
mod acs_tests;
mod backoff;
mod connection;
pub mod status;
pub mod tcs;

pub use backoff::Backoff;
pub use connection::{Connection, Ended, Refused, Target};
