//! From a payload's container and its image to what the runtime is asked to run.

use std::collections::BTreeMap;

use domain::agent_protocol::docker::HostConfig;
use domain::agent_protocol::payload::{Container, LinuxParameters, Task};
use nix::sys::resource::{Resource, getrlimit};
use runtime::{ContainerSpec, File, Image, Limits, Rootfs, Tmpfs, Ulimit};

use super::Settings;
use super::storage::Storage;
use crate::engine::driver::StartOrder;
use crate::engine::machine::Failure;
use crate::engine::record::{docker_config, docker_host_config, region, task_id};
use crate::engine::validate;
use crate::logs::LogDriver;
use crate::network::{Joined, Names};

/// What Fargate sets for open files when the definition does not.
const NOFILE: u64 = 65_535;
/// Where a container finds the platform's certificate authority.
const AUTHORITIES: &str = "/etc/longshore-ca.pem";
/// Size of a memory file system without one.
const TMPFS: u64 = 64 << 20;

/// What the runtime is asked to run.
pub fn build(
    settings: &Settings,
    order: &StartOrder,
    image: &Image,
    joined: &Joined,
) -> Result<ContainerSpec, Failure> {
    let task = order.task.as_ref();
    let Some(container) = task.containers.get(order.index) else {
        return Err(Failure("CannotCreateContainerError: no such container".to_owned()));
    };
    let (config, host) = (docker_config(container), docker_host_config(container));
    let arguments = arguments(container, image);
    if arguments.is_empty() {
        return Err(Failure("CannotCreateContainerError: No command specified".to_owned()));
    }
    let storage = Storage::of(settings, order.volume.as_deref().unwrap_or(task_id(&task.arn)));
    let own = storage.directory().join(&container.name);
    // A restart in place goes on with what the container wrote; only the kernel's work directory is fresh.
    let rootfs = Rootfs {
        lowers: image.layers.clone(),
        upper: own.join("upper"),
        work: own.join(format!("work-{}", order.runtime_id)),
    };
    let mut spec = ContainerSpec::new(rootfs, arguments);
    spec.env = environment(settings, task, container, image, &order.runtime_id);
    spec.cwd = or(&config.working_dir, &image.config.working_directory);
    spec.user = or(&config.user, &image.config.user);
    let parameters = container.linux_parameters.clone().unwrap_or_default();
    let capabilities = parameters.capabilities.clone().unwrap_or_default();
    spec.capabilities_add = [capabilities.add, host.cap_add.clone()].concat();
    spec.capabilities_drop = [capabilities.drop, host.cap_drop.clone()].concat();
    spec.read_only_root = host.readonly_rootfs;
    spec.tmpfs = host.tmpfs.iter().map(|(target, options)| tmpfs(target, options)).collect();
    spec.shm_size_bytes = shared_memory(&parameters, &host);
    spec.files = files(&joined.names, &config.hostname);
    spec.files.extend(authorities(settings));
    spec.ulimits = ulimits(&host);
    spec.sysctls = host.sysctls.clone();
    spec.init = host.init.or(parameters.init_process_enabled).unwrap_or(false);
    spec.hostname = or(&config.hostname, &joined.names.hostname);
    spec.network_namespace = Some(joined.namespace.clone());
    spec.limits = limits(container, &host);
    spec.cgroup_parent = settings.task_cgroup(task_id(&task.arn));
    // The driver was checked when the task was received.
    spec.logs = LogDriver::of(container).unwrap_or(LogDriver::None).spool();
    Ok(spec)
}

fn or(first: &str, second: &str) -> String {
    if first.is_empty() { second.to_owned() } else { first.to_owned() }
}

/// Docker's rule: an entry point of the definition also replaces the image's command.
fn arguments(container: &Container, image: &Image) -> Vec<String> {
    let command = validate::command(container).filter(|command| !command.is_empty());
    match container.entry_point.clone().filter(|entry| !entry.is_empty()) {
        Some(entry) => [entry, command.unwrap_or_default()].concat(),
        None => [image.config.entrypoint.clone(), command.unwrap_or_else(|| image.config.command.clone())].concat(),
    }
}

/// The image's environment, under what the agent adds, under the definition's.
fn environment(settings: &Settings, task: &Task, container: &Container, image: &Image, id: &str) -> Vec<String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: String| {
        pairs.retain(|(existing, _)| existing != name);
        pairs.push((name.to_owned(), value));
    };
    for pair in &image.config.environment {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(name, value.to_owned());
    }
    for (name, value) in added(settings, task, container, id) {
        set(&name, value);
    }
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What goes over the image's environment: what the agent adds, under the definition's.
pub(crate) fn added(settings: &Settings, task: &Task, container: &Container, id: &str) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(pairs.insert(name.to_owned(), value));
    let region = region(&task.arn);
    set("AWS_EXECUTION_ENV", settings.kind.execution_environment().to_owned());
    set("AWS_REGION", region.to_owned());
    set("AWS_DEFAULT_REGION", region.to_owned());
    set("AWS_ENDPOINT_URL", settings.task_endpoint.clone());
    if let Some(file) = authorities(settings) {
        set("AWS_CA_BUNDLE", file.target);
    }
    set("ECS_CONTAINER_METADATA_URI", format!("http://169.254.170.2/v3/{id}"));
    set("ECS_CONTAINER_METADATA_URI_V4", format!("http://169.254.170.2/v4/{id}"));
    set("ECS_AGENT_URI", format!("http://169.254.170.2/api/{id}"));
    if let Some(role) = &task.role_credentials {
        let uri = format!("/v2/credentials/{}", role.credentials_id);
        set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", uri);
    }
    pairs.extend(container.environment.clone());
    pairs
}

fn tmpfs(target: &str, options: &str) -> Tmpfs {
    let mut tmpfs = Tmpfs { target: target.to_owned(), size_bytes: TMPFS, options: Vec::new() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.strip_prefix("size=").and_then(size) {
            Some(bytes) => tmpfs.size_bytes = bytes,
            None => tmpfs.options.push(option.to_owned()),
        }
    }
    tmpfs
}

fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = match lower.chars().last()? {
        'k' => (lower.trim_end_matches('k'), 10),
        'm' => (lower.trim_end_matches('m'), 20),
        'g' => (lower.trim_end_matches('g'), 30),
        _ => (lower.as_str(), 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn shared_memory(parameters: &LinuxParameters, host: &HostConfig) -> Option<u64> {
    let bytes = match parameters.shared_memory_size {
        Some(mebibytes) => mebibytes.saturating_mul(1 << 20),
        None => host.shm_size,
    };
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

fn ulimits(host: &HostConfig) -> Vec<Ulimit> {
    let bound = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let mut ulimits: Vec<Ulimit> = host
        .ulimits
        .iter()
        .map(|limit| Ulimit { name: limit.name.clone(), soft: bound(limit.soft), hard: bound(limit.hard) })
        .collect();
    if !ulimits.iter().any(|limit| limit.name == "nofile") {
        // A host whose root may not raise limits (itself a container, say) gives what it has.
        let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(NOFILE, |(_, hard)| hard).min(NOFILE);
        ulimits.push(Ulimit { name: "nofile".to_owned(), soft: most, hard: most });
    }
    ulimits
}

fn limits(container: &Container, host: &HostConfig) -> Limits {
    let mebibytes = u64::try_from(container.memory).ok().filter(|memory| *memory > 0);
    Limits {
        memory_bytes: mebibytes.map(|mebibytes| mebibytes << 20),
        memory_swap_bytes: mebibytes.map(|mebibytes| mebibytes << 20),
        memory_reservation_bytes: u64::try_from(host.memory_reservation).ok().filter(|bytes| *bytes > 0),
        // The kernel's least is 2, which is also what Amazon's agent gives a container without a share.
        cpu_shares: Some(u64::try_from(container.cpu).unwrap_or(0).max(2)),
        ..Limits::default()
    }
}

/// Who may have signed the certificate of a platform that a task reaches by TLS: no image knows them.
pub(crate) fn authorities(settings: &Settings) -> Option<File> {
    let content = settings.authorities.clone().filter(|_| settings.task_endpoint.starts_with("https:"))?;
    Some(File { target: AUTHORITIES.to_owned(), content, mode: 0o644 })
}

/// The files by which a container knows names: hosts, resolver, its own name.
fn files(names: &Names, hostname: &str) -> Vec<File> {
    let file =
        |target: &str, content: &str| File { target: target.to_owned(), content: content.to_owned(), mode: 0o644 };
    vec![
        file("/etc/hosts", &names.hosts),
        file("/etc/resolv.conf", &names.resolvers),
        file("/etc/hostname", &format!("{}\n", or(hostname, &names.hostname))),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use domain::agent_protocol::payload::{ElasticNetworkInterface, Ipv4Address, RoleCredentials};
    use runtime::{ImageConfig, Pin};

    use super::*;
    use crate::instance::Kind;
    use crate::network::awsvpc;

    fn image() -> Image {
        let digest = format!("sha256:{}", "0".repeat(64)).parse().expect("a digest");
        let config = ImageConfig {
            entrypoint: vec!["/entry".into()],
            command: vec!["default".into()],
            environment: vec!["PATH=/bin".into(), "A=image".into(), "AWS_REGION=moon".into()],
            user: "app".into(),
            ..ImageConfig::default()
        };
        let reference = "nginx".parse().expect("a reference");
        Image {
            reference,
            digest,
            index_digest: None,
            config,
            layers: vec!["/layer".into()],
            size: 0,
            pin: Pin::default(),
        }
    }

    pub(crate) fn settings() -> Settings {
        Settings {
            kind: Kind::Fargate,
            stop_timeout: std::time::Duration::from_secs(30),
            platform: "a1b2c3".into(),
            interfaces: awsvpc::Interfaces::OfPlatform("a1b2c3".into()),
            directory: "/data".into(),
            task_endpoint: "http://169.254.169.252:4580".into(),
            authorities: None,
            mirrors: Vec::new(),
            availability_zone: "us-east-1a".into(),
            image_cache: 0,
        }
    }

    fn order(container: Container) -> StartOrder {
        let interface = ElasticNetworkInterface {
            ec2_id: "eni-1".into(),
            ipv4_addresses: vec![Ipv4Address { private_address: "10.0.0.9".into(), primary: true }],
            domain_name_servers: vec!["10.0.0.2".into()],
            domain_name: vec!["ec2.internal".into()],
            private_dns_name: "ip-10-0-0-9.ec2.internal".into(),
            ..ElasticNetworkInterface::default()
        };
        let role = RoleCredentials { credentials_id: "cred".into(), ..RoleCredentials::default() };
        let task = Task {
            arn: "arn:aws:ecs:eu-west-1:123456789012:task/c/0a".into(),
            elastic_network_interfaces: vec![interface],
            role_credentials: Some(role),
            containers: vec![container],
            ..Task::default()
        };
        StartOrder { task: task.into(), index: 0, runtime_id: "0a-1".into(), volume: Some("0a".into()) }
    }

    fn build_joined(order: StartOrder, image: &Image) -> Result<ContainerSpec, Failure> {
        let names = awsvpc::names(&order.task, &HostConfig::default());
        let namespace = awsvpc::Interfaces::OfPlatform("a1b2c3".into()).netns(&order.task).expect("an interface");
        build(&settings(), &order, image, &Joined { namespace, names, ..Joined::default() })
    }

    #[track_caller]
    fn check_arguments(entry: Option<&[&str]>, command: Option<&[&str]>, expect: &[&str]) {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let container = Container { entry_point: entry.map(own), command: command.map(own), ..Container::default() };
        assert_eq!(arguments(&container, &image()), expect);
    }

    #[test]
    fn entry_point_and_command_are_merged_as_docker_does() {
        check_arguments(None, None, &["/entry", "default"]);
        check_arguments(None, Some(&["x"]), &["/entry", "x"]);
        check_arguments(Some(&["/mine"]), None, &["/mine"]);
        check_arguments(Some(&["/mine"]), Some(&["x"]), &["/mine", "x"]);
        check_arguments(Some(&[]), Some(&[]), &["/entry", "default"]);
    }

    #[test]
    fn the_environment_is_image_then_agent_then_definition() {
        let mut container = Container { name: "web".into(), ..Container::default() };
        container.environment.insert("AWS_ENDPOINT_URL".into(), "http://mine".into());
        let spec = build_joined(order(container), &image()).expect("a spec");
        for expected in [
            "PATH=/bin",
            "A=image",
            "AWS_REGION=eu-west-1",
            "AWS_ENDPOINT_URL=http://mine",
            "AWS_EXECUTION_ENV=AWS_ECS_FARGATE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/cred",
            "ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/0a-1",
        ] {
            assert_eq!(spec.env.iter().filter(|pair| *pair == expected).count(), 1, "{expected} in {:?}", spec.env);
        }
        assert!(!spec.env.iter().any(|pair| pair == "AWS_REGION=moon"));
        assert_eq!(spec.user, "app");
    }

    #[test]
    fn a_platform_beyond_this_machine_comes_with_its_authority() {
        let given = |endpoint: &str| {
            let authorities = Some("PEM".to_owned());
            super::authorities(&Settings { authorities, task_endpoint: endpoint.into(), ..settings() })
        };
        assert_eq!(given("https://192.0.2.1:4580").map(|file| file.content).as_deref(), Some("PEM"));
        assert!(given("http://127.0.0.1:4580").is_none() && super::authorities(&settings()).is_none());
    }

    #[test]
    fn a_container_knows_its_name_and_resolver() {
        let container = Container { name: "web".into(), ..Container::default() };
        let spec = build_joined(order(container), &image()).expect("a spec");
        let content =
            |target: &str| spec.files.iter().find(|file| file.target == target).map(|file| file.content.clone());
        assert_eq!(content("/etc/hosts").as_deref(), Some("127.0.0.1 localhost\n10.0.0.9 ip-10-0-0-9.ec2.internal\n"));
        assert_eq!(content("/etc/resolv.conf").as_deref(), Some("search ec2.internal\nnameserver 10.0.0.2\n"));
        assert_eq!(spec.hostname, "ip-10-0-0-9.ec2.internal");
        assert_eq!(spec.network_namespace.as_deref(), Some(std::path::Path::new("/run/netns/ls-a1b2c3-eni-1")));
        assert_eq!(spec.cgroup_parent, "longshore/a1b2c3/0a");
    }

    #[test]
    fn memory_file_systems_carry_their_size() {
        let tmpfs = tmpfs("/tmp", "size=128m,noexec,mode=1777");
        assert_eq!((tmpfs.size_bytes, tmpfs.options), (128 << 20, vec!["noexec".to_owned(), "mode=1777".to_owned()]));
    }

    #[test]
    fn an_image_without_a_command_is_refused() {
        let mut bare = image();
        bare.config.entrypoint.clear();
        bare.config.command.clear();
        let failure = build_joined(order(Container::default()), &bare).expect_err("refused");
        assert_eq!(failure.0, "CannotCreateContainerError: No command specified");
    }
}
