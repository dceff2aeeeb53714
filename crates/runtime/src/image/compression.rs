//! From a layer's bytes to its archive: gzip, zstd or nothing, told apart by the first bytes, because media types lie.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The archive in `layer`, however it is packed.
pub(crate) fn open<'a>(layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut layer = BufReader::with_capacity(1 << 17, layer);
    let magic = layer.fill_buf()?.get(..4).unwrap_or_default().to_vec();
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(layer)),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            Box::new(Zstd { source: layer, frame: FrameDecoder::new(), inside: false })
        }
        _ => Box::new(layer),
    })
}

/// All frames of a stream, one after the other; skippable ones (indexes of seekable layers) are skipped.
struct Zstd<R> {
    source: R,
    frame: FrameDecoder,
    /// Whether a frame has begun and not ended.
    inside: bool,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.inside {
                while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                    self.frame
                        .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                        .map_err(io::Error::other)?;
                }
                let count = self.frame.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                if self
                    .frame
                    .get_checksum_from_data()
                    .is_some_and(|given| self.frame.get_calculated_checksum().is_some_and(|own| own != given))
                {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "zstd: checksum mismatch"));
                }
                self.inside = false;
            }
            if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.frame.init(&mut self.source) {
                Ok(()) => self.inside = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut (&mut self.source).take(u64::from(length)), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(packed: &[u8], expected: &[u8]) {
        let mut bytes = Vec::new();
        open(packed).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == expected, "{} bytes, expected {}", bytes.len(), expected.len());
    }

    #[test]
    fn every_packing() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|n| (n % 1000).to_le_bytes()).collect();
        check(&text, &text);
        check(b"", b"");
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        check(&gzip(&text), &text);
        // Several members are one stream, as parallel compressors write it.
        check(&[gzip(b"one"), gzip(b"two")].concat(), b"onetwo");
        let zstd = |text: &[u8]| ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        check(&zstd(&text), &text);
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        check(&[zstd(b"one"), skippable.clone(), zstd(b"two")].concat(), b"onetwo");
        check(&[skippable, zstd(b"one")].concat(), b"one");
    }

    #[test]
    fn damage_is_an_error() {
        let zstd = ruzstd::encoding::compress_to_vec(&b"some text"[..], ruzstd::encoding::CompressionLevel::Fastest);
        for packed in
            [&[0x1f, 0x8b, 0, 0, 0][..], &zstd[..zstd.len() - 2], &[0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff, 0xff]]
        {
            assert!(open(packed).unwrap().read_to_end(&mut Vec::new()).is_err());
        }
    }
}
