//! PutLogEvents: checks a batch as Amazon does, and appends what is neither too old nor too new.

use std::time::Duration;

use api::logs::*;
use domain::{Timestamp, logs::LogGroup};
use telemetry::logs::{NewEvent, StreamKey};

use super::{
    Answer,
    names::{self, invalid, permission},
    unavailable,
};
use crate::Call;

/// Most bytes of a batch, counting each event's message and [`EVENT_BYTES`].
const BATCH_BYTES: usize = 1_048_576;
/// What an event counts beyond its message.
const EVENT_BYTES: usize = 26;
/// Events older than this are not taken.
const OLDEST: Duration = Duration::from_secs(14 * 86_400);
/// Events further in the future than this are not taken.
const NEWEST: Duration = Duration::from_secs(2 * 3_600);
/// The events of a batch must lie within this time.
const SPAN_MS: i64 = 24 * 3_600_000;

pub(super) async fn put(call: &Call, input: PutLogEventsRequest) -> Answer<PutLogEventsResponse> {
    let group_name = input.log_group_name.unwrap_or_default();
    let stream_name = input.log_stream_name.unwrap_or_default();
    let auth = call.authorise(&[permission(&call.scope, &group_name, &stream_name)])?;
    let events = input.log_events.unwrap_or_default();
    let events: Vec<NewEvent> = events
        .into_iter()
        .map(|event| NewEvent {
            timestamp: event.timestamp.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
        })
        .collect();
    check_batch(&events)?;
    let snapshot = auth.snapshot();
    let stream = names::stream(&snapshot, &call.scope, &group_name, &stream_name)?;
    let group = names::group(&snapshot, &call.scope, &group_name)?;
    let now = auth.now();
    let (accepted, rejected) = accept(events, &group, now)?;
    if !accepted.is_empty() {
        let key = StreamKey { group: stream.group_id, stream: stream.id };
        auth.platform().logs.append(key, now.millis(), accepted).await.map_err(|error| unavailable(&error))?;
    }
    Ok(PutLogEventsResponse {
        next_sequence_token: Some(sequence_token(stream.id, now)),
        rejected_log_events_info: rejected,
        // Events are not related to entities here. Amazon, too, refuses an entity without refusing the events.
        rejected_entity_info: input
            .entity
            .map(|_| RejectedEntityInfo { error_type: Some("UnsupportedLogGroupType".to_owned()) }),
    })
}

/// Refuses a batch that is too large or not in order.
fn check_batch(events: &[NewEvent]) -> Answer<()> {
    let largest = events.iter().map(|event| event.message.len()).max().unwrap_or(0);
    if largest > BATCH_BYTES {
        return Err(invalid(format!("Log event too large: {largest} bytes exceeds limit of {BATCH_BYTES}")));
    }
    let bytes: usize = events.iter().map(|event| event.message.len() + EVENT_BYTES).sum();
    if bytes > BATCH_BYTES {
        return Err(invalid(format!("Upload too large: {bytes} bytes exceeds limit of {BATCH_BYTES}")));
    }
    if !events.is_sorted_by_key(|event| event.timestamp) {
        return Err(invalid("Log events in a single PutLogEvents request must be in chronological order."));
    }
    Ok(())
}

/// The events whose times are acceptable, and where in the batch the others were.
fn accept(
    mut events: Vec<NewEvent>,
    group: &LogGroup,
    now: Timestamp,
) -> Answer<(Vec<NewEvent>, Option<RejectedLogEventsInfo>)> {
    let before = |time: Timestamp| events.partition_point(|event| event.timestamp < time.millis());
    let expired = group.expired_before(now).map_or(0, before);
    let too_old = before(now - OLDEST);
    let too_new = events.partition_point(|event| event.timestamp <= (now + NEWEST).millis());
    let index = |index: usize| i32::try_from(index).ok();
    let rejected = RejectedLogEventsInfo {
        too_new_log_event_start_index: index(too_new).filter(|_| too_new < events.len()),
        too_old_log_event_end_index: index(too_old).filter(|_| too_old > 0),
        expired_log_event_end_index: index(expired).filter(|_| expired > 0),
    };
    let any = too_new < events.len() || too_old.max(expired) > 0;
    events.truncate(too_new);
    events.drain(..too_old.max(expired).min(too_new));
    let span = events.first().zip(events.last()).map_or(0, |(first, last)| last.timestamp - first.timestamp);
    if span > SPAN_MS {
        let text = "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.";
        return Err(invalid(text));
    }
    Ok((events, any.then_some(rejected)))
}

/// The token that older clients hand on. It is ignored when it comes back, as it is by Amazon.
pub(super) fn sequence_token(stream: u64, now: Timestamp) -> String {
    format!("49{:014}{stream:040}", now.millis().max(0))
}

#[cfg(test)]
mod tests {
    use domain::Tags;

    use super::*;

    const HOUR: i64 = 3_600_000;
    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn group(retention_in_days: Option<u32>) -> LogGroup {
        LogGroup {
            scope: domain::Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() },
            name: "g".to_owned(),
            id: 1,
            created: NOW,
            retention_in_days,
            deletion_protected: false,
            tags: Tags::default(),
        }
    }

    /// Events at hours from now.
    fn events(hours: &[i64]) -> Vec<NewEvent> {
        let event = |hour: &i64| NewEvent { timestamp: NOW.millis() + hour * HOUR, message: "m".to_owned() };
        hours.iter().map(event).collect()
    }

    fn check(hours: &[i64], retention: Option<u32>, taken: usize, rejected: Option<[Option<i32>; 3]>) {
        let (accepted, info) = accept(events(hours), &group(retention), NOW).unwrap();
        assert_eq!(accepted.len(), taken, "{hours:?}");
        let info = info.map(|info| {
            [info.too_old_log_event_end_index, info.expired_log_event_end_index, info.too_new_log_event_start_index]
        });
        assert_eq!(info, rejected, "{hours:?}");
    }

    #[test]
    fn what_is_too_old_expired_or_too_new_is_rejected_by_index() {
        check(&[-1, 0, 2], None, 3, None);
        check(&[-15 * 24, 0, 3], None, 1, Some([Some(1), None, Some(2)]));
        check(&[-15 * 24, -48, 0], Some(1), 1, Some([Some(1), Some(2), None]));
        check(&[3, 4], None, 0, Some([None, None, Some(0)]));
        check(&[-400 * 24], None, 0, Some([Some(1), None, None]));
    }

    #[test]
    fn the_span_counts_only_what_is_taken() {
        check(&[-15 * 24, -24, 0], None, 2, Some([Some(1), None, None]));
        let error = accept(events(&[-25, 0]), &group(None), NOW).unwrap_err();
        assert!(error.message().contains("cannot span more than 24 hours"));
    }

    #[test]
    fn batches_are_bounded_and_in_order() {
        let event = |length: usize| NewEvent { timestamp: 0, message: "x".repeat(length) };
        assert!(check_batch(&[event(BATCH_BYTES - EVENT_BYTES)]).is_ok());
        let text = check_batch(&[event(BATCH_BYTES - EVENT_BYTES + 1)]).unwrap_err();
        assert_eq!(text.message(), "Upload too large: 1048577 bytes exceeds limit of 1048576");
        assert!(check_batch(&events(&[1, 0])).unwrap_err().message().contains("chronological order"));
    }
}
