//! What a region has from its first use on: the default VPC with a subnet in each zone, as in an Amazon account.

use domain::{
    IdSource, Scope, Tags,
    network::{
        Cidr, DhcpOptions, InternetGateway, Peer, Protocol, Route, RouteTable, RouteTableAssociation, RouteTarget,
        SecurityGroup, SecurityGroupRule, Subnet, Vpc,
    },
};
use store::Transaction;

/// The default VPC's block and its subnets', as Amazon's.
const VPC_BLOCK: Cidr = Cidr::literal(std::net::Ipv4Addr::new(172, 31, 0, 0), 16);
const SUBNET_PREFIX: u8 = 20;

/// Makes the default VPC of a region when the region is used for the first time; does nothing later, even if the user
/// has deleted the VPC meanwhile.
pub fn ensure_region(tx: &mut Transaction, scope: &Scope, ids: &mut IdSource) {
    // The DHCP options are made first and can never be deleted: they mark a region that is in use.
    if tx.list::<DhcpOptions>(&scope.prefix()).next().is_some() {
        return;
    }
    tx.put(DhcpOptions { scope: scope.clone(), dhcp_options_id: ids.ec2("dopt"), tags: Tags::default() });
    create_default_vpc(tx, scope, ids);
}

/// Makes a default VPC: network, subnets, internet gateway and the routes between them.
pub(super) fn create_default_vpc(tx: &mut Transaction, scope: &Scope, ids: &mut IdSource) -> Vpc {
    let vpc = create_vpc(tx, scope, VPC_BLOCK, true, Tags::default(), ids);
    let gateway = InternetGateway {
        scope: scope.clone(),
        internet_gateway_id: ids.ec2("igw"),
        vpc_id: Some(vpc.vpc_id.clone()),
        tags: Tags::default(),
    };
    let main = tx.find::<RouteTable>("vpc", vpc.vpc_id.as_str()).next();
    if let Some(main) = main {
        let mut main = RouteTable::clone(&main);
        let target = RouteTarget::InternetGateway(gateway.internet_gateway_id.clone());
        main.routes.push(Route { destination: Cidr::ANY, target });
        tx.put(main);
    }
    tx.put(gateway);
    for zone in scope.availability_zones() {
        create_default_subnet(tx, &vpc, zone, ids);
    }
    vpc
}

/// Makes the default subnet of a zone in the first part of the VPC's block that is free. `None` when none is.
pub(super) fn create_default_subnet(
    tx: &mut Transaction,
    vpc: &Vpc,
    availability_zone: String,
    ids: &mut IdSource,
) -> Option<Subnet> {
    let others: Vec<Cidr> = tx.find::<Subnet>("vpc", vpc.vpc_id.as_str()).map(|subnet| subnet.cidr).collect();
    let cidr = (0..16)
        .filter_map(|index| vpc.cidr.nth(index << (32 - SUBNET_PREFIX)))
        .map(|first| Cidr::literal(first, SUBNET_PREFIX))
        .find(|cidr| vpc.cidr.contains_block(cidr) && !others.iter().any(|other| other.overlaps(cidr)))?;
    let subnet = Subnet {
        scope: vpc.scope.clone(),
        subnet_id: ids.ec2("subnet"),
        vpc_id: vpc.vpc_id.clone(),
        cidr,
        availability_zone,
        default_for_az: true,
        map_public_ip_on_launch: true,
        tags: Tags::default(),
    };
    tx.put(subnet.clone());
    Some(subnet)
}

/// Makes a VPC with what every VPC has: a main route table, a default security group and a network ACL.
pub(super) fn create_vpc(
    tx: &mut Transaction,
    scope: &Scope,
    cidr: Cidr,
    is_default: bool,
    tags: Tags,
    ids: &mut IdSource,
) -> Vpc {
    let dhcp_options_id = tx
        .list::<DhcpOptions>(&scope.prefix())
        .next()
        .map_or_else(|| "default".to_owned(), |options| options.dhcp_options_id.clone());
    let vpc = Vpc {
        scope: scope.clone(),
        vpc_id: ids.ec2("vpc"),
        cidr,
        cidr_association_id: ids.ec2("vpc-cidr-assoc"),
        is_default,
        dhcp_options_id,
        network_acl_id: ids.ec2("acl"),
        dns_support: true,
        dns_hostnames: is_default,
        tags,
    };
    let association = RouteTableAssociation { association_id: ids.ec2("rtbassoc"), subnet_id: None };
    tx.put(RouteTable {
        scope: scope.clone(),
        route_table_id: ids.ec2("rtb"),
        vpc_id: vpc.vpc_id.clone(),
        routes: vec![Route { destination: cidr, target: RouteTarget::Local }],
        associations: vec![association],
        client_token: None,
        tags: Tags::default(),
    });
    let group_id = ids.ec2("sg");
    tx.put(SecurityGroup {
        scope: scope.clone(),
        name: "default".to_owned(),
        description: "default VPC security group".to_owned(),
        vpc_id: vpc.vpc_id.clone(),
        rules: vec![
            SecurityGroupRule {
                rule_id: ids.ec2("sgr"),
                egress: false,
                protocol: Protocol::All,
                peer: Peer::Group(group_id.clone()),
                description: None,
                tags: Tags::default(),
            },
            allow_all_egress(ids),
        ],
        group_id,
        tags: Tags::default(),
    });
    tx.put(vpc.clone());
    vpc
}

/// The rule every new security group has: out to anywhere.
pub(super) fn allow_all_egress(ids: &mut IdSource) -> SecurityGroupRule {
    SecurityGroupRule {
        rule_id: ids.ec2("sgr"),
        egress: true,
        protocol: Protocol::All,
        peer: Peer::Cidr(Cidr::ANY),
        description: None,
        tags: Tags::default(),
    }
}
