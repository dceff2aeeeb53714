//! Log streams: create, delete, describe.

use std::sync::Arc;

use api::logs::{LogStream as LogStreamShape, *};
use domain::logs::{LogGroup, LogStream, index_of};
use telemetry::logs::StreamKey;

use super::{
    Answer,
    groups::{new_id, refuse_protected},
    names::{self, invalid, no_stream, page, permission},
    put, tokens,
};
use crate::{Authorised, Call};

/// Streams on a page where no limit is given.
const PAGE: usize = 50;

pub(super) async fn create(call: &Call, input: CreateLogStreamRequest) -> Answer<()> {
    let group_name = input.log_group_name.unwrap_or_default();
    let name = input.log_stream_name.unwrap_or_default();
    let auth = call.authorise(&[permission(&call.scope, &group_name, &name)])?;
    let (id, created, scope) = (new_id(&mut auth.platform().ids()), auth.now(), call.scope.clone());
    let key = auth
        .transact(move |tx| {
            let group = names::group(tx, &scope, &group_name)?;
            if tx.contains::<LogStream>(&LogStream::key_of(&scope, &group_name, &name)) {
                return Err(error::resource_already_exists_exception("The specified log stream already exists"));
            }
            tx.put(LogStream { scope, group: group_name, group_id: group.id, name, id, created });
            Ok(StreamKey { group: group.id, stream: id })
        })
        .await?;
    auth.platform().logs.register(key);
    Ok(())
}

pub(super) async fn delete(call: &Call, input: DeleteLogStreamRequest) -> Answer<()> {
    let group_name = input.log_group_name.unwrap_or_default();
    let name = input.log_stream_name.unwrap_or_default();
    let auth = call.authorise(&[permission(&call.scope, &group_name, &name)])?;
    let scope = call.scope.clone();
    let id = auth
        .transact(move |tx| {
            refuse_protected(names::group(tx, &scope, &group_name)?.as_ref())?;
            let key = LogStream::key_of(&scope, &group_name, &name);
            let stream = tx.get::<LogStream>(&key).ok_or_else(no_stream)?;
            tx.delete::<LogStream>(&key);
            Ok(stream.id)
        })
        .await?;
    auth.platform().logs.forget(id);
    Ok(())
}

pub(super) fn describe(call: &Call, input: &DescribeLogStreamsRequest) -> Answer<DescribeLogStreamsResponse> {
    let name = names::named(call, input.log_group_name.as_deref(), input.log_group_identifier.as_deref())?;
    let auth = call.authorise(&[permission(&call.scope, &name, "")])?;
    let group = names::group(&auth.snapshot(), &call.scope, &name)?;
    let (streams, next_token) = if input.order_by.as_deref() == Some("LastEventTime") {
        if input.log_stream_name_prefix.is_some() {
            return Err(invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
        }
        by_last_event(&auth, &group, input)?
    } else {
        by_name(&auth, &group, input)?
    };
    let shapes = streams.iter().map(|stream| shape(&auth, stream)).collect();
    Ok(DescribeLogStreamsResponse { log_streams: Some(shapes), next_token })
}

type Page = (Vec<Arc<LogStream>>, Option<String>);

fn by_name(auth: &Authorised, group: &LogGroup, input: &DescribeLogStreamsRequest) -> Answer<Page> {
    let snapshot = auth.snapshot();
    let key = |name: &str| LogStream::key_of(&group.scope, &group.name, name);
    let prefix = key(input.log_stream_name_prefix.as_deref().unwrap_or(""));
    let token = input.next_token.as_deref().map(tokens::parse_opaque).transpose()?;
    let name = |stream: &Arc<LogStream>| stream.name.clone();
    let (streams, next) = if input.descending == Some(true) {
        let before = token.map(|name| key(&name));
        page(snapshot.list_before::<LogStream>(&prefix, before.as_deref()), input.limit, PAGE, name)
    } else {
        let after = token.map(|name| key(&name)).unwrap_or_default();
        page(snapshot.list_after::<LogStream>(&prefix, &after), input.limit, PAGE, name)
    };
    Ok((streams, next.map(|name| tokens::opaque(&name))))
}

fn by_last_event(auth: &Authorised, group: &LogGroup, input: &DescribeLogStreamsRequest) -> Answer<Page> {
    let snapshot = auth.snapshot();
    let after = match input.next_token.as_deref().map(tokens::parse_opaque).transpose()? {
        Some(text) => {
            let pair = text.split_once('/').and_then(|(time, id)| Some((time.parse().ok()?, id.parse().ok()?)));
            Some(pair.ok_or_else(|| invalid("The specified nextToken is invalid."))?)
        }
        None => None,
    };
    let descending = input.descending == Some(true);
    let limit = input.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE);
    let mut found = auth.platform().logs.streams_by_last_event(group.id, after, descending, limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(time, id)| tokens::opaque(&format!("{time}/{id}")));
    let streams = found.iter().filter_map(|(_, id)| snapshot.find::<LogStream>("id", index_of(*id)).next());
    Ok((streams.collect(), next))
}

fn shape(auth: &Authorised, stream: &LogStream) -> LogStreamShape {
    let stats = auth.platform().logs.stream_stats(stream.id);
    LogStreamShape {
        log_stream_name: Some(stream.name.clone()),
        creation_time: Some(stream.created.millis()),
        first_event_timestamp: stats.map(|stats| stats.first_event),
        last_event_timestamp: stats.map(|stats| stats.last_event),
        last_ingestion_time: stats.map(|stats| stats.last_ingestion),
        upload_sequence_token: Some(put::sequence_token(stream.id, auth.now())),
        arn: Some(stream.arn().to_string()),
        // Amazon tells the bytes of groups only.
        stored_bytes: Some(0),
    }
}
