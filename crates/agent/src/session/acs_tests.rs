//! ACS exchanges as Amazon's agent was seen to have them, replayed against our responder.

use std::sync::Arc;

use domain::agent_protocol::acs::{FromAgent, TASK_EXECUTION, ToAgent};
use domain::agent_protocol::payload::Task;
use serde_json::{Value, json};

use super::acs::Responder;
use crate::engine::Engine;
use crate::engine::actor_tests::{Made, task};
use crate::roles::{Lookup, Roles};

const INSTANCE: &str = "arn:aws:ecs:us-east-1:123456789012:container-instance/default/0f";

struct Agent {
    host: Arc<Made>,
    engine: Arc<Engine<Made>>,
    roles: Arc<Roles>,
    responder: Responder<Made>,
}

fn agent() -> Agent {
    let host = Arc::new(Made::default());
    let engine = Arc::new(Engine::new(host.clone()));
    let roles = Arc::new(Roles::default());
    let responder = Responder::new(engine.clone(), roles.clone(), "default", INSTANCE, 0);
    Agent { host, engine, roles, responder }
}

impl Agent {
    /// The answers to a message, as JSON.
    fn say(&mut self, kind: &str, message: Value) -> Vec<Value> {
        let text = json!({ "type": kind, "message": message }).to_string();
        let message = ToAgent::decode(&text).expect("readable").expect("known");
        let answers = self.responder.answer(message);
        answers.iter().map(FromAgent::encode).map(|text| serde_json::from_str(&text).expect("JSON")).collect()
    }

    fn payload(&mut self, id: &str, sequence: i64, tasks: &[Task]) -> Vec<Value> {
        let message = json!({
            "messageId": id, "clusterArn": "c", "containerInstanceArn": INSTANCE, "generatedAt": 1, "seqNum": sequence,
            "tasks": tasks,
        });
        self.say("PayloadMessage", message)
    }
}

fn ack(id: &str) -> Value {
    json!({ "type": "AckRequest", "message": { "cluster": "default", "containerInstance": INSTANCE, "messageId": id } })
}

fn with_role(mut task: Task, id: &str) -> Task {
    task.execution_role_credentials = Some(domain::agent_protocol::payload::RoleCredentials {
        credentials_id: id.into(),
        access_key_id: "ASIA1".into(),
        expiration: "2026-11-22T12:00:00Z".into(),
        ..Default::default()
    });
    task
}

#[tokio::test]
async fn a_heartbeat_is_answered_with_its_id() {
    let answers = agent().say("HeartbeatMessage", json!({ "messageId": "h1", "healthy": true }));
    assert_eq!(answers, [json!({ "type": "HeartbeatAckRequest", "message": { "messageId": "h1" } })]);
}

#[tokio::test]
async fn a_payload_is_acknowledged_with_the_credentials_of_new_tasks_only() {
    let mut agent = agent();
    let task = with_role(task(&[("web", true, &[])]), "cred-1");
    let credentials = json!({ "type": "IAMRoleCredentialsAckRequest", "message": {
        "messageId": "p1", "credentialsId": "cred-1", "expiration": "2026-11-22T12:00:00Z" } });
    assert_eq!(agent.payload("p1", 1, std::slice::from_ref(&task)), [credentials, ack("p1")]);
    assert!(matches!(agent.roles.lookup(&task.arn, "cred-1"), Lookup::Known(_)));
    assert_eq!(agent.payload("p2", 2, std::slice::from_ref(&task)), [ack("p2")]);
    assert_eq!(agent.engine.views().len(), 1);
}

#[tokio::test]
async fn a_payload_with_an_invalid_task_is_never_acknowledged_but_its_good_tasks_start() {
    let mut agent = agent();
    let good = task(&[("web", true, &[])]);
    let bad = Task { arn: good.arn.replace("/0a", "/0b"), ..task(&[("a", true, &[("ghost", "START")])]) };
    assert_eq!(agent.payload("p1", 1, &[bad, good]), Vec::<Value>::new());
    agent.host.until(|host| host.statuses().contains(&"RUNNING".to_owned())).await;
    agent.host.until(|host| host.statuses().contains(&"STOPPED".to_owned())).await;
}

#[tokio::test]
async fn credentials_are_renewed_under_the_same_id() {
    let mut agent = agent();
    let task = with_role(task(&[("web", true, &[])]), "cred-1");
    agent.payload("p1", 1, std::slice::from_ref(&task));
    let fresh = json!({ "credentialsId": "cred-1", "accessKeyId": "ASIA2", "expiration": "later" });
    let mut message =
        json!({ "messageId": "c1", "taskArn": task.arn, "roleType": TASK_EXECUTION, "roleCredentials": fresh });
    let answer = json!({ "type": "IAMRoleCredentialsAckRequest", "message": {
        "messageId": "c1", "credentialsId": "cred-1", "expiration": "later" } });
    assert_eq!(agent.say("IAMRoleCredentialsMessage", message.clone()), [answer]);
    assert_eq!(agent.roles.execution(&task.arn).map(|keys| keys.access_key_id), Some("ASIA2".to_owned()));
    message["roleType"] = json!("Unheard");
    assert_eq!(agent.say("IAMRoleCredentialsMessage", message), Vec::<Value>::new());
}

#[tokio::test]
async fn a_manifest_offers_to_stop_what_it_lacks_once_and_only_if_it_is_new() {
    let mut agent = agent();
    let task = task(&[("web", true, &[])]);
    agent.payload("p1", 10, std::slice::from_ref(&task));
    agent.host.until(|host| host.statuses().contains(&"RUNNING".to_owned())).await;
    let manifest = |id: &str, timeline: i64| json!({ "messageId": id, "timeline": timeline, "tasks": [] });
    assert_eq!(agent.say("TaskManifestMessage", manifest("old", 10)), Vec::<Value>::new());
    let answers = agent.say("TaskManifestMessage", manifest("new", 11));
    assert_eq!(answers[0], ack("new"));
    assert_eq!(answers[1]["type"], "TaskStopVerificationMessage");
    assert_eq!(answers[1]["message"]["stopCandidates"][0]["taskArn"], json!(task.arn));
    let verified =
        |id: &str| json!({ "messageId": id, "stopTasks": [{ "taskArn": task.arn, "desiredStatus": "STOPPED" }] });
    agent.say("TaskStopVerificationAck", verified("another"));
    agent.say("TaskManifestMessage", manifest("newer", 12));
    agent.say("TaskStopVerificationAck", verified("newer"));
    agent.host.until(|host| host.statuses().contains(&"STOPPED".to_owned())).await;
}
