//! Tokens of pages. Clients take them as they are; what is inside is ours, and checked as any input is.

use telemetry::logs::{Direction, Position};
use wire::ServiceError;

use super::names::invalid;

/// Latest time that fits a token, in milliseconds: some year 33658.
pub(super) const MAX_TIME: i64 = 999_999_999_999_999;

/// The id of an event: 56 digits, as Amazon's are, in the order of time.
pub(super) fn event_id(position: Position) -> String {
    format!("3{:015}{:040}", position.timestamp.clamp(0, MAX_TIME), position.sequence)
}

fn position(id: &str) -> Option<Position> {
    if id.len() != 56 || !id.starts_with('3') || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Position { timestamp: id.get(1..16)?.parse().ok()?, sequence: id.get(16..)?.parse().ok()? })
}

fn unknown() -> ServiceError {
    invalid("The specified nextToken is invalid.")
}

/// A token of GetLogEvents, as Amazon's are: `f/{digits}/s` and `b/{digits}/s`.
pub(super) fn event_token(direction: Direction, gap: Position) -> String {
    let letter = match direction {
        Direction::Forward => 'f',
        Direction::Backward => 'b',
    };
    format!("{letter}/{}/s", event_id(gap))
}

/// The direction and the gap of a token of GetLogEvents.
pub(super) fn parse_event_token(token: &str) -> Result<(Direction, Position), ServiceError> {
    let (direction, id) = match token.split_at_checked(2) {
        Some(("f/", rest)) => (Direction::Forward, rest),
        Some(("b/", rest)) => (Direction::Backward, rest),
        _ => return Err(unknown()),
    };
    let gap = id.strip_suffix("/s").and_then(position).ok_or_else(unknown)?;
    Ok((direction, gap))
}

/// A token that carries text: hexadecimal digits, so that no client is tempted to read it.
pub(super) fn opaque(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of an opaque token.
pub(super) fn parse_opaque(token: &str) -> Result<String, ServiceError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = token.as_bytes().chunks(2).map(byte).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(unknown)
}

/// A token of FilterLogEvents: the same inside as that of GetLogEvents, but opaque.
pub(super) fn filter_token(direction: Direction, gap: Position) -> String {
    opaque(&event_token(direction, gap))
}

/// The direction and the gap of a token of FilterLogEvents.
pub(super) fn parse_filter_token(token: &str) -> Result<(Direction, Position), ServiceError> {
    parse_event_token(&parse_opaque(token)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_as_they_were_given() {
        for (timestamp, sequence) in [(0, 0), (1_763_849_000_123, 77), (MAX_TIME, u64::MAX)] {
            let gap = Position { timestamp, sequence };
            for direction in [Direction::Forward, Direction::Backward] {
                assert_eq!(parse_event_token(&event_token(direction, gap)).unwrap(), (direction, gap));
                assert_eq!(parse_filter_token(&filter_token(direction, gap)).unwrap(), (direction, gap));
            }
        }
        assert_eq!(event_id(Position::at(5)).len(), 56);
    }

    #[test]
    fn other_texts_are_refused() {
        let digits = "3".repeat(56);
        for token in ["", "f", "f/", "x/1/s", "f/123/s", &format!("f/{digits}/s"), &format!("f/{digits}"), "é/é", "zz"]
        {
            assert!(parse_event_token(token).is_err(), "{token}");
            assert!(parse_filter_token(token).is_err(), "{token}");
        }
    }
}
