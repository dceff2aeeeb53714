//! Accounts and regions: state is kept per account and region.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What is wrong with an account id or a region name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// An account id is twelve decimal digits.
    #[error("'{0}' is not an account id: it must have twelve digits")]
    Account(String),
    /// A region is a name such as `eu-west-1`.
    #[error("'{0}' is not a region name such as us-east-1")]
    Region(String),
}

/// An AWS account id: twelve decimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId(String);

/// A region name, e.g. `us-east-1`: lower-case letters, digits and dashes, ending in a digit. Any such name is accepted,
/// since a region comes into being when it is first used.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(String);

macro_rules! string_newtype {
    ($name:ident, $error:ident, $valid:expr) => {
        impl $name {
            /// The text as Amazon writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = ScopeError;
            fn from_str(text: &str) -> Result<Self, ScopeError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ScopeError::$error(text.chars().take(64).collect()))
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = ScopeError;
            fn try_from(text: String) -> Result<Self, ScopeError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

string_newtype!(AccountId, Account, |text| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()));
string_newtype!(Region, Region, |text| {
    (5..=32).contains(&text.len())
        && text.contains('-')
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
});

/// An account and a region together: where a regional resource lives.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Scope {
    /// The account that owns the resource.
    pub account: AccountId,
    /// The region it lives in.
    pub region: Region,
}

impl Scope {
    /// A store key for something that has its name within the region only: `{account}/{region}/{id}`.
    pub fn key(&self, id: &str) -> String {
        format!("{}/{}/{id}", self.account, self.region)
    }

    /// The prefix that every [`Scope::key`] of this scope has: `{account}/{region}/`.
    pub fn prefix(&self) -> String {
        format!("{}/{}/", self.account, self.region)
    }

    /// An ARN in this scope: `arn:aws:{service}:{region}:{account}:{resource}`.
    pub fn arn(&self, service: &str, resource: &str) -> crate::Arn {
        crate::Arn::regional(self, service, resource)
    }

    /// The three availability zones of the region, in order: `{region}a`, `{region}b`, `{region}c`.
    pub fn availability_zones(&self) -> [String; 3] {
        ["a", "b", "c"].map(|zone| format!("{}{zone}", self.region))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_ids_are_twelve_digits() {
        assert!("123456789012".parse::<AccountId>().is_ok());
        for wrong in ["", "12345678901", "1234567890123", "12345678901a"] {
            assert!(wrong.parse::<AccountId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn any_region_name_of_amazons_form_is_taken() {
        for right in ["us-east-1", "eu-west-1", "ap-southeast-12", "us-gov-west-1"] {
            assert!(right.parse::<Region>().is_ok(), "{right}");
        }
        for wrong in ["", "useast1", "us-east-", "US-EAST-1", "us/east-1", "../etc-1", "1-a-1"] {
            assert!(wrong.parse::<Region>().is_err(), "{wrong}");
        }
    }
}
