//! What a connection sends before its proxy's header is whole: decided once, the same whatever follows, within a header's bound;
//! more is asked for only where something may follow.
#![no_main]

use ironpost::limits::PROXY_HEADER_BYTES_MAX;
use ironpost::transport::proxy::{Progress, ProxyError, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut decided = None;
    for end in 0..=bytes.len() {
        let now = read(&bytes[..end]);
        match decided {
            Some(before) => assert_eq!(now, before, "with {end} bytes"),
            None if now == Ok(Progress::More) => assert!(end < PROXY_HEADER_BYTES_MAX),
            None => {
                decided = Some(now);
                match now {
                    // What is whole is so with its last byte, not later.
                    Ok(Progress::Done { taken, .. }) => assert_eq!(taken, end),
                    Ok(Progress::More) => unreachable!("the arm above has it"),
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
        }
    }
    if decided.is_none() {
        assert!(may_go_on(bytes), "more is asked for, and nothing will do");
    }
});

/// Whether there is a next byte with which it is not wrong. That its checksum is says that it got to its end.
fn may_go_on(bytes: &[u8]) -> bool {
    let mut longer = [bytes, &[0]].concat();
    (0..=u8::MAX).any(|next| {
        longer[bytes.len()] = next;
        matches!(read(&longer), Ok(_) | Err(ProxyError::Checksum))
    })
}
