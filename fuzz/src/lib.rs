//! What the fuzz targets share: a decoder is fed whole and in two pieces, and must say the same.

use bytes::BytesMut;
use tokio_util::codec::Decoder;

/// All that a decoder says of `pieces` that arrive one after the other and then end, and what it
/// leaves. `room_max` is the most that its buffer may ever hold beyond what has arrived.
///
/// # Panics
/// If the decoder reserves more than that, or takes nothing and still goes on.
pub fn decode_all<D: Decoder>(mut decoder: D, pieces: &[&[u8]], room_max: usize) -> (Vec<String>, Vec<u8>)
where
    D::Item: std::fmt::Debug,
    D::Error: std::fmt::Display,
{
    let mut buffer = BytesMut::new();
    let mut said = Vec::new();
    let mut arrived = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        arrived += piece.len();
        loop {
            let outcome = decoder.decode(&mut buffer);
            // A buffer may double when it grows.
            assert!(buffer.capacity() <= 2 * (arrived + room_max), "{} bytes reserved", buffer.capacity());
            match outcome {
                Ok(Some(item)) => said.push(format!("{item:?}")),
                Ok(None) => break,
                Err(error) => return ended(said, &error),
            }
            assert!(said.len() <= arrived + 1, "more items than bytes");
        }
    }
    match decoder.decode_eof(&mut buffer) {
        Ok(Some(item)) => said.push(format!("at the end: {item:?}")),
        Ok(None) => {}
        Err(error) => return ended(said, &error),
    }
    (said, buffer.to_vec())
}

/// What is left after an error is of no use to anybody; and the bytes that an error quotes, behind
/// its colon, are those that had arrived by then.
fn ended(mut said: Vec<String>, error: &impl std::fmt::Display) -> (Vec<String>, Vec<u8>) {
    let text = error.to_string();
    said.push(format!("error: {}", text.split(':').next().unwrap_or_default()));
    (said, Vec::new())
}

/// The place at which the input is cut in two, chosen by its first byte, and the rest of it.
#[must_use]
pub fn cut(input: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&place, bytes) = input.split_first()?;
    let (first, second) = bytes.split_at(usize::from(place) % (bytes.len() + 1));
    Some((bytes, first, second))
}
