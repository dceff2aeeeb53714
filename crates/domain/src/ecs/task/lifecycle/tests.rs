use proptest::prelude::*;

use super::*;
use crate::{
    IdSource, Scope, Tags,
    ecs::{
        Cluster, Compute, ContainerDefinition, LaunchType, NetworkMode, NewTask, Placement, Task, TaskDefinition,
        TaskLoadBalancer, TaskOverrides, names,
    },
};

fn task(load_balanced: bool) -> Task {
    let scope = Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() };
    let cluster = Cluster::new(&scope, "default", Tags::default(), Timestamp(0));
    let mut sidecar = ContainerDefinition::new("sidecar", "i");
    sidecar.essential = false;
    let definition = TaskDefinition {
        arn: names::task_definition(&scope, "f", 1),
        scope: scope.clone(),
        family: "f".into(),
        revision: 1,
        status: crate::ecs::TaskDefinitionStatus::Active,
        task_role_arn: None,
        execution_role_arn: None,
        network_mode: NetworkMode::Awsvpc,
        has_network_mode: true,
        placement_constraints: Vec::new(),
        cpu: Some(256),
        memory: Some(512),
        requires_compatibilities: vec!["FARGATE".into()],
        compatibilities: vec!["FARGATE".into()],
        requires_attributes: Vec::new(),
        cpu_architecture: None,
        operating_system_family: None,
        ephemeral_storage: None,
        container_definitions: vec![ContainerDefinition::new("app", "i"), sidecar],
        tags: Tags::default(),
        registered_at: Timestamp(0),
        registered_by: String::new(),
        deregistered_at: None,
        delete_requested_at: None,
    };
    let mut ids = IdSource::from_seed(1);
    let load_balancers = if load_balanced {
        vec![TaskLoadBalancer {
            target_group_arn: "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/a/1".parse().unwrap(),
            container_name: "app".into(),
            container_port: 80,
        }]
    } else {
        Vec::new()
    };
    let container_instance_arn = Some(names::new_container_instance(&scope, "fargate", &mut ids));
    Task::new(
        NewTask {
            cluster: &cluster,
            definition: &definition,
            cpu: 256,
            memory: 512,
            overrides: TaskOverrides::default(),
            compute: &Compute::by_launch_type(LaunchType::Fargate),
            placement: &Placement::default(),
            group: String::new(),
            started_by: None,
            service: None,
            container_instance_arn,
            zone: None,
            gpu_ids: Vec::new(),
            load_balancers,
            image_digests: Default::default(),
            tags: Tags::default(),
        },
        &mut ids,
        Timestamp(0),
    )
}

fn status(status: ReportedStatus) -> TaskReport {
    TaskReport { status: Some(status), ..TaskReport::default() }
}

fn exit(name: &str, code: i32) -> ContainerReport {
    ContainerReport {
        name: name.into(),
        status: Some(ReportedStatus::Stopped),
        exit_code: Some(code),
        ..ContainerReport::default()
    }
}

const NOW: Timestamp = Timestamp(5);

#[test]
fn a_task_runs_once_its_host_says_so_and_a_load_balanced_one_once_its_targets_are_registered() {
    let mut plain = task(false);
    assert!(plain.observe(&TaskReport { attached: true, ..TaskReport::default() }, NOW));
    assert_eq!(plain.last_status, TaskStatus::Pending);
    assert!(plain.observe(&status(ReportedStatus::Running), NOW));
    assert_eq!((plain.last_status, plain.started_at), (TaskStatus::Running, Some(NOW)));

    let mut balanced = task(true);
    balanced.observe(&status(ReportedStatus::Running), NOW);
    assert_eq!((balanced.last_status, balanced.started_at), (TaskStatus::Activating, None));
    assert!(balanced.activated(NOW));
    assert_eq!(balanced.last_status, TaskStatus::Running);
}

#[test]
fn the_first_who_stops_a_task_names_the_reason() {
    let mut task = task(false);
    assert!(task.request_stop(StopCode::UserInitiated, "mine", NOW));
    assert!(!task.request_stop(StopCode::ServiceSchedulerInitiated, "later", NOW));
    task.observe(&TaskReport { containers: vec![exit("app", 137)], ..status(ReportedStatus::Stopped) }, NOW);
    assert_eq!((task.stop_code, task.stopped_reason.as_deref()), (Some(StopCode::UserInitiated), Some("mine")));
    assert_eq!(task.last_status, TaskStatus::Deprovisioning);
    assert!(task.deprovisioned(NOW) && !task.deprovisioned(NOW));
}

#[test]
fn why_a_task_stopped_by_itself() {
    let check = |report: TaskReport, expect: (StopCode, &str)| {
        let mut task = task(false);
        task.observe(&report, NOW);
        assert_eq!((task.stop_code, task.stopped_reason.as_deref()), (Some(expect.0), Some(expect.1)));
        assert!(task.containers.iter().all(|container| container.last_status == TaskStatus::Stopped));
    };
    let stopped = || status(ReportedStatus::Stopped);
    check(
        TaskReport { containers: vec![exit("app", 0)], ..stopped() },
        (StopCode::EssentialContainerExited, reason::ESSENTIAL_CONTAINER),
    );
    let pull = ContainerReport { reason: Some("CannotPullContainerError: x".into()), ..exit("app", 0) };
    check(
        TaskReport { containers: vec![ContainerReport { exit_code: None, ..pull }], ..stopped() },
        (StopCode::TaskFailedToStart, "CannotPullContainerError: x"),
    );
    check(
        TaskReport { reason: Some("ResourceInitializationError: y".into()), ..stopped() },
        (StopCode::TaskFailedToStart, "ResourceInitializationError: y"),
    );
    check(
        TaskReport { containers: vec![exit("sidecar", 1)], ..stopped() },
        (StopCode::TaskFailedToStart, reason::FAILED_TO_START),
    );
}

#[test]
fn a_load_balanced_task_runs_on_until_its_targets_have_drained() {
    let mut task = task(true);
    task.observe(&status(ReportedStatus::Running), NOW);
    task.activated(NOW);
    task.request_stop(StopCode::UserInitiated, "x", NOW);
    assert_eq!((task.last_status, task.wanted_on_host()), (TaskStatus::Deactivating, Some(DesiredStatus::Running)));
    task.deactivated(NOW);
    assert_eq!((task.last_status, task.wanted_on_host()), (TaskStatus::Stopping, Some(DesiredStatus::Stopped)));
}

#[test]
fn a_restarted_container_shows_its_last_exit_code() {
    let mut task = task(false);
    let again = ContainerReport { status: Some(ReportedStatus::Running), ..exit("sidecar", 3) };
    task.observe(&TaskReport { containers: vec![again], ..status(ReportedStatus::Running) }, NOW);
    task.observe(&TaskReport { containers: vec![exit("sidecar", 4)], ..status(ReportedStatus::Running) }, NOW);
    task.observe(&TaskReport { containers: vec![exit("sidecar", 5)], ..status(ReportedStatus::Running) }, NOW);
    assert_eq!(task.containers[1].exit_code, Some(4));
    assert_eq!(task.last_status, TaskStatus::Running);
}

#[derive(Debug, Clone)]
enum Step {
    Report(Option<ReportedStatus>, bool),
    Stop,
    Activated,
    Deactivated,
    Deprovisioned,
    Lost,
}

fn step() -> impl Strategy<Value = Step> {
    let reported = prop_oneof![
        Just(None),
        Just(Some(ReportedStatus::Pending)),
        Just(Some(ReportedStatus::Running)),
        Just(Some(ReportedStatus::Stopped))
    ];
    prop_oneof![
        6 => (reported, any::<bool>()).prop_map(|(status, attached)| Step::Report(status, attached)),
        1 => Just(Step::Stop),
        2 => Just(Step::Activated),
        2 => Just(Step::Deactivated),
        2 => Just(Step::Deprovisioned),
        1 => Just(Step::Lost),
    ]
}

proptest! {
    #[test]
    fn statuses_only_move_forward_and_a_repeated_report_changes_nothing(
        load_balanced in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..30),
    ) {
        let mut task = task(load_balanced);
        for step in steps {
            let before = task.clone();
            match &step {
                Step::Report(status, attached) => {
                    let report = TaskReport { status: *status, attached: *attached, ..TaskReport::default() };
                    task.observe(&report, NOW);
                    let after = task.clone();
                    prop_assert!(!task.observe(&report, NOW));
                    prop_assert_eq!(&task, &after);
                }
                Step::Stop => drop(task.request_stop(StopCode::UserInitiated, "x", NOW)),
                Step::Activated => drop(task.activated(NOW)),
                Step::Deactivated => drop(task.deactivated(NOW)),
                Step::Deprovisioned => drop(task.deprovisioned(NOW)),
                Step::Lost => drop(task.lost(reason::HOST_LOST, NOW)),
            }
            prop_assert!(task.last_status >= before.last_status);
            prop_assert!(task.desired_status >= before.desired_status);
            prop_assert_eq!(task.stop_code.is_some(), task.desired_status == DesiredStatus::Stopped);
            prop_assert_eq!(task.version > before.version, task != before);
            if task.last_status > TaskStatus::Running {
                prop_assert_eq!(task.desired_status, DesiredStatus::Stopped);
            }
        }
    }
}
