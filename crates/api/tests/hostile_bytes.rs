//! The fuzzing targets on their corpora, on random and on slightly broken bytes: no panic, no endless work.

use std::path::Path;

use http::HeaderMap;
use proptest::prelude::*;
use wire::exchange;

/// The honest and the odd inputs the fuzzers start from.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target}");
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

#[test]
fn the_corpora_pass() {
    for (name, target) in api::fuzz::TARGETS {
        corpus(name).iter().for_each(|bytes| target(bytes));
    }
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (_, target) in api::fuzz::TARGETS {
            target(&bytes);
        }
    }

    #[test]
    fn broken_bytes_do_no_harm(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        for (name, target) in api::fuzz::TARGETS {
            for mut bytes in corpus(name) {
                let at = at.index(bytes.len().max(1));
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
                if cut {
                    bytes.truncate(at);
                }
                target(&bytes);
            }
        }
    }

    #[test]
    fn random_heads_do_no_harm(text in "(GET|POST) /[ -~]{0,60}\n([a-z-]{1,20}: [ -~]{0,40}\n){0,6}(\n[ -~]{0,80})?") {
        api::fuzz::route(text.as_bytes());
        api::fuzz::sigv4(text.as_bytes());
    }
}

#[test]
fn answers_in_xml_are_read_within_bounds() {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("text/xml"));
    let read = |text: &str| {
        let mut output = api::ec2::DescribeVpcsResult::default();
        exchange::decode_response(&api::ec2::operation::DESCRIBE_VPCS, 200, &headers, text.as_bytes(), &mut output)
            .map(|()| output)
    };
    let one =
        read("<?xml version=\"1.0\"?><R><vpcSet><item><vpcId>a&amp;b&#x21;</vpcId></item></vpcSet></R>").expect("read");
    assert_eq!(one.vpcs.and_then(|vpcs| vpcs.first().and_then(|vpc| vpc.vpc_id.clone())).as_deref(), Some("a&b!"));
    for text in ["", "<a>", "<a></b>", "</a>", "<a/><b/>", "<a>&odd;</a>", "text"] {
        assert!(read(text).is_err(), "{text}");
    }
    assert!(read(&"<a>".repeat(100_000)).is_err());
    let bomb = "<!DOCTYPE a [<!ENTITY x \"yyyyyyyy\">]><a>&x;</a>";
    assert!(read(bomb).is_err());
}
