//! A token: a public id by which it is found, and a secret by which it is believed. Only a hash of the secret is kept anywhere.
//!
//! ```text
//! tl_ 0123456789abcdef _ 64 hex digits
//!     id, 8 bytes        secret, 32 bytes from the system's random numbers
//! ```
//! A plain fast hash (BLAKE3) is right for it: a secret of 256 random bits cannot be guessed, so there is nothing that a slow hash
//! or a salt would make harder, and every request pays for the hash.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;

/// How every token begins, so that people and scanners for leaked secrets know one.
const PREFIX: &str = "tl_";
/// Between id and secret.
const SEPARATOR: char = '_';
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// Digits of the secret that are shown in lists, so that people find their token again.
const SHOWN_DIGITS: usize = 4;
/// What the hash is for: the same secret hashed for something else has another.
const HASH_PURPOSE: &str = "tidelog 2026-11 token of the HTTP API";

/// A token's name for machines: public, and never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; ID_BYTES]);

/// A whole token, secret included. Neither written by `Debug` nor kept.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    secret: [u8; SECRET_BYTES],
}

/// What is kept of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash([u8; SECRET_BYTES]);

/// The text is no token, or no part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: expected {PREFIX}, 16 hex digits, {SEPARATOR} and 64 hex digits")]
pub struct TokenParseError;

/// The system gave no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random numbers to give")]
pub struct RandomError;

impl Token {
    /// A new token from the system's random numbers.
    ///
    /// # Errors
    /// [`RandomError`]: there are none.
    pub fn draw() -> Result<Self, RandomError> {
        let random = rustls::crypto::ring::default_provider().secure_random;
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        random.fill(&mut id).and_then(|()| random.fill(&mut secret)).map_err(|_| RandomError)?;
        Ok(Self { id: TokenId(id), secret })
    }

    /// Its public part.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// All of it, for its owner: the only way by which the secret leaves.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}{SEPARATOR}{}", self.id, hex(&self.secret))
    }

    /// The last digits, for lists.
    #[must_use]
    pub fn last_digits(&self) -> String {
        let digits = hex(&self.secret);
        digits.chars().skip(digits.len().saturating_sub(SHOWN_DIGITS)).collect()
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash(blake3::derive_key(HASH_PURPOSE, &self.secret))
    }
}

impl Hash {
    /// Whether the token has this hash; takes equally long for every token.
    #[must_use]
    pub fn is_of(&self, token: &Token) -> bool {
        self.0.ct_eq(&token.hash().0).into()
    }
}

impl FromStr for Token {
    type Err = TokenParseError;

    fn from_str(text: &str) -> Result<Self, TokenParseError> {
        let rest = text.strip_prefix(PREFIX).ok_or(TokenParseError)?;
        let (id, secret) = rest.split_once(SEPARATOR).ok_or(TokenParseError)?;
        Ok(Self { id: id.parse()?, secret: of_hex(secret).ok_or(TokenParseError)? })
    }
}

impl FromStr for TokenId {
    type Err = TokenParseError;

    fn from_str(text: &str) -> Result<Self, TokenParseError> {
        of_hex(text).map(Self).ok_or(TokenParseError)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, …)", self.id)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom("id: expected 16 hex digits"))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        of_hex(&text).map(Self).ok_or_else(|| D::Error::custom("hash: expected 64 hex digits"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower case only: a token has one text.
fn of_hex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != BYTES || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_is_drawn_anew_each_time_and_read_as_it_was_revealed() {
        let (a, b) = (Token::draw().unwrap(), Token::draw().unwrap());
        assert!(a.id != b.id && a.secret != b.secret);
        let read: Token = a.reveal().parse().unwrap();
        assert!(read.id() == a.id() && a.hash().is_of(&read) && !a.hash().is_of(&b));
        assert!(a.reveal().ends_with(&a.last_digits()) && a.last_digits().len() == SHOWN_DIGITS);
        let other = Token { id: a.id, secret: b.secret };
        assert!(!a.hash().is_of(&other), "the id alone opens nothing");
    }

    #[test]
    fn what_is_written_for_people_and_files_holds_no_secret() {
        let token = Token::draw().unwrap();
        let secret = hex(&token.secret);
        let kept = serde_json::to_string(&token.hash()).unwrap();
        for text in [format!("{token:?}"), format!("{:?}", token.hash()), kept, token.id().to_string()] {
            assert!(!text.contains(&secret), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_exactly_a_token_is_none() {
        let good = Token::draw().unwrap().reveal();
        let cut = &good[..good.len() - 1];
        let upper = good.to_uppercase();
        for bad in ["", "tl_", cut, &format!("{good}0"), &good[3..], &upper, &format!(" {good}"), "tl_x_y"] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_is_revealed_alike(
            text in prop_oneof!["\\PC{0,90}", "tl_[0-9a-f]{15,17}_[0-9a-f]{63,65}"]
        ) {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.reveal(), text);
            }
        }
    }
}
