//! The cookies that keep a client with its target or target group, as `Set-Cookie` and as they come back.
//!
//! Their content is sealed with a key that the process keeps in a file, so that they outlive it: nobody else can make one,
//! or tell from one which target it means. Amazon's expire after a week, and hold what the configured duration is
//! counted from: <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/sticky-sessions.html>.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};

/// The bytes of the secret, and of a seal.
pub const SECRET: usize = 32;

/// The most entries of one cookie: one per target group of an application.
const MAX_ENTRIES: usize = 8;

const ENTRY: usize = 20;

/// After its kind, a cookie's entries, and the seal.
const LARGEST: usize = 1 + MAX_ENTRIES * ENTRY + SECRET;

/// How long clients keep a cookie.
const WEEK: u64 = 7 * 24 * 60 * 60;

/// What a cookie is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A target, from the first response on.
    Target,
    /// Targets of groups whose applications set a cookie of their own.
    Application,
    /// A target group of a forward action.
    Group,
}

impl Kind {
    /// Its name, and that of its copy for requests from other sites if it has one.
    pub fn names(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Target => ("AWSALB", Some("AWSALBCORS")),
            Self::Application => ("AWSALBAPP", None),
            Self::Group => ("AWSALBTG", Some("AWSALBTGCORS")),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Target => 1,
            Self::Application => 2,
            Self::Group => 3,
        }
    }
}

/// One thing that a client stays with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Names the target group.
    pub group: u64,
    /// Names the target; 0 where only the group is meant.
    pub target: u64,
    /// Seconds since the epoch.
    pub issued: u32,
}

impl Entry {
    /// Whether it is younger than `duration` seconds.
    pub fn is_fresh(&self, now: u32, duration: u32) -> bool {
        now.saturating_sub(self.issued) < duration
    }
}

/// What a cookie says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    list: [Entry; MAX_ENTRIES],
    count: usize,
}

impl Entries {
    /// One entry.
    pub fn one(entry: Entry) -> Self {
        Self::default().with(entry)
    }

    /// With one more, the newest, instead of the one of the same group; the oldest goes if there are too many.
    #[must_use]
    pub fn with(self, entry: Entry) -> Self {
        let others = self.iter().filter(|other| other.group != entry.group);
        let mut entries = Self::default();
        for (place, entry) in entries.list.iter_mut().zip([entry].into_iter().chain(others)) {
            *place = entry;
            entries.count += 1;
        }
        entries
    }

    /// Newest first.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.list.iter().take(self.count).copied()
    }

    /// The entry of a target group.
    pub fn of(&self, group: u64) -> Option<Entry> {
        self.iter().find(|entry| entry.group == group)
    }
}

/// What cookies are sealed with.
pub struct Key(hmac::Key);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// From a secret.
    pub fn new(secret: &[u8; SECRET]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The key kept in a file, which is made if it is not there. If that cannot be, cookies end with the process.
    pub fn kept(path: &Path) -> io::Result<Self> {
        let read = fs::read(path);
        if let Ok(Ok(secret)) = read.as_deref().map(<[u8; SECRET]>::try_from) {
            return Ok(Self::new(&secret));
        }
        let mut secret = [0; SECRET];
        SystemRandom::new().fill(&mut secret).map_err(|_| io::Error::other("no random bytes"))?;
        if let Err(error) = Self::keep(path, &secret) {
            tracing::warn!(%error, path = %path.display(), "the key of cookies cannot be kept");
        }
        Ok(Self::new(&secret))
    }

    fn keep(path: &Path, secret: &[u8; SECRET]) -> io::Result<()> {
        let temporary = path.with_extension("key.new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(secret)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    }

    /// A number that stands for something and can only be known with the key; never 0.
    pub fn number(&self, parts: &[&[u8]]) -> u64 {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[0]);
        for part in parts {
            context.update(part);
            context.update(&[0]);
        }
        let sealed = context.sign();
        let bytes = sealed.as_ref().first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(bytes).max(1)
    }

    /// A cookie's value.
    pub fn seal(&self, kind: Kind, entries: &Entries) -> String {
        let mut bytes = Vec::with_capacity(LARGEST);
        bytes.push(kind.byte());
        for entry in entries.iter() {
            bytes.extend_from_slice(&entry.group.to_le_bytes());
            bytes.extend_from_slice(&entry.target.to_le_bytes());
            bytes.extend_from_slice(&entry.issued.to_le_bytes());
        }
        let seal = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(seal.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a cookie's value says; none if it was not made with this key for this kind.
    pub fn open(&self, kind: Kind, value: &[u8]) -> Option<Entries> {
        let mut buffer = [0; LARGEST + 3];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut buffer).ok()?;
        let (sealed, seal) = buffer.get(..length)?.split_last_chunk::<SECRET>()?;
        hmac::verify(&self.0, sealed, seal).ok()?;
        let (first, mut rest) = sealed.split_first()?;
        let mut entries = Entries::default();
        while let Some((entry, after)) = rest.split_first_chunk::<ENTRY>() {
            let (group, entry) = entry.split_first_chunk()?;
            let (target, issued) = entry.split_first_chunk()?;
            *entries.list.get_mut(entries.count)? = Entry {
                group: u64::from_le_bytes(*group),
                target: u64::from_le_bytes(*target),
                issued: u32::from_le_bytes(*issued.first_chunk()?),
            };
            entries.count += 1;
            rest = after;
        }
        (*first == kind.byte()).then_some(entries)
    }

    /// What a request's cookies of a kind say. One that cannot be opened is as good as none.
    pub fn find(&self, kind: Kind, headers: &HeaderMap) -> Option<Entries> {
        let (name, copy) = kind.names();
        let open = |name| values(headers, name).find_map(|value| self.open(kind, value));
        open(name).or_else(|| copy.and_then(open))
    }
}

/// The values of a request's cookies of this name.
pub fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';')).filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}

/// Whether a target's response sets a cookie of this name.
pub fn is_set(headers: &HeaderMap, name: &str) -> bool {
    let mut fields = headers.get_all(header::SET_COOKIE).iter();
    fields.any(|field| {
        let rest = field.as_bytes().trim_ascii_start().strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="))
    })
}

/// Adds a cookie to a response, and its copy where its kind has one.
pub fn set(headers: &mut HeaderMap, kind: Kind, value: &str, now: u32, any_site: bool) {
    let expires = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(u64::from(now) + WEEK));
    let mut add = |name: &str, any_site: bool| {
        let site = if any_site { "; SameSite=None; Secure" } else { "" };
        if let Ok(field) = HeaderValue::try_from(format!("{name}={value}; Expires={expires}; Path=/{site}")) {
            headers.append(header::SET_COOKIE, field);
        }
    };
    let (name, copy) = kind.names();
    add(name, any_site);
    if let Some(copy) = copy {
        add(copy, true);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cookies(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(text))])
    }

    fn entry(group: u64) -> Entry {
        Entry { group, target: 7, issued: 100 }
    }

    #[test]
    fn cookies_are_found_among_others() {
        let headers = cookies("a=1; AWSALB=x;AWSALBCORS=y ; b=AWSALB=no; AWSALB=z=");
        let found = |name| values(&headers, name).collect::<Vec<_>>();
        assert_eq!(found("AWSALB"), [b"x".as_slice(), b"z="]);
        assert_eq!(found("AWSALBCORS"), [b"y"]);
        assert!(found("B").is_empty());
    }

    #[test]
    fn a_cookie_is_set_with_a_copy_for_other_sites() {
        let mut headers = HeaderMap::new();
        set(&mut headers, Kind::Target, "v", 784_111_777 - 604_800, false);
        let fields: Vec<&HeaderValue> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(
            fields,
            [
                "AWSALB=v; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Path=/",
                "AWSALBCORS=v; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Path=/; SameSite=None; Secure"
            ]
        );
        assert!(is_set(&headers, "AWSALB") && !is_set(&headers, "AWS") && !is_set(&headers, "v"));
    }

    #[test]
    fn a_cookie_has_one_entry_per_group_and_forgets_the_oldest() {
        let mut entries = Entries::default();
        for group in 1..=9 {
            entries = entries.with(entry(group)).with(entry(group));
        }
        assert_eq!(entries.iter().map(|entry| entry.group).collect::<Vec<_>>(), [9, 8, 7, 6, 5, 4, 3, 2]);
    }

    #[test]
    fn only_the_own_key_opens_a_cookie_and_only_for_its_kind() {
        let key = Key::new(&[1; SECRET]);
        let entries = Entries::one(entry(1)).with(entry(2));
        let sealed = key.seal(Kind::Application, &entries);
        assert_eq!(key.open(Kind::Application, sealed.as_bytes()), Some(entries));
        assert_eq!(key.open(Kind::Target, sealed.as_bytes()), None);
        assert_eq!(Key::new(&[2; SECRET]).open(Kind::Application, sealed.as_bytes()), None);
        for index in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.open(Kind::Application, &forged), None, "{index}");
        }
    }

    #[test]
    fn the_key_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1.key");
        let first = Key::kept(&path).unwrap();
        let sealed = first.seal(Kind::Target, &Entries::one(entry(1)));
        assert!(Key::kept(&path).unwrap().open(Kind::Target, sealed.as_bytes()).is_some());
        fs::write(&path, "torn").unwrap();
        assert!(Key::kept(&path).unwrap().open(Kind::Target, sealed.as_bytes()).is_none());
        assert!(Key::kept(&directory.path().join("not/there")).is_ok());
    }

    proptest! {
        #[test]
        fn no_value_is_too_strange(value in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(Key::new(&[1; SECRET]).open(Kind::Target, &value), None);
        }
    }
}
