use super::*;

#[tokio::test]
async fn strangers() {
    let it = Fixture::new().await;
    let basic = |credentials: &str| format!("Basic {}", STANDARD.encode(credentials));
    for authorization in [
        "".to_owned(),
        "Basic".into(),
        "Basic !".into(),
        "Bearer x".into(),
        basic("AWS:x"),
        basic(&format!("me:{}", it.token)),
    ] {
        for path in ["/v2/", "/v2/demo/tags/list", "/v2/_catalog", "/v2/nothing/here"] {
            let reply = it.send(Method::GET, path, &[("authorization", &authorization)], "").await;
            assert_eq!((reply.status, reply.error().1.as_str()), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
            let challenge = "Basic realm=\"http://localhost:4580/\",service=\"ecr.amazonaws.com\"";
            assert_eq!(reply.header("www-authenticate"), challenge);
        }
    }
    assert_eq!(it.get("/v2/").await.status, StatusCode::OK);
    assert_eq!(it.get("/v2/").await.header("docker-distribution-api-version"), "registry/2.0");
}

#[tokio::test]
async fn an_expired_token_says_so() {
    let it = Fixture::new().await;
    let principal = Principal::Root { account: it.scope.account.clone() };
    let (token, _) = it.authority.issue_registry_token(&principal, &it.scope.account, domain::Timestamp(0)).unwrap();
    let authorization = format!("Basic {}", STANDARD.encode(format!("AWS:{token}")));
    let reply = it.send(Method::GET, "/v2/", &[("authorization", &authorization)], "").await;
    let text = "Your authorization token has expired. Reauthenticate and try again.";
    assert_eq!(reply.error(), (403, "DENIED".into(), text.into()));
}

#[tokio::test]
async fn another_accounts_repositories() {
    let mut it = Fixture::new().await;
    it.scope.account = "999999999999".parse().unwrap();
    let (status, code, text) = it.get("/v2/demo/tags/list").await.error();
    assert_eq!((status, code.as_str()), (403, "DENIED"));
    let resource = "arn:aws:ecr:us-east-1:999999999999:repository/demo";
    assert!(text.contains("arn:aws:iam::123456789012:root is not authorized to perform: ecr:ListImages"), "{text}");
    assert!(text.contains(resource), "{text}");
}

#[tokio::test]
async fn repositories_that_do_not_exist() {
    let it = Fixture::new().await;
    let digest = Hasher::of(b"");
    let text = "The repository with name 'none' does not exist in the registry with id '123456789012'";
    for (method, path) in [
        (Method::GET, "/v2/none/tags/list".to_owned()),
        (Method::GET, "/v2/none/manifests/latest".to_owned()),
        (Method::GET, "/v2/none/manifests/.x".to_owned()),
        (Method::PUT, "/v2/none/manifests/latest".to_owned()),
        (Method::DELETE, "/v2/none/manifests/latest".to_owned()),
        (Method::GET, format!("/v2/none/blobs/{digest}")),
        (Method::DELETE, format!("/v2/none/blobs/{digest}")),
        (Method::POST, "/v2/none/blobs/uploads/".to_owned()),
        (Method::GET, format!("/v2/none/referrers/{digest}")),
    ] {
        let reply = it.send(method.clone(), &path, &[], "").await;
        assert_eq!(reply.error(), (404, "NAME_UNKNOWN".into(), text.into()), "{method} {path}");
    }
}

#[tokio::test]
async fn operations_that_amazon_has_not() {
    let it = Fixture::new().await;
    assert_eq!(it.get("/v2/_catalog").await.error().0, 405);
    for (method, path) in
        [(Method::POST, "/v2/"), (Method::DELETE, "/v2/demo/tags/list"), (Method::PUT, "/v2/demo/blobs/uploads/")]
    {
        assert_eq!(it.send(method, path, &[], "").await.error().1, "UNSUPPORTED", "{path}");
    }
    assert_eq!(it.get("/v2/A/tags/list").await.error().1, "NAME_INVALID");
}

#[tokio::test]
async fn manifests_that_are_none() {
    let it = Fixture::new().await;
    let config = it.push_blob("demo", b"{}").await;
    let missing = Hasher::of(b"missing");
    let refused = it.put_manifest("demo", "v1", &image(&[(&config, 2), (&missing, 7)])).await.error();
    let text = format!(
        "Layers with digests '[{missing}]' required for pushing image into repository with name 'demo' in the registry with id '123456789012' do not exist"
    );
    assert_eq!(refused, (400, "MANIFEST_BLOB_UNKNOWN".into(), text));
    // A blob of another repository is missing here.
    let elsewhere = it.push_blob("other/repo", b"elsewhere").await;
    let refused = it.put_manifest("demo", "v1", &image(&[(&config, 2), (&elsewhere, 9)])).await;
    assert_eq!(refused.error().1, "MANIFEST_BLOB_UNKNOWN");
    let right = image(&[(&config, 2)]);
    assert_eq!(it.put_manifest("demo", missing.as_str(), &right).await.error().1, "DIGEST_INVALID");
    assert_eq!(it.put_manifest("demo", ".v1", &right).await.error().1, "TAG_INVALID");
    let put = |body: String| it.send(Method::PUT, "/v2/demo/manifests/v1", &[], body);
    for wrong in ["", "{", "[]", "{\"schemaVersion\":2}", "null"] {
        assert_eq!(put(wrong.to_owned()).await.error().1, "MANIFEST_INVALID", "{wrong}");
    }
    let schema1 = json!({"schemaVersion": 1, "name": "demo", "tag": "v1", "fsLayers": [], "history": []});
    assert!(put(schema1.to_string()).await.error().2.contains("schema version 1"));
    let long = " ".repeat(crate::MAX_MANIFEST_BYTES + 1);
    assert_eq!(put(long).await.error().0, 413);
    assert_eq!(it.get("/v2/demo/tags/list").await.json()["tags"], json!([]));
}
