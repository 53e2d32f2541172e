//! What a client presents as a session token: nothing that was not signed is ever honoured, and what was is read as it was written.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use routing_core::{Lsn, Mark, SessionToken, SystemId, Timeline, TokenKeys, UnixMillis};

const LIFETIME: Duration = Duration::from_secs(300);

fuzz_target!(|input: (&str, [u64; 4], u32, usize, u8)| {
    let (text, numbers, timeline, at, bits) = input;
    let keys: TokenKeys = "0123456789abcdef0123456789abcdef".parse().expect("32 bytes");
    let others: TokenKeys = "fedcba9876543210fedcba9876543210".parse().expect("32 bytes");
    let now = UnixMillis(numbers[0]);
    let decode = |text: &str, keys: &TokenKeys| SessionToken::decode(text, keys, now, LIFETIME);
    assert!(decode(text, &keys).is_err(), "{text:?} was never signed");

    let mark = match numbers[1] % 2 {
        0 => Mark::Position(Lsn::from(numbers[2])),
        _ => Mark::Pin(UnixMillis(numbers[2])),
    };
    let issued_at = UnixMillis(numbers[3]);
    let token =
        SessionToken { system_id: SystemId(numbers[1]), timeline: Timeline(timeline), mark, issued_at };
    let signed = token.encode(&keys);
    assert!(decode(&signed, &others).is_err(), "another key has signed it");
    if let Ok(read) = decode(&signed, &keys) {
        assert_eq!(
            (read.system_id, read.timeline, read.issued_at),
            (token.system_id, token.timeline, issued_at)
        );
        assert!(!read.is_over(now), "a pin that is over demands nothing");
        assert!(matches!(read.mark, Mark::Pin(_)) || read.mark == mark, "a position stays what it was");
        assert_eq!(read.stricter(read), read);
        // The same token at the moment that it was issued is worth no less.
        assert!(
            SessionToken::decode(&signed, &keys, issued_at, LIFETIME).is_ok() || matches!(mark, Mark::Pin(_))
        );
    }
    let mut bytes = signed.into_bytes();
    let at = at % bytes.len();
    let changed = bytes[at] ^ (bits & 0x7f);
    if changed != bytes[at] {
        bytes[at] = changed;
        let forged = String::from_utf8(bytes).expect("ASCII");
        assert!(decode(&forged, &keys).is_err(), "{forged:?} is not what was signed");
    }
});
