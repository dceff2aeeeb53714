//! Layers upon each other, as a user would see them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::*;
use crate::files;
use crate::image::layer::{Metadata, Sink};

type Steps<'a> = &'a [(&'a str, &'a str)];

/// Applies a layer: `d` a directory, `f` a file with its own name in it, `l name target` a link, `h name target` a hard link,
/// `w` a whiteout, `o` an opaque directory.
fn apply(root: &Path, steps: Steps<'_>) -> Result<(), Refusal> {
    let mut layer = Directory::merged(files::open_directory(root).unwrap()).unwrap();
    let owner = fs::metadata(root).unwrap();
    let metadata = |mode| {
        use std::os::unix::fs::MetadataExt;
        Metadata { mode, uid: owner.uid(), gid: owner.gid(), modified: 77, ..Metadata::default() }
    };
    for (what, name) in steps {
        let (name, target) = name.split_once(' ').unwrap_or((name, ""));
        let path = Path::new(name);
        match *what {
            "d" => layer.directory(path, &metadata(0o755))?,
            "f" => layer.file(path, &metadata(0o644), &mut name.as_bytes())?,
            "l" => layer.symbolic_link(path, OsStr::new(target), &metadata(0o777))?,
            "h" => layer.hard_link(path, Path::new(target))?,
            "w" => layer.whiteout(path)?,
            _ => layer.opaque(path)?,
        }
    }
    assert!(layer.finish()?.is_empty());
    Ok(())
}

fn tree(root: &Path, below: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.insert(format!("{}/", path.display()));
            tree(root, &path, found);
        } else if kind.is_symlink() {
            found.insert(format!("{} -> {}", path.display(), fs::read_link(entry.path()).unwrap().display()));
        } else {
            found.insert(path.display().to_string());
        }
    }
}

fn check(layers: &[Steps<'_>], expected: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    for layer in layers {
        if let Err(refusal) = apply(root.path(), layer) {
            panic!("{layer:?}: {refusal:?}");
        }
    }
    let mut found = BTreeSet::new();
    tree(root.path(), Path::new(""), &mut found);
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, expected, "{layers:?}");
}

#[test]
fn a_layer_deletes_what_is_below_and_nothing_of_its_own() {
    let base: Steps<'_> = &[("d", "a"), ("f", "a/x"), ("d", "a/deep"), ("f", "a/deep/y"), ("f", "b")];
    check(&[base, &[("w", "a")]], &["b"]);
    check(&[base, &[("w", "b"), ("w", "none"), ("w", "a/none")]], &["a/", "a/x", "a/deep/", "a/deep/y"]);
    check(&[base, &[("o", "a"), ("f", "a/new")]], &["a/", "a/new", "b"]);
    // Whatever the order in the archive.
    check(&[base, &[("f", "a/deep/new"), ("o", "a")]], &["a/", "a/deep/", "a/deep/new", "b"]);
    check(&[base, &[("d", "a"), ("f", "a/new"), ("w", "a")]], &["a/", "a/new", "b"]);
    check(
        &[base, &[("f", "a/deep/new"), ("w", "a"), ("f", "a/more")]],
        &["a/", "a/deep/", "a/deep/new", "a/more", "b"],
    );
    check(&[base, &[("f", "b"), ("w", "b")]], &["a/", "a/x", "a/deep/", "a/deep/y", "b"]);
    check(&[base, &[("o", "a/deep"), ("w", "a"), ("f", "a/z")]], &["a/", "a/z", "b"]);
}

#[test]
fn a_layer_takes_the_place_of_what_is_below() {
    let base: Steps<'_> = &[("d", "a"), ("f", "a/x"), ("f", "b")];
    check(&[base, &[("f", "a")]], &["a", "b"]);
    check(&[base, &[("l", "a b")]], &["a -> b", "b"]);
    check(&[base, &[("f", "b/inner")]], &["a/", "a/x", "b/", "b/inner"]);
    check(&[base, &[("d", "b"), ("f", "b/inner")]], &["a/", "a/x", "b/", "b/inner"]);
    check(&[base, &[("h", "c b")]], &["a/", "a/x", "b", "c"]);
    // Its own it keeps.
    let root = tempfile::tempdir().unwrap();
    apply(root.path(), base).unwrap();
    assert!(matches!(apply(root.path(), &[("f", "a/new"), ("f", "a")]), Err(Refusal::Unsafe { .. })));
}

#[test]
fn names_go_through_links_of_lower_layers_and_never_out() {
    let base: Steps<'_> =
        &[("d", "usr"), ("d", "usr/bin"), ("f", "usr/bin/old"), ("l", "bin usr/bin"), ("l", "up ../../..")];
    let merged = &["usr/", "usr/bin/", "usr/bin/new", "bin -> usr/bin", "up -> ../../.."];
    check(&[base, &[("f", "bin/new"), ("w", "bin/old")]], merged);
    check(
        &[base, &[("f", "up/escaped")]],
        &["usr/", "usr/bin/", "usr/bin/old", "bin -> usr/bin", "up -> ../../..", "escaped"],
    );
    let root = tempfile::tempdir().unwrap();
    let refused = apply(root.path(), &[("l", "out /etc"), ("f", "out/passwd")]);
    assert!(matches!(refused, Err(Refusal::Unsafe { .. })), "{refused:?}");
}

#[test]
fn a_file_that_is_replaced_leaves_its_other_names_alone() {
    let root = tempfile::tempdir().unwrap();
    apply(root.path(), &[("f", "one"), ("h", "two one")]).unwrap();
    apply(root.path(), &[("f", "two")]).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("one")).unwrap(), "one");
    assert_eq!(fs::read_to_string(root.path().join("two")).unwrap(), "two");
}
