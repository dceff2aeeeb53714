//! The pure parts on a store in memory: allocation, the default VPC, and what the host is told.

use std::collections::BTreeSet;

use domain::{
    IdSource, Scope, Tags, Timestamp,
    network::{
        NetworkInterface, NetworkInterfaceOwner, Route, RouteTable, RouteTarget, SecurityGroup, Subnet, Vpc,
        host::{Egress, HostItem},
    },
};
use store::{Kinds, Store, Transaction, memory::Memory};

use super::*;

/// Stands for the platform's key.
fn sign(document: &str) -> String {
    format!("signed {}", document.len())
}

fn scope() -> Scope {
    Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() }
}

/// Runs `work` on a store with the default VPC.
async fn with_region<R>(work: impl FnOnce(&mut Transaction, &mut IdSource) -> R) -> (Store, R) {
    let store = Store::open(Memory::default(), kinds(Kinds::new())).unwrap();
    let mut ids = IdSource::from_seed(3);
    let result = store
        .transact(|tx| {
            configure(tx, "a1b2c3", None);
            ensure_region(tx, &scope(), &mut ids);
            ensure_region(tx, &scope(), &mut ids);
            Ok::<_, ()>(work(tx, &mut ids))
        })
        .await
        .unwrap_or_else(|_| panic!("the transaction is refused"));
    (store, result)
}

fn new_interface(subnet_id: &str, public: bool) -> NewInterface {
    NewInterface {
        subnet_id: subnet_id.into(),
        security_groups: Vec::new(),
        assign_public_address: public,
        private_address: None,
        description: String::new(),
        owner: NetworkInterfaceOwner::Task { arn: "arn:task".into() },
        requester_managed: true,
        tags: Tags::default(),
    }
}

fn first_subnet(tx: &Transaction) -> Subnet {
    Subnet::clone(&tx.list::<Subnet>("").next().unwrap())
}

#[tokio::test]
async fn a_region_is_made_once_and_its_vpc_stays_deleted() {
    let (store, ()) = with_region(|tx, ids| {
        assert_eq!((tx.count_all::<Vpc>(), tx.count_all::<Subnet>(), tx.count_all::<SecurityGroup>()), (1, 3, 1));
        let key = tx.list::<Vpc>("").next().map(|vpc| scope().key(&vpc.vpc_id)).unwrap();
        tx.delete::<Vpc>(&key);
        ensure_region(tx, &scope(), ids);
    })
    .await;
    assert_eq!(store.snapshot().count_all::<Vpc>(), 0);
}

#[tokio::test]
async fn addresses_are_given_once_and_given_back() {
    with_region(|tx, ids| {
        let mut subnet = first_subnet(tx);
        subnet.cidr = "172.31.0.0/28".parse().unwrap();
        tx.put(subnet.clone());
        let mut made: Vec<NetworkInterface> = Vec::new();
        for _ in 0..11 {
            let new = new_interface(&subnet.subnet_id, true);
            made.push(allocate_network_interface(tx, &scope(), new, ids, Timestamp(0)).unwrap());
        }
        let private: BTreeSet<_> = made.iter().map(|one| one.private_address).collect();
        let public: BTreeSet<_> = made.iter().filter_map(|one| Some(one.public_address.as_ref()?.address)).collect();
        assert_eq!((private.len(), public.len()), (11, 11));
        let full = allocate_network_interface(tx, &scope(), new_interface(&subnet.subnet_id, false), ids, Timestamp(0));
        assert_eq!(full.unwrap_err(), NetworkError::SubnetFull);
        release_network_interface(tx, &scope(), &made[4].network_interface_id);
        let again =
            allocate_network_interface(tx, &scope(), new_interface(&subnet.subnet_id, false), ids, Timestamp(0));
        assert_eq!(again.unwrap().private_address, made[4].private_address);
    })
    .await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_written() {
    with_region(|tx, ids| {
        let subnet = first_subnet(tx);
        let mut check = |change: &dyn Fn(&mut NewInterface), code: &str| {
            let mut new = new_interface(&subnet.subnet_id, false);
            change(&mut new);
            let error = allocate_network_interface(tx, &scope(), new, ids, Timestamp(0)).unwrap_err();
            assert_eq!(error.code(), code);
        };
        check(&|new| new.subnet_id = "subnet-0".into(), "InvalidSubnetID.NotFound");
        check(&|new| new.security_groups = vec!["sg-0".into()], "InvalidGroup.NotFound");
        check(&|new| new.private_address = Some([172, 31, 0, 1].into()), "InvalidParameterValue");
        check(
            &|new| new.security_groups = (0..6).map(|n| format!("sg-{n}")).collect(),
            "SecurityGroupsPerInterfaceLimitExceeded",
        );
        assert_eq!(tx.count_all::<NetworkInterface>(), 0);
    })
    .await;
}

#[tokio::test]
async fn the_host_is_told_of_interfaces_in_use_and_their_way_out() {
    let (store, (task, user)) = with_region(|tx, ids| {
        let subnet = first_subnet(tx);
        let task = allocate_network_interface(tx, &scope(), new_interface(&subnet.subnet_id, true), ids, Timestamp(0));
        let mut user = new_interface(&subnet.subnet_id, false);
        user.owner = NetworkInterfaceOwner::User;
        let user = allocate_network_interface(tx, &scope(), user, ids, Timestamp(0));
        (task.unwrap(), user.unwrap())
    })
    .await;
    let egress = |store: &Store| match host_slice(&store.snapshot(), &sign, [])
        .get(&format!("eni/{}", task.network_interface_id))
    {
        Some(HostItem::Interface(item)) => item.egress,
        other => panic!("{other:?}"),
    };
    let slice = host_slice(&store.snapshot(), &sign, []);
    let kinds: Vec<&str> = slice.keys().filter_map(|key| key.split('/').next()).collect();
    assert_eq!(kinds, ["eni", "platform", "sg", "vpc"]);
    assert!(!slice.contains_key(&format!("eni/{}", user.network_interface_id)));
    let address = task.public_address.as_ref().unwrap().address;
    assert_eq!(egress(&store), Egress::Public { address });

    // Without the route to the gateway a public address is of no use.
    let removed = store.transact(|tx| {
        let mut table = RouteTable::clone(&tx.list::<RouteTable>("").next().unwrap());
        table.routes.retain(|route: &Route| route.target == RouteTarget::Local);
        tx.put(table);
        Ok::<_, ()>(())
    });
    assert!(removed.await.is_ok());
    assert_eq!(egress(&store), Egress::None);
}
