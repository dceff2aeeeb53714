use domain::instances::{Metadata, MetadataOptions};
use http_body_util::BodyExt;

use super::*;

fn instance() -> InstanceItem {
    InstanceItem {
        instance_id: "i-0123456789abcdef0".into(),
        on: true,
        boot: 1,
        interface_id: "eni-1".into(),
        vcpus: 2,
        memory_mib: 1024,
        hostname: "ip-172-31-0-9.ec2.internal".into(),
        root_volume_id: "vol-1".into(),
        volumes: vec![],
        region: "us-east-1".into(),
        metadata: Metadata {
            options: MetadataOptions::default(),
            image_id: "ami-1".into(),
            launch_index: 0,
            reservation_id: "r-1".into(),
            instance_type: "t3.micro".into(),
            availability_zone: "us-east-1a".into(),
            availability_zone_id: "use1-az1".into(),
            mac_address: "0a:00:00:00:00:01".into(),
            private_address: "172.31.0.9".parse().unwrap(),
            public_address: None,
            public_hostname: None,
            account: "123456789012".into(),
            vpc_id: "vpc-1".into(),
            vpc_cidr: "172.31.0.0/16".into(),
            subnet_id: "subnet-1".into(),
            subnet_cidr: "172.31.0.0/20".into(),
            security_groups: vec!["default".into()],
            security_group_ids: vec!["sg-1".into()],
            key: None,
            user_data: Some(STANDARD.encode("#!/bin/sh\n")),
            profile: None,
            role: None,
            tags: vec![("Name".into(), "one".into())],
            block_devices: vec![("root".into(), "/dev/xvda".into())],
            identity_document: "{\n}".into(),
            spot: false,
            interruption: None,
            identity_signature: "c2ln".into(),
        },
    }
}

struct World {
    instance: InstanceItem,
    tokens: Tokens,
    credentials: Credentials,
}

impl World {
    fn new() -> Self {
        let (tokens, credentials) = (Tokens::new().unwrap(), Credentials::new("/nonexistent".into()));
        Self { instance: instance(), tokens, credentials }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, String, bool) {
        let answerer = Answerer {
            instance: &self.instance,
            tokens: &self.tokens,
            credentials: &self.credentials,
            address: self.instance.metadata.private_address,
        };
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, is_token) = answerer.answer(request.body(()).unwrap()).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned(), is_token)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, body, _) = self.ask(Method::GET, path, &[]).await;
        (status, body)
    }
}

#[tokio::test]
async fn a_token_is_asked_for_and_then_used() {
    let world = World::new();
    assert_eq!(world.get("/latest/meta-data/instance-id").await.0, 401);
    for life in ["0", "21601", "x"] {
        assert_eq!(world.ask(Method::PUT, "/latest/api/token", &[(TOKEN_LIFE, life)]).await.0, 400);
    }
    assert_eq!(world.ask(Method::PUT, "/latest/api/token", &[]).await.0, 400);
    let through_proxy = [(TOKEN_LIFE, "60"), ("X-Forwarded-For", "10.0.0.1")];
    assert_eq!(world.ask(Method::PUT, "/latest/api/token", &through_proxy).await.0, 403);
    let (status, token, travels_little) = world.ask(Method::PUT, "/latest/api/token", &[(TOKEN_LIFE, "60")]).await;
    assert_eq!((status, travels_little), (200, true));
    let (status, body, travels_little) =
        world.ask(Method::GET, "/latest/meta-data/instance-id", &[(TOKEN, &token)]).await;
    assert_eq!((status, body.as_str(), travels_little), (200, "i-0123456789abcdef0", false));
    assert_eq!(world.ask(Method::GET, "/latest/user-data", &[(TOKEN, "forged")]).await.0, 401);
    assert_eq!(world.ask(Method::POST, "/latest/meta-data/", &[(TOKEN, &token)]).await.0, 405);
}

#[tokio::test]
async fn the_options_decide_what_is_answered() {
    let mut world = World::new();
    world.instance.metadata.options.tokens_required = false;
    assert_eq!(world.get("/latest/user-data").await, (200, "#!/bin/sh\n".into()));
    assert_eq!(world.get("/latest/meta-data/tags/instance/Name").await.0, 404);
    world.instance.metadata.options.tags = true;
    assert_eq!(world.get("/latest/meta-data/tags/instance/Name").await, (200, "one".into()));
    world.instance.metadata.options.enabled = false;
    assert_eq!(world.get("/latest/meta-data/").await.0, 403);
}

#[tokio::test]
async fn lists_show_what_is_directly_below() {
    let mut world = World::new();
    world.instance.metadata.options.tokens_required = false;
    assert_eq!(world.get("/latest/").await.1, "dynamic\nmeta-data\nuser-data");
    let (_, names) = world.get("/latest/meta-data/").await;
    assert!(names.lines().any(|name| name == "placement/") && names.lines().any(|name| name == "mac"), "{names}");
    assert!(!names.contains("iam"), "{names}");
    let (_, interfaces) = world.get("/latest/meta-data/network/interfaces/macs").await;
    assert_eq!(interfaces, "0a:00:00:00:00:01/");
    assert_eq!(world.get("/2021-03-23/meta-data/placement/region/").await, (200, "us-east-1".into()));
    assert_eq!(world.get("/latest/dynamic/instance-identity/document").await.1, "{\n}");
    for nothing in
        ["/latest/meta-data/spot/instance-action", "/newest/meta-data/mac", "/latest/other", "/latest/meta-data/ma"]
    {
        assert_eq!(world.get(nothing).await.0, 404, "{nothing}");
    }
    world.instance.metadata.key = Some(("mine".into(), "ssh-ed25519 AAAA".into()));
    assert_eq!(world.get("/latest/meta-data/public-keys/").await.1, "0=mine");
    assert_eq!(world.get("/latest/meta-data/public-keys/0/openssh-key").await.1, "ssh-ed25519 AAAA");
}

#[tokio::test]
async fn credentials_need_the_server() {
    let mut world = World::new();
    world.instance.metadata.options.tokens_required = false;
    assert_eq!(world.get("/latest/meta-data/iam/security-credentials/").await.0, 404);
    world.instance.metadata.role = Some("web".into());
    assert_eq!(world.get("/latest/meta-data/iam/").await.1, "security-credentials/");
    assert_eq!(world.get("/latest/meta-data/iam/security-credentials/").await, (200, "web".into()));
    assert_eq!(world.get("/latest/meta-data/iam/security-credentials/web").await.0, 503);
    assert_eq!(world.get("/latest/meta-data/iam/security-credentials/other").await.0, 404);
}

#[tokio::test]
async fn r05_a_spot_instance_is_told_of_its_end_once_it_is_known() {
    let mut world = World::new();
    world.instance.metadata.options.tokens_required = false;
    assert_eq!(world.get("/latest/meta-data/instance-life-cycle").await.1, "on-demand");
    world.instance.metadata.spot = true;
    assert_eq!(world.get("/latest/meta-data/instance-life-cycle").await.1, "spot");
    for path in ["instance-action", "termination-time", ""] {
        assert_eq!(world.get(&format!("/latest/meta-data/spot/{path}")).await.0, 404, "{path}");
    }
    let time = "2026-11-28T10:20:30Z";
    world.instance.metadata.interruption = Some(time.to_owned());
    let notice = world.get("/latest/meta-data/spot/instance-action").await.1;
    assert_eq!(notice, r#"{"action":"terminate","time":"2026-11-28T10:20:30Z"}"#);
    assert_eq!(world.get("/latest/meta-data/spot/termination-time").await.1, time);
}
