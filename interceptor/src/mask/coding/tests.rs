use super::super::tests::encoded;
use super::*;

fn decoded<'a>(codings: &[Coding], pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Withheld> {
    let mut out = Vec::new();
    let mut give = |bytes: &[u8]| {
        assert!(bytes.len() <= PART);
        out.extend_from_slice(bytes);
        Ok(())
    };
    let mut decoder = Decoder::new(codings, Expansion::default())?;
    for piece in pieces {
        decoder.push(piece, &mut give)?;
    }
    decoder.finish(&mut give)?;
    Ok(out)
}

const EACH: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

#[test]
fn each_coding_and_each_stack_of_two_comes_back_however_it_is_cut() {
    let body: Vec<u8> = (0..20_000_u32).flat_map(|number| (number * number).to_string().into_bytes()).collect();
    for first in EACH {
        assert_eq!(decoded(&[first], encoded(&[first], b"").chunks(1)).unwrap(), b"", "{first:?}");
        for second in EACH {
            let stack = [first, second];
            let sent = encoded(&stack, &body);
            for size in [1, 7, 4096, sent.len()] {
                assert_eq!(decoded(&stack, sent.chunks(size)).unwrap(), body, "{stack:?} by {size}");
            }
        }
    }
}

#[test]
fn bare_deflate_is_taken_as_some_servers_send_it() {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"bare, bare, bare").unwrap();
    let sent = encoder.finish().unwrap();
    assert_eq!(decoded(&[Coding::Deflate], sent.chunks(1)).unwrap(), b"bare, bare, bare");
}

#[test]
fn a_bomb_ends_early() {
    for coding in EACH {
        let bomb = encoded(&[coding], &vec![0; 200 << 20]);
        assert_eq!(decoded(&[coding], bomb.chunks(64)).unwrap_err(), Withheld::Bomb, "{coding:?}");
    }
    let twice = encoded(&[Coding::Gzip, Coding::Gzip], &vec![0; 200 << 20]);
    assert_eq!(decoded(&[Coding::Gzip, Coding::Gzip], twice.chunks(64)).unwrap_err(), Withheld::Bomb);
}

/// Empty blocks of deflate (RFC 1951 section 3.2.4), which give nothing, in two layers of gzip, which give much.
#[test]
fn a_bomb_that_gives_nothing_ends_early() {
    let mut empty = [0x00, 0x00, 0x00, 0xff, 0xff].repeat(40 << 20);
    empty.extend([0x01, 0x00, 0x00, 0xff, 0xff]);
    let bomb = encoded(&[Coding::Gzip, Coding::Gzip], &empty);
    let codings = [Coding::Deflate, Coding::Gzip, Coding::Gzip];
    assert_eq!(decoded(&codings, bomb.chunks(64)).unwrap_err(), Withheld::Bomb);
}

#[test]
fn what_is_cut_off_or_broken_is_no_body() {
    for coding in EACH {
        let sent = encoded(&[coding], &b"some text that is long enough to be cut off".repeat(50));
        let cut = decoded(&[coding], std::iter::once(&sent[..sent.len() / 2]));
        assert_eq!(cut, Err(Withheld::invalid("its content coding is broken")), "{coding:?} cut off");
        let broken = decoded(&[coding], std::iter::once(&b"<html>this is no such coding</html>"[..]));
        assert_eq!(broken, Err(Withheld::invalid("its content coding is broken")), "{coding:?} broken");
    }
}

#[test]
fn content_encodings_are_read_in_the_order_of_their_use() {
    assert_eq!(codings("").unwrap(), []);
    assert_eq!(codings("identity").unwrap(), []);
    assert_eq!(codings("GZIP , br").unwrap(), [Coding::Gzip, Coding::Brotli]);
    assert_eq!(codings("compress").unwrap_err(), Withheld::UnknownCoding("compress".into()));
    assert!(codings("gzip, gzip, gzip, gzip").is_err());
    for coding in ACCEPTED.split(", ") {
        assert_eq!(codings(coding).unwrap().len(), 1, "{coding}");
    }
}

#[test]
fn what_a_body_may_decode_to_is_configured() {
    let sent = encoded(&[Coding::Gzip], &[b'x'; 100_000]);
    let decode = |free, ratio| {
        let mut decoder = Decoder::new(&[Coding::Gzip], Expansion { free, ratio }).unwrap();
        decoder.push(&sent, &mut |_| Ok(()))
    };
    assert_eq!(decode(100_000, 1), Ok(()));
    assert_eq!(decode(0, 1000), Ok(()));
    let bomb = decode(1000, 10).unwrap_err();
    assert!(bomb == Withheld::Bomb && bomb.to_string().contains("limits.decoded_ratio"), "{bomb}");
}

#[test]
fn what_compresses_well_is_taken_however_it_is_cut() {
    let record = br#"{"id":1,"mail":"ada@contoso.example","note":"the same again and again"},"#;
    for body in [vec![b'x'; 3 << 20], record.repeat((2 << 20) / record.len())] {
        for coding in EACH {
            let sent = encoded(&[coding], &body);
            for size in [1, 512, sent.len()] {
                assert_eq!(decoded(&[coding], sent.chunks(size)).unwrap(), body, "{coding:?} by {size}");
            }
        }
    }
}

/// Much comes of the beginning and little of the rest.
#[test]
fn what_a_body_may_decode_to_does_not_depend_on_the_cuts() {
    let noise = (0..100_000_u32).map(|number| {
        let number = (number ^ 61).wrapping_mul(0x9e37_79b1);
        (number ^ (number >> 15)).wrapping_mul(0x85eb_ca6b).to_be_bytes()[0]
    });
    let body: Vec<u8> = std::iter::repeat_n(0, 200_000).chain(noise).collect();
    for coding in EACH {
        let sent = encoded(&[coding], &body);
        let decode = |ratio, size| {
            let mut decoder = Decoder::new(&[coding], Expansion { free: 0, ratio }).unwrap();
            let pushed = sent.chunks(size).try_for_each(|piece| decoder.push(piece, &mut |_| Ok(())));
            pushed.and_then(|()| decoder.finish(&mut |_| Ok(())))
        };
        for ratio in [20, 1000] {
            let expected = if ratio == 20 { Err(Withheld::Bomb) } else { Ok(()) };
            for size in [1, 700, sent.len()] {
                assert_eq!(decode(ratio, size), expected, "{coding:?}, {ratio} times, by {size}");
            }
        }
    }
}
