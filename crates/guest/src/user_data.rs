//! What user data is made of, as cloud-init reads it: one script, one boothook, or a MIME message with several of them,
//! plain or compressed by gzip.
//!
//! Behaviour mirrored: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html> and cloud-init's formats.
//! What this image does not run (cloud-config, includes) is named in the console, never passed over silently.

use std::io::Read;

use mailparse::ParsedMail;

/// Decompressed, user data may have this much.
const LIMIT: u64 = 4 << 20;
/// Messages may contain messages this deep.
const DEPTH: usize = 8;

/// One thing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// When it runs.
    pub(crate) when: When,
    /// Its bytes, from the first line on.
    pub(crate) content: Vec<u8>,
}

/// When a part runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// At every boot, before everything else.
    EveryBoot,
    /// At the first boot only.
    FirstBoot,
}

/// What is to be run, in its order, and what was found that is not run, for the console.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct UserData {
    pub(crate) parts: Vec<Part>,
    pub(crate) notices: Vec<String>,
}

/// Reads user data.
pub(crate) fn read(bytes: &[u8]) -> UserData {
    let mut found = UserData::default();
    found.take(bytes, None, 0);
    found
}

impl UserData {
    fn take(&mut self, bytes: &[u8], kind: Option<&str>, depth: usize) {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            match inflate(bytes) {
                Ok(inflated) if depth < DEPTH => self.take(&inflated, kind, depth + 1),
                Ok(_) => self.notices.push(format!("user data is packed more than {DEPTH} times")),
                Err(why) => self.notices.push(why),
            }
            return;
        }
        let text = bytes.trim_ascii_start();
        let first = String::from_utf8_lossy(text.split(|byte| *byte == b'\n').next().unwrap_or_default());
        let first = first.trim();
        let when = match kind.unwrap_or_default() {
            "text/cloud-boothook" => Some(When::EveryBoot),
            "text/x-shellscript" | "text/x-shellscript-per-instance" => Some(When::FirstBoot),
            "text/x-shellscript-per-boot" => Some(When::EveryBoot),
            _ if first.starts_with("#cloud-boothook") => Some(When::EveryBoot),
            _ if first.starts_with("#!") => Some(When::FirstBoot),
            _ => None,
        };
        if let Some(when) = when {
            self.parts.push(Part { when, content: text.to_vec() });
        } else if is_mime(first) {
            self.take_message(text, depth);
        } else if !text.is_empty() {
            let what = kind.filter(|kind| *kind != "text/plain").unwrap_or(first);
            let what: String = what.chars().filter(|letter| !letter.is_control()).take(64).collect();
            self.notices.push(format!(
                "user data of the kind '{what}' is not run by this image, which runs shell scripts, #cloud-boothook and MIME messages of them"
            ));
        }
    }

    fn take_message(&mut self, bytes: &[u8], depth: usize) {
        match mailparse::parse_mail(bytes) {
            Ok(message) => self.take_parts(&message, depth),
            Err(error) => self.notices.push(format!("user data cannot be read as a MIME message: {error}")),
        }
    }

    fn take_parts(&mut self, message: &ParsedMail<'_>, depth: usize) {
        if depth >= DEPTH {
            self.notices.push(format!("user data has messages in messages more than {DEPTH} deep"));
            return;
        }
        if message.ctype.mimetype.starts_with("multipart/") {
            for part in &message.subparts {
                self.take_parts(part, depth + 1);
            }
            return;
        }
        match message.get_body_raw() {
            Ok(content) => self.take(&content, Some(&message.ctype.mimetype), depth + 1),
            Err(error) => self.notices.push(format!("a part of the user data cannot be decoded: {error}")),
        }
    }
}

fn is_mime(first: &str) -> bool {
    let lower = first.to_ascii_lowercase();
    lower.starts_with("content-type:") || lower.starts_with("mime-version:")
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut inflated = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(bytes).take(LIMIT + 1);
    reader.read_to_end(&mut inflated).map_err(|error| format!("user data cannot be decompressed: {error}"))?;
    if inflated.len() as u64 > LIMIT {
        return Err(format!("user data is more than {} MiB when decompressed", LIMIT >> 20));
    }
    Ok(inflated)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn kinds(text: &str) -> Vec<(When, String)> {
        let found = read(text.as_bytes());
        assert_eq!(found.notices, Vec::<String>::new());
        let text = |part: &Part| String::from_utf8(part.content.clone()).expect("text");
        found.parts.iter().map(|part| (part.when, text(part))).collect()
    }

    #[test]
    fn a_script_and_a_boothook_are_told_by_their_first_line() {
        assert_eq!(kinds("#!/bin/sh\necho a\n"), [(When::FirstBoot, "#!/bin/sh\necho a\n".to_owned())]);
        assert_eq!(
            kinds("\n#cloud-boothook\n#!/bin/sh\nx"),
            [(When::EveryBoot, "#cloud-boothook\n#!/bin/sh\nx".to_owned())]
        );
        assert_eq!(kinds(""), []);
    }

    #[test]
    fn a_message_has_its_parts_in_order() {
        let message = "Content-Type: multipart/mixed; boundary=\"==B==\"\nMIME-Version: 1.0\n\n--==B==\nMIME-Version: 1.0\n\
Content-Type: text/cloud-boothook; charset=\"us-ascii\"\n\necho hook\n--==B==\nContent-Type: text/x-shellscript\n\
Content-Transfer-Encoding: base64\n\nIyEvYmluL3NoCmVjaG8gc2NyaXB0Cg==\n--==B==--\n";
        let found = kinds(message);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].0, found[0].1.trim()), (When::EveryBoot, "echo hook"));
        assert_eq!(found[1], (When::FirstBoot, "#!/bin/sh\necho script\n".to_owned()));
    }

    #[test]
    fn compressed_user_data_is_what_it_was() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(b"#!/bin/sh\n").expect("packed");
        let packed = packed.finish().expect("packed");
        assert_eq!(read(&packed).parts.len(), 1);
        assert_eq!(read(&packed[..10]).notices.len(), 1);
    }

    #[test]
    fn what_is_not_run_is_named() {
        for (text, word) in [
            ("#cloud-config\npackages: [git]\n", "#cloud-config"),
            ("{\"ECSAgentConfiguration\": {}}", "ECSAgentConfiguration"),
            ("Content-Type: text/cloud-config\n\npackages: []\n", "text/cloud-config"),
        ] {
            let found = read(text.as_bytes());
            assert!(found.parts.is_empty());
            assert!(found.notices[0].contains(word), "{:?}", found.notices);
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        for seed in 0_u8..=255 {
            let bytes: Vec<u8> = (0..512_u16).map(|at| seed.wrapping_mul(31).wrapping_add((at * 7) as u8)).collect();
            read(&bytes);
            read(&[b"Content-Type: multipart/mixed; boundary=x\n\n--x\n".as_slice(), &bytes].concat());
        }
        let nested = "Content-Type: multipart/mixed; boundary=a\n\n--a\n".repeat(200);
        read(nested.as_bytes());
    }
}
