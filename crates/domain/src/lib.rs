//! The nouns of the platform and their rules: accounts, regions, ARNs, identifiers, time, tags, and one module for
//! each family of resources. Pure: no I/O, no clock reads other than through [`Clock`], no API shapes.
//!
//! A resource is stored by implementing [`Resource`]; the `store` crate does the rest.

pub mod agent_protocol;
pub mod arn;
pub mod balancing;
pub mod certificates;
pub mod ecs;
pub mod id;
pub mod identity;
pub mod instances;
pub mod logs;
pub mod network;
pub mod repositories;
pub mod resource;
pub mod scope;
pub mod tags;
pub mod time;

pub use arn::{Arn, ArnError};
pub use id::IdSource;
pub use resource::Resource;
pub use scope::{AccountId, Region, Scope, ScopeError};
pub use tags::{Tag, Tags};
pub use time::{Clock, Timestamp};
