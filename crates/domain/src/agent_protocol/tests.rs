//! Exchanges as they were recorded from Amazon's agent, replayed against these types.

use serde_json::json;

use super::acs::{FromAgent, ToAgent};
use super::docker::{Config, DockerConfig, HealthCheck, HostConfig};
use super::payload::RoleCredentials;
use super::{ProtocolError, tcs};

#[test]
fn reads_the_answers_of_amazons_agent() {
    let text = r#"{"type":"HeartbeatAckRequest","message":{"messageId":"m1"}}"#;
    let Ok(Some(FromAgent::HeartbeatAck(ack))) = FromAgent::decode(text) else { panic!("not read") };
    assert_eq!(ack.message_id, "m1");
    let text = r#"{"type":"AckRequest","message":{"cluster":"default","containerInstance":"arn:aws:ecs:us-east-1:1:container-instance/default/x","messageId":"m2"}}"#;
    let Ok(Some(FromAgent::Ack(ack))) = FromAgent::decode(text) else { panic!("not read") };
    assert_eq!((ack.cluster.as_str(), ack.message_id.as_str()), ("default", "m2"));
}

#[test]
fn an_unknown_type_is_dropped_and_a_broken_frame_is_named() {
    assert!(matches!(ToAgent::decode(r#"{"type":"NextYearsMessage","message":{}}"#), Ok(None)));
    assert!(matches!(ToAgent::decode("{"), Err(ProtocolError::Json(_))));
    assert!(matches!(ToAgent::decode("[]"), Err(ProtocolError::NoEnvelope)));
    assert!(matches!(ToAgent::decode(r#"{"message":{}}"#), Err(ProtocolError::NoEnvelope)));
    let list = ToAgent::decode(r#"{"type":"HeartbeatMessage","message":["m1",true]}"#);
    assert!(matches!(list, Err(ProtocolError::Malformed { .. })), "{list:?}");
    let missing = ToAgent::decode(r#"{"type":"PayloadMessage","message":{"tasks":[]}}"#);
    assert!(matches!(missing, Err(ProtocolError::Malformed { .. })), "{missing:?}");
    let wrong = ToAgent::decode(r#"{"type":"HeartbeatMessage","message":{"messageId":7}}"#);
    assert!(matches!(wrong, Err(ProtocolError::Malformed { .. })), "{wrong:?}");
}

#[test]
fn a_payload_survives_the_wire_and_skips_what_it_does_not_know() {
    let text = json!({"type": "PayloadMessage", "message": {
        "messageId": "p1", "clusterArn": "c", "containerInstanceArn": "i", "generatedAt": 1, "seqNum": 4, "future": [1],
        "tasks": [{"arn": "t", "family": "f", "version": "1", "desiredStatus": "RUNNING", "cpu": 0.25, "memory": 512,
            "containers": [{"name": "web", "image": "nginx:1", "essential": true, "cpu": 0, "memory": 0, "overrides": "{}",
                "environment": {"A": "b"}, "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}], "newMember": 1}]}]
    }})
    .to_string();
    let Ok(Some(message @ ToAgent::Payload(_))) = ToAgent::decode(&text) else { panic!("not read") };
    assert_eq!(ToAgent::decode(&message.encode()).ok().flatten(), Some(message.clone()));
    let ToAgent::Payload(payload) = message else { panic!("not a payload") };
    assert_eq!(payload.tasks[0].cpu, Some(0.25));
    assert_eq!(payload.tasks[0].containers[0].depends_on[0].condition, "HEALTHY");
}

#[test]
fn docker_config_travels_as_strings_of_json() {
    let config = Config {
        user: "1000".into(),
        healthcheck: Some(HealthCheck {
            test: vec!["CMD".into(), "true".into()],
            interval: 5_000_000_000,
            ..HealthCheck::default()
        }),
        ..Config::default()
    };
    let packed = DockerConfig::new(&config, &HostConfig { readonly_rootfs: true, ..HostConfig::default() });
    assert_eq!(packed.host_config.as_deref(), Some(r#"{"ReadonlyRootfs":true}"#));
    assert!(packed.config.as_deref().is_some_and(|text| text.contains(r#""User":"1000""#)));
    assert_eq!(packed.config().ok(), Some(config));
}

#[test]
fn telemetry_frames_carry_headers_before_the_envelope() {
    let headers = vec![("Host".to_owned(), "h".to_owned()), ("X-Amz-Date".to_owned(), "20261122T000000Z".to_owned())];
    let message = tcs::ToServer::PublishHealth(tcs::PublishHealth { timestamp: 1.5, ..Default::default() });
    let text = tcs::frame(&headers, &message.encode());
    assert!(text.starts_with("Host: h\r\nX-Amz-Date: 20261122T000000Z\r\n\r\n{\"type\":\"PublishHealthRequest\""));
    let Ok((read, body)) = tcs::unframe(&text) else { panic!("not taken apart") };
    assert_eq!(read[1], ("X-Amz-Date", "20261122T000000Z"));
    assert_eq!(tcs::ToServer::decode(body).ok().flatten(), Some(message));
    assert!(matches!(tcs::unframe("{}"), Err(ProtocolError::NoHeaderBlock)));
}

#[test]
fn credentials_do_not_reach_a_log() {
    let credentials = RoleCredentials {
        credentials_id: "id-1".into(),
        secret_access_key: "very-secret".into(),
        session_token: "token-1".into(),
        ..RoleCredentials::default()
    };
    let text = format!("{credentials:?}");
    assert!(!text.contains("very-secret") && !text.contains("token-1") && !text.contains("id-1"), "{text}");
}
