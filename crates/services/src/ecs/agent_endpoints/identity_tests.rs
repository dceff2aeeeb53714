//! An agent on an EC2 instance registers, loses its state, registers again, and its instance ends.

use api::ecs::{CreateClusterRequest, RegisterContainerInstanceRequest, Resource, operation as op};
use domain::ecs::{ContainerInstance, ContainerInstanceStatus, LaunchType};
use domain::instances::Machine;
use domain::network::host::HostItem;

use super::register;
use crate::ec2::{Ec2, host_slice, observe};
use crate::testing::{Fixture, scope};

fn resource(name: &str, value: i32) -> Resource {
    Resource { name: Some(name.into()), integer_value: Some(value), ..Resource::default() }
}

/// Launches an instance that runs; gives its id, its document and the signature.
async fn machine(fixture: &Fixture) -> (String, String, String) {
    let images = api::ec2::Ec2::describe_images(
        &Ec2,
        fixture.call(&api::ec2::operation::DESCRIBE_IMAGES),
        api::ec2::DescribeImagesRequest::default(),
    );
    let input = api::ec2::RunInstancesRequest {
        image_id: images.await.unwrap().images.unwrap().remove(0).image_id,
        min_count: Some(1),
        max_count: Some(1),
        ..Default::default()
    };
    let call = fixture.call(&api::ec2::operation::RUN_INSTANCES);
    let made = api::ec2::Ec2::run_instances(&Ec2, call, input).await.unwrap();
    let id = made.instances.unwrap().remove(0).instance_id.unwrap();
    let sign = |document: &str| fixture.platform.authority.sign_identity_document(document);
    let slice = host_slice(&fixture.platform.store.snapshot(), &sign, []);
    let Some(HostItem::Instance(item)) = slice.get(&format!("instance/{id}")) else { panic!("no item") };
    (id, item.metadata.identity_document.clone(), item.metadata.identity_signature.clone())
}

#[tokio::test]
async fn one_ec2_instance_is_one_container_instance() {
    let fixture = Fixture::new().await;
    let (id, document, signature) = machine(&fixture).await;
    let cluster = CreateClusterRequest::default();
    api::ecs::Ecs::create_cluster(&crate::ecs::Ecs, fixture.call(&op::CREATE_CLUSTER), cluster).await.unwrap();
    let input = |document: &str, signature: &str| RegisterContainerInstanceRequest {
        instance_identity_document: Some(document.to_owned()),
        instance_identity_document_signature: Some(signature.to_owned()),
        total_resources: Some(vec![resource("CPU", 2048), resource("MEMORY", 900)]),
        ..Default::default()
    };
    let send = |input| register(fixture.call(&op::REGISTER_CONTAINER_INSTANCE), input);
    for (document, signature) in [
        (document.replace("us-east-1a", "us-east-1b").as_str(), signature.as_str()),
        (&document, "AAAA"),
        (&document, ""),
    ] {
        assert!(send(input(document, signature)).await.is_err(), "{signature}");
    }
    let first = send(input(&document, &signature)).await.unwrap().container_instance.unwrap();
    assert_eq!(first.ec2_instance_id.as_deref(), Some(id.as_str()));
    let attributes = first.attributes.unwrap();
    for name in ["ecs.availability-zone", "ecs.instance-type", "ecs.ami-id", "ecs.vpc-id", "ecs.subnet-id"] {
        assert!(attributes.iter().any(|one| one.name.as_deref() == Some(name) && one.value.is_some()), "{name}");
    }
    let again = RegisterContainerInstanceRequest {
        container_instance_arn: first.container_instance_arn.clone(),
        ..input(&document, &signature)
    };
    let again = send(again).await.unwrap().container_instance.unwrap();
    assert_eq!(again.container_instance_arn, first.container_instance_arn);
    let second = send(input(&document, &signature)).await.unwrap().container_instance.unwrap();
    assert_ne!(second.container_instance_arn, first.container_instance_arn, "what it ran is lost");
    let active = || {
        let view = fixture.platform.store.snapshot();
        let all = view.list::<ContainerInstance>("");
        all.filter(|one| one.status == ContainerInstanceStatus::Active).collect::<Vec<_>>()
    };
    assert_eq!(active().len(), 1);
    assert_eq!(active()[0].launch_type(), LaunchType::Ec2);

    let now = fixture.platform.clock.now();
    let terminate = api::ec2::TerminateInstancesRequest { instance_ids: Some(vec![id.clone()]), ..Default::default() };
    let call = fixture.call(&api::ec2::operation::TERMINATE_INSTANCES);
    api::ec2::Ec2::terminate_instances(&Ec2, call, terminate).await.unwrap();
    assert!(send(input(&document, &signature)).await.is_err(), "it is being terminated");
    fixture.change(|tx| observe::instance(tx, &id, 1, Machine::Off, None, now)).await;
    assert!(active().is_empty(), "a terminated instance leaves its cluster");
    assert!(fixture.platform.store.snapshot().get::<domain::instances::Instance>(&scope().key(&id)).is_some());
}
