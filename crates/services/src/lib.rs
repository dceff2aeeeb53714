//! Each AWS service's face: one module per service, one file per resource. A handler authorises, validates, and does
//! its work in one transaction.
//!
//! A handler can reach the platform only through [`Call::authorise`], so that none can forget to ask.

pub mod acm;
mod call;
pub mod ec2;
pub mod ecr;
pub mod ecs;
pub mod elb;
pub mod elbv2;
mod errors;
pub mod iam;
pub mod logs;
mod platform;
pub mod ssm;
pub mod sts;
#[cfg(test)]
mod testing;
mod x509;

pub use call::{Authorised, Call, Origin};
pub use errors::{access_denied, commit_failure};
pub use platform::{Options, Platform};
