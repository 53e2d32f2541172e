//! The keys that tokens are signed with.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

/// The length of a signature (HMAC-SHA256, RFC 2104).
pub(crate) const MAC_BYTES: usize = 32;
/// A key shorter than the hash weakens the signature (RFC 2104, section 3).
const SHORTEST: usize = 32;

/// One or more secret keys: the first signs tokens, all of them verify. `Debug` shows none.
///
/// All processes that serve the same clients need the same keys. To change them without a gap, add the new key at the end
/// everywhere, then move it to the front everywhere, and remove the old one when its last token has expired.
///
/// ```
/// use routing_core::TokenKeys;
///
/// let keys: TokenKeys = "correct-horse-battery-staple-and-more,the-key-that-was-used-until-yesterday".parse().unwrap();
/// assert!(!format!("{keys:?}").contains("horse"));
/// assert!("too short".parse::<TokenKeys>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenKeys(Vec<Vec<u8>>);

/// Why a text is not a list of keys. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeys {
    /// There is none.
    #[error(
        "there is no key: give at least one of {SHORTEST} bytes, such as `openssl rand -base64 32` prints"
    )]
    None,
    /// One is too short.
    #[error(
        "key {number} has {bytes} bytes: a key has at least {SHORTEST}, such as `openssl rand -base64 32` prints"
    )]
    TooShort {
        /// Its place in the list, counted from 1.
        number: usize,
        /// Its length.
        bytes: usize,
    },
}

impl TokenKeys {
    /// A key of this process alone, from the operating system's generator. Tokens then serve no other process, and none
    /// after a restart.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut key = vec![0; SHORTEST];
        getrandom::fill(&mut key)?;
        Ok(Self(vec![key]))
    }

    pub(crate) fn sign(&self, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        // There is at least one.
        mac(&self.0[0], parts).finalize().into_bytes().into()
    }

    /// Whether any key signed the parts. It takes the same time wherever a signature differs.
    pub(crate) fn verify(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.0.iter().any(|key| mac(key, parts).verify_slice(signature).is_ok())
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

impl FromStr for TokenKeys {
    type Err = InvalidKeys;

    fn from_str(text: &str) -> Result<Self, InvalidKeys> {
        let keys: Vec<Vec<u8>> = text.split(',').map(|key| key.trim().as_bytes().to_vec()).collect();
        if keys.iter().all(Vec::is_empty) {
            return Err(InvalidKeys::None);
        }
        match keys.iter().position(|key| key.len() < SHORTEST) {
            Some(index) => Err(InvalidKeys::TooShort { number: index + 1, bytes: keys[index].len() }),
            None => Ok(Self(keys)),
        }
    }
}

impl TryFrom<String> for TokenKeys {
    type Error = InvalidKeys;

    fn try_from(text: String) -> Result<Self, InvalidKeys> {
        text.parse()
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeys({} keys)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_hmac_sha256() {
        // RFC 4231, test case 2, whose key is shorter than ours may be.
        let keys = TokenKeys(vec![b"Jefe".to_vec()]);
        let signature = keys.sign(&[b"what do ya want ", b"for nothing?"]);
        assert_eq!(signature[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
        assert!(keys.verify(&[b"what do ya want for nothing?"], &signature));
        assert!(!keys.verify(&[b"what do ya want for nothing!"], &signature));
        assert!(!keys.verify(&[b"what do ya want for nothing?"], &signature[..31]));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for (text, refused) in [
            ("", InvalidKeys::None),
            (" , ", InvalidKeys::None),
            ("hunter2", InvalidKeys::TooShort { number: 1, bytes: 7 }),
            ("0123456789abcdef0123456789abcdef,hunter2", InvalidKeys::TooShort { number: 2, bytes: 7 }),
            ("0123456789abcdef0123456789abcdef,", InvalidKeys::TooShort { number: 2, bytes: 0 }),
        ] {
            let error = text.parse::<TokenKeys>().unwrap_err();
            assert_eq!(error, refused, "{text}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn two_processes_have_two_keys() {
        assert_ne!(TokenKeys::random().unwrap(), TokenKeys::random().unwrap());
    }
}
