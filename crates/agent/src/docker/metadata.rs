//! The task metadata and credentials endpoints of containers that are Docker's: one server for all, as at Amazon; the id
//! in the path is the secret that tells who asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::net::TcpListener;

use super::{Docker, lock};
use crate::engine::record::TaskRecord;
use crate::metadata::{Context, Endpoint, Finder, Tags, stats};

/// What is open.
#[derive(Default)]
pub struct Endpoints {
    open: Mutex<Vec<Endpoint>>,
    readings: Mutex<HashMap<String, Arc<stats::Readings>>>,
}

impl Docker {
    /// Answers where containers are led to.
    pub fn open_endpoints(self: &Arc<Docker>, listeners: Vec<TcpListener>) {
        for listener in listeners {
            let docker = Arc::downgrade(self);
            let finder: Finder = Arc::new(move |id: &str| {
                let docker = docker.upgrade()?;
                let record = docker.task_named(id)?;
                Some(docker.context(&record))
            });
            lock(&self.endpoints.open).push(Endpoint::open_at(listener, finder));
        }
    }

    /// The task that has a container or credentials of this id.
    fn task_named(&self, id: &str) -> Option<Arc<TaskRecord>> {
        let tasks = self.tasks.get().and_then(Weak::upgrade)?.views();
        tasks.into_iter().find(|record| {
            let ids = record.containers.iter().flat_map(|one| one.runtime_id.iter().chain(&one.former_ids));
            let roles = [&record.task.role_credentials, &record.task.execution_role_credentials];
            ids.chain(roles.into_iter().flatten().map(|role| &role.credentials_id)).any(|own| own == id)
        })
    }

    fn context(self: &Arc<Docker>, record: &TaskRecord) -> Context {
        let task = &record.task;
        let readings = {
            let mut all = lock(&self.endpoints.readings);
            all.retain(|arn, _| self.view(arn).is_some());
            all.entry(task.arn.clone()).or_default().clone()
        };
        Context {
            kind: self.settings.kind,
            task_arn: task.arn.clone(),
            availability_zone: task.zone.clone().unwrap_or_else(|| self.settings.availability_zone.clone()),
            roles: self.roles.clone(),
            view: {
                let (docker, arn) = (Arc::downgrade(self), task.arn.clone());
                Arc::new(move || docker.upgrade()?.named_view(&arn))
            },
            stats: {
                let docker = Arc::downgrade(self);
                Arc::new(move |id| {
                    let reading = docker.upgrade()?.reading(id)?;
                    Some(reading.stats)
                })
            },
            api: self.identity.client.clone(),
            network: {
                let docker = Arc::downgrade(self);
                Arc::new(move |container| {
                    let found = docker.upgrade().zip(container.runtime_id.as_deref());
                    found.and_then(|(docker, id)| docker.reading(id)).map(|reading| reading.network).unwrap_or_default()
                })
            },
            // Docker's containers share the machine's disk.
            storage: Arc::new(|| None),
            tags: {
                let (identity, arn) = (self.identity.clone(), task.arn.clone());
                Arc::new(move || {
                    let (identity, arn) = (identity.clone(), arn.clone());
                    let tags: Tags = Box::pin(async move { identity.tags_of(&arn).await });
                    tags
                })
            },
            readings,
        }
    }
}
