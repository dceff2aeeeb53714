use super::*;

#[tokio::test]
async fn by_tag_and_by_digest() {
    let it = Fixture::new().await;
    let digest = it.push_image("demo", "v1", b"layer").await;
    for reference in ["v1", digest.as_str()] {
        let path = format!("/v2/demo/manifests/{reference}");
        let (got, head) = (it.get(&path).await, it.head(&path).await);
        assert_eq!((got.status, head.status), (StatusCode::OK, StatusCode::OK));
        assert_eq!(Hasher::of(&got.body), digest);
        for name in ["docker-content-digest", "content-type"] {
            assert_eq!(got.header(name), head.header(name), "{name}");
        }
        assert_eq!(head.header("content-length"), got.body.len().to_string());
        assert!(head.body.is_empty());
    }
}

#[tokio::test]
async fn a_client_gets_only_what_it_accepts() {
    let it = Fixture::new().await;
    it.push_image("demo", "v1", b"layer").await;
    let accept = async |accept: &str| it.send(Method::GET, "/v2/demo/manifests/v1", &[("accept", accept)], "").await;
    for right in ["*/*", "application/*;q=0.5", "text/plain, application/vnd.oci.image.manifest.v1+json", ""] {
        assert_eq!(accept(right).await.status, StatusCode::OK, "{right}");
    }
    for wrong in [media_types::DOCKER_MANIFEST, "application/vnd.oci.image.manifest.v1+json;q=0", "text/*"] {
        assert_eq!(accept(wrong).await.error().1, "MANIFEST_UNKNOWN", "{wrong}");
    }
}

#[tokio::test]
async fn parts_of_a_blob() {
    let it = Fixture::new().await;
    let digest = it.push_blob("demo", b"0123456789").await;
    let path = format!("/v2/demo/blobs/{digest}");
    let range = async |range: &str| it.send(Method::GET, &path, &[("range", range)], "").await;
    let part = range("bytes=2-4").await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &b"234"[..]));
    assert_eq!((part.header("content-range"), part.header("content-length")), ("bytes 2-4/10", "3"));
    assert_eq!(range("bytes=7-").await.body, "789");
    assert_eq!(range("bytes=-2").await.body, "89");
    assert_eq!(range("bytes=0-1,3-4").await.status, StatusCode::OK);
    let beyond = range("bytes=10-").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */10"));
    let known = it.send(Method::GET, &path, &[("if-none-match", &format!("\"{digest}\""))], "").await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    let head = it.head(&path).await;
    assert_eq!((head.header("content-length"), head.header("accept-ranges")), ("10", "bytes"));
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let it = Fixture::new().await;
    let digest = it.push_blob("demo", b"").await;
    let got = it.get(&format!("/v2/demo/blobs/{digest}")).await;
    assert_eq!((got.status, got.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_layers_own_address_reads_that_layer_only() {
    let it = Fixture::new().await;
    let digest = it.push_blob("demo", b"layer").await;
    let other = it.push_blob("demo", b"other").await;
    let layer = domain::repositories::content_key(&it.scope, "demo", &digest);
    let principal = Principal::Root { account: it.scope.account.clone() };
    let token = it.authority.issue_layer_token(&principal, &layer, Clock::system().now()).unwrap();
    let get = async |method: Method, path: String| it.send(method, &path, &[("authorization", "")], "").await;
    assert_eq!(get(Method::GET, format!("/v2/demo/blobs/{digest}?layer-token={token}")).await.body, "layer");
    for (method, path) in [
        (Method::GET, format!("/v2/demo/blobs/{other}?layer-token={token}")),
        (Method::GET, format!("/v2/demo/blobs/{digest}?layer-token=x")),
        (Method::DELETE, format!("/v2/demo/blobs/{digest}?layer-token={token}")),
        (Method::GET, format!("/v2/demo/tags/list?layer-token={token}")),
    ] {
        assert_eq!(get(method, path).await.status, StatusCode::UNAUTHORIZED);
    }
}
