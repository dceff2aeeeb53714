//! GetLogEvents: one stream, page by page in both directions.

use api::logs::*;
use telemetry::logs::{Direction, Position, Query, Streams};

use super::{
    Answer,
    names::{self, permission},
    tokens::{MAX_TIME, event_token, parse_event_token},
    unavailable,
};
use crate::{Authorised, Call};

/// Most bytes of a page, counting each event's message and 26.
pub(super) const PAGE_BYTES: usize = 1 << 20;
/// Most events of a page, and how many where no limit is given.
pub(super) const PAGE_EVENTS: usize = 10_000;

pub(super) async fn get(call: &Call, input: &GetLogEventsRequest) -> Answer<GetLogEventsResponse> {
    let group_name = names::named(call, input.log_group_name.as_deref(), input.log_group_identifier.as_deref())?;
    let name = input.log_stream_name.as_deref().unwrap_or("");
    let auth = call.authorise(&[permission(&call.scope, &group_name, name)])?;
    allow_unmask(call, input.unmask, &group_name, name)?;
    let snapshot = auth.snapshot();
    let stream = names::stream(&snapshot, &call.scope, &group_name, name)?;
    let group = names::group(&snapshot, &call.scope, &group_name)?;
    let start = not_expired(&auth, &group, input.start_time);
    let end = input.end_time.unwrap_or(MAX_TIME).min(MAX_TIME);
    let (direction, gap) = match input.next_token.as_deref() {
        Some(token) => parse_event_token(token)?,
        None if input.start_from_head == Some(true) => (Direction::Forward, Position::at(start)),
        None => (Direction::Backward, Position::at(end)),
    };
    let query = Query {
        group: group.id,
        streams: Streams::Few(vec![stream.id]),
        direction,
        gap,
        start,
        end,
        matching: None,
        limit: limit(input.limit),
        bytes: PAGE_BYTES,
        // Every event that is looked at is returned, so the page itself is the bound.
        work: usize::MAX,
    };
    let mut events = auth.platform().logs.read(query).await.map_err(|error| unavailable(&error))?.events;
    if direction == Direction::Backward {
        events.reverse();
    }
    // An empty page leads on from where it was asked for; the first page of an empty stream from its beginning.
    let empty = if input.next_token.is_some() { gap } else { Position::at(start) };
    let forward = events.last().map_or(empty, |event| event.position.next());
    let backward = events.first().map_or(empty, |event| event.position);
    let shapes = events.into_iter().map(|event| OutputLogEvent {
        timestamp: Some(event.position.timestamp),
        message: Some(event.message),
        ingestion_time: Some(event.ingestion_time),
    });
    Ok(GetLogEventsResponse {
        events: Some(shapes.collect()),
        next_forward_token: Some(event_token(Direction::Forward, forward)),
        next_backward_token: Some(event_token(Direction::Backward, backward)),
    })
}

/// Nothing is ever masked here, so showing it unmasked takes only the permission.
pub(super) fn allow_unmask(call: &Call, unmask: Option<bool>, group: &str, stream: &str) -> Answer<()> {
    match unmask {
        Some(true) => call.authorise_action("logs:Unmask", &[permission(&call.scope, group, stream)]),
        _ => Ok(()),
    }
}

/// The first millisecond to show: expired events are gone for callers before their space is given back.
pub(super) fn not_expired(auth: &Authorised, group: &domain::logs::LogGroup, start: Option<i64>) -> i64 {
    let expired = group.expired_before(auth.now()).map_or(0, |time| time.millis());
    start.unwrap_or(0).max(expired).clamp(0, MAX_TIME)
}

pub(super) fn limit(limit: Option<i32>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE_EVENTS).min(PAGE_EVENTS)
}
