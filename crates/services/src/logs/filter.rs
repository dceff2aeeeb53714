//! FilterLogEvents: the streams of a group, interleaved by time; and TestMetricFilter.

use std::{collections::HashMap, sync::Arc};

use api::logs::*;
use domain::logs::{LogGroup, LogStream, index_of};
use store::Snapshot;
use telemetry::{
    Pattern,
    logs::{Direction, Position, Query, Streams},
};

use super::{
    Answer,
    events::{PAGE_BYTES, allow_unmask, limit, not_expired},
    names::{self, invalid, no_stream, permission},
    tokens::{MAX_TIME, event_id, filter_token, parse_filter_token},
    unavailable,
};
use crate::Call;

/// Most bytes of events that are looked at for one page; a page with nothing found in them is empty and not the last.
const WORK_BYTES: usize = 32 << 20;
/// Up to this many streams are each read through their own index.
const FEW: usize = 100;

pub(super) async fn filter(call: &Call, input: FilterLogEventsRequest) -> Answer<FilterLogEventsResponse> {
    let name = names::named(call, input.log_group_name.as_deref(), input.log_group_identifier.as_deref())?;
    let auth = call.authorise(&[permission(&call.scope, &name, "")])?;
    allow_unmask(call, input.unmask, &name, "")?;
    let pattern = pattern(input.filter_pattern.as_deref().unwrap_or(""))?;
    let snapshot = auth.snapshot();
    let group = names::group(&snapshot, &call.scope, &name)?;
    let start = not_expired(&auth, &group, input.start_time);
    // The end is still wanted here, unlike in GetLogEvents.
    let end = input.end_time.unwrap_or(MAX_TIME).min(MAX_TIME - 1).saturating_add(1);
    let (direction, gap) = match input.next_token.as_deref() {
        Some(token) => parse_filter_token(token)?,
        None if input.start_from_head == Some(false) => (Direction::Backward, Position::at(end)),
        None => (Direction::Forward, Position::at(start)),
    };
    let query = Query {
        group: group.id,
        streams: streams(&snapshot, &group, &input)?,
        direction,
        gap,
        start,
        end,
        matching: pattern.map(Arc::new),
        limit: limit(input.limit),
        bytes: PAGE_BYTES,
        work: WORK_BYTES,
    };
    let page = auth.platform().logs.read(query).await.map_err(|error| unavailable(&error))?;
    let mut names: HashMap<u64, Option<String>> = HashMap::new();
    let mut name_of = |id: u64| {
        let find = || snapshot.find::<LogStream>("id", index_of(id)).next().map(|stream| stream.name.clone());
        names.entry(id).or_insert_with(find).clone()
    };
    let events = page.events.into_iter().filter_map(|event| {
        // Without a name it is what a deleted stream left behind.
        let log_stream_name = Some(name_of(event.stream)?);
        Some(FilteredLogEvent {
            log_stream_name,
            timestamp: Some(event.position.timestamp),
            message: Some(event.message),
            ingestion_time: Some(event.ingestion_time),
            event_id: Some(event_id(event.position)),
        })
    });
    Ok(FilterLogEventsResponse {
        events: Some(events.collect()),
        // Always empty, as Amazon's has been since 2020.
        searched_log_streams: Some(Vec::new()),
        next_token: (!page.exhausted).then(|| filter_token(direction, page.resume)),
    })
}

fn streams(snapshot: &Snapshot, group: &LogGroup, input: &FilterLogEventsRequest) -> Answer<Streams> {
    match (&input.log_stream_names, &input.log_stream_name_prefix) {
        (None, None) => Ok(Streams::All),
        (Some(_), Some(_)) => Err(invalid("Only one of logStreamNames and logStreamNamePrefix can be specified.")),
        (Some(names), None) => {
            let id = |name: &String| {
                let key = LogStream::key_of(&group.scope, &group.name, name);
                snapshot.get::<LogStream>(&key).map(|stream| stream.id).ok_or_else(no_stream)
            };
            let mut ids = names.iter().map(id).collect::<Answer<Vec<u64>>>()?;
            ids.sort_unstable();
            ids.dedup();
            Ok(Streams::Few(ids))
        }
        (None, Some(prefix)) => {
            let prefix = LogStream::key_of(&group.scope, &group.name, prefix);
            let ids: Vec<u64> = snapshot.list::<LogStream>(&prefix).map(|stream| stream.id).collect();
            Ok(if ids.len() <= FEW { Streams::Few(ids) } else { Streams::Among(Arc::new(ids.into_iter().collect())) })
        }
    }
}

/// A pattern, or none where everything matches.
fn pattern(text: &str) -> Answer<Option<Pattern>> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    Pattern::parse(text).map(Some).map_err(|error| invalid(error.to_string()))
}

pub(super) fn test(call: &Call, input: TestMetricFilterRequest) -> Answer<TestMetricFilterResponse> {
    call.authorise::<&str>(&[])?;
    let pattern = Pattern::parse(input.filter_pattern.as_deref().unwrap_or(""));
    let pattern = pattern.map_err(|error| invalid(error.to_string()))?;
    let messages = input.log_event_messages.unwrap_or_default();
    let matches = messages.into_iter().zip(1..).filter_map(|(message, number)| {
        let values = pattern.extract(&message)?;
        Some(MetricFilterMatchRecord {
            event_number: Some(number),
            event_message: Some(message),
            extracted_values: Some(values),
        })
    });
    Ok(TestMetricFilterResponse { matches: Some(matches.collect()) })
}
