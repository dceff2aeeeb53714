//! The fuzzing entry points on random and on slightly broken bytes: no panic, no endless work.

use api::ecs::operation::{DESCRIBE_TASKS, REGISTER_TASK_DEFINITION};
use http::HeaderMap;
use proptest::prelude::*;
use wire::{Operation, Protocol, Reflect, Timestamp, exchange, fuzz};

/// An operation with nested structures in each protocol, an empty input for it, and an honest body.
fn subjects() -> Vec<(&'static Operation, Protocol, fn() -> Box<dyn Reflect>, Vec<u8>)> {
    use api::{autoscaling, cloudwatch, ec2, ecs, efs};
    let definition = ecs::RegisterTaskDefinitionRequest {
        family: Some("web".to_owned()),
        container_definitions: Some(vec![ecs::ContainerDefinition {
            name: Some("a".to_owned()),
            memory: Some(128),
            environment: Some(vec![ecs::KeyValuePair { name: Some("K".to_owned()), value: Some("é".to_owned()) }]),
            docker_labels: Some([("k".to_owned(), "v".to_owned())].into()),
            ..Default::default()
        }]),
        ..Default::default()
    };
    let metrics = cloudwatch::PutMetricDataInput {
        namespace: Some("N".to_owned()),
        metric_data: Some(vec![cloudwatch::MetricDatum {
            metric_name: Some("m".to_owned()),
            timestamp: Some(Timestamp(1_700_000_000_120)),
            value: Some(-1.5),
            counts: Some(vec![1.0, 2.0]),
            ..Default::default()
        }]),
        ..Default::default()
    };
    let group = autoscaling::CreateOrUpdateTagsType {
        tags: Some(vec![autoscaling::Tag { key: Some("k".to_owned()), ..Default::default() }]),
    };
    let filters = ec2::DescribeVpcsRequest {
        vpc_ids: Some(vec!["vpc-1".to_owned()]),
        filters: Some(vec![ec2::Filter { name: Some("n".to_owned()), values: Some(vec!["v".to_owned()]) }]),
        ..Default::default()
    };
    let access_point = efs::CreateAccessPointRequest { client_token: Some("t".to_owned()), ..Default::default() };
    let put = &cloudwatch::operation::PUT_METRIC_DATA;
    let body =
        |operation, protocol, input: &dyn Reflect| exchange::encode_request(operation, protocol, input).into_body();
    vec![
        (
            &REGISTER_TASK_DEFINITION,
            Protocol::Json11,
            || Box::new(ecs::RegisterTaskDefinitionRequest::default()),
            body(&REGISTER_TASK_DEFINITION, Protocol::Json11, &definition),
        ),
        (
            put,
            Protocol::Cbor,
            || Box::new(cloudwatch::PutMetricDataInput::default()),
            body(put, Protocol::Cbor, &metrics),
        ),
        (
            &autoscaling::operation::CREATE_OR_UPDATE_TAGS,
            Protocol::Query,
            || Box::new(autoscaling::CreateOrUpdateTagsType::default()),
            body(&autoscaling::operation::CREATE_OR_UPDATE_TAGS, Protocol::Query, &group),
        ),
        (
            &ec2::operation::DESCRIBE_VPCS,
            Protocol::Ec2,
            || Box::new(ec2::DescribeVpcsRequest::default()),
            body(&ec2::operation::DESCRIBE_VPCS, Protocol::Ec2, &filters),
        ),
        (
            &efs::operation::CREATE_ACCESS_POINT,
            Protocol::RestJson,
            || Box::new(efs::CreateAccessPointRequest::default()),
            body(&efs::operation::CREATE_ACCESS_POINT, Protocol::RestJson, &access_point),
        ),
    ]
}

#[test]
fn honest_bodies_are_accepted() {
    for (operation, protocol, make, body) in subjects() {
        let mut input = make();
        fuzz::decode(operation, protocol, &body, &mut *input);
        let again = exchange::encode_request(operation, protocol, &*input).into_body();
        assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&body), "{}", operation.name);
    }
}

proptest! {
    #[test]
    fn random_bodies_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (operation, protocol, make, _) in subjects() {
            fuzz::decode(operation, protocol, &bytes, &mut *make());
        }
        for media in ["application/x-amz-json-1.1", "application/cbor", "text/xml"] {
            fuzz::decode_answer(&DESCRIBE_TASKS, media, &bytes, &mut api::ecs::DescribeTasksResponse::default());
        }
    }

    #[test]
    fn broken_bodies_do_no_harm(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        for (operation, protocol, make, mut body) in subjects() {
            let at = at.index(body.len());
            body[at] = byte;
            if cut {
                body.truncate(at);
            }
            fuzz::decode(operation, protocol, &body, &mut *make());
        }
    }

    #[test]
    fn random_heads_do_no_harm(head in "(GET|POST) /[ -~]{0,60}\n([a-z-]{1,20}: [ -~]{0,40}\n){0,6}", body in "[ -~]{0,80}") {
        fuzz::route(api::SERVICES, &head, body.as_bytes());
        fuzz::signature(&head, body.as_bytes());
    }
}

#[test]
fn answers_in_xml_are_read_within_bounds() {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("text/xml"));
    let read = |text: &str| {
        let mut output = api::ec2::DescribeVpcsResult::default();
        exchange::decode_response(&api::ec2::operation::DESCRIBE_VPCS, 200, &headers, text.as_bytes(), &mut output)
            .map(|()| output)
    };
    let one =
        read("<?xml version=\"1.0\"?><R><vpcSet><item><vpcId>a&amp;b&#x21;</vpcId></item></vpcSet></R>").expect("read");
    assert_eq!(one.vpcs.and_then(|vpcs| vpcs.first().and_then(|vpc| vpc.vpc_id.clone())).as_deref(), Some("a&b!"));
    for text in ["", "<a>", "<a></b>", "</a>", "<a/><b/>", "<a>&odd;</a>", "text"] {
        assert!(read(text).is_err(), "{text}");
    }
    assert!(read(&"<a>".repeat(100_000)).is_err());
    let bomb = "<!DOCTYPE a [<!ENTITY x \"yyyyyyyy\">]><a>&x;</a>";
    assert!(read(bomb).is_err());
}
