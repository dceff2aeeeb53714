//! The agent's calls to the platform's own AWS services: ECS as the instance, ECR and CloudWatch Logs as a task's
//! execution role.

mod calls;
mod client;
pub mod credentials;
pub mod tls;

pub use client::{CallError, Client, Endpoint, now, patiently, role_keys};
