//! CloudWatch Logs' face: log groups, log streams, their events, and the test of filter patterns.
//!
//! Names and settings are in the store; events are in `telemetry`, under numbers that the store's log groups and
//! streams carry. Metric filters, subscriptions, queries and resource policies are not served yet.
//! <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/>

mod events;
mod filter;
mod groups;
mod names;
mod put;
mod streams;
mod tags;
mod tokens;

use std::{sync::Arc, time::Duration};

use api::logs::*;
use domain::logs::{LogGroup, LogStream, index_of};
use store::Kinds;
use telemetry::logs::{Keep, LogError, Reclaimed, StreamKey};
use wire::ServiceError;

use crate::{Call, Platform};

/// The service.
pub struct Logs;

/// The kinds of resources that this service stores.
pub fn kinds(kinds: Kinds) -> Kinds {
    kinds.durable::<LogGroup>().durable::<LogStream>()
}

type Answer<T> = Result<T, ServiceError>;

/// How often space is given back.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// Gives back the space of expired events, and of deleted groups and streams, every few minutes. Never ends.
pub async fn expire_forever(platform: Arc<Platform>) {
    for stream in platform.store.snapshot().list::<LogStream>("") {
        platform.logs.register(StreamKey { group: stream.group_id, stream: stream.id });
    }
    loop {
        match expire(platform.clone()).await {
            Ok(Reclaimed { segments: 0, .. }) => {}
            Ok(reclaimed) => tracing::info!(?reclaimed, "space of expired log events was given back"),
            Err(error) => tracing::warn!(%error, "space of expired log events could not be given back"),
        }
        tokio::time::sleep(platform.clock.real(EXPIRE_EVERY)).await;
    }
}

/// Gives back the space of what has expired or was deleted.
pub async fn expire(platform: Arc<Platform>) -> Result<Reclaimed, LogError> {
    let logs = platform.logs.clone();
    let keep = move |key: StreamKey| {
        // Newest state each time: a stream made after an older snapshot must not look deleted.
        let snapshot = platform.store.snapshot();
        if snapshot.find::<LogStream>("id", index_of(key.stream)).next().is_none() {
            return Keep::Nothing;
        }
        match snapshot.find::<LogGroup>("id", index_of(key.group)).next() {
            None => Keep::Nothing,
            Some(group) => match group.expired_before(platform.clock.now()) {
                Some(time) => Keep::Since(time.millis()),
                None => Keep::Everything,
            },
        }
    };
    logs.reclaim(keep).await
}

/// What callers learn when the disk fails; the cause is in the log.
fn unavailable(error: &LogError) -> ServiceError {
    tracing::error!(%error, "log events");
    error::service_unavailable_exception("The service is unavailable. Please try again.")
}

impl api::logs::Logs for Logs {
    type Call = Call;

    async fn create_log_group(&self, call: Call, input: CreateLogGroupRequest) -> Answer<()> {
        groups::create(&call, input).await
    }
    async fn delete_log_group(&self, call: Call, input: DeleteLogGroupRequest) -> Answer<()> {
        groups::delete(&call, input).await
    }
    async fn describe_log_groups(
        &self,
        call: Call,
        input: DescribeLogGroupsRequest,
    ) -> Answer<DescribeLogGroupsResponse> {
        groups::describe(&call, &input)
    }
    async fn list_log_groups(&self, call: Call, input: ListLogGroupsRequest) -> Answer<ListLogGroupsResponse> {
        groups::list(&call, &input)
    }
    async fn put_retention_policy(&self, call: Call, input: PutRetentionPolicyRequest) -> Answer<()> {
        groups::put_retention(&call, input).await
    }
    async fn delete_retention_policy(&self, call: Call, input: DeleteRetentionPolicyRequest) -> Answer<()> {
        groups::delete_retention(&call, input).await
    }
    async fn put_log_group_deletion_protection(
        &self,
        call: Call,
        input: PutLogGroupDeletionProtectionRequest,
    ) -> Answer<()> {
        groups::put_deletion_protection(&call, input).await
    }
    async fn create_log_stream(&self, call: Call, input: CreateLogStreamRequest) -> Answer<()> {
        streams::create(&call, input).await
    }
    async fn delete_log_stream(&self, call: Call, input: DeleteLogStreamRequest) -> Answer<()> {
        streams::delete(&call, input).await
    }
    async fn describe_log_streams(
        &self,
        call: Call,
        input: DescribeLogStreamsRequest,
    ) -> Answer<DescribeLogStreamsResponse> {
        streams::describe(&call, &input)
    }
    async fn put_log_events(&self, call: Call, input: PutLogEventsRequest) -> Answer<PutLogEventsResponse> {
        put::put(&call, input).await
    }
    async fn get_log_events(&self, call: Call, input: GetLogEventsRequest) -> Answer<GetLogEventsResponse> {
        events::get(&call, &input).await
    }
    async fn filter_log_events(&self, call: Call, input: FilterLogEventsRequest) -> Answer<FilterLogEventsResponse> {
        filter::filter(&call, input).await
    }
    async fn test_metric_filter(&self, call: Call, input: TestMetricFilterRequest) -> Answer<TestMetricFilterResponse> {
        filter::test(&call, input)
    }
    async fn tag_resource(&self, call: Call, input: TagResourceRequest) -> Answer<()> {
        tags::tag_resource(&call, input).await
    }
    async fn untag_resource(&self, call: Call, input: UntagResourceRequest) -> Answer<()> {
        tags::untag_resource(&call, input).await
    }
    async fn list_tags_for_resource(
        &self,
        call: Call,
        input: ListTagsForResourceRequest,
    ) -> Answer<ListTagsForResourceResponse> {
        tags::list_for_resource(&call, &input)
    }
    async fn tag_log_group(&self, call: Call, input: TagLogGroupRequest) -> Answer<()> {
        tags::tag_group(&call, input).await
    }
    async fn untag_log_group(&self, call: Call, input: UntagLogGroupRequest) -> Answer<()> {
        tags::untag_group(&call, input).await
    }
    async fn list_tags_log_group(
        &self,
        call: Call,
        input: ListTagsLogGroupRequest,
    ) -> Answer<ListTagsLogGroupResponse> {
        tags::list_for_group(&call, &input)
    }
}
