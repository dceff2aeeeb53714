//! A file on its way into a container, as the archive that Docker takes.

use bytes::Bytes;
use runtime::File;

/// Of an entry of an archive.
const BLOCK: usize = 512;

/// An archive (POSIX `ustar`) of one file, with its path from the root.
pub fn archive(file: &File) -> Bytes {
    let mut header = [0u8; BLOCK];
    let mut put = |at: usize, text: &str| {
        if let Some(place) = header.get_mut(at..at + text.len()) {
            place.copy_from_slice(text.as_bytes());
        }
    };
    let content = file.content.as_bytes();
    // Every path of ours fits the field.
    put(0, file.target.trim_start_matches('/'));
    put(100, &format!("{:07o}", file.mode & 0o7777));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", content.len()));
    put(136, "00000000000");
    // The checksum is made with spaces in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(place) = header.get_mut(148..156) {
        place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    // Whole blocks, and two empty ones at the end.
    archive.resize(archive.len().div_ceil(BLOCK) * BLOCK + 2 * BLOCK, 0);
    archive.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn tar_reads_it() {
        let file = File { target: "/etc/x.pem".into(), content: "PEM\n".repeat(300), mode: 0o644 };
        let directory = tempfile::tempdir().expect("a directory");
        let mut tar = Command::new("tar")
            .args(["-x", "-f", "-", "-C"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("tar starts");
        tar.stdin.take().expect("an input").write_all(&archive(&file)).expect("written");
        assert!(tar.wait().expect("it ends").success());
        let found = std::fs::read_to_string(directory.path().join("etc/x.pem")).expect("there");
        assert_eq!(found, file.content);
    }
}
