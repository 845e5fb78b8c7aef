use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

fn heads(skip: usize) -> Heads {
    Heads { skip, head: [0; HEAD], filled: 0 }
}

#[test]
fn frames_cost_what_they_are() {
    for (kind, flags, length, cost) in [
        (0, 0, 0, SMALL),
        (0, 0, TINY - 1, SMALL),
        (0, 0, TINY, 0),
        (0, 1, 0, 0),
        (1, 4, 20, 0),
        (2, 0, 5, SMALL),
        (3, 0, 4, RESET),
        (4, 0, 0, SETTINGS),
        (4, 1, 0, SMALL),
        (6, 0, 8, PING),
        (6, 1, 8, SMALL),
        (8, 0, 4, SMALL),
        (9, 0, 30, SMALL),
        (99, 0, 30, SMALL),
    ] {
        assert_eq!(heads(0).cost(&frame(kind, flags, &vec![7; length])), cost, "type {kind}, flags {flags}, {length}");
    }
}

#[test]
fn it_does_not_matter_how_the_bytes_are_split() {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for (kind, payload) in [(4, &b""[..]), (6, b"12345678"), (0, &[6; 300]), (6, b"12345678"), (3, b"1234")] {
        bytes.extend(frame(kind, 0, payload));
    }
    let whole = SETTINGS + 2 * PING + RESET;
    for size in 1..bytes.len() {
        let mut heads = heads(PREFACE);
        let sum: i64 = bytes.chunks(size).map(|piece| heads.cost(piece)).sum();
        assert_eq!(sum, whole, "in pieces of {size}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_ends_the_connection_and_a_trickle_does_not() {
    let (mut peer, ours) = duplex(1 << 20);
    let allowance = Rc::<Allowance>::default();
    let mut guarded = Guarded::server(ours, Rc::clone(&allowance));
    let ping = frame(6, 0, b"12345678");
    let mut bytes = vec![0; ping.len()];
    for _ in 0..10_000 {
        peer.write_all(&ping).await.unwrap();
        guarded.read_exact(&mut bytes).await.unwrap();
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert!(!allowance.is_exceeded());
    let mut taken = 0;
    let error = loop {
        peer.write_all(&ping).await.unwrap();
        match guarded.read_exact(&mut bytes).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "a flood of HTTP/2 frames");
    assert!(allowance.is_exceeded() && taken <= BURST / PING, "{taken} were taken");
}

#[tokio::test(start_paused = true)]
async fn small_pieces_cost_only_while_they_are_kept() {
    let (mut peer, ours) = duplex(1 << 20);
    let allowance = Rc::<Allowance>::default();
    let mut guarded = Guarded::server(ours, Rc::clone(&allowance));
    let data = frame(0, 0, b"x");
    let mut bytes = vec![0; data.len()];
    for _ in 0..50_000 {
        peer.write_all(&data).await.unwrap();
        guarded.read_exact(&mut bytes).await.unwrap();
        allowance.took(1);
    }
    let mut kept = 0;
    loop {
        peer.write_all(&data).await.unwrap();
        if guarded.read_exact(&mut bytes).await.is_err() {
            break;
        }
        kept += 1;
    }
    assert_eq!(kept, BURST / SMALL);
}

#[tokio::test(start_paused = true)]
async fn who_is_sent_much_may_say_much() {
    let (mut peer, ours) = duplex(1 << 20);
    let allowance = Rc::<Allowance>::default();
    let mut guarded = Guarded::server(ours, Rc::clone(&allowance));
    let update = frame(8, 0, &[0, 0, 0, 1]);
    let mut bytes = vec![0; update.len()];
    let mut sent = vec![0; 64];
    for _ in 0..50_000 {
        guarded.write_all(&sent).await.unwrap();
        peer.read_exact(&mut sent).await.unwrap();
        peer.write_all(&update).await.unwrap();
        guarded.read_exact(&mut bytes).await.unwrap();
    }
    assert!(!allowance.is_exceeded());
}
