//! A platform in memory, for tests that call handlers.

use std::sync::Arc;

use domain::{Clock, IdSource, Scope};
use iam::{AccessKey, Authority, Principal, SealingKey};
use store::{Kinds, Store, memory::Memory};
use wire::Operation;

use crate::{Call, Options, Origin, Platform};

/// A platform with an account and the default VPC of a region.
pub(crate) struct Fixture {
    pub(crate) platform: Arc<Platform>,
    _directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kinds = crate::ecs::kinds(crate::ec2::kinds(crate::iam::kinds(crate::ecr::kinds(Kinds::new()))));
        let store = Store::open(Memory::default(), kinds).unwrap();
        let clock = Clock::system();
        let scope = scope();
        let key = AccessKey { access_key_id: "AKIAROOT".into(), secret_access_key: "secret".into() };
        let sealing = SealingKey::new(&[7; 32]).unwrap();
        let options = Options {
            account: scope.account.clone(),
            region: scope.region.clone(),
            listen: "127.0.0.1:4580".parse().unwrap(),
            instance_id: "a1b2c3".into(),
            allow_load_balancer_updates: false,
            lost_instance_after: None,
        };
        let platform = Platform::new(
            store.clone(),
            clock,
            Authority::new(scope.account.clone(), key.clone(), key, sealing),
            options,
            IdSource::from_seed(5),
            Arc::new(telemetry::logs::LogStore::open(&directory.path().join("logs")).unwrap()),
            registry::Registry::open(&directory.path().join("registry"), store.clone(), clock).unwrap(),
        );
        let made = store.transact(|tx| {
            let mut ids = IdSource::from_seed(3);
            crate::iam::ensure_account(tx, &scope.account, &mut ids, clock.now());
            crate::ec2::configure(tx, "a1b2c3", None);
            crate::ec2::ensure_region(tx, &scope, &mut ids);
            Ok::<_, ()>(())
        });
        assert!(made.await.is_ok());
        Self { platform: Arc::new(platform), _directory: directory }
    }

    /// A call of the root user.
    pub(crate) fn call(&self, operation: &'static Operation) -> Call {
        let principal = Principal::Root { account: scope().account };
        let origin = Origin { source: [127, 0, 0, 1].into(), endpoint: "http://127.0.0.1:4580".into() };
        Call::new(self.platform.clone(), principal, scope(), operation, "request".into(), origin)
    }

    /// A transaction that succeeds.
    pub(crate) async fn change<R>(&self, work: impl FnOnce(&mut store::Transaction) -> R) -> R {
        let done = self.platform.store.transact(|tx| Ok::<_, ()>(work(tx))).await;
        done.unwrap_or_else(|_| panic!("the transaction is refused"))
    }
}

pub(crate) fn scope() -> Scope {
    Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() }
}
