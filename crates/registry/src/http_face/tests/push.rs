use super::*;

#[tokio::test]
async fn in_one_request() {
    let it = Fixture::new().await;
    let digest = it.push_blob("demo", b"layer").await;
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.body, "layer");
}

#[tokio::test]
async fn in_two_requests() {
    let it = Fixture::new().await;
    let begun = it.send(Method::POST, "/v2/demo/blobs/uploads/", &[], "").await;
    assert_eq!((begun.status, begun.header("range")), (StatusCode::ACCEPTED, "0-0"));
    let digest = Hasher::of(b"layer");
    let path = format!("{}?digest={digest}", begun.header("location"));
    let put = it.send(Method::PUT, &path, &[], "layer").await;
    assert_eq!((put.status, put.header("docker-content-digest")), (StatusCode::CREATED, digest.as_str()));
    assert_eq!(it.get(put.header("location")).await.body, "layer");
    // The upload is over.
    assert_eq!(it.send(Method::PUT, &path, &[], "").await.error().1, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn in_chunks_across_a_restart() {
    let it = Fixture::new().await;
    let begun = it.send(Method::POST, "/v2/demo/blobs/uploads/", &[], "").await;
    let location = begun.header("location").to_owned();
    let first = it.send(Method::PATCH, &location, &[("content-range", "0-4")], "hello").await;
    assert_eq!((first.status, first.header("range")), (StatusCode::ACCEPTED, "0-4"));

    let again = it.send(Method::PATCH, &location, &[("content-range", "0-4")], "hello").await;
    assert_eq!((again.status, again.header("range")), (StatusCode::RANGE_NOT_SATISFIABLE, "0-4"));
    assert_eq!(again.header("location"), location);
    let gap = it.send(Method::PATCH, &location, &[("content-range", "9-10")], "xy").await;
    assert_eq!(gap.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let lie = it.send(Method::PATCH, &location, &[("content-range", "5-9")], "xy").await;
    assert_eq!(lie.error().1, "SIZE_INVALID");

    let it = it.restart();
    let status = it.get(&location).await;
    assert_eq!((status.status, status.header("range")), (StatusCode::NO_CONTENT, "0-4"));
    let second = it.send(Method::PATCH, &location, &[("content-range", "5-10")], " world").await;
    assert_eq!(second.header("range"), "0-10");
    let digest = Hasher::of(b"hello world!");
    let end = it.send(Method::PUT, &format!("{location}?digest={digest}"), &[("content-range", "11-11")], "!").await;
    assert_eq!(end.status, StatusCode::CREATED);
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.body, "hello world!");
}

#[tokio::test]
async fn a_broken_connection_is_continued_where_it_broke() {
    struct Broken(usize);
    impl http_body::Body for Broken {
        type Data = Bytes;
        type Error = io::Error;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
            self.0 += 1;
            std::task::Poll::Ready(Some(match self.0 {
                1 => Ok(http_body::Frame::data(Bytes::from_static(b"hello"))),
                _ => Err(io::ErrorKind::ConnectionReset.into()),
            }))
        }
    }
    let it = Fixture::new().await;
    let begun = it.send(Method::POST, "/v2/demo/blobs/uploads/", &[], "").await;
    let location = begun.header("location");
    let authorization = format!("Basic {}", STANDARD.encode(format!("AWS:{}", it.token)));
    let request = Request::patch(location).header("authorization", authorization).body(Broken(0)).unwrap();
    assert_eq!(it.exchange(request).await.error().1, "BLOB_UPLOAD_INVALID");
    assert_eq!(it.get(location).await.header("range"), "0-4");
    let digest = Hasher::of(b"hello world");
    let end = it.send(Method::PUT, &format!("{location}?digest={digest}"), &[], " world").await;
    assert_eq!(end.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_wrong_digest_leaves_nothing() {
    let it = Fixture::new().await;
    let wrong = Hasher::of(b"something else");
    let reply = it.send(Method::POST, &format!("/v2/demo/blobs/uploads/?digest={wrong}"), &[], "layer").await;
    assert_eq!((reply.error().0, reply.error().1.as_str()), (400, "DIGEST_INVALID"));
    for digest in [wrong, Hasher::of(b"layer")] {
        assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.error().1, "BLOB_UNKNOWN");
    }
    assert_eq!(std::fs::read_dir(it.directory.path().join("blobs/uploads")).unwrap().count(), 0);
    let sha512 = format!("sha512:{}", "a".repeat(128));
    let reply = it.send(Method::POST, &format!("/v2/demo/blobs/uploads/?digest={sha512}"), &[], "layer").await;
    assert!(reply.error().2.contains("no other algorithm"), "{:?}", reply.error());
}

#[tokio::test]
async fn an_upload_can_be_cancelled() {
    let it = Fixture::new().await;
    let begun = it.send(Method::POST, "/v2/demo/blobs/uploads/", &[], "").await;
    let location = begun.header("location");
    assert_eq!(it.send(Method::DELETE, location, &[], "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(it.get(location).await.error().1, "BLOB_UPLOAD_UNKNOWN");
    // In another repository the same id means nothing.
    let begun = it.send(Method::POST, "/v2/demo/blobs/uploads/", &[], "").await;
    let elsewhere = begun.header("location").replace("/demo/", "/other/repo/");
    assert_eq!(it.get(&elsewhere).await.error().1, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn a_blob_is_kept_once_and_seen_only_through_a_repository_that_has_it() {
    let it = Fixture::new().await;
    let digest = it.push_blob("demo", b"layer").await;
    let path = format!("/v2/other/repo/blobs/{digest}");
    assert_eq!(it.head(&path).await.status, StatusCode::NOT_FOUND);

    let mount = format!("/v2/other/repo/blobs/uploads/?mount={digest}&from=demo");
    let mounted = it.send(Method::POST, &mount, &[], "").await;
    assert_eq!((mounted.status, mounted.header("location")), (StatusCode::CREATED, path.as_str()));
    assert_eq!(it.get(&path).await.body, "layer");

    // What cannot be mounted is uploaded.
    for from in ["demo", "none", "../x"] {
        let missing = Hasher::of(b"missing");
        let mount = format!("/v2/other/repo/blobs/uploads/?mount={missing}&from={from}");
        assert_eq!(it.send(Method::POST, &mount, &[], "").await.status, StatusCode::ACCEPTED);
    }
    let mount = format!("/v2/other/repo/blobs/uploads/?mount={digest}");
    assert_eq!(it.send(Method::POST, &mount, &[], "").await.status, StatusCode::ACCEPTED);

    it.push_blob("other/repo", b"layer").await;
    let directory = it.directory.path().join("blobs/sha256").join(&digest.hex()[..2]);
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1);
}

#[tokio::test]
async fn a_large_blob_goes_in_and_out_whole() {
    let it = Fixture::new().await;
    let content: Vec<u8> = (0..5_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let digest = Hasher::of(&content);
    let path = format!("/v2/demo/blobs/uploads/?digest={digest}");
    assert_eq!(it.send(Method::POST, &path, &[], content.clone()).await.status, StatusCode::CREATED);
    assert!(it.get(&format!("/v2/demo/blobs/{digest}")).await.body == content);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let it = Fixture::new().await;
    let digest = it.push_image("demo", "latest", b"layer").await;
    let it = it.restart();
    assert_eq!(it.get("/v2/demo/manifests/latest").await.header("docker-content-digest"), digest.as_str());
    let layer = Hasher::of(b"layer");
    assert_eq!(it.get(&format!("/v2/demo/blobs/{layer}")).await.body, "layer");
}

#[tokio::test]
async fn the_rest_of_a_crash_is_never_served_as_a_blob() {
    // A crash between renaming and referring leaves a file that nothing refers to, perhaps not whole.
    let it = Fixture::new().await;
    let digest = Hasher::of(b"layer");
    let file = it.directory.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    std::fs::write(&file, b"lay").unwrap();
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.status, StatusCode::NOT_FOUND);
    it.push_blob("demo", b"layer").await;
    assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.body, "layer");
}
