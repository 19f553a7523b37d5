//! Request bodies: gzip, zstd, deflate or plain, bounded before and after decompression.

use std::io::Read;

use bytes::Bytes;

use agentlens_domain::limits::MAX_DECOMPRESSED_BYTES;

/// Why a body can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// `Content-Encoding` names something else.
    #[error("Content-Encoding must be gzip, zstd, deflate or identity")]
    UnknownEncoding,
    /// The compressed bytes are broken.
    #[error("the {0} body can't be decompressed")]
    Broken(&'static str),
    /// More bytes than the limit come out.
    #[error("the body is larger than {MAX_DECOMPRESSED_BYTES} bytes after decompression")]
    TooLarge,
}

/// Whether decompressing is needed; it is worth its own thread for large bodies.
pub fn is_compressed(encoding: Option<&str>) -> bool {
    encoding.is_some_and(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity"))
}

/// The plain bytes of a body with the given `Content-Encoding`.
pub fn decompress(body: Bytes, encoding: Option<&str>) -> Result<Bytes, BodyError> {
    match encoding.map(str::trim) {
        None | Some("") => Ok(body),
        Some(name) if name.eq_ignore_ascii_case("identity") => Ok(body),
        Some(name) if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
            read_bounded(flate2::read::MultiGzDecoder::new(body.as_ref()), "gzip")
        }
        Some(name) if name.eq_ignore_ascii_case("zstd") => {
            let decoder =
                zstd::stream::read::Decoder::new(body.as_ref()).map_err(|_| BodyError::Broken("zstd"))?;
            read_bounded(decoder, "zstd")
        }
        // What HTTP calls deflate is zlib's format.
        Some(name) if name.eq_ignore_ascii_case("deflate") => {
            read_bounded(flate2::read::ZlibDecoder::new(body.as_ref()), "deflate")
        }
        Some(_) => Err(BodyError::UnknownEncoding),
    }
}

fn read_bounded(reader: impl Read, name: &'static str) -> Result<Bytes, BodyError> {
    let mut plain = Vec::new();
    reader
        .take(MAX_DECOMPRESSED_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|_| BodyError::Broken(name))?;
    if plain.len() > MAX_DECOMPRESSED_BYTES { Err(BodyError::TooLarge) } else { Ok(plain.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(plain: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn all_encodings_give_the_plain_body() {
        let plain = Bytes::from_static(b"{\"events\":[]}");
        assert_eq!(decompress(plain.clone(), None).unwrap(), plain);
        assert_eq!(decompress(gzip(&plain), Some("GZIP")).unwrap(), plain);
        assert_eq!(
            decompress(zstd::encode_all(plain.as_ref(), 1).unwrap().into(), Some("zstd")).unwrap(),
            plain
        );
    }

    #[test]
    fn bombs_and_garbage_are_refused() {
        let bomb = gzip(&vec![0u8; MAX_DECOMPRESSED_BYTES + 1]);
        assert_eq!(decompress(bomb, Some("gzip")), Err(BodyError::TooLarge));
        assert_eq!(decompress(Bytes::from_static(b"nonsense"), Some("gzip")), Err(BodyError::Broken("gzip")));
        assert_eq!(decompress(Bytes::from_static(b"nonsense"), Some("zstd")), Err(BodyError::Broken("zstd")));
        assert_eq!(decompress(Bytes::new(), Some("br")), Err(BodyError::UnknownEncoding));
    }
}
