//! The members that CreateService and UpdateService share and that are not served yet.

use api::ecs::*;
use wire::ServiceError;

use crate::ecs::common::{Given, refuse};

/// Taken out of either request. A member that becomes served leaves this.
pub(super) struct Unserved {
    pub(super) enable_execute_command: Option<bool>,
    pub(super) service_registries: Option<Vec<ServiceRegistry>>,
    pub(super) service_connect_configuration: Option<ServiceConnectConfiguration>,
    pub(super) volume_configurations: Option<Vec<ServiceVolumeConfiguration>>,
    pub(super) vpc_lattice_configurations: Option<Vec<VpcLatticeConfiguration>>,
    pub(super) gateway_connectors: Option<Vec<GatewayConnector>>,
    pub(super) monitoring: Option<MonitoringConfiguration>,
}

impl Unserved {
    /// Refuses by name what was given.
    pub(super) fn refuse(self) -> Result<(), ServiceError> {
        let connects = |configuration: ServiceConnectConfiguration| configuration.enabled != Some(false);
        refuse(&[
            ("enableExecuteCommand", self.enable_execute_command.given()),
            ("serviceRegistries", self.service_registries.given()),
            ("serviceConnectConfiguration", self.service_connect_configuration.is_some_and(connects)),
            ("volumeConfigurations", self.volume_configurations.given()),
            ("vpcLatticeConfigurations", self.vpc_lattice_configurations.given()),
            ("gatewayConnectors", self.gateway_connectors.given()),
            ("monitoring", self.monitoring.is_some()),
        ])
    }
}
