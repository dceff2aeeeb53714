//! Instances from launch to end, through the handlers and with a host that reports what it is told to do.

use api::ec2::{operation as op, *};
use domain::{
    instances::{ConsoleOutput, Instance as Stored, Machine, Volume},
    network::{NetworkInterface as Interface, host::HostItem},
};
use wire::ServiceError;

use super::{attributes, console, describe, power, run, status};
use crate::{
    ec2::{host_slice, images, launch_templates, observe},
    testing::{Fixture, scope},
};

fn request() -> RunInstancesRequest {
    RunInstancesRequest {
        image_id: Some(images::local(&scope().region).image_id),
        min_count: Some(1),
        max_count: Some(1),
        ..Default::default()
    }
}

async fn launch(fixture: &Fixture, input: RunInstancesRequest) -> Result<Vec<Instance>, ServiceError> {
    let reservation = run::run(fixture.call(&op::RUN_INSTANCES), input).await?;
    Ok(reservation.instances.unwrap())
}

async fn refused(fixture: &Fixture, input: RunInstancesRequest) -> (String, String) {
    match launch(fixture, input).await {
        Ok(_) => panic!("launched"),
        Err(error) => (error.code().to_owned(), error.message().to_owned()),
    }
}

fn id(instance: &Instance) -> String {
    instance.instance_id.clone().unwrap()
}

async fn shown(fixture: &Fixture, id: &str) -> Instance {
    let input = DescribeInstancesRequest { instance_ids: Some(vec![id.to_owned()]), ..Default::default() };
    let found = describe::list(fixture.call(&op::DESCRIBE_INSTANCES), input).await.unwrap();
    found.reservations.unwrap().remove(0).instances.unwrap().remove(0)
}

async fn state(fixture: &Fixture, id: &str) -> String {
    shown(fixture, id).await.state.unwrap().name.unwrap()
}

/// Does what the slice says, once.
async fn host(fixture: &Fixture) {
    let slice = host_slice(&fixture.platform.store.snapshot(), &|_| "signature".into(), []);
    let now = fixture.platform.clock.now();
    fixture
        .change(|tx| {
            for item in slice.values() {
                match item {
                    HostItem::Instance(item) => {
                        let machine = if item.on { Machine::Running } else { Machine::Off };
                        observe::instance(tx, &item.instance_id, item.boot, machine, None, now);
                    }
                    HostItem::Volume(item) => observe::volume(tx, &item.volume_id, None),
                    _ => {}
                }
            }
        })
        .await;
}

async fn ends(fixture: &Fixture, id: &str, boot: u64, reason: Option<&str>) {
    let now = fixture.platform.clock.now();
    fixture.change(|tx| observe::instance(tx, id, boot, Machine::Ended, reason.map(str::to_owned), now)).await;
}

fn counts(fixture: &Fixture) -> (usize, usize) {
    let view = fixture.platform.store.snapshot();
    (view.count_all::<Interface>(), view.count_all::<Volume>())
}

#[tokio::test]
async fn an_instance_is_launched_stopped_started_and_terminated() {
    let fixture = Fixture::new().await;
    let launched = launch(&fixture, request()).await.unwrap().remove(0);
    let id = id(&launched);
    assert_eq!(launched.state.unwrap().name.as_deref(), Some("pending"));
    assert_eq!(launched.instance_type.as_deref(), Some(domain::instances::default_instance_type()));
    assert!(launched.public_ip_address.is_some(), "the default subnet maps public addresses");
    let slice = host_slice(&fixture.platform.store.snapshot(), &|_| "signature".into(), []);
    let kinds: Vec<&str> = slice.keys().filter_map(|key| key.split('/').next()).collect();
    assert_eq!(kinds, ["eni", "instance", "platform", "sg", "volume", "vpc"]);
    let Some(HostItem::Instance(item)) = slice.get(&format!("instance/{id}")) else { panic!("no instance") };
    assert!(item.on && item.boot == 1 && item.vcpus == 2 && item.memory_mib == 1024);
    assert_eq!(Some(&item.hostname), launched.private_dns_name.as_ref());
    assert_eq!(item.metadata.identity_signature, "signature");
    let document: serde_json::Value = serde_json::from_str(&item.metadata.identity_document).unwrap();
    assert_eq!(
        (document["instanceId"].as_str(), document["version"].as_str()),
        (Some(id.as_str()), Some("2017-09-30"))
    );
    assert!(item.metadata.identity_document.starts_with("{\n  \"accountId\" : \"123456789012\",\n"));
    assert_eq!(item.metadata.block_devices, [("ami".into(), "/dev/xvda".into()), ("root".into(), "/dev/xvda".into())]);

    host(&fixture).await;
    assert_eq!(state(&fixture, &id).await, "running");
    let ids = || Some(vec![id.clone()]);
    let stop = StopInstancesRequest { instance_ids: ids(), ..Default::default() };
    let changes = power::stop(fixture.call(&op::STOP_INSTANCES), stop).await.unwrap().stopping_instances.unwrap();
    assert_eq!(changes[0].current_state.as_ref().unwrap().name.as_deref(), Some("stopping"));
    host(&fixture).await;
    let stopped = shown(&fixture, &id).await;
    assert_eq!(stopped.state.unwrap().name.as_deref(), Some("stopped"));
    assert!(stopped.public_ip_address.is_none() && stopped.private_ip_address.is_some());
    assert!(stopped.state_transition_reason.unwrap().starts_with("User initiated (20"));
    let slice = host_slice(&fixture.platform.store.snapshot(), &|_| String::new(), []);
    let kinds: Vec<&str> = slice.keys().filter_map(|key| key.split('/').next()).collect();
    assert_eq!(kinds, ["platform", "volume"], "a stopped instance keeps its volumes only");

    let start = StartInstancesRequest { instance_ids: ids(), ..Default::default() };
    power::start(fixture.call(&op::START_INSTANCES), start).await.unwrap();
    assert_eq!(state(&fixture, &id).await, "pending");
    host(&fixture).await;
    let running = shown(&fixture, &id).await;
    assert!(running.public_ip_address.is_some());

    let reboot = RebootInstancesRequest { instance_ids: ids(), ..Default::default() };
    power::reboot(fixture.call(&op::REBOOT_INSTANCES), reboot).await.unwrap();
    assert_eq!(state(&fixture, &id).await, "running", "it stays running, as at Amazon");
    host(&fixture).await;

    let terminate = || TerminateInstancesRequest { instance_ids: ids(), ..Default::default() };
    power::terminate(fixture.call(&op::TERMINATE_INSTANCES), terminate()).await.unwrap();
    assert_eq!(state(&fixture, &id).await, "shutting-down");
    assert_eq!(counts(&fixture), (1, 1), "nothing is taken away before the host is done");
    host(&fixture).await;
    let gone = shown(&fixture, &id).await;
    assert_eq!(gone.state.unwrap().name.as_deref(), Some("terminated"));
    assert!(gone.vpc_id.is_none() && gone.network_interfaces.unwrap().is_empty());
    assert_eq!(counts(&fixture), (0, 0));
    power::terminate(fixture.call(&op::TERMINATE_INSTANCES), terminate()).await.unwrap();
    let start = StartInstancesRequest { instance_ids: ids(), ..Default::default() };
    let error = power::start(fixture.call(&op::START_INSTANCES), start).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "IncorrectInstanceState");
}

#[tokio::test]
async fn an_instance_that_ends_by_itself_is_stopped_or_terminated() {
    let fixture = Fixture::new().await;
    for (behavior, reason, runs, expected, code) in [
        ("stop", None, true, "stopped", "Client.InstanceInitiatedShutdown"),
        ("terminate", None, true, "terminated", "Client.InstanceInitiatedShutdown"),
        ("stop", Some("no such image"), false, "terminated", "Server.InternalError"),
    ] {
        let input = RunInstancesRequest { instance_initiated_shutdown_behavior: Some(behavior.into()), ..request() };
        let id = id(&launch(&fixture, input).await.unwrap()[0]);
        if runs {
            host(&fixture).await;
        }
        ends(&fixture, &id, 1, reason).await;
        assert!(["stopping", "shutting-down"].contains(&state(&fixture, &id).await.as_str()));
        host(&fixture).await;
        let shown = shown(&fixture, &id).await;
        assert_eq!(shown.state.unwrap().name.as_deref(), Some(expected));
        assert_eq!(shown.state_reason.unwrap().code.as_deref(), Some(code));
        // What comes late changes nothing.
        ends(&fixture, &id, 1, reason).await;
        ends(&fixture, &id, 9, reason).await;
    }
}

#[tokio::test]
async fn a_request_is_done_once_and_what_it_says_counts() {
    let fixture = Fixture::new().await;
    let input = || RunInstancesRequest {
        client_token: Some("token".into()),
        max_count: Some(3),
        instance_type: Some("t3.large".into()),
        tag_specifications: Some(vec![TagSpecification {
            resource_type: Some("instance".into()),
            tags: Some(vec![Tag { key: Some("Name".into()), value: Some("web".into()) }]),
        }]),
        block_device_mappings: Some(vec![
            BlockDeviceMapping {
                device_name: Some("/dev/sdf".into()),
                ebs: Some(EbsBlockDevice {
                    volume_size: Some(5),
                    delete_on_termination: Some(false),
                    ..Default::default()
                }),
                ..Default::default()
            },
            BlockDeviceMapping {
                device_name: Some("/dev/xvda".into()),
                ebs: Some(EbsBlockDevice { volume_size: Some(40), ..Default::default() }),
                ..Default::default()
            },
        ]),
        network_interfaces: Some(vec![InstanceNetworkInterfaceSpecification {
            device_index: Some(0),
            associate_public_ip_address: Some(false),
            delete_on_termination: Some(false),
            ..Default::default()
        }]),
        ..request()
    };
    let made = launch(&fixture, input()).await.unwrap();
    let again = launch(&fixture, input()).await.unwrap();
    assert_eq!(made.iter().map(id).collect::<Vec<_>>(), again.iter().map(id).collect::<Vec<_>>());
    assert_eq!((made.len(), counts(&fixture)), (3, (3, 6)));
    assert!(made.iter().all(|instance| instance.public_ip_address.is_none()));
    let other = RunInstancesRequest { instance_type: Some("t3.small".into()), ..input() };
    assert_eq!(refused(&fixture, other).await.0, "IdempotentParameterMismatch");

    let filter = |name: &str, value: &str| Filter { name: Some(name.into()), values: Some(vec![value.into()]) };
    for (name, value, count) in [
        ("tag:Name", "web", 3),
        ("tag:Name", "db", 0),
        ("instance-type", "t3.*", 3),
        ("instance-state-name", "pending", 3),
        ("launch-index", "1", 1),
        ("block-device-mapping.device-name", "/dev/sdf", 3),
        ("network-interface.attachment.delete-on-termination", "true", 0),
    ] {
        let input = DescribeInstancesRequest { filters: Some(vec![filter(name, value)]), ..Default::default() };
        let found = describe::list(fixture.call(&op::DESCRIBE_INSTANCES), input).await.unwrap();
        let found: usize = found.reservations.unwrap().iter().map(|one| one.instances.as_ref().unwrap().len()).sum();
        assert_eq!(found, count, "{name}={value}");
    }
    // What does not go with the instance stays, free.
    let ids = Some(vec![id(&made[0])]);
    let terminate = TerminateInstancesRequest { instance_ids: ids, ..Default::default() };
    power::terminate(fixture.call(&op::TERMINATE_INSTANCES), terminate).await.unwrap();
    host(&fixture).await;
    assert_eq!(counts(&fixture), (3, 5));
    let view = fixture.platform.store.snapshot();
    assert_eq!(view.find::<Interface>("owner", "").count(), 1);
    assert_eq!(view.list::<Volume>("").filter(|volume| volume.attachment.is_none()).count(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_amazons_words() {
    let fixture = Fixture::new().await;
    let placement = |zone: &str| Some(Placement { availability_zone: Some(zone.into()), ..Default::default() });
    let profile = |name: &str| Some(IamInstanceProfileSpecification { arn: None, name: Some(name.into()) });
    for (input, code, words) in [
        (RunInstancesRequest { image_id: None, ..request() }, "MissingParameter", "ImageId"),
        (
            RunInstancesRequest { instance_type: Some("x9.huge".into()), ..request() },
            "InvalidParameterValue",
            "'x9.huge'",
        ),
        (RunInstancesRequest { key_name: Some("k".into()), ..request() }, "InvalidKeyPair.NotFound", "'k'"),
        (RunInstancesRequest { min_count: Some(2), ..request() }, "InvalidParameterValue", "minCount"),
        (
            RunInstancesRequest { subnet_id: Some("subnet-1".into()), ..request() },
            "InvalidSubnetID.NotFound",
            "subnet-1",
        ),
        (
            RunInstancesRequest { placement: placement("us-east-1z"), ..request() },
            "InvalidParameterValue",
            "us-east-1z",
        ),
        (
            RunInstancesRequest { iam_instance_profile: profile("none"), ..request() },
            "InvalidParameterValue",
            "Value (none) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
        ),
        (
            RunInstancesRequest { min_count: Some(1000), max_count: Some(1000), ..request() },
            "InstanceLimitExceeded",
            "1000",
        ),
        (RunInstancesRequest { dry_run: Some(true), ..request() }, "DryRunOperation", "DryRun"),
    ] {
        let (actual, message) = refused(&fixture, input).await;
        assert!(actual == code && message.contains(words), "{actual}: {message}");
    }
    assert_eq!(counts(&fixture), (0, 0));
    for (id, code) in [("i-0123456789abcdef0", "InvalidInstanceID.NotFound"), ("web", "InvalidInstanceID.Malformed")] {
        let input = DescribeInstancesRequest { instance_ids: Some(vec![id.into()]), ..Default::default() };
        let error = describe::list(fixture.call(&op::DESCRIBE_INSTANCES), input).await.map(|_| ()).unwrap_err();
        assert_eq!(error.code(), code);
    }
}

#[tokio::test]
async fn attributes_are_shown_and_changed() {
    let fixture = Fixture::new().await;
    let input = RunInstancesRequest { disable_api_termination: Some(true), ..request() };
    let id = id(&launch(&fixture, input).await.unwrap()[0]);
    host(&fixture).await;
    let terminate = || TerminateInstancesRequest { instance_ids: Some(vec![id.clone()]), ..Default::default() };
    let error = power::terminate(fixture.call(&op::TERMINATE_INSTANCES), terminate()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "OperationNotPermitted");
    let modify = |input: ModifyInstanceAttributeRequest| {
        let input = ModifyInstanceAttributeRequest { instance_id: Some(id.clone()), ..input };
        attributes::modify(fixture.call(&op::MODIFY_INSTANCE_ATTRIBUTE), input)
    };
    let off = Some(AttributeBooleanValue { value: Some(false) });
    modify(ModifyInstanceAttributeRequest { disable_api_termination: off, ..Default::default() }).await.unwrap();
    let value = Some(AttributeValue { value: Some("t3.large".into()) });
    let change = ModifyInstanceAttributeRequest { instance_type: value, ..Default::default() };
    assert_eq!(modify(change).await.unwrap_err().code(), "IncorrectInstanceState");
    let input = DescribeInstanceAttributeRequest {
        instance_id: Some(id.clone()),
        attribute: Some("disableApiTermination".into()),
        ..Default::default()
    };
    let shown = attributes::describe(fixture.call(&op::DESCRIBE_INSTANCE_ATTRIBUTE), input).await.unwrap();
    assert_eq!(shown.disable_api_termination.unwrap().value, Some(false));
    let now = fixture.platform.clock.now();
    fixture.change(|tx| observe::console(tx, &id, "aGVsbG8=".into(), now)).await;
    let input = GetConsoleOutputRequest { instance_id: Some(id.clone()), ..Default::default() };
    let output = console::output(fixture.call(&op::GET_CONSOLE_OUTPUT), input).await.unwrap();
    assert_eq!(output.output.as_deref(), Some("aGVsbG8="));
    assert_eq!(fixture.platform.store.snapshot().count_all::<ConsoleOutput>(), 1);
    let all = status::list(fixture.call(&op::DESCRIBE_INSTANCE_STATUS), Default::default()).await.unwrap();
    let all = all.instance_statuses.unwrap();
    assert_eq!(all[0].instance_status.as_ref().unwrap().status.as_deref(), Some("ok"));
    power::terminate(fixture.call(&op::TERMINATE_INSTANCES), terminate()).await.unwrap();
}

#[tokio::test]
async fn a_launch_template_fills_in_what_the_request_leaves_open() {
    let fixture = Fixture::new().await;
    let data = |size: &str| {
        Some(RequestLaunchTemplateData {
            image_id: request().image_id,
            instance_type: Some(size.into()),
            user_data: Some("IyEvYmluL3No".into()),
            ..Default::default()
        })
    };
    let create = CreateLaunchTemplateRequest {
        launch_template_name: Some("web".into()),
        launch_template_data: data("t3.small"),
        ..Default::default()
    };
    let made = launch_templates::create(fixture.call(&op::CREATE_LAUNCH_TEMPLATE), create).await.unwrap();
    let template_id = made.launch_template.unwrap().launch_template_id;
    let version = CreateLaunchTemplateVersionRequest {
        launch_template_name: Some("web".into()),
        source_version: Some("1".into()),
        launch_template_data: Some(RequestLaunchTemplateData {
            instance_type: Some("t3.medium".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let call = fixture.call(&op::CREATE_LAUNCH_TEMPLATE_VERSION);
    let made = launch_templates::versions::create(call, version).await.unwrap().launch_template_version.unwrap();
    assert_eq!(made.version_number, Some(2));
    assert_eq!(made.launch_template_data.unwrap().user_data.as_deref(), Some("IyEvYmluL3No"));
    for (version, own, expected) in
        [(None, None, "t3.small"), (Some("$Latest"), None, "t3.medium"), (Some("2"), Some("t3.nano"), "t3.nano")]
    {
        let input = RunInstancesRequest {
            image_id: None,
            instance_type: own.map(str::to_owned),
            launch_template: Some(LaunchTemplateSpecification {
                launch_template_id: template_id.clone(),
                launch_template_name: None,
                version: version.map(str::to_owned),
            }),
            ..request()
        };
        let launched = launch(&fixture, input).await.unwrap().remove(0);
        assert_eq!(launched.instance_type.as_deref(), Some(expected));
        let stored = fixture.platform.store.snapshot().get::<Stored>(&scope().key(&id(&launched))).unwrap();
        assert_eq!(stored.user_data.as_deref(), Some("IyEvYmluL3No"));
        assert!(stored.tags.get("aws:ec2launchtemplate:id").is_some());
    }
    let delete = DeleteLaunchTemplateVersionsRequest {
        launch_template_id: template_id.clone(),
        versions: Some(vec!["1".into(), "2".into(), "7".into()]),
        ..Default::default()
    };
    let call = fixture.call(&op::DELETE_LAUNCH_TEMPLATE_VERSIONS);
    let done = launch_templates::versions::delete(call, delete).await.unwrap();
    assert_eq!(done.successfully_deleted_launch_template_versions.unwrap().len(), 1);
    assert_eq!(done.unsuccessfully_deleted_launch_template_versions.unwrap().len(), 2);
    let list = DescribeLaunchTemplateVersionsRequest { launch_template_id: template_id, ..Default::default() };
    let call = fixture.call(&op::DESCRIBE_LAUNCH_TEMPLATE_VERSIONS);
    let left = launch_templates::versions::list(call, list).await.unwrap().launch_template_versions.unwrap();
    assert_eq!(left.iter().map(|one| one.version_number).collect::<Vec<_>>(), [Some(1)]);
}
