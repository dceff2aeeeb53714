//! Listeners: HTTP and TCP, each for one port of the instances.

use std::collections::BTreeMap;

use api::elb::*;
use domain::balancing::{Classic, ClassicListener, ClassicProtocol, LoadBalancer};
use wire::ServiceError;

use super::find::{self, invalid, unsupported};
use crate::Call;

/// The most listeners of a load balancer.
const MAX_LISTENERS: usize = 100;

/// Reads the listeners of a request.
pub(super) fn read(given: Option<Vec<Listener>>) -> Result<Vec<ClassicListener>, ServiceError> {
    let given = given.unwrap_or_default();
    if given.is_empty() {
        return Err(invalid("Listeners cannot be empty"));
    }
    given.into_iter().map(one).collect()
}

fn one(given: Listener) -> Result<ClassicListener, ServiceError> {
    let Listener { protocol, load_balancer_port, instance_protocol, instance_port, ssl_certificate_id } = given;
    let port = |port: Option<i32>, name: &str| {
        let port = port.unwrap_or_default();
        let checked = u16::try_from(port).ok().filter(|port| *port > 0);
        checked.ok_or_else(|| invalid(format!("{name} {port} must be between 1 and 65535")))
    };
    let read = |given: &str| match given.to_ascii_uppercase().as_str() {
        "HTTP" => Ok(ClassicProtocol::Http),
        "TCP" => Ok(ClassicProtocol::Tcp),
        secure @ ("HTTPS" | "SSL") => Err(unsupported(&format!("A listener with protocol '{secure}'"))),
        _ => Err(error::unsupported_protocol_exception(format!("Listener protocol '{given}' is not supported"))),
    };
    let protocol = read(&protocol.unwrap_or_default())?;
    let to_instance = instance_protocol.as_deref().filter(|given| !given.is_empty()).map(read).transpose()?;
    if to_instance.is_some_and(|to_instance| to_instance != protocol) {
        return Err(error::invalid_configuration_request_exception(
            "Listener protocol and InstanceProtocol must be at the same Internet protocol layer",
        ));
    }
    if ssl_certificate_id.is_some_and(|id| !id.is_empty()) {
        return Err(error::invalid_configuration_request_exception(
            "SSLCertificateId is for listeners of protocol HTTPS or SSL",
        ));
    }
    Ok(ClassicListener {
        port: port(load_balancer_port, "LoadBalancerPort")?,
        protocol,
        instance_port: port(instance_port, "InstancePort")?,
    })
}

/// Adds listeners. One that is there already is no error, if it is the same.
pub(super) fn add(to: &mut Classic, new: Vec<ClassicListener>) -> Result<(), ServiceError> {
    let mut by_port: BTreeMap<u16, ClassicListener> =
        to.listeners.drain(..).map(|listener| (listener.port, listener)).collect();
    for listener in new {
        let port = listener.port;
        if by_port.insert(port, listener.clone()).is_some_and(|known| known != listener) {
            return Err(error::duplicate_listener_exception(format!(
                "A listener already exists with LoadBalancerPort {port}, but with a different InstancePort, Protocol, or SSLCertificateId"
            )));
        }
    }
    if by_port.len() > MAX_LISTENERS {
        return Err(error::invalid_configuration_request_exception(format!(
            "The maximum number of listeners of a load balancer is {MAX_LISTENERS}"
        )));
    }
    to.listeners = by_port.into_values().collect();
    Ok(())
}

pub(super) async fn create(
    call: Call,
    input: CreateLoadBalancerListenerInput,
) -> Result<CreateLoadBalancerListenerOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    let new = read(input.listeners)?;
    auth.transact(|tx| {
        let (load_balancer, mut classic) = find::load_balancer(tx, &arn)?;
        add(&mut classic, new)?;
        tx.put(LoadBalancer { classic: Some(classic), ..load_balancer });
        Ok(())
    })
    .await?;
    Ok(CreateLoadBalancerListenerOutput {})
}

pub(super) async fn delete(
    call: Call,
    input: DeleteLoadBalancerListenerInput,
) -> Result<DeleteLoadBalancerListenerOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    let ports = input.load_balancer_ports.unwrap_or_default();
    auth.transact(|tx| {
        let (load_balancer, mut classic) = find::load_balancer(tx, &arn)?;
        // Deleting what is not there succeeds.
        classic.listeners.retain(|listener| !ports.contains(&i32::from(listener.port)));
        tx.put(LoadBalancer { classic: Some(classic), ..load_balancer });
        Ok(())
    })
    .await?;
    Ok(DeleteLoadBalancerListenerOutput {})
}

pub(super) fn shape(listener: &ClassicListener) -> ListenerDescription {
    let protocol = Some(listener.protocol.as_str().to_owned());
    ListenerDescription {
        listener: Some(Listener {
            protocol: protocol.clone(),
            load_balancer_port: Some(listener.port.into()),
            instance_protocol: protocol,
            instance_port: Some(listener.instance_port.into()),
            ssl_certificate_id: None,
        }),
        policy_names: Some(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(protocol: &str, port: i32, instance_port: i32) -> Listener {
        Listener {
            protocol: Some(protocol.into()),
            load_balancer_port: Some(port),
            instance_port: Some(instance_port),
            ..Listener::default()
        }
    }

    #[test]
    fn listeners_are_read_and_what_is_not_served_is_refused_by_name() {
        let read = |given: Listener| one(given).map_err(|error| error.message().to_owned());
        let http = ClassicListener { port: 80, protocol: ClassicProtocol::Http, instance_port: 8080 };
        assert_eq!(read(listener("http", 80, 8080)), Ok(http));
        assert!(read(listener("HTTPS", 443, 80)).unwrap_err().contains("HTTPS"));
        assert!(read(listener("UDP", 53, 53)).is_err());
        for (port, instance_port) in [(0, 80), (65_536, 80), (80, 0), (80, -1)] {
            assert!(read(listener("TCP", port, instance_port)).is_err(), "{port} {instance_port}");
        }
        let mixed = Listener { instance_protocol: Some("TCP".into()), ..listener("HTTP", 80, 80) };
        assert!(read(mixed).unwrap_err().contains("layer"));
    }

    #[test]
    fn a_port_has_one_listener() {
        let mut classic = Classic::default();
        let read = |given: &[Listener]| read(Some(given.to_vec())).unwrap();
        add(&mut classic, read(&[listener("TCP", 90, 1), listener("HTTP", 80, 8080)])).unwrap();
        add(&mut classic, read(&[listener("HTTP", 80, 8080)])).unwrap();
        assert_eq!(classic.listeners.iter().map(|known| known.port).collect::<Vec<_>>(), [80, 90]);
        assert!(add(&mut classic.clone(), read(&[listener("TCP", 80, 8080)])).is_err());
        assert!(add(&mut classic, read(&[listener("TCP", 7, 1), listener("TCP", 7, 2)])).is_err());
    }
}
