//! Who is calling, and whether they may: principals, session credentials, registry tokens, and the one seam through
//! which every operation passes ([`authorise`]).
//!
//! Policies are stored by the `iam` face in `services`; deciding by them is a later step that changes [`authorise`]
//! and nothing around it. Until then every principal of an account may do everything in that account, and nothing in
//! another one.

mod authenticate;
mod authorise;
mod identity_document;
mod principal;
mod seal;
mod sessions;
pub mod tokens;

pub use authenticate::{AccessKey, AuthenticationError, Authority, FARGATE_HOST, SecretAccessKey};
pub use authorise::{Denied, authorise};
pub use principal::Principal;
pub use seal::SealingKey;
pub use sessions::{Credentials, SessionError};
pub use tokens::TokenError;
