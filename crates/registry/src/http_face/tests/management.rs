use super::*;

#[tokio::test]
async fn tags_are_listed_in_pages() {
    let it = Fixture::new().await;
    let digest = it.push_image("demo", "b", b"layer").await;
    let manifest: Value = it.get(&format!("/v2/demo/manifests/{digest}")).await.json();
    for tag in ["a", "c", "B", "d_1"] {
        assert_eq!(it.put_manifest("demo", tag, &manifest).await.status, StatusCode::CREATED);
    }
    let all = it.get("/v2/demo/tags/list").await;
    assert_eq!(all.json(), json!({"name": "demo", "tags": ["B", "a", "b", "c", "d_1"]}));
    assert_eq!(all.header("link"), "");
    let page = it.get("/v2/demo/tags/list?n=2").await;
    assert_eq!(page.json()["tags"], json!(["B", "a"]));
    assert_eq!(page.header("link"), "</v2/demo/tags/list?n=2&last=a>; rel=\"next\"");
    assert_eq!(it.get("/v2/demo/tags/list?n=9&last=a").await.json()["tags"], json!(["b", "c", "d_1"]));
    assert_eq!(it.get("/v2/demo/tags/list?n=0").await.json()["tags"], json!([]));
    assert_eq!(it.get("/v2/demo/tags/list?n=x").await.error().1, "PAGINATION_NUMBER_INVALID");
    assert_eq!(it.get("/v2/other/repo/tags/list").await.json()["tags"], json!([]));
}

#[tokio::test]
async fn an_immutable_tag_stays_where_it_is() {
    let it = Fixture::with(TagMutability { immutable: true, exclusions: vec!["dev-*".into()] }).await;
    let digest = it.push_image("demo", "v1", b"one").await;
    let same: Value = it.get("/v2/demo/manifests/v1").await.json();
    assert_eq!(it.put_manifest("demo", "v1", &same).await.status, StatusCode::CREATED);
    let config = Hasher::of(b"{}");
    let layer = it.push_blob("demo", b"two").await;
    let other = image(&[(&config, 2), (&layer, 3)]);
    let text = "The image tag 'v1' already exists in the 'demo' repository and cannot be overwritten because the tag is immutable.";
    assert_eq!(it.put_manifest("demo", "v1", &other).await.error(), (400, "TAG_INVALID".into(), text.into()));
    assert_eq!(it.get("/v2/demo/manifests/v1").await.header("docker-content-digest"), digest.as_str());
    for manifest in [&same, &other] {
        assert_eq!(it.put_manifest("demo", "dev-1", manifest).await.status, StatusCode::CREATED);
    }
}

#[tokio::test]
async fn a_mutable_tag_moves() {
    let it = Fixture::new().await;
    let one = it.push_image("demo", "v1", b"one").await;
    let two = it.push_image("demo", "v1", b"two").await;
    assert_eq!(it.get("/v2/demo/manifests/v1").await.header("docker-content-digest"), two.as_str());
    assert_eq!(it.get(&format!("/v2/demo/manifests/{one}")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_index_needs_its_manifests_and_keeps_them() {
    let it = Fixture::new().await;
    let child = it.push_image("demo", "amd64", b"layer").await;
    let index = |child: &Digest| {
        json!({"schemaVersion": 2, "mediaType": media_types::OCI_INDEX, "manifests": [
            {"mediaType": media_types::OCI_MANIFEST, "digest": child, "size": 10, "platform": {"architecture": "amd64", "os": "linux"}}]})
    };
    let missing = Hasher::of(b"missing");
    let refused = it.put_manifest("demo", "all", &index(&missing)).await.error();
    assert_eq!((refused.0, refused.1.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    assert!(refused.2.starts_with(&format!("Images with digests '[{missing}]' required for pushing image into")));
    let put = it.put_manifest("demo", "all", &index(&child)).await;
    assert_eq!(put.status, StatusCode::CREATED);
    let path = format!("/v2/demo/manifests/{child}");
    assert_eq!(it.send(Method::DELETE, &path, &[], "").await.error().1, "UNSUPPORTED");
    // Without its tag the child stays, since the index needs it.
    assert_eq!(it.send(Method::DELETE, "/v2/demo/manifests/amd64", &[], "").await.status, StatusCode::ACCEPTED);
    assert_eq!(it.get(&path).await.status, StatusCode::OK);
    assert_eq!(it.send(Method::DELETE, "/v2/demo/manifests/all", &[], "").await.status, StatusCode::ACCEPTED);
    assert_eq!(it.send(Method::DELETE, &path, &[], "").await.status, StatusCode::ACCEPTED);
    assert_eq!(it.get(&path).await.error().1, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn deleting_by_digest_takes_the_tags_along() {
    let it = Fixture::new().await;
    let digest = it.push_image("demo", "v1", b"layer").await;
    let layer = Hasher::of(b"layer");
    let blob = format!("/v2/demo/blobs/{layer}");
    assert_eq!(it.send(Method::DELETE, &blob, &[], "").await.error().1, "UNSUPPORTED");
    let path = format!("/v2/demo/manifests/{digest}");
    assert_eq!(it.send(Method::DELETE, &path, &[], "").await.status, StatusCode::ACCEPTED);
    assert_eq!(
        it.send(Method::DELETE, &path, &[], "").await.error(),
        (404, "MANIFEST_UNKNOWN".into(), "Requested image not found".into())
    );
    assert_eq!(it.get("/v2/demo/tags/list").await.json()["tags"], json!([]));
    assert_eq!(it.send(Method::DELETE, &blob, &[], "").await.status, StatusCode::ACCEPTED);
    assert_eq!(it.get(&blob).await.error().1, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn referrers_are_found_by_their_subject() {
    let it = Fixture::new().await;
    let subject = it.push_image("demo", "v1", b"layer").await;
    let path = format!("/v2/demo/referrers/{subject}");
    assert_eq!(it.get(&path).await.json()["manifests"], json!([]));
    let config = Hasher::of(b"{}");
    let mut digests = Vec::new();
    for kind in ["application/sbom", "application/signature"] {
        let mut manifest = image(&[(&config, 2)]);
        manifest["artifactType"] = json!(kind);
        manifest["subject"] = json!({"mediaType": media_types::OCI_MANIFEST, "digest": subject, "size": 1});
        manifest["annotations"] = json!({"by": "test"});
        let put = it.put_manifest("demo", Hasher::of(manifest.to_string().as_bytes()).as_str(), &manifest).await;
        assert_eq!((put.status, put.header("oci-subject")), (StatusCode::CREATED, subject.as_str()));
        digests.push(put.header("docker-content-digest").to_owned());
    }
    let all = it.get(&path).await;
    assert_eq!(
        (all.header("content-type"), all.json()["manifests"].as_array().unwrap().len()),
        (media_types::OCI_INDEX, 2)
    );
    let signatures = it.get(&format!("{path}?artifactType=application%2Fsignature")).await;
    assert_eq!(signatures.header("oci-filters-applied"), "artifactType");
    let found = &signatures.json()["manifests"];
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!((&found[0]["digest"], &found[0]["annotations"]), (&json!(digests[1]), &json!({"by": "test"})));
    assert_eq!(found[0]["artifactType"], "application/signature");
}

#[tokio::test]
async fn only_what_nobody_needs_is_swept() {
    use crate::{Grace, Swept};
    use std::time::Duration;
    let it = Fixture::new().await;
    let none = Grace { uploads: Duration::ZERO, layers: Duration::ZERO, blobs: Duration::ZERO };
    let digest = it.push_image("demo", "v1", b"needed").await;
    let orphan = it.push_blob("demo", b"orphan").await;
    it.send(Method::POST, "/v2/demo/blobs/uploads/", &[], "").await;
    let swept = it.registry.sweep(Grace::default()).await.unwrap();
    assert_eq!(swept, Swept::default(), "everything is within its grace");
    // A layer that somebody was just told about is kept.
    let day = Duration::from_secs(86400);
    let swept = it.registry.sweep(Grace { layers: day, ..none }).await.unwrap();
    assert_eq!(swept, Swept { uploads: 1, layers: 0, blobs: 0 });
    let swept = it.registry.sweep(none).await.unwrap();
    assert_eq!(swept, Swept { uploads: 0, layers: 1, blobs: 1 });
    assert_eq!(it.get(&format!("/v2/demo/blobs/{orphan}")).await.status, StatusCode::NOT_FOUND);
    let needed = Hasher::of(b"needed");
    assert_eq!(it.get(&format!("/v2/demo/blobs/{needed}")).await.body, "needed");
    assert_eq!(it.get(&format!("/v2/demo/manifests/{digest}")).await.status, StatusCode::OK);
    it.send(Method::DELETE, "/v2/demo/manifests/v1", &[], "").await;
    assert_eq!(it.registry.sweep(none).await.unwrap(), Swept { uploads: 0, layers: 2, blobs: 3 });
}

#[tokio::test]
async fn a_machine_image_keeps_its_layers() {
    use crate::Grace;
    use std::time::Duration;
    let it = Fixture::new().await;
    let none = Grace { uploads: Duration::ZERO, layers: Duration::ZERO, blobs: Duration::ZERO };
    it.push_image("demo", "v1", b"needed").await;
    let needed = Hasher::of(b"needed");
    let image = MachineImage {
        scope: it.scope.clone(),
        image_id: "ami-1".into(),
        snapshot_id: "snap-1".into(),
        name: "image".into(),
        description: None,
        location: String::new(),
        layers: vec![ImageLayer { digest: needed.clone(), diff_id: needed.clone() }],
        size_gib: 8,
        created_at: Clock::system().now(),
        tags: Default::default(),
    };
    let key = domain::Resource::key(&image);
    let put = it.registry.store.transact(|tx| {
        tx.put(image);
        Ok::<_, ()>(())
    });
    put.await.unwrap();
    it.send(Method::DELETE, "/v2/demo/manifests/v1", &[], "").await;
    // The manifest and the configuration go, and the layer as something of the repository's.
    assert_eq!(it.registry.sweep(none).await.unwrap().blobs, 2);
    assert!(it.registry.open_blob(&needed).await.is_ok());
    let delete = it.registry.store.transact(|tx| {
        tx.delete::<MachineImage>(&key);
        Ok::<_, ()>(())
    });
    delete.await.unwrap();
    assert_eq!(it.registry.sweep(none).await.unwrap().blobs, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_never_takes_what_a_push_is_about_to_need() {
    use crate::Grace;
    use std::time::Duration;
    let it = Arc::new(Fixture::new().await);
    let none = Grace { uploads: Duration::from_secs(60), layers: Duration::from_secs(60), blobs: Duration::ZERO };
    // The same content is pushed into one repository while its last reference goes in the other, again and again.
    for round in 0..60 {
        let sweeper = tokio::spawn({
            let it = it.clone();
            async move {
                for _ in 0..3 {
                    it.registry.sweep(none).await.unwrap();
                }
            }
        });
        let digest = it.push_blob("demo", b"contended").await;
        let got = it.get(&format!("/v2/demo/blobs/{digest}")).await;
        assert_eq!(got.body, "contended", "round {round}");
        sweeper.await.unwrap();
        assert_eq!(it.get(&format!("/v2/demo/blobs/{digest}")).await.body, "contended", "round {round}");
        let deleted = it.send(Method::DELETE, &format!("/v2/demo/blobs/{digest}"), &[], "").await;
        assert_eq!(deleted.status, StatusCode::ACCEPTED);
    }
}
