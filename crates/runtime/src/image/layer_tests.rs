//! The rules of [`super`]: what goes through, what is refused, and where the bounds are.

use super::*;

/// An archive of entries given as type, name, link target and content. Names go into the header as they are.
fn archive(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, target, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn check(entries: &[(EntryType, &str, &str, &[u8])], expected: Result<&[&str], &str>) {
    let mut sink = Forgetful::default();
    match (read(archive(entries).as_slice(), &UnpackLimits::default(), &mut sink), expected) {
        (Ok(_), Ok(calls)) => assert_eq!(sink.calls, calls),
        (Err(Refusal::Unsafe { reason, .. }), Err(expected)) => {
            assert!(reason.contains(expected), "{reason:?}, expected {expected:?}")
        }
        (outcome, expected) => panic!("{outcome:?}, expected {expected:?}"),
    }
}

#[test]
fn ordinary_entries() {
    use EntryType::{Directory, Fifo, Link, Regular, Symlink};
    check(
        &[
            (Directory, "./", "", b""),
            (Directory, "a/", "", b""),
            (Regular, "./a//b", "", b"x"),
            (Symlink, "s", "/a/../../b", b""),
            (Link, "h", "./a/b", b""),
            (Fifo, "f", "", b""),
        ],
        Ok(&["directory ", "directory a", "file a/b", "link s", "hard a/b", "link h", "fifo f"]),
    );
}

#[test]
fn whiteouts() {
    use EntryType::Regular;
    check(
        &[(Regular, "a/.wh.b", "", b""), (Regular, "a/.wh..wh..opq", "", b""), (Regular, ".wh..wh.plnk", "", b"")],
        Ok(&["whiteout a/b", "opaque a"]),
    );
    for nothing in [".wh.", "a/.wh..", "a/.wh..."] {
        check(&[(Regular, nothing, "", b"")], Err("whiteout of nothing"));
    }
}

#[test]
fn ways_out_are_refused() {
    use EntryType::{Block, Char, Directory, Link, Regular, Symlink};
    check(&[(Regular, "/etc/passwd", "", b"x")], Err("absolute"));
    check(&[(Regular, "../x", "", b"x")], Err("\"..\""));
    check(&[(Directory, "a/../../x", "", b"")], Err("\"..\""));
    check(&[(Regular, "a/..", "", b"")], Err("\"..\""));
    check(&[(Link, "h", "/etc/shadow", b"")], Err("hard link out"));
    check(&[(Link, "h", "../../etc/shadow", b"")], Err("hard link out"));
    check(&[(Symlink, "s", "", b"")], Err("to nothing"));
    check(&[(Block, "disk", "", b"")], Err("device"));
    check(&[(Char, "dev/null", "", b"")], Err("device"));
    check(&[(Regular, ".", "", b"x")], Err("root"));
    check(&[(EntryType::new(b'Z'), "x", "", b"")], Err("unknown type"));
    check(&[(Regular, "a/.wh.../x", "", b"")], Ok(&["file a/.wh.../x"]));
}

#[test]
fn names_beyond_the_systems_are_refused() {
    for name in ["x".repeat(300), "y/".repeat(600), "z/".repeat(3000)] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        builder.append_data(&mut header, &name, &b""[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        assert!(
            matches!(
                read(bytes.as_slice(), &UnpackLimits::default(), &mut Forgetful::default()),
                Err(Refusal::Unsafe { .. })
            ),
            "{}",
            name.len()
        );
    }
}

#[test]
fn bounds() {
    let refuse =
        |bytes: &[u8], limits: UnpackLimits, expected: &str| match read(bytes, &limits, &mut Forgetful::default()) {
            Err(Refusal::TooLarge(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}, expected {expected}"),
        };
    let many: Vec<_> = (0..20).map(|_| (EntryType::Directory, "a", "", &b""[..])).collect();
    refuse(&archive(&many), UnpackLimits { entries: 19, ..UnpackLimits::default() }, "19 entries");
    refuse(&archive(&many), UnpackLimits { bytes: 5_000, ..UnpackLimits::default() }, "5000 bytes");
    // A bomb: a hundred megabytes of nothing in a hundred kilobytes.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_size(100 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    io::Write::write_all(&mut encoder, header.as_bytes()).unwrap();
    io::copy(&mut io::repeat(0).take((100 << 20) + 1024), &mut encoder).unwrap();
    refuse(&encoder.finish().unwrap(), UnpackLimits::default(), "400 to 1");
}

#[test]
fn holes_count_as_content() {
    // One block of the archive that says "a gigabyte of nothing", a few times over.
    let hole = |name: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_path(name).unwrap();
        header.set_size(0);
        header.set_mode(0o644);
        let gnu = header.as_gnu_mut().unwrap();
        for (field, value) in
            [(&mut gnu.sparse[0].offset, 1 << 30), (&mut gnu.sparse[0].numbytes, 0), (&mut gnu.realsize, 1 << 30)]
        {
            field.copy_from_slice(format!("{value:011o}\0").as_bytes());
        }
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let layer = [hole("a"), hole("b"), hole("c"), vec![0; 1024]].concat();
    let refused = |limits: UnpackLimits, expected: &str| match read(&layer[..], &limits, &mut Forgetful::default()) {
        Err(Refusal::TooLarge(reason)) => assert!(reason.contains(expected), "{reason}"),
        other => panic!("{other:?}, expected {expected}"),
    };
    refused(UnpackLimits::default(), "400 to 1");
    refused(UnpackLimits { bytes: 2 << 30, ratio: 1 << 40, ..UnpackLimits::default() }, "bytes unpacked");
}

#[test]
fn the_digest_covers_everything() {
    let mut bytes = archive(&[(EntryType::Regular, "a", "", b"text")]);
    let read_it = |bytes: &[u8]| read(bytes, &UnpackLimits::default(), &mut Forgetful::default()).unwrap();
    assert_eq!(read_it(&bytes).diff_id, Digest::of(&bytes));
    bytes.extend_from_slice(&[0; 10_240]);
    let summary = read_it(&bytes);
    assert_eq!((summary.diff_id, summary.bytes, summary.entries), (Digest::of(&bytes), bytes.len() as u64, 1));
}

#[test]
fn damage_is_told() {
    let bytes = archive(&[(EntryType::Regular, "a", "", &[b'x'; 5000])]);
    for cut in [100, 600, 3000] {
        assert!(
            matches!(
                read(&bytes[..cut], &UnpackLimits::default(), &mut Forgetful::default()),
                Err(Refusal::Invalid(_))
            ),
            "{cut}"
        );
    }
    assert!(matches!(
        read(&[b'#'; 2000][..], &UnpackLimits::default(), &mut Forgetful::default()),
        Err(Refusal::Invalid(_))
    ));
}

#[test]
fn only_harmless_attributes_are_kept() {
    let mut builder = tar::Builder::new(Vec::new());
    let attributes: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.user.note", b"kept"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.capability", b"cap"),
    ];
    builder.append_pax_extensions(attributes).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("a").unwrap();
    header.set_mode(0o4755);
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let metadata = metadata(&mut entry, Path::new("a")).unwrap();
    assert_eq!(metadata.mode, 0o4755);
    assert_eq!(metadata.attributes.keys().collect::<Vec<_>>(), ["security.capability", "user.note"]);
}
