//! Where a forward action sends a request: what the client's cookies say where that is wanted and still possible, else
//! what is next; and the cookies that the response gets for it.
//!
//! As Amazon documents, a cookie that cannot be opened, is too old, or names a target that is unhealthy or being deregistered
//! is replaced, and each response makes the duration begin anew.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/sticky-sessions.html>

use domain::balancing::{Stickiness, StickinessType};
use http::{HeaderMap, header};

use crate::{
    choice::{Step, Weighted},
    cookie::{self, Entries, Entry, Key, Kind},
    group::Group,
};

/// The first version of Chromium that wants to be told that a cookie is for requests from other sites.
const CHROMIUM: u32 = 80;

/// A compiled forward action.
#[derive(Debug)]
pub struct Forward {
    choice: Weighted,
    /// For how many seconds a client stays with its group.
    duration: Option<u32>,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Chosen {
    /// The group's index.
    pub group: usize,
    /// The target's index in the group.
    pub target: usize,
    sticky_group: bool,
    session: Session,
}

/// What the response has to say of the target.
#[derive(Debug)]
enum Session {
    /// Nothing.
    None,
    /// Which it is.
    LoadBalancer,
    /// Which it is, if the application's cookie is there.
    Application {
        /// The client has come with both cookies.
        begun: bool,
        /// What the client's cookie says of this and other groups.
        entries: Box<Entries>,
        /// The client wants to be told that the cookie is for requests from other sites.
        any_site: bool,
    },
}

impl Forward {
    /// To one of these groups by their weights, of which a client keeps one for `duration` seconds if there is one.
    pub fn new(groups: impl IntoIterator<Item = (usize, u16)>, step: Step, duration: Option<u32>) -> Self {
        Self { choice: Weighted::new(groups, step), duration }
    }

    /// Where a request with these headers goes; none if there is no target. `now` gives seconds since the epoch.
    pub fn choose(&self, groups: &[Group], headers: &HeaderMap, key: &Key, now: impl Fn() -> u32) -> Option<Chosen> {
        let kept = self.duration.and_then(|duration| self.kept(groups, headers, key, now(), duration));
        let index = kept.or_else(|| self.choice.next())?;
        let group = groups.get(index)?;
        let (target, session) = match &group.stickiness {
            None => (None, Session::None),
            Some(stickiness) => session(stickiness, group, headers, key, now()),
        };
        let target = target.or_else(|| group.choose())?;
        Some(Chosen { group: index, target, sticky_group: self.duration.is_some(), session })
    }

    /// The group that the client stays with.
    fn kept(&self, groups: &[Group], headers: &HeaderMap, key: &Key, now: u32, duration: u32) -> Option<usize> {
        let entry = key.find(Kind::Group, headers)?.iter().next().filter(|entry| entry.is_fresh(now, duration))?;
        self.choice.indexes().find(|index| groups.get(*index).is_some_and(|group| group.number == entry.group))
    }
}

/// The target that the client's cookies name, if they do, and what the response has to say.
fn session(
    stickiness: &Stickiness,
    group: &Group,
    headers: &HeaderMap,
    key: &Key,
    now: u32,
) -> (Option<usize>, Session) {
    let fresh = |entries: &Entries, duration| entries.of(group.number).filter(|entry| entry.is_fresh(now, duration));
    match stickiness.kind {
        StickinessType::LbCookie => {
            let entries = key.find(Kind::Target, headers);
            let entry = entries.and_then(|entries| fresh(&entries, stickiness.lb_cookie_seconds));
            (entry.and_then(|entry| group.named(entry.target)), Session::LoadBalancer)
        }
        StickinessType::AppCookie => {
            let entries = key.find(Kind::Application, headers).unwrap_or_default();
            let both = cookie::values(headers, &stickiness.app_cookie_name).next().is_some();
            let entry = fresh(&entries, stickiness.app_cookie_seconds).filter(|_| both);
            let any_site = chromium(headers).is_some_and(|version| version >= CHROMIUM);
            let session = Session::Application { begun: entry.is_some(), entries: Box::new(entries), any_site };
            (entry.and_then(|entry| group.named(entry.target)), session)
        }
    }
}

/// The client's version of Chromium, if it is one.
fn chromium(headers: &HeaderMap) -> Option<u32> {
    let agent = headers.get(header::USER_AGENT)?.to_str().ok()?;
    let product = |product: &str| {
        let version = product.strip_prefix("Chrome/").or_else(|| product.strip_prefix("Chromium/"))?;
        version.split('.').next()?.parse().ok()
    };
    agent.split(' ').find_map(product)
}

impl Chosen {
    /// Whether a response may get cookies.
    pub fn is_sticky(&self) -> bool {
        self.sticky_group || !matches!(self.session, Session::None)
    }

    /// Adds the cookies that keep the client where it is to the headers of the target's response.
    pub fn set_cookies(&self, headers: &mut HeaderMap, groups: &[Group], key: &Key, now: u32) {
        let Some(group) = groups.get(self.group) else { return };
        if self.sticky_group {
            let entry = Entry { group: group.number, target: 0, issued: now };
            cookie::set(headers, Kind::Group, &key.seal(Kind::Group, &Entries::one(entry)), now, false);
        }
        let (Some(stickiness), Some(target)) = (&group.stickiness, group.targets.get(self.target)) else { return };
        let entry = Entry { group: group.number, target: target.number, issued: now };
        match &self.session {
            Session::None => {}
            Session::LoadBalancer => {
                cookie::set(headers, Kind::Target, &key.seal(Kind::Target, &Entries::one(entry)), now, false);
            }
            Session::Application { begun, entries, any_site } => {
                if *begun || cookie::is_set(headers, &stickiness.app_cookie_name) {
                    let value = key.seal(Kind::Application, &entries.with(entry));
                    cookie::set(headers, Kind::Application, &value, now, *any_site);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
