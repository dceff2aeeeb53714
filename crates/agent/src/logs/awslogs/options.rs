//! The options of the `awslogs` driver, checked by name as Docker's driver and Amazon's API check them.

use std::collections::BTreeMap;

use regex::Regex;
use runtime::{LogLimits, WhenFull};

/// What is buffered in non-blocking mode when the definition does not say.
const DEFAULT_BUFFER: u64 = 10 << 20;
/// What is spooled in blocking mode before the container has to wait.
const BLOCKING_SPOOL: u64 = 4 << 20;
/// The runtime's own least.
const LEAST_BUFFER: u64 = 256 << 10;

/// How a container's lines are delivered.
#[derive(Debug, Clone)]
pub struct Options {
    /// The log group.
    pub group: String,
    /// Its region, if the definition names one.
    pub region: Option<String>,
    /// First part of the stream's name.
    pub stream_prefix: Option<String>,
    /// Whether a missing group is created.
    pub create_group: bool,
    /// Whether a container that is too fast waits; else its lines are dropped.
    pub blocking: bool,
    /// Bytes spooled.
    pub buffer_bytes: u64,
    /// What the first line of an event of several lines looks like.
    pub first_line: Option<Regex>,
}

/// Why the options are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OptionError {
    /// An option the driver does not have.
    #[error("unknown log opt '{0}' for awslogs log driver")]
    Unknown(String),
    /// The group is required.
    #[error("must specify a value for log opt 'awslogs-group'")]
    NoGroup,
    /// These two say the same thing in two ways.
    #[error("you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time")]
    TwoPatterns,
    /// A value that cannot be read.
    #[error("invalid value for log opt '{option}': {value}")]
    Invalid {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
    },
}

impl Options {
    /// Reads the options of a container whose driver is `awslogs`.
    pub fn new(given: &BTreeMap<String, String>) -> Result<Options, OptionError> {
        let mut options = Options {
            group: String::new(),
            region: None,
            stream_prefix: None,
            create_group: false,
            blocking: false,
            buffer_bytes: DEFAULT_BUFFER,
            first_line: None,
        };
        for (name, value) in given {
            match name.as_str() {
                "awslogs-group" => options.group.clone_from(value),
                "awslogs-region" => options.region = Some(value.clone()),
                "awslogs-stream-prefix" => options.stream_prefix = Some(value.clone()),
                "awslogs-create-group" => options.create_group = boolean("awslogs-create-group", value)?,
                "mode" => {
                    options.blocking = match value.as_str() {
                        "blocking" => true,
                        "non-blocking" => false,
                        _ => return Err(invalid("mode", value)),
                    }
                }
                "max-buffer-size" => {
                    options.buffer_bytes =
                        size(value).ok_or_else(|| invalid("max-buffer-size", value))?.max(LEAST_BUFFER);
                }
                "awslogs-multiline-pattern" => {
                    let pattern = Regex::new(value).map_err(|_| invalid("awslogs-multiline-pattern", value))?;
                    if options.first_line.replace(pattern).is_some() {
                        return Err(OptionError::TwoPatterns);
                    }
                }
                "awslogs-datetime-format" => {
                    let pattern =
                        Regex::new(&datetime_pattern(value)).map_err(|_| invalid("awslogs-datetime-format", value))?;
                    if options.first_line.replace(pattern).is_some() {
                        return Err(OptionError::TwoPatterns);
                    }
                }
                _ => return Err(OptionError::Unknown(name.clone())),
            }
        }
        if options.group.is_empty() {
            return Err(OptionError::NoGroup);
        }
        if options.blocking {
            options.buffer_bytes = BLOCKING_SPOOL;
        }
        Ok(options)
    }

    /// What the runtime keeps until it is delivered.
    pub fn spool(&self) -> LogLimits {
        let when_full = if self.blocking { WhenFull::Block } else { WhenFull::Drop };
        LogLimits { limit_bytes: self.buffer_bytes, when_full }
    }

    /// The options as Docker's driver takes them: with the stream that the prefix has become.
    pub fn shown(&self, given: &BTreeMap<String, String>, stream: &str) -> BTreeMap<String, String> {
        let mut shown = given.clone();
        shown.remove("awslogs-stream-prefix");
        shown.insert("awslogs-stream".to_owned(), stream.to_owned());
        shown
    }

    /// `prefix/container/task-id`, and without a prefix the container's id, as Docker names streams.
    pub fn stream(&self, container: &str, task_id: &str, runtime_id: &str) -> String {
        match &self.stream_prefix {
            Some(prefix) => format!("{prefix}/{container}/{task_id}"),
            None => runtime_id.to_owned(),
        }
    }
}

fn invalid(option: &'static str, value: &str) -> OptionError {
    OptionError::Invalid { option, value: value.to_owned() }
}

fn boolean(option: &'static str, value: &str) -> Result<bool, OptionError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid(option, value)),
    }
}

/// `25m`, `512k`, `1g`, `1048576`: powers of 1024.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches('b');
    let (digits, shift) = match number.chars().last()? {
        'k' => (number.strip_suffix('k')?, 10),
        'm' => (number.strip_suffix('m')?, 20),
        'g' => (number.strip_suffix('g')?, 30),
        _ => (number, 0),
    };
    let value: f64 = digits.trim().parse().ok()?;
    let bytes = value * f64::from(1u32 << shift);
    // A terabyte of log buffer is a typing error.
    (1.0..1e12).contains(&bytes).then_some(bytes as u64)
}

/// A strftime format as a regular expression that finds such a time anywhere in a line.
fn datetime_pattern(format: &str) -> String {
    let mut pattern = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            pattern.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
            continue;
        }
        pattern.push_str(match characters.next() {
            Some('A') => "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day",
            Some('a') => "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
            Some('B') => "(?:January|February|March|April|May|June|July|August|September|October|November|December)",
            Some('b') => "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
            Some('d') => "(?:0[1-9]|[12][0-9]|3[01])",
            Some('f') => "[0-9]{1,9}",
            Some('H') => "(?:[01][0-9]|2[0-3])",
            Some('I') => "(?:0[1-9]|1[0-2])",
            Some('j') => "(?:[0-2][0-9]{2}|3[0-6][0-9])",
            Some('L') => r"\.[0-9]{3}",
            Some('m') => "(?:0[1-9]|1[0-2])",
            Some('M' | 'S') => "[0-5][0-9]",
            Some('p') => "[AP]M",
            Some('U' | 'W') => "(?:[0-4][0-9]|5[0-3])",
            Some('w') => "[0-6]",
            Some('Y') => "[0-9]{4}",
            Some('y') => "[0-9]{2}",
            Some('Z') => "[A-Z]{1,4}T",
            Some('z') => r"[+-][0-9]{4}",
            _ => "%",
        });
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Options, OptionError> {
        let group = [("awslogs-group", "g")];
        let given = group.iter().chain(pairs).map(|(name, value)| ((*name).into(), (*value).into()));
        Options::new(&given.collect())
    }

    #[test]
    fn todays_defaults_are_amazons() {
        let options = options(&[]).expect("fine");
        assert!(!options.blocking && !options.create_group);
        assert_eq!(options.buffer_bytes, 10 << 20);
        assert_eq!(options.stream("web", "0a1b", "0a1b-42"), "0a1b-42");
    }

    #[test]
    fn a_stream_is_named_after_prefix_container_and_task() {
        let options = options(&[("awslogs-stream-prefix", "ecs")]).expect("fine");
        assert_eq!(options.stream("web", "0a1b", "0a1b-42"), "ecs/web/0a1b");
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        assert_eq!(options(&[("tag", "x")]).err(), Some(OptionError::Unknown("tag".into())));
        assert_eq!(options(&[("mode", "lossy")]).err(), Some(invalid("mode", "lossy")));
        assert_eq!(options(&[("max-buffer-size", "much")]).err(), Some(invalid("max-buffer-size", "much")));
        assert_eq!(
            options(&[("awslogs-multiline-pattern", "(")]).err(),
            Some(invalid("awslogs-multiline-pattern", "("))
        );
        let both = [("awslogs-multiline-pattern", "^a"), ("awslogs-datetime-format", "%Y")];
        assert_eq!(options(&both).err(), Some(OptionError::TwoPatterns));
        assert_eq!(Options::new(&BTreeMap::new()).err(), Some(OptionError::NoGroup));
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("25m", Some(25 << 20)),
            ("1g", Some(1 << 30)),
            ("2048", Some(2048)),
            ("4kb", Some(4096)),
            ("-1m", None),
            ("m", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn a_datetime_format_finds_first_lines() {
        let pattern = Regex::new(&datetime_pattern("[%b %d, %Y %H:%M:%S]")).expect("a pattern");
        assert!(pattern.is_match("[May 01, 2017 19:00:01] A message"));
        assert!(!pattern.is_match("[May 41, 2017 19:00:01] A message"));
        assert!(!pattern.is_match("    at com.example.Main"));
    }
}
