//! Route tables, their routes and which subnets use them. A default route decides whether interfaces get out of the
//! VPC at all; narrower routes to gateways are refused, since the host knows only "out" and "not out".

use api::ec2::{
    AssociateRouteTableRequest, AssociateRouteTableResult, CreateRouteRequest, CreateRouteResult,
    CreateRouteTableRequest, CreateRouteTableResult, DeleteRouteRequest, DeleteRouteTableRequest,
    DescribeRouteTablesRequest, DescribeRouteTablesResult, DisassociateRouteTableRequest, ReplaceRouteRequest,
    ReplaceRouteTableAssociationRequest, ReplaceRouteTableAssociationResult, RouteTableAssociationState,
};
use domain::network::{
    Cidr, InternetGateway, NatGateway, NatGatewayState, Route, RouteTable, RouteTableAssociation, RouteTarget, Subnet,
    Vpc,
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::{
    common::{Filterable, Query, begin, describe, find, invalid_value, refuse, required, unsupported},
    tags,
};
use crate::Call;

const FILTERS: Filterable<RouteTable> = Filterable {
    names: &[
        "route-table-id",
        "vpc-id",
        "association.main",
        "association.route-table-association-id",
        "association.route-table-id",
        "association.subnet-id",
        "route.destination-cidr-block",
        "route.gateway-id",
        "route.nat-gateway-id",
        "route.origin",
        "route.state",
    ],
    values: |view, table, name| {
        let associations = table.associations.iter();
        let routes = table.routes.iter();
        match name {
            "vpc-id" => vec![table.vpc_id.clone()],
            "association.main" => associations.map(|one| one.subnet_id.is_none().to_string()).collect(),
            "association.route-table-association-id" => associations.map(|one| one.association_id.clone()).collect(),
            "association.subnet-id" => associations.filter_map(|one| one.subnet_id.clone()).collect(),
            "route.destination-cidr-block" => routes.map(|route| route.destination.to_string()).collect(),
            "route.gateway-id" => routes
                .filter_map(|route| match &route.target {
                    RouteTarget::Local => Some("local".to_owned()),
                    RouteTarget::InternetGateway(id) => Some(id.clone()),
                    RouteTarget::NatGateway(_) => None,
                })
                .collect(),
            "route.nat-gateway-id" => routes
                .filter_map(|route| match &route.target {
                    RouteTarget::NatGateway(id) => Some(id.clone()),
                    _ => None,
                })
                .collect(),
            "route.origin" => routes.map(|route| origin(route).to_owned()).collect(),
            "route.state" => routes.map(|route| state(view, table, route).to_owned()).collect(),
            _ => vec![table.route_table_id.clone()],
        }
    },
};

fn origin(route: &Route) -> &'static str {
    if route.target == RouteTarget::Local { "CreateRouteTable" } else { "CreateRoute" }
}

/// A route to a gateway that is gone leads nowhere.
fn state(view: &Snapshot, table: &RouteTable, route: &Route) -> &'static str {
    let leads = match &route.target {
        RouteTarget::Local => true,
        RouteTarget::InternetGateway(id) => view
            .get::<InternetGateway>(&table.scope.key(id))
            .is_some_and(|gateway| gateway.vpc_id.as_ref() == Some(&table.vpc_id)),
        RouteTarget::NatGateway(id) => view
            .get::<NatGateway>(&table.scope.key(id))
            .is_some_and(|gateway| gateway.state == NatGatewayState::Available),
    };
    if leads { "active" } else { "blackhole" }
}

fn shape(view: &Snapshot, table: &RouteTable) -> api::ec2::RouteTable {
    let associations = table.associations.iter().map(|association| api::ec2::RouteTableAssociation {
        main: Some(association.subnet_id.is_none()),
        route_table_association_id: Some(association.association_id.clone()),
        route_table_id: Some(table.route_table_id.clone()),
        subnet_id: association.subnet_id.clone(),
        association_state: associated(),
        ..Default::default()
    });
    let routes = table.routes.iter().map(|route| api::ec2::Route {
        destination_cidr_block: Some(route.destination.to_string()),
        gateway_id: match &route.target {
            RouteTarget::Local => Some("local".into()),
            RouteTarget::InternetGateway(id) => Some(id.clone()),
            RouteTarget::NatGateway(_) => None,
        },
        nat_gateway_id: match &route.target {
            RouteTarget::NatGateway(id) => Some(id.clone()),
            _ => None,
        },
        origin: Some(origin(route).into()),
        state: Some(state(view, table, route).into()),
        ..Default::default()
    });
    api::ec2::RouteTable {
        route_table_id: Some(table.route_table_id.clone()),
        vpc_id: Some(table.vpc_id.clone()),
        owner_id: Some(table.scope.account.to_string()),
        associations: Some(associations.collect()),
        routes: Some(routes.collect()),
        propagating_vgws: Some(Vec::new()),
        tags: tags::shape(&table.tags),
    }
}

fn associated() -> Option<RouteTableAssociationState> {
    Some(RouteTableAssociationState { state: Some("associated".into()), ..Default::default() })
}

/// CreateRouteTable: with the local route.
pub(super) async fn create(call: Call, input: CreateRouteTableRequest) -> Result<CreateRouteTableResult, ServiceError> {
    let vpc_id = required(input.vpc_id, "vpcId")?;
    let auth = begin(&call, &["route-table/*".to_owned(), format!("vpc/{vpc_id}")], input.dry_run)?;
    let tags = tags::specified(input.tag_specifications, "route-table")?;
    let client_token = input.client_token;
    let shape = auth
        .transact(|tx| {
            let vpc = find::<Vpc>(&call, tx, &vpc_id)?;
            if let Some(table) = tx
                .find::<RouteTable>("vpc", vpc_id.as_str())
                .find(|table| table.client_token.is_some() && table.client_token == client_token)
            {
                return Ok(shape(tx, &table));
            }
            let table = RouteTable {
                scope: call.scope.clone(),
                route_table_id: auth.platform().ids().ec2("rtb"),
                vpc_id: vpc_id.clone(),
                routes: vec![Route { destination: vpc.cidr, target: RouteTarget::Local }],
                associations: Vec::new(),
                client_token: client_token.clone(),
                tags,
            };
            tx.put(table.clone());
            Ok(shape(tx, &table))
        })
        .await?;
    Ok(CreateRouteTableResult { route_table: Some(shape), client_token })
}

/// DeleteRouteTable: not the main one, nor one that a subnet uses.
pub(super) async fn delete(call: Call, input: DeleteRouteTableRequest) -> Result<(), ServiceError> {
    let id = required(input.route_table_id, "routeTableId")?;
    let auth = begin(&call, &[format!("route-table/{id}")], input.dry_run)?;
    auth.transact(|tx| {
        let table = find::<RouteTable>(&call, tx, &id)?;
        if !table.associations.is_empty() {
            let text = format!("The routeTable '{id}' has dependencies and cannot be deleted.");
            return Err(ServiceError::new("DependencyViolation", text));
        }
        tx.delete::<RouteTable>(&call.scope.key(&id));
        Ok(())
    })
    .await
}

/// DescribeRouteTables.
pub(super) async fn list(
    call: Call,
    input: DescribeRouteTablesRequest,
) -> Result<DescribeRouteTablesResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let query = Query {
        ids: input.route_table_ids,
        filters: input.filters,
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let view = auth.snapshot();
    let (tables, next_token) = describe(&call, &view, query, &FILTERS)?;
    let route_tables = Some(tables.iter().map(|table| shape(&view, table)).collect());
    Ok(DescribeRouteTablesResult { route_tables, next_token })
}

/// The target of a route: an internet gateway of the table's VPC or a NAT gateway.
fn target(
    call: &Call,
    view: &Snapshot,
    table: &RouteTable,
    gateway: Option<String>,
    nat_gateway: Option<String>,
) -> Result<RouteTarget, ServiceError> {
    match (gateway, nat_gateway) {
        (Some(id), None) if id.starts_with("igw-") => {
            let gateway = find::<InternetGateway>(call, view, &id)?;
            if gateway.vpc_id.as_ref() != Some(&table.vpc_id) {
                let text = format!(
                    "route table {} and network gateway {id} belong to different networks",
                    table.route_table_id
                );
                return Err(ServiceError::new("InvalidParameterValue", text));
            }
            Ok(RouteTarget::InternetGateway(id))
        }
        (Some(id), None) => Err(invalid_value(&id, "gatewayId", "Only internet gateways are supported by Longshore.")),
        (None, Some(id)) => {
            let gateway = find::<NatGateway>(call, view, &id).map_err(|_| nat_not_found(&id))?;
            if gateway.vpc_id != table.vpc_id || gateway.state != NatGatewayState::Available {
                return Err(nat_not_found(&id));
            }
            Ok(RouteTarget::NatGateway(id))
        }
        _ => {
            let text = "The request must contain exactly one of gatewayId, natGatewayId, networkInterfaceId, \
                        vpcPeeringConnectionId, egressOnlyInternetGatewayId, transitGatewayId or instanceId";
            Err(ServiceError::new("InvalidParameterCombination", text))
        }
    }
}

fn nat_not_found(id: &str) -> ServiceError {
    ServiceError::new("InvalidNatGatewayID.NotFound", format!("The natGateway ID '{id:.64}' does not exist"))
}

fn destination(text: Option<String>) -> Result<Cidr, ServiceError> {
    let text = required(text, "destinationCidrBlock")?;
    let why = "This is not a valid CIDR block.";
    Cidr::parse_lenient(&text).map_err(|_| invalid_value(&text, "destinationCidrBlock", why))
}

/// CreateRoute.
pub(super) async fn create_route(call: Call, input: CreateRouteRequest) -> Result<CreateRouteResult, ServiceError> {
    refuse!(input; destination_prefix_list_id, vpc_endpoint_id, transit_gateway_id, local_gateway_id,
        carrier_gateway_id, core_network_arn, odb_network_arn, destination_ipv6_cidr_block,
        egress_only_internet_gateway_id, instance_id, network_interface_id, vpc_peering_connection_id);
    let id = required(input.route_table_id, "routeTableId")?;
    let auth = begin(&call, &[format!("route-table/{id}")], input.dry_run)?;
    let destination = destination(input.destination_cidr_block)?;
    if destination != Cidr::ANY {
        let why = "Routes to gateways other than 0.0.0.0/0 are not supported by Longshore.";
        return Err(invalid_value(&destination.to_string(), "destinationCidrBlock", why));
    }
    auth.transact(|tx| {
        let mut table = RouteTable::clone(&*find::<RouteTable>(&call, tx, &id)?);
        let target = target(&call, tx, &table, input.gateway_id, input.nat_gateway_id)?;
        match table.routes.iter().find(|route| route.destination == destination) {
            Some(route) if route.target == target => return Ok(()),
            Some(_) => {
                let text = format!("The route identified by {destination} already exists.");
                return Err(ServiceError::new("RouteAlreadyExists", text));
            }
            None => table.routes.push(Route { destination, target }),
        }
        tx.put(table);
        Ok(())
    })
    .await?;
    Ok(CreateRouteResult { r#return: Some(true) })
}

/// ReplaceRoute.
pub(super) async fn replace_route(call: Call, input: ReplaceRouteRequest) -> Result<(), ServiceError> {
    refuse!(input; destination_prefix_list_id, vpc_endpoint_id, transit_gateway_id, local_gateway_id,
        carrier_gateway_id, core_network_arn, odb_network_arn, destination_ipv6_cidr_block,
        egress_only_internet_gateway_id, instance_id, network_interface_id, vpc_peering_connection_id);
    if input.local_target == Some(true) {
        return Err(unsupported("local_target"));
    }
    let id = required(input.route_table_id, "routeTableId")?;
    let auth = begin(&call, &[format!("route-table/{id}")], input.dry_run)?;
    let destination = destination(input.destination_cidr_block)?;
    auth.transact(|tx| {
        let mut table = RouteTable::clone(&*find::<RouteTable>(&call, tx, &id)?);
        let target = target(&call, tx, &table, input.gateway_id, input.nat_gateway_id)?;
        let route = table
            .routes
            .iter_mut()
            .find(|route| route.destination == destination && route.target != RouteTarget::Local)
            .ok_or_else(|| no_route(&id, destination))?;
        route.target = target;
        tx.put(table);
        Ok(())
    })
    .await
}

fn no_route(table: &str, destination: Cidr) -> ServiceError {
    let text = format!("no route with destination-cidr-block {destination} in route table {table}");
    ServiceError::new("InvalidRoute.NotFound", text)
}

/// DeleteRoute: any but the local one.
pub(super) async fn delete_route(call: Call, input: DeleteRouteRequest) -> Result<(), ServiceError> {
    refuse!(input; destination_prefix_list_id, destination_ipv6_cidr_block);
    let id = required(input.route_table_id, "routeTableId")?;
    let auth = begin(&call, &[format!("route-table/{id}")], input.dry_run)?;
    let destination = destination(input.destination_cidr_block)?;
    auth.transact(|tx| {
        let mut table = RouteTable::clone(&*find::<RouteTable>(&call, tx, &id)?);
        let at = table.routes.iter().position(|route| route.destination == destination);
        let removed = table.routes.remove(at.ok_or_else(|| no_route(&id, destination))?);
        if removed.target == RouteTarget::Local {
            let text = format!("cannot remove local route {destination} in route table {id}");
            return Err(ServiceError::new("InvalidParameterValue", text));
        }
        tx.put(table);
        Ok(())
    })
    .await
}

/// Takes a subnet out of the table it uses, if it uses one of its own.
fn release_subnet(tx: &mut Transaction, vpc_id: &str, subnet_id: &str) {
    let tables: Vec<RouteTable> = tx
        .find::<RouteTable>("vpc", vpc_id)
        .filter(|table| table.associations.iter().any(|one| one.subnet_id.as_deref() == Some(subnet_id)))
        .map(|table| RouteTable::clone(&table))
        .collect();
    for mut table in tables {
        table.associations.retain(|one| one.subnet_id.as_deref() != Some(subnet_id));
        tx.put(table);
    }
}

/// AssociateRouteTable: a subnet that uses another table is refused, as at Amazon.
pub(super) async fn associate(
    call: Call,
    input: AssociateRouteTableRequest,
) -> Result<AssociateRouteTableResult, ServiceError> {
    refuse!(input; gateway_id, public_ipv4_pool);
    let id = required(input.route_table_id, "routeTableId")?;
    let subnet_id = required(input.subnet_id, "subnetId")?;
    let auth = begin(&call, &[format!("route-table/{id}"), format!("subnet/{subnet_id}")], input.dry_run)?;
    let association_id = auth
        .transact(|tx| {
            let mut table = RouteTable::clone(&*find::<RouteTable>(&call, tx, &id)?);
            let subnet = find::<Subnet>(&call, tx, &subnet_id)?;
            if subnet.vpc_id != table.vpc_id {
                let text = format!("route table {id} and subnet {subnet_id} belong to different networks");
                return Err(ServiceError::new("InvalidParameterValue", text));
            }
            let used: Option<(String, String)> = tx.find::<RouteTable>("vpc", table.vpc_id.as_str()).find_map(|other| {
                let one = other.associations.iter().find(|one| one.subnet_id.as_ref() == Some(&subnet_id))?;
                Some((other.route_table_id.clone(), one.association_id.clone()))
            });
            match used {
                Some((used, association)) if used == id => return Ok(association),
                Some((_, association)) => {
                    let text = format!("the specified association for route table {id} conflicts with an existing association {association}");
                    return Err(ServiceError::new("Resource.AlreadyAssociated", text));
                }
                None => {}
            }
            let association_id = auth.platform().ids().ec2("rtbassoc");
            table.associations.push(RouteTableAssociation {
                association_id: association_id.clone(),
                subnet_id: Some(subnet_id.clone()),
            });
            tx.put(table);
            Ok(association_id)
        })
        .await?;
    Ok(AssociateRouteTableResult { association_id: Some(association_id), association_state: associated() })
}

fn association_not_found(id: &str) -> ServiceError {
    ServiceError::new("InvalidAssociationID.NotFound", format!("The association ID '{id:.64}' does not exist"))
}

fn by_association(call: &Call, view: &Snapshot, id: &str) -> Result<(RouteTable, Option<String>), ServiceError> {
    view.list::<RouteTable>(&call.scope.prefix())
        .find_map(|table| {
            let one = table.associations.iter().find(|one| one.association_id == id)?;
            Some((RouteTable::clone(&table), one.subnet_id.clone()))
        })
        .ok_or_else(|| association_not_found(id))
}

/// DisassociateRouteTable: the subnet uses the main table again.
pub(super) async fn disassociate(call: Call, input: DisassociateRouteTableRequest) -> Result<(), ServiceError> {
    let id = required(input.association_id, "associationId")?;
    let auth = begin(&call, &["route-table/*".to_owned()], input.dry_run)?;
    auth.transact(|tx| {
        let (mut table, subnet) = by_association(&call, tx, &id)?;
        if subnet.is_none() {
            let text = format!("cannot disassociate the main route table association {id}");
            return Err(ServiceError::new("InvalidParameterValue", text));
        }
        table.associations.retain(|one| one.association_id != id);
        tx.put(table);
        Ok(())
    })
    .await
}

/// ReplaceRouteTableAssociation: also how another table becomes the main one.
pub(super) async fn replace_association(
    call: Call,
    input: ReplaceRouteTableAssociationRequest,
) -> Result<ReplaceRouteTableAssociationResult, ServiceError> {
    let id = required(input.association_id, "associationId")?;
    let table_id = required(input.route_table_id, "routeTableId")?;
    let auth = begin(&call, &[format!("route-table/{table_id}")], input.dry_run)?;
    let new_id = auth
        .transact(|tx| {
            let (mut old, subnet_id) = by_association(&call, tx, &id)?;
            let new = find::<RouteTable>(&call, tx, &table_id)?;
            if new.vpc_id != old.vpc_id {
                let text = format!("route table {table_id} and association {id} belong to different networks");
                return Err(ServiceError::new("InvalidParameterValue", text));
            }
            match &subnet_id {
                Some(subnet_id) => release_subnet(tx, &old.vpc_id, subnet_id),
                None => {
                    old.associations.retain(|one| one.association_id != id);
                    tx.put(old);
                }
            }
            let association_id = auth.platform().ids().ec2("rtbassoc");
            tx.update::<RouteTable>(&call.scope.key(&table_id), |table| {
                table.associations.push(RouteTableAssociation { association_id: association_id.clone(), subnet_id });
            });
            Ok(association_id)
        })
        .await?;
    Ok(ReplaceRouteTableAssociationResult { new_association_id: Some(new_id), association_state: associated() })
}
