//! EBS volumes: sparse files below DATA. A new one is empty; a root volume gets its file system at its first boot.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use domain::instances::VolumeItem;

use crate::ruleset::is_id;

/// Where they are.
pub(super) fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("instances/volumes")
}

/// The file of one.
pub(super) fn file(data_dir: &Path, volume_id: &str) -> PathBuf {
    directory(data_dir).join(format!("{volume_id}.img"))
}

/// Makes what is missing, and lets grow what shall be larger. Says of each whether it is there, else why not.
pub(super) fn ensure(data_dir: &Path, wanted: &BTreeMap<String, VolumeItem>) -> Vec<(String, Option<String>)> {
    let ensured = wanted.values().map(|volume| {
        let made = ensure_one(data_dir, volume);
        (volume.volume_id.clone(), made.err().map(|error| error.to_string()))
    });
    ensured.collect()
}

fn ensure_one(data_dir: &Path, volume: &VolumeItem) -> io::Result<()> {
    let path = file(data_dir, &volume.volume_id);
    let bytes = volume.size_gib << 30;
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() >= bytes => Ok(()),
        Ok(_) => OpenOptions::new().write(true).open(&path)?.set_len(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory(data_dir))?;
            let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
            file.set_len(bytes)?;
            file.sync_all()
        }
        Err(error) => Err(error),
    }
}

/// Deletes those that are not wanted any more. Only for a slice that the server has confirmed.
pub(super) fn delete_others(data_dir: &Path, wanted: &BTreeMap<String, VolumeItem>) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory(data_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut deleted = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".img")) else { continue };
        if is_id(id, "vol-") && !wanted.contains_key(id) {
            fs::remove_file(entry.path())?;
            deleted.push(id.to_owned());
        }
    }
    Ok(deleted)
}

/// Gives a root volume its file system, unless it has one. It has a journal: what is on it outlives power cuts.
pub(super) fn format(path: &Path) -> io::Result<()> {
    if has_file_system(path)? {
        return Ok(());
    }
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-J", "size=16", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"])
        .arg(path)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("mkfs.ext4 cannot be run: {error}")))?;
    if output.status.success() {
        return File::open(path)?.sync_all();
    }
    Err(io::Error::other(format!("mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn has_file_system(path: &Path) -> io::Result<bool> {
    /// Where ext4 has its magic number.
    const MAGIC: (u64, [u8; 2]) = (1080, [0x53, 0xef]);
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(MAGIC.0))?;
    let mut found = [0; 2];
    match file.read_exact(&mut found) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| found == MAGIC.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_grow_and_go() {
        let data = tempfile::tempdir().unwrap();
        let item = |id: &str, size_gib| (id.to_owned(), VolumeItem { volume_id: id.to_owned(), size_gib });
        let mut wanted: BTreeMap<_, _> = [item("vol-0a", 1), item("vol-0b", 1)].into();
        assert!(ensure(data.path(), &wanted).iter().all(|(_, problem)| problem.is_none()));
        let path = file(data.path(), "vol-0a");
        assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 30);
        format(&path).unwrap();
        assert!(has_file_system(&path).unwrap() && !has_file_system(&file(data.path(), "vol-0b")).unwrap());
        wanted.insert("vol-0a".into(), VolumeItem { volume_id: "vol-0a".into(), size_gib: 2 });
        ensure(data.path(), &wanted);
        assert_eq!(fs::metadata(&path).unwrap().len(), 2 << 30);
        assert!(has_file_system(&path).unwrap());
        wanted.remove("vol-0b");
        assert_eq!(delete_others(data.path(), &wanted).unwrap(), ["vol-0b"]);
        assert!(delete_others(data.path(), &wanted).unwrap().is_empty());
    }
}
