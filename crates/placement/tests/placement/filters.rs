//! Who is left out, with which words, and who is the closest.

use domain::ecs::{ContainerInstanceStatus, HostPort, LaunchType, TransportProtocol};
use placement::{Demand, Instance, Reason, Refusal, filter};

use crate::support::*;

#[test]
fn each_filter_says_what_is_missing() {
    // An instance of 1024 CPU units, 2048 MiB and two GPUs, in zone a, with SSH and one task of the group, port 80 and a
    // GPU on it.
    let assert = |what: &str, expected: Result<(), Reason>, adapt: &dyn Fn(&mut Instance, &mut Demand)| {
        let mut instance = with_gpus(instance("a", 1024, 2048, &[("ecs.availability-zone", "a"), ("x", "1")]), 2);
        instance.take(&Demand { host_ports: vec![tcp(80)], gpus: 1, ..demand(24, 48) });
        let mut demand = demand(1000, 2000);
        adapt(&mut instance, &mut demand);
        assert_eq!(check(&instance, &demand), expected, "{what}");
    };
    let external = |instance: &mut Instance| {
        change(instance, |stored| {
            stored.attributes.push(attribute(domain::ecs::container_instance::EXTERNAL_ATTRIBUTE, ""))
        });
    };
    let udp = HostPort { protocol: TransportProtocol::Udp, port: 80 };
    assert("exactly what is free", Ok(()), &|_, _| {});
    assert("draining", Err(Reason::Inactive), &|instance, _| {
        change(instance, |stored| stored.status = ContainerInstanceStatus::Draining);
    });
    assert("disconnected", Err(Reason::Agent), &|instance, _| instance.connected = false);
    assert("one unit more", Err(Reason::Cpu), &|_, demand| demand.cpu += 1);
    assert("one MiB more", Err(Reason::Memory), &|_, demand| demand.memory += 1);
    assert("no CPU at all", Ok(()), &|_, demand| demand.cpu = 0);
    assert("a task's port", Err(Reason::Ports), &|_, demand| demand.host_ports = vec![tcp(81), tcp(80)]);
    assert("a reserved port", Err(Reason::Ports), &|_, demand| demand.host_ports = vec![tcp(22)]);
    assert("that port of UDP", Ok(()), &|_, demand| demand.host_ports = vec![udp]);
    assert("the free GPU", Ok(()), &|_, demand| demand.gpus = 1);
    assert("a task's GPU", Err(Reason::Gpu), &|_, demand| demand.gpus = 2);
    assert("an attribute", Ok(()), &|_, demand| demand.required_attributes = vec!["x".into()]);
    assert("no attribute", Err(Reason::Attribute), &|_, demand| demand.required_attributes = vec!["y".into()]);
    assert("no interfaces", Err(Reason::Attribute), &|_, demand| demand.network_interface = true);
    assert("EXTERNAL", Err(Reason::Attribute), &|_, demand| demand.launch_type = LaunchType::External);
    assert("EXTERNAL there", Ok(()), &|instance, demand| {
        external(instance);
        demand.launch_type = LaunchType::External;
    });
    assert("EC2 on a machine outside", Err(Reason::Attribute), &|instance, _| external(instance));
    assert("FARGATE", Err(Reason::Attribute), &|_, demand| demand.launch_type = LaunchType::Fargate);
    for (zones, own_zone, expected) in [
        (vec!["b"], true, Err(Reason::Location)),
        (vec!["b", "a"], true, Ok(())),
        (vec![], true, Ok(())),
        (vec!["b"], false, Ok(())),
    ] {
        assert("zones of subnets", expected, &|instance, demand| {
            change(instance, |stored| {
                stored.attributes.push(attribute(filter::NETWORK_INTERFACE_ATTRIBUTE, ""));
                stored
                    .attributes
                    .retain(|attribute| own_zone || attribute.name != domain::ecs::container_instance::ZONE_ATTRIBUTE);
            });
            demand.network_interface = true;
            demand.zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        });
    }
    assert("zones of no interface", Ok(()), &|_, demand| demand.zones = vec!["b".into()]);
    assert("distinct", Err(Reason::DistinctInstance), &|_, demand| demand.distinct_instance = true);
    assert("distinct from others", Ok(()), &|_, demand| {
        demand.distinct_instance = true;
        demand.group = "service:other".into();
    });
    assert("selected", Ok(()), &|_, demand| demand.member_of = vec![query("attribute:x == 1")]);
    assert("not by all", Err(Reason::MemberOf), &|_, demand| {
        demand.member_of = vec![query("attribute:x == 1"), query("task:group != service:web")];
    });
    assert("first things first", Err(Reason::Cpu), &|_, demand| {
        demand.cpu = 9999;
        demand.memory = 9999;
        demand.distinct_instance = true;
    });
}

#[test]
fn an_instance_has_the_interfaces_of_its_type_and_no_more() {
    for (kind, interfaces) in [("t3.micro", 1), ("m5.large", 2), ("m6g.xlarge", 3), ("none.such", 9), ("", 9)] {
        let mut attributes = vec![(filter::NETWORK_INTERFACE_ATTRIBUTE, "")];
        attributes.extend((!kind.is_empty()).then_some(("ecs.instance-type", kind)));
        let mut instance = instance("a", 1024, 1024, &attributes);
        let demand = Demand { network_interface: true, gpus: 1, ..demand(1, 1) };
        let mut taken = 0;
        // Of two things that are missing the interface comes first.
        while check(&instance, &demand) == Err(Reason::Gpu) && taken < 9 {
            instance.take(&demand);
            taken += 1;
        }
        assert_eq!(taken, interfaces, "{kind}");
        let full = if interfaces < 9 { Reason::NetworkInterface } else { Reason::Gpu };
        assert_eq!(check(&instance, &demand), Err(full));
        assert_eq!(check(&instance, &crate::support::demand(1, 1)), Ok(()), "others need no interface");
    }
}

#[test]
fn reasons_have_amazons_words() {
    for (reason, word, phrase) in [
        (Reason::Inactive, "INACTIVE", "encountered error \"INACTIVE\""),
        (Reason::Agent, "AGENT", "encountered error \"AGENT\""),
        (Reason::Attribute, "ATTRIBUTE", "is missing an attribute required by your task"),
        (Reason::Location, "LOCATION", "encountered error \"LOCATION\""),
        (Reason::Cpu, "RESOURCE:CPU", "has insufficient CPU units available"),
        (Reason::Memory, "RESOURCE:MEMORY", "has insufficient memory available"),
        (Reason::Ports, "RESOURCE:PORTS", "is already using a port required by your task"),
        (Reason::NetworkInterface, "RESOURCE:ENI", "encountered error \"RESOURCE:ENI\""),
        (Reason::Gpu, "RESOURCE:GPU", "encountered error \"RESOURCE:GPU\""),
        (
            Reason::DistinctInstance,
            "DistinctInstance placement constraint unsatisfied.",
            "encountered error \"DistinctInstance placement constraint unsatisfied.\"",
        ),
        (
            Reason::MemberOf,
            "MemberOf placement constraint unsatisfied.",
            "encountered error \"MemberOf placement constraint unsatisfied.\"",
        ),
    ] {
        assert_eq!((reason.as_str(), reason.phrase().as_str()), (word, phrase));
    }
}

fn refusal(instances: &[Instance], demand: &Demand) -> Refusal {
    place(instances, demand, &[], &mut seed(1)).unwrap_err()
}

#[test]
fn a_refusal_has_the_reason_of_each_and_the_closest() {
    let mut away = instance("away", 9999, 9999, &[]);
    away.connected = false;
    let mut draining = instance("draining", 9999, 9999, &[]);
    change(&mut draining, |stored| stored.status = ContainerInstanceStatus::Draining);
    let instances = [
        away,
        draining,
        instance("slow", 512, 4096, &[]),
        instance("less", 1024, 512, &[]),
        instance("small", 1024, 768, &[]),
        instance("alike", 1024, 768, &[]),
    ];
    let refusal = refusal(&instances, &demand(1024, 1024));
    let reasons: Vec<_> =
        refusal.left_out.iter().map(|left_out| (left_out.arn().resource_name(), left_out.reason.as_str())).collect();
    let memory = "RESOURCE:MEMORY";
    assert_eq!(
        reasons,
        [("alike", memory), ("away", "AGENT"), ("less", memory), ("slow", "RESOURCE:CPU"), ("small", memory)]
    );
    assert_eq!(
        refusal.closest().map(|closest| closest.arn().resource_name()),
        Some("alike"),
        "the first of equal ones"
    );
}

#[test]
fn of_those_that_lack_cpu_the_one_with_the_most_is_the_closest() {
    let instances = [instance("slow", 256, 4096, &[]), instance("faster", 512, 1024, &[])];
    let refusal = refusal(&instances, &demand(1024, 1024));
    assert_eq!(refusal.closest().map(|closest| closest.arn().resource_name()), Some("faster"));
}

#[test]
fn a_refusal_reads_as_a_services_event_does() {
    let start = "was unable to place a task because no container instance met all of its requirements.";
    let none = format!("{start} Reason: No Container Instances were found in your cluster.");
    assert_eq!(refusal(&[], &demand(1, 1)).to_string(), none);
    let mut draining = [instance("a", 1024, 1024, &[])];
    change(&mut draining[0], |stored| stored.status = ContainerInstanceStatus::Draining);
    assert_eq!(refusal(&draining, &demand(1, 1)).to_string(), none);
    let cpu = refusal(&[instance("a", 1024, 1024, &[])], &demand(2048, 1)).to_string();
    assert_eq!(
        cpu,
        format!("{start} The closest matching (container-instance a) has insufficient CPU units available.")
    );
    let distinct = Demand { distinct_instance: true, ..demand(1, 1) };
    assert_eq!(
        refusal(&[with_tasks(in_zone("a", ""), 1)], &distinct).to_string(),
        format!(
            "{start} The closest matching (container-instance a) encountered error \"DistinctInstance placement constraint \
             unsatisfied.\"."
        )
    );
}
