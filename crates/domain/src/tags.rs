//! Resource tags: ordered key–value pairs with Amazon's limits.

use serde::{Deserialize, Serialize};

/// One tag.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tag {
    /// 1 to 128 characters, unique within the resource; not starting with `aws:`.
    pub key: String,
    /// 0 to 256 characters.
    pub value: String,
}

/// The tags of one resource, in the order they were added. At most [`Tags::MAX`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(Vec<Tag>);

/// Why tags are refused. The texts are generic: each service has its own error code for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// More tags than a resource can have.
    #[error("The number of tags exceeds the limit of {} tags per resource.", Tags::MAX)]
    TooMany,
    /// A key that is empty or too long.
    #[error("Tag keys must have between 1 and 128 characters.")]
    Key,
    /// A value that is too long.
    #[error("Tag values must have at most 256 characters.")]
    Value,
    /// A key in Amazon's own name space.
    #[error("Tag keys cannot start with the reserved prefix aws:")]
    Reserved,
    /// The same key twice in one request.
    #[error("Duplicate tag keys are not allowed: {0}")]
    Duplicate(String),
}

impl Tags {
    /// The most tags a resource can have.
    pub const MAX: usize = 50;

    /// Tags from a request: refuses what Amazon refuses.
    pub fn from_request(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, TagError> {
        let mut tags = Self::default();
        for (key, value) in pairs {
            if tags.get(&key).is_some() {
                return Err(TagError::Duplicate(key));
            }
            tags.set(key, value)?;
        }
        Ok(tags)
    }

    /// Adds a tag or replaces its value.
    pub fn set(&mut self, key: String, value: String) -> Result<(), TagError> {
        if key.is_empty() || key.chars().count() > 128 {
            return Err(TagError::Key);
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(TagError::Reserved);
        }
        if value.chars().count() > 256 {
            return Err(TagError::Value);
        }
        self.set_unchecked(key, value);
        if self.0.len() > Self::MAX { Err(TagError::TooMany) } else { Ok(()) }
    }

    /// Adds a tag that the platform itself sets, e.g. `aws:ecs:serviceName`.
    pub fn set_unchecked(&mut self, key: String, value: String) {
        match self.0.iter_mut().find(|tag| tag.key == key) {
            Some(tag) => tag.value = value,
            None => self.0.push(Tag { key, value }),
        }
    }

    /// Removes a tag, if it is there.
    pub fn remove(&mut self, key: &str) {
        self.0.retain(|tag| tag.key != key);
    }

    /// The value of a tag.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }

    /// All tags in order.
    pub fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(count: usize) -> Vec<(String, String)> {
        (0..count).map(|n| (format!("k{n}"), String::new())).collect()
    }

    #[test]
    fn limits_are_amazons() {
        assert!(Tags::from_request(pairs(50)).is_ok());
        assert_eq!(Tags::from_request(pairs(51)), Err(TagError::TooMany));
        assert_eq!(Tags::from_request([("aws:x".into(), String::new())]), Err(TagError::Reserved));
        assert_eq!(Tags::from_request([(String::new(), String::new())]), Err(TagError::Key));
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert_eq!(Tags::from_request(twice), Err(TagError::Duplicate("a".into())));
    }
}
