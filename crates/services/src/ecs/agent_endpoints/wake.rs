//! Which sessions a change of the store concerns. One follower for all of them: with thousands of agents, a commit that
//! woke each session would cost more than everything else about it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::Resource;
use domain::ecs::{AgentConnection, ContainerInstance, Task, TaskStatus};
use store::{Change, Changes, Snapshot, Store};
use tokio::sync::Notify;

/// More tasks than this at once, and a session looks at all that its instance has.
const MOST_TASKS: usize = 64;

/// What a session is woken for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// These tasks of its instance have changed.
    Tasks(Vec<String>),
    /// Anything may have changed: the instance, its connection, any task.
    Everything,
}

/// The sessions that want to be woken, by their container instances.
#[derive(Default)]
pub struct Wakeups(Mutex<Sleepers>);

#[derive(Default)]
struct Sleepers {
    /// An instance has two sessions for as long as the older one has not noticed the newer one.
    by_instance: HashMap<String, Vec<Arc<Sleeper>>>,
    /// The store is gone.
    closed: bool,
}

#[derive(Default)]
struct Sleeper {
    news: Mutex<Option<Woken>>,
    notify: Notify,
}

impl Sleeper {
    fn tell_all(&self) {
        *lock(&self.news) = Some(Woken::Everything);
        self.notify.notify_one();
    }

    fn tell(&self, task: &str) {
        let mut news = lock(&self.news);
        *news = Some(match news.take() {
            None => Woken::Tasks(vec![task.to_owned()]),
            Some(Woken::Tasks(mut tasks)) if tasks.len() < MOST_TASKS => {
                tasks.push(task.to_owned());
                Woken::Tasks(tasks)
            }
            Some(_) => Woken::Everything,
        });
        drop(news);
        self.notify.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wakeups {
    /// Follows a store from now on and until it is gone.
    pub(super) fn follow(self: Arc<Self>, store: &Store) -> impl Future<Output = ()> + Send + use<> {
        let (mut watch, store) = (store.watch(), store.clone());
        async move {
            loop {
                match watch.next().await {
                    Some(Changes::Keys(changes)) => self.concern(&store.snapshot(), &changes),
                    Some(Changes::Lagged) => self.each(|sleeper| sleeper.tell_all()),
                    None => {
                        lock(&self.0).closed = true;
                        return self.each(|sleeper| sleeper.notify.notify_one());
                    }
                }
            }
        }
    }

    /// From now on, the news of an instance.
    pub(super) fn sleep(self: &Arc<Self>, instance: &str) -> Sleep {
        let sleeper = Arc::new(Sleeper::default());
        lock(&self.0).by_instance.entry(instance.to_owned()).or_default().push(sleeper.clone());
        Sleep { wakeups: self.clone(), instance: instance.to_owned(), sleeper }
    }

    fn each(&self, tell: impl Fn(&Sleeper)) {
        lock(&self.0).by_instance.values().flatten().for_each(|sleeper| tell(sleeper));
    }

    fn concern(&self, view: &Snapshot, changes: &[Change]) {
        let sleepers = lock(&self.0);
        let of = |instance: &str| sleepers.by_instance.get(instance).into_iter().flatten();
        for change in changes {
            match change.kind {
                Task::KIND => {
                    // A task that is not there any more was STOPPED before, or its instance is gone as well.
                    let Some(task) = view.get::<Task>(&change.key) else { continue };
                    if task.last_status == TaskStatus::Running {
                        // Its agent has begun it, and is told nothing until it shall stop, which is another status.
                        continue;
                    }
                    let Some(instance) = &task.container_instance_arn else { continue };
                    of(instance.as_str()).for_each(|sleeper| sleeper.tell(&change.key));
                }
                AgentConnection::KIND | ContainerInstance::KIND => {
                    of(&change.key).for_each(|sleeper| sleeper.tell_all());
                }
                _ => {}
            }
        }
    }
}

/// A session's place among the sleepers.
pub(super) struct Sleep {
    wakeups: Arc<Wakeups>,
    instance: String,
    sleeper: Arc<Sleeper>,
}

impl Sleep {
    /// The next news; `None` when the store is gone. Safe to give up waiting for.
    pub(super) async fn woken(&self) -> Option<Woken> {
        loop {
            if lock(&self.wakeups.0).closed {
                return None;
            }
            if let Some(news) = lock(&self.sleeper.news).take() {
                return Some(news);
            }
            self.sleeper.notify.notified().await;
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let mut sleepers = lock(&self.wakeups.0);
        if let Entry::Occupied(mut entry) = sleepers.by_instance.entry(self.instance.clone()) {
            entry.get_mut().retain(|sleeper| !Arc::ptr_eq(sleeper, &self.sleeper));
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn news_wait_for_their_session_and_many_become_everything() {
        let wakeups = Arc::new(Wakeups::default());
        let (one, other) = (wakeups.sleep("one"), wakeups.sleep("other"));
        one.sleeper.tell("a");
        one.sleeper.tell("b");
        assert_eq!(one.woken().await, Some(Woken::Tasks(vec!["a".into(), "b".into()])));
        assert!(one.woken().now_or_never().is_none() && other.woken().now_or_never().is_none());
        (0..=MOST_TASKS).for_each(|number| one.sleeper.tell(&number.to_string()));
        assert_eq!(one.woken().await, Some(Woken::Everything));
    }

    #[tokio::test]
    async fn a_session_that_is_over_is_forgotten_and_the_others_learn_of_the_end() {
        let wakeups = Arc::new(Wakeups::default());
        let (older, newer) = (wakeups.sleep("one"), wakeups.sleep("one"));
        drop(older);
        assert_eq!(lock(&wakeups.0).by_instance.get("one").map(Vec::len), Some(1));
        let store = Store::open(store::memory::Memory::default(), store::Kinds::new()).unwrap();
        let following = wakeups.clone().follow(&store);
        let woken = newer.woken();
        lock(&wakeups.0).closed = true;
        assert_eq!(woken.await, None);
        drop(following);
        drop(newer);
        assert!(lock(&wakeups.0).by_instance.is_empty());
    }
}
