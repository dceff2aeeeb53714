//! Registered instances and their health.

use std::time::Duration;

use api::elb::*;
use domain::{
    Arn, Resource,
    balancing::{self, HealthState, LoadBalancer, TargetRegistration, classic, deregister as drain, register as renew},
    instances::{Instance as Machine, InstanceState as Power},
    network::NetworkInterface,
};
use store::Snapshot;
use wire::ServiceError;

use super::find;
use crate::{
    Call,
    elbv2::targets::{in_zone, is_on},
};

/// The most instances of a load balancer.
const MAX_INSTANCES: usize = 1000;

fn ids(given: Option<Vec<Instance>>) -> Vec<String> {
    given.unwrap_or_default().into_iter().filter_map(|instance| instance.instance_id).collect()
}

fn shapes(ids: Vec<String>) -> Option<Vec<Instance>> {
    Some(ids.into_iter().map(|id| Instance { instance_id: Some(id) }).collect())
}

fn unknown(id: &str) -> ServiceError {
    error::invalid_end_point_exception(format!("Could not find EC2 instance {id}."))
}

/// An instance that is not terminated.
fn machine(view: &Snapshot, load_balancer: &LoadBalancer, id: &str) -> Result<Machine, ServiceError> {
    let found = view.get::<Machine>(&load_balancer.scope.key(id));
    let there = found.filter(|machine| !matches!(machine.state(), Power::ShuttingDown | Power::Terminated));
    there.map(|machine| Machine::clone(&machine)).ok_or_else(|| unknown(id))
}

pub(super) async fn register(
    call: Call,
    input: RegisterEndPointsInput,
) -> Result<RegisterEndPointsOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    let (ids, now) = (ids(input.instances), auth.now());
    let registered = auth
        .transact(|tx| {
            let (load_balancer, _) = find::load_balancer(tx, &arn)?;
            for id in &ids {
                let machine = machine(tx, &load_balancer, id)?;
                if machine.vpc_id != load_balancer.vpc_id {
                    return Err(error::invalid_end_point_exception(format!(
                        "EC2 instance {id} is not in the same VPC as ELB."
                    )));
                }
                let interface = tx.get::<NetworkInterface>(&load_balancer.scope.key(&machine.interface_id));
                let address = interface.ok_or_else(|| unknown(id))?.private_address.into();
                let new = TargetRegistration {
                    target_group: arn.clone(),
                    address,
                    port: classic::ANY_PORT,
                    instance_id: Some(id.clone()),
                    availability_zone: Some(machine.availability_zone.clone()),
                    registered_at: now,
                    draining_until: None,
                };
                let existing = tx.get::<TargetRegistration>(&new.key());
                tx.put(renew(existing.map(|existing| TargetRegistration::clone(&existing)), new));
            }
            let registered = find::instances(tx, &arn);
            if registered.len() > MAX_INSTANCES {
                return Err(error::invalid_configuration_request_exception(format!(
                    "The maximum number of instances of a load balancer is {MAX_INSTANCES}"
                )));
            }
            Ok(registered)
        })
        .await?;
    Ok(RegisterEndPointsOutput { instances: shapes(registered) })
}

pub(super) async fn deregister(
    call: Call,
    input: DeregisterEndPointsInput,
) -> Result<DeregisterEndPointsOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    let (ids, now) = (ids(input.instances), auth.now());
    let left = auth
        .transact(|tx| {
            find::load_balancer(tx, &arn)?;
            let delay = find::group(tx, &arn)?.attributes.deregistration_delay_seconds;
            let registered = find::registrations(tx, &arn);
            for id in &ids {
                let found = registered.iter().find(|known| known.instance_id.as_ref() == Some(id));
                let found = found.ok_or_else(|| unknown(id))?;
                match drain(TargetRegistration::clone(found), Duration::from_secs(delay.into()), now) {
                    Some(draining) => tx.put(draining),
                    None => tx.delete::<TargetRegistration>(&found.key()),
                }
            }
            Ok(find::instances(tx, &arn))
        })
        .await?;
    Ok(DeregisterEndPointsOutput { instances: shapes(left) })
}

pub(super) fn describe_health(
    call: &Call,
    input: DescribeEndPointStateInput,
) -> Result<DescribeEndPointStateOutput, ServiceError> {
    let (auth, arn) = find::authorise(call, input.load_balancer_name)?;
    let view = auth.snapshot();
    let (load_balancer, _) = find::load_balancer(&view, &arn)?;
    let asked = ids(input.instances);
    let asked = if asked.is_empty() { find::instances(&view, &arn) } else { asked };
    let registered = find::registrations(&view, &arn);
    let state = |id: &String| {
        let registration = registered.iter().find(|known| known.instance_id.as_ref() == Some(id));
        let (state, reason, description) = match registration {
            Some(registration) => health(&view, &load_balancer, &arn, registration),
            None => {
                machine(&view, &load_balancer, id)?;
                (OUT, INSTANCE, "Instance is not currently registered with the LoadBalancer.")
            }
        };
        Ok(InstanceState {
            instance_id: Some(id.clone()),
            state: Some(state.to_owned()),
            reason_code: Some(reason.to_owned()),
            description: Some(description.to_owned()),
        })
    };
    let states = asked.iter().map(state).collect::<Result<_, ServiceError>>()?;
    Ok(DescribeEndPointStateOutput { instance_states: Some(states) })
}

const IN: &str = "InService";
const OUT: &str = "OutOfService";
/// Whose doing it is: the load balancer's, the instance's, or nobody's.
const ELB: &str = "ELB";
const INSTANCE: &str = "Instance";
const NOBODY: &str = "N/A";

/// State, reason code and description of a registered instance, in Amazon's words.
/// <https://docs.aws.amazon.com/elasticloadbalancing/2012-06-01/APIReference/API_InstanceState.html>
fn health(
    view: &Snapshot,
    load_balancer: &LoadBalancer,
    arn: &Arn,
    registration: &TargetRegistration,
) -> (&'static str, &'static str, &'static str) {
    if registration.draining_until.is_some() {
        return (IN, ELB, "Instance deregistration currently in progress.");
    }
    if !in_zone(registration, load_balancer) {
        let text =
            "Instance is in the EC2 Availability Zone for which LoadBalancer is not configured to route traffic to.";
        return (OUT, ELB, text);
    }
    if !is_on(view, registration) {
        return (OUT, INSTANCE, "Instance is in stopped state.");
    }
    let key = TargetRegistration::key_of(arn, registration.address, registration.port);
    let observed = view.get::<balancing::ObservedHealth>(&key);
    match observed.map(|observed| observed.health.state) {
        Some(HealthState::Healthy) => (IN, NOBODY, NOBODY),
        Some(HealthState::Unhealthy) => {
            let text = "Instance has failed at least the UnhealthyThreshold number of health checks consecutively.";
            (OUT, INSTANCE, text)
        }
        Some(HealthState::Initial | HealthState::Unused | HealthState::Draining) | None => {
            (OUT, ELB, "Instance registration is still in progress.")
        }
    }
}
