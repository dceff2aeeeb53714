//! Whole messages through the codecs: what hostile and mistaken requests get, in each protocol.

use std::io::Write;

use http::{HeaderMap, HeaderValue, Method};
use wire::{Protocol, Reflect, Request, ServiceError};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().expect("name"), HeaderValue::from_static(value))).collect()
}

fn send<T: Reflect + Default>(
    service: &str,
    pairs: &[(&'static str, &'static str)],
    path: &str,
    body: &[u8],
) -> Result<T, ServiceError> {
    let headers = headers(pairs);
    let request = Request { method: &Method::POST, path, query: "", headers: &headers, body };
    let route = wire::route(api::SERVICES, &request, service)?;
    let mut input = T::default();
    wire::decode(&route, &request, &mut input).map(|()| input)
}

const TARGET: &str = "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition";

fn ecs(body: &[u8]) -> Result<api::ecs::RegisterTaskDefinitionRequest, ServiceError> {
    let pairs = [("x-amz-target", TARGET), ("content-type", "application/x-amz-json-1.1")];
    send("ecs", &pairs, "/", body)
}

fn form<T: Reflect + Default>(service: &str, body: &str) -> Result<T, ServiceError> {
    send(service, &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")], "/", body.as_bytes())
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, ServiceError>, code: &str, part: &str) {
    let error = outcome.expect_err("refused");
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(part), "{error}");
    assert!((400..500).contains(&error.http_status()), "{error}");
}

#[test]
fn json_of_the_wrong_shape_is_named() {
    let code = "SerializationException";
    refused(ecs(b"{"), code, "not valid JSON");
    refused(ecs(b"[]"), code, "not valid JSON");
    refused(ecs(b"{} {}"), code, "not valid JSON");
    refused(ecs(b"{\"family\": 1}"), code, "NUMBER_VALUE can not be converted to a String");
    refused(ecs(b"{\"family\": true}"), code, "TRUE_VALUE can not be converted to a String");
    refused(ecs(b"{\"family\": {}}"), code, "Start of structure or map found where not expected.");
    refused(ecs(b"{\"family\": []}"), code, "Start of list found where not expected");
    refused(ecs(b"{\"containerDefinitions\": {}}"), code, "Expected list or null");
    refused(ecs(b"{\"containerDefinitions\": [1]}"), code, "Expected structure or null");
    refused(ecs(b"{\"containerDefinitions\": [{\"memory\": \"1\"}]}"), code, "STRING_VALUE can not");
    refused(ecs(b"{\"containerDefinitions\": [{\"memory\": 1.5}]}"), code, "NUMBER_VALUE can not");
    refused(ecs(b"{\"containerDefinitions\": [{\"memory\": 4294967296}]}"), code, "NUMBER_VALUE can not");
    refused(ecs(b"{\"family\": \"\xff\"}"), code, "not valid JSON");
}

#[test]
fn nulls_and_unknown_members_leave_no_trace() {
    let body = br#"{"family":"f","cpu":null,"odd":{"deep":[1]},"containerDefinitions":[null,{"name":"a"}]}"#;
    let input = ecs(body).expect("read");
    assert_eq!(input.family.as_deref(), Some("f"));
    assert_eq!(input.cpu, None);
    let containers = input.container_definitions.expect("containers");
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0].name.as_deref(), Some("a"));
}

#[test]
fn a_small_body_cannot_cost_much_memory() {
    let many = |count: usize| {
        let items = vec!["{}"; count].join(",");
        format!("{{\"family\":\"f\",\"containerDefinitions\":[{items}]}}")
    };
    assert!(ecs(many(1000).as_bytes()).is_ok());
    refused(ecs(many(wire::ELEMENT_LIMIT + 1).as_bytes()), "SerializationException", "too many list elements");
    let deep = format!("{{\"odd\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let _ = ecs(deep.as_bytes());
    let deep = format!("{{\"family\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    refused(ecs(deep.as_bytes()), "SerializationException", "list");
}

#[test]
fn violations_are_worded_as_amazon_words_them() {
    let outcome = ecs(br#"{"networkMode":"carrier-pigeon"}"#);
    let error = outcome.expect_err("refused");
    assert_eq!(error.code(), "InvalidParameterException");
    assert_eq!(
        error.message(),
        "3 validation errors detected: Value at 'family' failed to satisfy constraint: Member must not be null; \
         Value 'carrier-pigeon' at 'networkMode' failed to satisfy constraint: Member must satisfy enum value set: \
         [bridge, host, awsvpc, none]; \
         Value at 'containerDefinitions' failed to satisfy constraint: Member must not be null"
    );
    let nested = ecs(br#"{"family":"f","containerDefinitions":[{"portMappings":[{"protocol":"icmp"}]}]}"#);
    refused(nested, "InvalidParameterException", "'containerDefinitions.1.member.portMappings.1.member.protocol'");

    let iam = form::<api::iam::GetRoleRequest>("iam", "Action=GetRole&Version=2010-05-08&RoleName=a%20b");
    refused(
        iam,
        "ValidationError",
        "1 validation error detected: Value 'a b' at 'roleName' failed to satisfy constraint: Member must satisfy \
         regular expression pattern: [\\w+=,.@-]+",
    );
    let ec2 = form::<api::ec2::CreateSubnetRequest>("ec2", "Action=CreateSubnet&Version=2016-11-15");
    refused(ec2, "MissingParameter", "The request must contain the parameter VpcId");
    let pairs = [
        ("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.CreateRepository"),
        ("content-type", "application/x-amz-json-1.1"),
    ];
    let ecr = send::<api::ecr::CreateRepositoryRequest>("ecr", &pairs, "/", br#"{"repositoryName":"UPPER"}"#);
    refused(
        ecr,
        "InvalidParameterException",
        "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '",
    );
}

#[test]
fn secrets_stay_out_of_messages_and_logs() {
    let pairs = [("x-amz-target", "secretsmanager.CreateSecret"), ("content-type", "application/x-amz-json-1.1")];
    let body = br#"{"Name":"","SecretString":"hunter2"}"#;
    let outcome = send::<api::secretsmanager::CreateSecretRequest>("secretsmanager", &pairs, "/", body);
    let error = outcome.expect_err("refused");
    assert_eq!(error.code(), "ValidationException");
    assert!(!error.message().contains("hunter2"));
    let input = api::secretsmanager::CreateSecretRequest {
        name: Some("n".to_owned()),
        secret_string: Some("hunter2".to_owned()),
        secret_binary: Some(b"hunter2".to_vec()),
        ..Default::default()
    };
    let text = format!("{input:?}");
    assert_eq!(text, "CreateSecretRequest { Name: \"n\", SecretBinary: <sensitive>, SecretString: <sensitive> }");
}

#[test]
fn forms_are_read_strictly_by_ec2_only() {
    let body = "Action=DescribeVpcs&Version=2016-11-15&VpcId.2=b&VpcId.1=a&Filter.1.Name=x&Filter.1.Value.1=y";
    let input = form::<api::ec2::DescribeVpcsRequest>("ec2", body).expect("read");
    assert_eq!(input.vpc_ids, Some(vec!["a".to_owned(), "b".to_owned()]));
    let filters = input.filters.expect("filters");
    assert_eq!(filters[0].values.as_deref(), Some(["y".to_owned()].as_slice()));
    let odd = format!("{body}&Odd=1");
    refused(form::<api::ec2::DescribeVpcsRequest>("ec2", &odd), "UnknownParameter", "Odd is not recognized");
    let wrong = "Action=DescribeVpcs&Version=2016-11-15&MaxResults=many";
    refused(form::<api::ec2::DescribeVpcsRequest>("ec2", wrong), "InvalidParameterValue", "MaxResults");
    let list = "Action=DescribeVpcs&Version=2016-11-15&VpcId.x=1";
    refused(form::<api::ec2::DescribeVpcsRequest>("ec2", list), "InvalidParameterValue", "position");
    let broken = "Action=DescribeVpcs&Version=2016-11-15&VpcId.1=%zz";
    refused(form::<api::ec2::DescribeVpcsRequest>("ec2", broken), "MalformedQueryString", "percent");
    let wrong = "Action=ListRoles&Version=2010-05-08&MaxItems=many&Odd=1";
    refused(form::<api::iam::ListRolesRequest>("iam", wrong), "MalformedInput", "many");
}

#[test]
fn requests_that_name_no_operation_are_refused() {
    refused(form::<()>("iam", "Version=2010-05-08"), "MissingAction", "Action");
    refused(form::<()>("iam", "Action=Fly&Version=2010-05-08"), "InvalidAction", "Fly for version 2010-05-08");
    refused(form::<()>("ec2", "Action=Fly&Version=2016-11-15"), "InvalidAction", "Fly is not valid");
    refused(send::<()>("ecs", &[("x-amz-target", "X.Y")], "/", b"{}"), "UnknownOperationException", "X.Y");
    refused(send::<()>("ecs", &[], "/", b"{}"), "UnknownOperationException", "X-Amz-Target");
    let plain = [("x-amz-target", TARGET), ("content-type", "text/plain")];
    refused(send::<()>("ecs", &plain, "/", b"{}"), "SerializationException", "text/plain");
    let error = send::<()>("quantum", &[], "/", b"").expect_err("refused");
    assert_eq!((error.code(), error.http_status()), ("UnsupportedOperation", 501));
}

#[test]
fn versions_tell_the_load_balancers_apart() {
    let which = |version: &str| {
        let headers = headers(&[("content-type", "application/x-www-form-urlencoded")]);
        let body = format!("Action=DescribeLoadBalancers&Version={version}");
        let request = Request { method: &Method::POST, path: "/", query: "", headers: &headers, body: body.as_bytes() };
        wire::route(api::SERVICES, &request, "elasticloadbalancing").map(|route| route.operation.service.name)
    };
    assert_eq!(which("2015-12-01").ok(), Some("elbv2"));
    assert_eq!(which("2012-06-01").ok(), Some("elb"));
    assert!(which("1999-01-01").is_err());
}

#[test]
fn unsigned_requests_are_answered_in_their_own_protocol() {
    let face = |pairs: &[(&'static str, &'static str)], body: &str| {
        let headers = headers(pairs);
        let request = Request { method: &Method::POST, path: "/", query: "", headers: &headers, body: body.as_bytes() };
        wire::face(api::SERVICES, &request, "").protocol
    };
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(face(&[form], "Action=DescribeVpcs&Version=2016-11-15"), Protocol::Ec2);
    assert_eq!(face(&[form], "Action=ListRoles&Version=2010-05-08"), Protocol::Query);
    assert_eq!(face(&[form], "%"), Protocol::Query);
    assert_eq!(face(&[("x-amz-target", TARGET)], "{}"), Protocol::Json11);
    assert_eq!(face(&[("smithy-protocol", "rpc-v2-cbor")], ""), Protocol::Cbor);
}

#[test]
fn compressed_bodies_are_read_within_bounds() {
    let pairs =
        [("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor"), ("content-encoding", "gzip")];
    let path = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
    let packed = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(bytes).expect("memory");
        out.finish().expect("memory")
    };
    let put = |body: &[u8]| send::<api::cloudwatch::PutMetricDataInput>("monitoring", &pairs, path, body);
    let cbor = b"\xa2\x69Namespace\x61N\x6aMetricData\x81\xa1\x6aMetricName\x61m";
    let input = put(&packed(cbor)).expect("read");
    assert_eq!(input.namespace.as_deref(), Some("N"));
    refused(put(&packed(&vec![0; 64 << 20])), "RequestEntityTooLarge", "unpacks to more than");
    refused(put(b"not gzip"), "SerializationException", "gzip");
}

#[test]
fn cbor_lengths_beyond_the_body_are_refused() {
    let pairs = [("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor")];
    let path = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
    let put = |body: &[u8]| send::<api::cloudwatch::PutMetricDataInput>("monitoring", &pairs, path, body);
    let code = "SerializationException";
    refused(put(b"\xa1\x69Namespace\x7b\x7f\xff\xff\xff\xff\xff\xff\xff"), code, "ends inside");
    refused(put(b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff"), code, "not valid CBOR");
    refused(put(b"\xa1\x69Namespace\x01"), code, "can not be converted to a String");
    refused(put(b"\xa1\x69Namespace\x62\xc3\x28"), code, "broken");
    refused(put(b"\xa0\xa0"), code, "goes on");
    refused(put(&[0x9f; 10_000]), code, "structure");
    let deep: Vec<u8> = b"\xa1\x63odd".iter().copied().chain(std::iter::repeat_n(0x81, 10_000)).collect();
    refused(put(&deep), code, "nests too deeply");
    let tagged: Vec<u8> = b"\xa1\x63odd".iter().copied().chain(std::iter::repeat_n(0xc1, 10_000)).collect();
    refused(put(&tagged), code, "nests too deeply");
}

#[test]
fn the_body_limit_follows_the_largest_blob() {
    let limit = |target: &'static str| wire::body_limit(api::SERVICES, &headers(&[("x-amz-target", target)]));
    assert_eq!(limit(TARGET), wire::BODY_LIMIT);
    assert_eq!(limit("Nobody.Knows"), wire::BODY_LIMIT);
    let upload = limit("AmazonEC2ContainerRegistry_V20150921.UploadLayerPart");
    assert!(upload > 20 * 1024 * 1024 * 4 / 3, "{upload}");
}

#[test]
fn page_tokens_belong_to_their_operation() {
    let (list, other) = (&api::ecs::operation::LIST_TASKS, &api::ecs::operation::LIST_SERVICES);
    let token = wire::page::token(list, "arn:1");
    assert_eq!(wire::page::position(list, &token).as_deref(), Some("arn:1"));
    assert_eq!(wire::page::position(other, &token), None);
    assert_eq!(wire::page::position(list, "bm9uc2Vuc2U"), None);
    assert_eq!(wire::page::position(list, &token.repeat(500)), None);
}

#[test]
fn an_operation_without_a_handler_answers_501_by_name() {
    struct Nothing;
    impl api::ecs::Ecs for Nothing {
        type Call = ();
    }
    let headers = headers(&[
        ("x-amz-target", "AmazonEC2ContainerServiceV20141113.CreateTaskSet"),
        ("content-type", "application/x-amz-json-1.1"),
    ]);
    let body = br#"{"service":"s","cluster":"c","taskDefinition":"t"}"#;
    let request = Request { method: &Method::POST, path: "/", query: "", headers: &headers, body };
    let route = wire::route(api::SERVICES, &request, "ecs").expect("route");
    let mut reply = api::ecs::dispatch(&Nothing, (), &route, &request);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = reply.as_mut().poll(&mut context) else { panic!("an answer at once") };
    let response = wire::encode_error(&route.face(), &error, "id");
    assert_eq!(response.status(), 501);
    assert_eq!(
        String::from_utf8_lossy(response.body()),
        r#"{"__type":"UnsupportedOperation","message":"The operation CreateTaskSet of ecs is not served by Longshore yet."}"#
    );
}
