//! Content codings (RFC 9110 section 8.4.1), push-style: gzip, deflate, br and zstd, also stacked. A body is decoded a
//! little at a time, and one that grows beyond all proportion ends there: memory is bounded whatever it would become.

use std::borrow::Cow;
use std::io::{self, Write};

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use zstd::stream::{raw, zio};

use super::Withheld;
use crate::config::Expansion;

/// What can be decoded, as an Accept-Encoding that asks for nothing else.
pub const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// The most codings on one body; nobody honest stacks more.
const MOST: usize = 3;
/// A body is judged by the slices of it that have begun, wherever it was cut on its way: in bytes.
const SLICE: usize = 1024;
/// The most that is handed on at once. A slice may become more, a part after the other.
const PART: usize = 64 * 1024;
/// The largest zstd window that is taken (RFC 9659: 8 MiB).
const ZSTD_WINDOW_LOG: u32 = 23;

/// One content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip` (RFC 1952).
    Gzip,
    /// `deflate`: zlib (RFC 1950), or bare (RFC 1951), as some servers send it.
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

/// Reads a Content-Encoding, whose fields are joined by commas: the codings in the order in which they were applied.
///
/// # Errors
/// One that isn't known, or too many.
pub fn codings(content_encoding: &str) -> Result<Vec<Coding>, Withheld> {
    let unknown = |name: &str| Withheld::UnknownCoding(name.chars().take(50).collect());
    let mut codings = Vec::new();
    for name in content_encoding.split(',').map(str::trim) {
        match name.to_ascii_lowercase().as_str() {
            "" | "identity" => {}
            "gzip" | "x-gzip" => codings.push(Coding::Gzip),
            "deflate" => codings.push(Coding::Deflate),
            "br" => codings.push(Coding::Brotli),
            "zstd" => codings.push(Coding::Zstd),
            _ => return Err(unknown(name)),
        }
    }
    if codings.len() > MOST { Err(unknown(content_encoding)) } else { Ok(codings) }
}

/// Decodes a body.
pub struct Decoder {
    /// The last coding that was applied first.
    stages: Vec<Stage>,
    bound: Expansion,
    taken: u64,
    /// How much came out of each stage that isn't finished.
    given: Vec<u64>,
}

/// Encodes a body.
pub struct Encoder {
    /// In the order in which the codings are applied.
    stages: Vec<Compress>,
}

enum Stage {
    Gzip(Box<flate2::write::MultiGzDecoder<Vec<u8>>>),
    Zlib(Box<flate2::write::ZlibDecoder<Vec<u8>>>),
    Raw(Box<flate2::write::DeflateDecoder<Vec<u8>>>),
    /// `deflate`, whose first two bytes tell which of both it is.
    Undecided(Vec<u8>),
    Brotli(Box<Brotli>),
    Zstd(Box<zio::Writer<Vec<u8>, raw::Decoder<'static>>>),
}

/// Brotli, of which a few bytes can become megabytes: its writer would give them all at once.
struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    finished: bool,
}

enum Compress {
    Gzip(Box<flate2::write::GzEncoder<Vec<u8>>>),
    Zlib(Box<flate2::write::ZlibEncoder<Vec<u8>>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

fn broken(_error: io::Error) -> Withheld {
    Withheld::invalid("its content coding is broken")
}

impl Decoder {
    /// A decoder for these codings, in the order in which they were applied. Of none it passes what it gets.
    ///
    /// # Errors
    /// No memory for it.
    pub fn new(codings: &[Coding], bound: Expansion) -> Result<Self, Withheld> {
        let stages = codings.iter().rev().map(|coding| Stage::new(*coding)).collect::<io::Result<_>>();
        let given = vec![0; codings.len()];
        Ok(Self { stages: stages.map_err(broken)?, bound, taken: 0, given })
    }

    /// Decodes the next bytes, and hands on what they become, at most 64 KiB at a time.
    ///
    /// # Errors
    /// They aren't in that coding, become too much, or what `give` fails with.
    pub fn push(&mut self, bytes: &[u8], give: &mut dyn FnMut(&[u8]) -> Result<(), Withheld>) -> Result<(), Withheld> {
        if self.stages.is_empty() {
            return if bytes.is_empty() { Ok(()) } else { give(bytes) };
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let begun = usize::try_from(self.taken % SLICE as u64).unwrap_or_default();
            let (slice, later) = rest.split_at(rest.len().min(SLICE - begun));
            rest = later;
            self.taken += slice.len() as u64;
            let most = self.most();
            through((&mut self.stages, &mut self.given), slice, most, give)?;
        }
        Ok(())
    }

    /// The body is complete.
    ///
    /// # Errors
    /// As [`Decoder::push`]; or it isn't complete in its coding.
    pub fn finish(mut self, give: &mut dyn FnMut(&[u8]) -> Result<(), Withheld>) -> Result<(), Withheld> {
        let (empty, most) = (self.taken == 0, self.most());
        while !self.stages.is_empty() {
            let stage = self.stages.remove(0);
            let mut given = self.given.remove(0);
            // A body without a byte is empty in every coding.
            let rest = if empty { Vec::new() } else { stage.finish()? };
            count(&mut given, &rest, most)?;
            through((&mut self.stages, &mut self.given), &rest, most, give)?;
        }
        Ok(())
    }

    /// How much may come out of any stage by now: one in the middle that gives much costs as much as the last, also where
    /// the last gives nothing.
    fn most(&self) -> u64 {
        let begun = self.taken.next_multiple_of(SLICE as u64);
        self.bound.free.saturating_add(self.bound.ratio.saturating_mul(begun))
    }
}

fn count(given: &mut u64, bytes: &[u8], most: u64) -> Result<(), Withheld> {
    *given += bytes.len() as u64;
    if *given > most { Err(Withheld::Bomb) } else { Ok(()) }
}

/// Sends bytes through the stages, a part of what they become after the other.
fn through(
    (stages, given): (&mut [Stage], &mut [u64]),
    bytes: &[u8],
    most: u64,
    give: &mut dyn FnMut(&[u8]) -> Result<(), Withheld>,
) -> Result<(), Withheld> {
    let (Some((stage, stages)), Some((count_of, given))) = (stages.split_first_mut(), given.split_first_mut()) else {
        return if bytes.is_empty() { Ok(()) } else { give(bytes) };
    };
    let bytes = stage.decided(bytes);
    let mut rest: &[u8] = &bytes;
    let mut decoded = Vec::new();
    while !rest.is_empty() {
        loop {
            decoded.clear();
            let (taken, is_more) = stage.decode(rest, &mut decoded).map_err(broken)?;
            rest = &rest[taken..];
            count(count_of, &decoded, most)?;
            for part in decoded.chunks(PART) {
                through((&mut *stages, &mut *given), part, most, give)?;
            }
            if !is_more {
                break;
            }
        }
    }
    Ok(())
}

impl Stage {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Stage::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Vec::new()))),
            Coding::Deflate => Stage::Undecided(Vec::new()),
            Coding::Brotli => Stage::Brotli(Box::new(Brotli::new())),
            Coding::Zstd => {
                let mut decoder = raw::Decoder::new()?;
                decoder.set_parameter(raw::DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
                Stage::Zstd(Box::new(zio::Writer::new(Vec::new(), decoder)))
            }
        })
    }

    /// The bytes to decode: with those that came before it could be told which coding they are in.
    fn decided<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let Stage::Undecided(first) = self else { return Cow::Borrowed(bytes) };
        first.extend_from_slice(bytes);
        let Some(start) = first.first_chunk::<2>() else { return Cow::Borrowed(&[]) };
        // RFC 1950 section 2.2: method 8, and a check that makes it a multiple of 31.
        let zlib = start[0] & 0x0f == 8 && u16::from_be_bytes(*start).is_multiple_of(31);
        let first = std::mem::take(first);
        *self = if zlib {
            Stage::Zlib(Box::new(flate2::write::ZlibDecoder::new(Vec::new())))
        } else {
            Stage::Raw(Box::new(flate2::write::DeflateDecoder::new(Vec::new())))
        };
        Cow::Owned(first)
    }

    /// Decodes some of `bytes`, and appends what that becomes to `out`; says how many it took, and whether more comes of
    /// those. However much that is in all, it is little at once.
    fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        match self {
            Stage::Gzip(decoder) => {
                let taken = written(decoder.as_mut(), bytes)?;
                out.append(decoder.get_mut());
                Ok((taken, false))
            }
            Stage::Zlib(decoder) => {
                let taken = written(decoder.as_mut(), bytes)?;
                out.append(decoder.get_mut());
                Ok((taken, false))
            }
            Stage::Raw(decoder) => {
                let taken = written(decoder.as_mut(), bytes)?;
                out.append(decoder.get_mut());
                Ok((taken, false))
            }
            Stage::Zstd(decoder) => {
                let taken = written(decoder.as_mut(), bytes)?;
                out.append(decoder.writer_mut());
                Ok((taken, false))
            }
            Stage::Brotli(brotli) => brotli.decode(bytes, out),
            Stage::Undecided(_) => Ok((bytes.len(), false)),
        }
    }

    fn finish(self) -> Result<Vec<u8>, Withheld> {
        let rest = match self {
            Stage::Gzip(decoder) => decoder.finish(),
            Stage::Zlib(decoder) => decoder.finish(),
            Stage::Raw(decoder) => decoder.finish(),
            Stage::Brotli(brotli) if brotli.finished => Ok(Vec::new()),
            Stage::Zstd(mut decoder) => decoder.finish().map(|()| std::mem::take(decoder.writer_mut())),
            Stage::Brotli(_) | Stage::Undecided(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        rest.map_err(broken)
    }
}

/// Writes some of `bytes`, which becomes no more than the decoder's buffer takes, and says how many. Once all are written,
/// flushing hands on what is left of them.
fn written(decoder: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let taken = decoder.write(bytes)?;
    if taken == 0 {
        // What follows the end.
        return Err(io::ErrorKind::WriteZero.into());
    }
    if taken == bytes.len() {
        decoder.flush()?;
    }
    Ok(taken)
}

impl Brotli {
    fn new() -> Self {
        let alloc = StandardAlloc::default();
        // Without windows that RFC 7932 doesn't have.
        Self { state: BrotliState::new_strict(alloc, alloc, alloc), finished: false }
    }

    fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        if self.finished {
            return if bytes.is_empty() { Ok((0, false)) } else { Err(io::ErrorKind::WriteZero.into()) };
        }
        let (mut left, mut taken) = (bytes.len(), 0);
        let from = out.len();
        out.resize(from + PART, 0);
        let (mut room, mut filled, mut total) = (PART, from, 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut taken,
            bytes,
            &mut room,
            &mut filled,
            out.as_mut_slice(),
            &mut total,
            &mut self.state,
        );
        out.truncate(filled);
        match result {
            BrotliResult::ResultSuccess => self.finished = true,
            BrotliResult::ResultFailure => return Err(io::ErrorKind::InvalidData.into()),
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        // Where the room was filled there may be more, also if no bytes are left.
        Ok((taken, room == 0 && !self.finished))
    }
}

impl Encoder {
    /// An encoder that applies these codings in this order.
    ///
    /// # Errors
    /// No memory for it.
    pub fn new(codings: &[Coding]) -> Result<Self, Withheld> {
        let level = flate2::Compression::fast();
        let stage = |coding: &Coding| -> io::Result<Compress> {
            Ok(match coding {
                Coding::Gzip => Compress::Gzip(Box::new(flate2::write::GzEncoder::new(Vec::new(), level))),
                Coding::Deflate => Compress::Zlib(Box::new(flate2::write::ZlibEncoder::new(Vec::new(), level))),
                Coding::Brotli => Compress::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, 3, 18))),
                Coding::Zstd => Compress::Zstd(Box::new(zstd::stream::write::Encoder::new(Vec::new(), 1)?)),
            })
        };
        let stages = codings.iter().map(stage).collect::<io::Result<_>>();
        Ok(Self { stages: stages.map_err(broken)? })
    }

    /// Encodes the next bytes and appends what is there to `out`. With `flush`, all of them can be decoded from it: for
    /// what is awaited, such as an event.
    ///
    /// # Errors
    /// No memory for it.
    pub fn push(&mut self, bytes: &[u8], flush: bool, out: &mut Vec<u8>) -> Result<(), Withheld> {
        let mut bytes = std::borrow::Cow::Borrowed(bytes);
        for stage in &mut self.stages {
            bytes = stage.encode(&bytes, flush).map_err(broken)?.into();
        }
        out.extend_from_slice(&bytes);
        Ok(())
    }

    /// The body is complete; appends the rest to `out`.
    ///
    /// # Errors
    /// No memory for it.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        let mut bytes = Vec::new();
        for mut stage in self.stages {
            let mut encoded = stage.encode(&bytes, false).map_err(broken)?;
            encoded.extend(stage.finish().map_err(broken)?);
            bytes = encoded;
        }
        out.extend_from_slice(&bytes);
        Ok(())
    }
}

impl Compress {
    fn encode(&mut self, bytes: &[u8], flush: bool) -> io::Result<Vec<u8>> {
        fn write(writer: &mut impl Write, bytes: &[u8], flush: bool) -> io::Result<()> {
            writer.write_all(bytes)?;
            if flush { writer.flush() } else { Ok(()) }
        }
        Ok(match self {
            Compress::Gzip(encoder) => {
                write(encoder.as_mut(), bytes, flush)?;
                std::mem::take(encoder.get_mut())
            }
            Compress::Zlib(encoder) => {
                write(encoder.as_mut(), bytes, flush)?;
                std::mem::take(encoder.get_mut())
            }
            Compress::Brotli(encoder) => {
                write(encoder.as_mut(), bytes, flush)?;
                std::mem::take(encoder.get_mut())
            }
            Compress::Zstd(encoder) => {
                write(encoder.as_mut(), bytes, flush)?;
                std::mem::take(encoder.get_mut())
            }
        })
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Compress::Gzip(encoder) => encoder.finish(),
            Compress::Zlib(encoder) => encoder.finish(),
            Compress::Brotli(encoder) => Ok(encoder.into_inner()),
            Compress::Zstd(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests;
