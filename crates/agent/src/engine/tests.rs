//! The state machine against a made-up host: single stories, and random tasks on a random host.

use std::collections::BTreeSet;

use domain::Timestamp;
use domain::agent_protocol::docker::{Config, DockerConfig, HealthCheck, HostConfig};
use domain::agent_protocol::payload::{Container, Dependency, RestartPolicy, Task};
use proptest::prelude::*;

use super::health::Outcome;
use super::machine::{self, Action, Ended, Failure, InFlight, Pulled};
use super::record::{ContainerStatus, Desired, TaskRecord, TaskStatus};
use super::{dependency, report};

fn started_at(now: i64) -> super::driver::Started {
    super::driver::Started { at: Timestamp(now), network: Default::default(), named: None }
}

fn container(name: &str, essential: bool, depends_on: &[(&str, &str)]) -> Container {
    let depends_on = depends_on
        .iter()
        .map(|(name, condition)| Dependency { container_name: (*name).into(), condition: (*condition).into() })
        .collect();
    Container { name: name.into(), image: "i".into(), essential, depends_on, ..Container::default() }
}

fn task(containers: Vec<Container>) -> Task {
    Task {
        arn: "arn:aws:ecs:us-east-1:1:task/c/0a".into(),
        desired_status: "RUNNING".into(),
        containers,
        ..Task::default()
    }
}

fn healthy(mut container: Container) -> Container {
    let check = HealthCheck { test: vec!["CMD".into(), "true".into()], retries: 1, ..HealthCheck::default() };
    let config = Config { healthcheck: Some(check), ..Config::default() };
    container.docker_config = Some(DockerConfig::new(&config, &HostConfig::default()));
    container.health_check_type = Some("docker".into());
    container
}

/// A task with everything pulled and provisioned.
fn ready(containers: Vec<Container>) -> TaskRecord {
    let mut record = TaskRecord::new(task(containers));
    machine::provisioned(&mut record, Ok(()));
    for index in 0..record.containers.len() {
        machine::pulled(
            &mut record,
            index,
            Ok(Pulled { digest: "sha256:1".into(), manifest: "m".into(), stop_signal: None }),
            Timestamp(1),
        );
    }
    record
}

fn next(record: &mut TaskRecord, now: i64) -> Vec<Action> {
    machine::decide(record, &InFlight::default(), Timestamp(now)).actions
}

fn start(record: &mut TaskRecord, index: usize, now: i64) {
    machine::started(record, index, Ok(started_at(now)), Timestamp(now));
}

fn exit(record: &mut TaskRecord, index: usize, code: i32, now: i64) -> bool {
    let ended = Ended { exit_code: Some(code), out_of_memory: false, at: Timestamp(now) };
    machine::ended(record, index, &ended)
}

#[test]
fn a_task_is_provisioned_and_pulled_side_by_side() {
    let mut record = TaskRecord::new(task(vec![container("a", true, &[]), container("b", false, &[("a", "START")])]));
    assert_eq!(next(&mut record, 0), [Action::Provision, Action::Pull(0), Action::Pull(1)]);
    machine::provisioned(&mut record, Ok(()));
    machine::pulled(
        &mut record,
        0,
        Ok(Pulled { digest: "d".into(), manifest: "m".into(), stop_signal: None }),
        Timestamp(5),
    );
    assert_eq!(next(&mut record, 6), [Action::Pull(1)]);
    machine::pulled(
        &mut record,
        1,
        Ok(Pulled { digest: "d".into(), manifest: "m".into(), stop_signal: None }),
        Timestamp(7),
    );
    assert_eq!((record.pull_started_at, record.pull_stopped_at), (Some(Timestamp(0)), Some(Timestamp(7))));
    assert_eq!(next(&mut record, 8), [Action::Start(0)]);
    start(&mut record, 0, 9);
    assert_eq!(next(&mut record, 9), [Action::Start(1)]);
}

#[test]
fn complete_success_and_healthy_are_waited_for() {
    let mut record = ready(vec![
        container("init", false, &[]),
        healthy(container("db", true, &[("init", "SUCCESS")])),
        container("web", true, &[("db", "HEALTHY"), ("init", "COMPLETE")]),
    ]);
    assert_eq!(next(&mut record, 2), [Action::Start(0)]);
    start(&mut record, 0, 3);
    assert_eq!(next(&mut record, 3), []);
    exit(&mut record, 0, 0, 4);
    assert_eq!(next(&mut record, 4), [Action::Start(1)]);
    start(&mut record, 1, 5);
    assert_eq!(next(&mut record, 5), []);
    machine::checked(&mut record, 1, Outcome { exit_code: Some(0), output: String::new() }, Timestamp(6));
    assert_eq!(next(&mut record, 6), [Action::Start(2)]);
    assert_eq!(record.status(), TaskStatus::Pending);
    start(&mut record, 2, 7);
    assert_eq!(record.status(), TaskStatus::Running);
}

#[test]
fn a_failed_success_dependency_ends_the_task_before_it_ran() {
    let mut record = ready(vec![container("init", false, &[]), container("web", true, &[("init", "SUCCESS")])]);
    start(&mut record, 0, 3);
    exit(&mut record, 0, 3, 4);
    assert_eq!(next(&mut record, 4), [Action::CleanUp]);
    assert_eq!(record.reason.as_deref(), Some("Task failed to start"));
    let reason = record.containers[1].reason.clone().unwrap_or_default();
    assert!(reason.ends_with("as dependency did not exit successfully."), "{reason}");
    assert_eq!((record.containers[0].exit_code, record.containers[1].exit_code), (Some(3), None));
}

#[test]
fn a_start_timeout_counts_from_the_dependencys_own_start() {
    let mut slow = container("slow", false, &[]);
    slow.start_timeout = Some(10);
    let mut record = ready(vec![slow, container("web", true, &[("slow", "COMPLETE")])]);
    start(&mut record, 0, 1_000);
    let decision = machine::decide(&mut record, &InFlight::default(), Timestamp(2_000));
    assert_eq!((decision.actions, decision.wake), (vec![], Some(Timestamp(11_000))));
    let actions = next(&mut record, 11_000);
    assert_eq!(actions, [Action::Stop(0)]);
    assert!(record.containers[1].reason.as_deref().is_some_and(|reason| reason.ends_with("has timed out.")));
    // What was waited for still stops: the task, which never ran, is not told to run now.
    assert_eq!(record.status(), TaskStatus::Pending);
}

#[test]
fn containers_stop_in_the_reverse_order_of_their_dependencies() {
    let mut record = ready(vec![container("db", true, &[]), container("web", true, &[("db", "START")])]);
    start(&mut record, 0, 2);
    start(&mut record, 1, 3);
    record.desired = Desired::Stopped;
    assert_eq!(next(&mut record, 4), [Action::Stop(1)]);
    exit(&mut record, 1, 143, 5);
    assert_eq!(next(&mut record, 5), [Action::Stop(0)]);
    exit(&mut record, 0, 143, 6);
    assert_eq!(next(&mut record, 6), [Action::CleanUp]);
    assert_eq!(record.execution_stopped_at, Some(Timestamp(5)));
}

#[test]
fn only_essential_containers_end_the_task() {
    let mut record = ready(vec![container("main", true, &[]), container("side", false, &[])]);
    start(&mut record, 0, 2);
    start(&mut record, 1, 2);
    exit(&mut record, 1, 1, 3);
    assert_eq!((next(&mut record, 3), record.desired), (vec![], Desired::Running));
    exit(&mut record, 0, 0, 4);
    next(&mut record, 4);
    assert_eq!(record.desired, Desired::Stopped);
    assert_eq!(record.reason, None);
}

#[test]
fn a_restart_policy_starts_it_again_in_place() {
    let mut definition = container("main", true, &[]);
    definition.restart_policy =
        Some(RestartPolicy { enabled: true, ignored_exit_codes: vec![0], restart_attempt_period: Some(60) });
    let mut record = ready(vec![definition]);
    record.containers[0].runtime_id = Some("first".into());
    start(&mut record, 0, 0);
    report::collect(&mut record, true);
    assert!(exit(&mut record, 0, 1, 60_000));
    assert_eq!(next(&mut record, 60_000), [Action::Start(0)]);
    assert_eq!((record.status(), record.containers[0].restart_count), (TaskStatus::Running, 1));
    assert_eq!(record.containers[0].former_ids, ["first"]);
    start(&mut record, 0, 61_000);
    assert!(!exit(&mut record, 0, 0, 200_000));
    next(&mut record, 200_000);
    assert_eq!(record.desired, Desired::Stopped);
}

#[test]
fn a_pull_that_fails_is_the_reason_of_container_and_task() {
    let mut record = TaskRecord::new(task(vec![container("main", true, &[])]));
    machine::pulled(&mut record, 0, Err(Failure("CannotPullContainerError: x".into())), Timestamp(1));
    assert_eq!(next(&mut record, 1), [Action::CleanUp]);
    report::collect(&mut record, true);
    let change = record.outbox.back().expect("a state change");
    assert_eq!((change.status.as_str(), change.reason.as_str()), ("STOPPED", "CannotPullContainerError: x"));
    assert_eq!(change.containers[0].reason.as_deref(), Some("CannotPullContainerError: x"));
}

#[test]
fn memory_and_lost_supervisors_are_named() {
    let mut record = ready(vec![container("main", true, &[])]);
    start(&mut record, 0, 1);
    machine::ended(&mut record, 0, &Ended { exit_code: Some(137), out_of_memory: true, at: Timestamp(2) });
    assert_eq!(record.containers[0].reason.as_deref(), Some(machine::OUT_OF_MEMORY));
    assert_eq!(record.containers[0].exit_code, Some(137));
}

#[test]
fn cycles_and_unknown_names_have_no_order() {
    let cycle = task(vec![container("a", true, &[("b", "START")]), container("b", true, &[("a", "START")])]);
    assert_eq!(dependency::start_order(&cycle), None);
    assert_eq!(dependency::start_order(&task(vec![container("a", true, &[("ghost", "START")])])), None);
    assert_eq!(dependency::start_order(&task(vec![container("a", true, &[("a", "START")])])), None);
    let fine = task(vec![container("a", true, &[("b", "START")]), container("b", true, &[])]);
    assert_eq!(dependency::start_order(&fine), Some(vec![1, 0]));
}

#[test]
fn keys_are_not_remembered_on_disk() {
    let mut with_role = task(vec![container("a", true, &[])]);
    with_role.role_credentials = Some(domain::agent_protocol::payload::RoleCredentials {
        credentials_id: "id".into(),
        secret_access_key: "very-secret".into(),
        session_token: "token".into(),
        ..Default::default()
    });
    let text = serde_json::to_string(&TaskRecord::new(with_role)).unwrap_or_default();
    assert!(text.contains("\"id\"") && !text.contains("very-secret") && !text.contains("token\":\"token"), "{text}");
}

/// A task whose containers depend only on earlier ones.
fn any_task() -> impl Strategy<Value = Task> {
    let one = (any::<bool>(), prop::collection::vec((0usize..4, 0usize..4), 0..3), prop::option::of(1i64..30));
    prop::collection::vec(one, 1..5).prop_map(|parts| {
        let mut containers: Vec<Container> = Vec::new();
        for (index, (essential, depends_on, start_timeout)) in parts.into_iter().enumerate() {
            let mut one = healthy(container(&format!("c{index}"), essential || index == 0, &[]));
            one.start_timeout = start_timeout;
            for (other, condition) in depends_on {
                let condition = ["START", "COMPLETE", "SUCCESS", "HEALTHY"][condition];
                if other < index {
                    one.depends_on
                        .push(Dependency { container_name: format!("c{other}"), condition: condition.into() });
                }
            }
            containers.push(one);
        }
        task(containers)
    })
}

/// What the made-up host does with its turns: which of the things under way ends next, and how.
fn any_host() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((any::<u8>(), any::<u8>()), 60..120)
}

proptest! {
    /// Whatever the host does: conditions hold at every start, nothing starts once the task is to end, a container is
    /// stopped only after those that depend on it, statuses told only grow, and a task told to stop does end.
    #[test]
    fn ordering_holds_on_any_host(task in any_task(), turns in any_host(), stop_at in 0usize..100) {
        let mut record = TaskRecord::new(task);
        let mut busy = InFlight::default();
        let mut now = 0i64;
        let rounds = turns.len() + 400;
        for round in 0..rounds {
            now += 1_000;
            if round == stop_at {
                record.desired = Desired::Stopped;
            }
            let (pick, fate) = turns.get(round).copied().unwrap_or((round as u8, 0));
            for action in machine::decide(&mut record, &busy, Timestamp(now)).actions {
                match action {
                    Action::Provision => busy.provision = true,
                    Action::Pull(index) => { prop_assert!(busy.pull.insert(index)); }
                    Action::AbandonPull(index) => { busy.pull.remove(&index); }
                    Action::Start(index) => {
                        prop_assert_eq!(record.desired, Desired::Running);
                        prop_assert_eq!(dependency::readiness(&record, index, Timestamp(now)), dependency::Readiness::Ready);
                        prop_assert!(busy.start.insert(index));
                    }
                    Action::Stop(index) => {
                        let name = &record.containers[index].name;
                        for (other, definition) in record.task.containers.iter().enumerate() {
                            if definition.depends_on.iter().any(|on| &on.container_name == name) {
                                prop_assert_ne!(record.containers[other].status, ContainerStatus::Running);
                            }
                        }
                        prop_assert!(busy.stop.insert(index));
                    }
                    Action::CleanUp => { prop_assert!(record.all_stopped()); busy.clean_up = true; }
                }
            }
            let told = record.told;
            report::collect(&mut record, fate % 2 == 0);
            prop_assert!(record.told >= told);
            turn(&mut record, &mut busy, pick, fate, now);
            if record.cleaned {
                break;
            }
        }
        report::collect(&mut record, true);
        prop_assert!(record.cleaned, "never ended: {:?} {:?}", record, busy);
        let statuses: Vec<&str> = record.outbox.iter().map(|change| change.status.as_str()).collect();
        prop_assert_eq!(statuses.iter().filter(|status| **status == "STOPPED").count(), 1);
        prop_assert_eq!(statuses.last().copied(), Some("STOPPED"));
    }
}

/// One of the things under way ends.
fn turn(record: &mut TaskRecord, busy: &mut InFlight, pick: u8, fate: u8, now: i64) {
    let mut open: Vec<(u8, usize)> = Vec::new();
    open.extend(busy.provision.then_some((0, 0)));
    open.extend(busy.pull.iter().map(|index| (1, *index)));
    open.extend(busy.start.iter().map(|index| (2, *index)));
    open.extend(busy.clean_up.then_some((3, 0)));
    let running: BTreeSet<usize> = (0..record.containers.len())
        .filter(|index| record.containers[*index].status == ContainerStatus::Running)
        .collect();
    open.extend(running.iter().map(|index| (4, *index)));
    let Some((kind, index)) = open.get(usize::from(pick) % open.len().max(1)).copied() else { return };
    let fails = fate > 220;
    let failure = || Err(Failure("no".into()));
    match kind {
        0 => {
            busy.provision = false;
            machine::provisioned(record, if fails { failure() } else { Ok(()) });
        }
        1 => {
            busy.pull.remove(&index);
            let pulled = Pulled { digest: "d".into(), manifest: "m".into(), stop_signal: None };
            machine::pulled(record, index, if fails { Err(Failure("no".into())) } else { Ok(pulled) }, Timestamp(now));
        }
        2 => {
            busy.start.remove(&index);
            let outcome = if fails { Err(Failure("no".into())) } else { Ok(started_at(now)) };
            machine::started(record, index, outcome, Timestamp(now));
        }
        3 => {
            busy.clean_up = false;
            record.cleaned = true;
        }
        _ if busy.stop.contains(&index) || fate.is_multiple_of(3) => {
            busy.stop.remove(&index);
            exit(record, index, i32::from(fate % 2), now);
        }
        _ => {
            machine::checked(
                record,
                index,
                Outcome { exit_code: Some(i32::from(fate % 2)), output: String::new() },
                Timestamp(now),
            );
        }
    }
}
