//! API keys: the word that its holder shows to a server.
//!
//! A token is one word of `[A-Za-z0-9_-]`: [`Token::PREFIX`], by which people and programs recognise
//! it, and 45 bytes in URL-safe Base64 (RFC 4648, section 5). These are 9 bytes that tell keys apart and
//! are no secret ([`KeyId`]), 32 random bytes that are, and 4 bytes of a checksum over all before
//! them, so that a mistyped word is told from a wrong one without asking a server.
//!
//! A server keeps a [`TokenHash`] only. SHA-256 without salt or stretching is enough for it, because
//! what is hashed is no human's password but 256 bits of chance.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Random bytes that a new token is made of: those of its [`KeyId`], and the secret ones.
pub const TOKEN_RANDOM: usize = ID_LEN + SECRET_LEN;

const ID_LEN: usize = 9;
const SECRET_LEN: usize = 32;
const CHECKSUM_LEN: usize = 4;
const BODY_LEN: usize = ID_LEN + SECRET_LEN + CHECKSUM_LEN;
const ID_TEXT_LEN: usize = ID_LEN / 3 * 4;
const BODY_TEXT_LEN: usize = BODY_LEN / 3 * 4;

/// A key's secret word. It is shown by nothing but [`Self::expose`], and wiped when it is dropped.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// Tells keys apart; not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID_LEN]);

/// What a server keeps of a token. Two of them are compared in constant time.
#[derive(Clone, Copy, Eq)]
pub struct TokenHash([u8; 32]);

/// Why a word is no token. No variant says anything of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It does not look like one.
    #[error("it does not have the form of a key ({PREFIX}... and {BODY_TEXT_LEN} letters, digits, - or _)")]
    Form,
    /// It looks like one, but was mistyped or cut.
    #[error("its checksum is wrong: a letter of it was changed")]
    Checksum,
}

const PREFIX: &str = Token::PREFIX;

impl Token {
    /// How every token begins.
    pub const PREFIX: &str = "oneport_";
    /// Length of a token, in bytes.
    pub const LEN: usize = Self::PREFIX.len() + BODY_TEXT_LEN;

    /// Makes a token of bytes that nobody can guess.
    #[must_use]
    pub fn new(random: &[u8; TOKEN_RANDOM]) -> Self {
        let mut body = Zeroizing::new([0; BODY_LEN]);
        body[..TOKEN_RANDOM].copy_from_slice(random);
        let checksum = checksum(random);
        body[TOKEN_RANDOM..].copy_from_slice(&checksum);
        let encoded = Zeroizing::new(Base64UrlUnpadded::encode_string(&*body));
        Self(Zeroizing::new([Self::PREFIX, &encoded].concat()))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(word: &[u8]) -> Result<Self, TokenError> {
        let text = std::str::from_utf8(word).map_err(|_| TokenError::Form)?;
        let encoded = text.strip_prefix(Self::PREFIX).ok_or(TokenError::Form)?;
        if encoded.len() != BODY_TEXT_LEN {
            return Err(TokenError::Form);
        }
        let mut body = Zeroizing::new([0; BODY_LEN]);
        let decoded = Base64UrlUnpadded::decode(encoded, &mut *body).map_err(|_| TokenError::Form)?;
        let (random, found) = decoded.split_at(TOKEN_RANDOM);
        if found != checksum(random) {
            return Err(TokenError::Checksum);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Which key it is of.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let encoded = &self.0[Self::PREFIX.len()..][..ID_TEXT_LEN];
        let mut id = [0; ID_LEN];
        // A token holds nothing else, or it would not have been read or made.
        let _ = Base64UrlUnpadded::decode(encoded, &mut id);
        KeyId(id)
    }

    /// What a server keeps of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The secret word itself: to be sent over a connection that nobody can read, or shown once to whoever
    /// made it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Eq for Token {}

/// In a time that does not depend on where they differ.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

/// Says nothing but which key it is of.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id())
    }
}

impl KeyId {
    /// The one of Conduit's password, which is no token and never made by chance.
    pub const CONDUIT: Self = Self(*b"conduit\0\0");

    /// Reads an identifier as it is shown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; ID_LEN];
        (text.len() == ID_TEXT_LEN).then_some(())?;
        Base64UrlUnpadded::decode(text, &mut id).ok()?;
        Some(Self(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64UrlUnpadded::encode_string(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl TokenHash {
    /// What a server keeps of a password, which is no token: its SHA-256.
    #[must_use]
    pub fn of_password(password: &[u8]) -> Self {
        Self(Sha256::digest(password).into())
    }

    /// Reads a hash as it is shown: 64 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        base16ct::lower::decode(text, &mut hash).ok().filter(|bytes| bytes.len() == 32)?;
        Some(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({self})")
    }
}

/// In a time that does not depend on where they differ.
impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Where in `text` words stand that look like tokens, or that begin like one and are cut: their secret
/// parts, which nothing that shows or logs text may repeat.
pub fn secrets(text: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            // Most text has no such word, and names are shown for every file that is sent.
            at += text[at..].iter().position(|&byte| byte == PREFIX.as_bytes()[0])?;
            if !text[at..].starts_with(PREFIX.as_bytes()) {
                at += 1;
                continue;
            }
            let begin = at + PREFIX.len();
            let len = text[begin..].iter().take_while(|byte| is_word(byte)).count();
            at = begin + len;
            // Whatever is not longer than that holds nothing secret.
            if len > ID_TEXT_LEN {
                return Some(begin + ID_TEXT_LEN..at);
            }
        }
        None
    })
}

fn checksum(random: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::new().chain_update(PREFIX).chain_update(random).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(seed: u8) -> Token {
        Token::new(&std::array::from_fn(|at| seed.wrapping_add(u8::try_from(at).unwrap())))
    }

    #[test]
    fn a_token_is_one_word_and_reads_back() {
        for seed in 0..=255 {
            let token = token(seed);
            let word = token.expose();
            assert_eq!(word.len(), Token::LEN);
            assert!(word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{word}");
            let read = Token::parse(word.as_bytes()).unwrap();
            assert_eq!((read.id(), read.hash()), (token.id(), token.hash()));
            assert_eq!(KeyId::parse(&token.id().to_string()), Some(token.id()));
            assert_eq!(TokenHash::parse_hex(&token.hash().to_string()), Some(token.hash()));
        }
    }

    #[test]
    fn every_change_of_a_letter_is_noticed() {
        let token = token(7);
        let word = token.expose().as_bytes();
        for at in 0..word.len() {
            for letter in b"A0_-z=+/ \n\0\xff" {
                let mut changed = word.to_vec();
                changed[at] = *letter;
                assert_eq!(Token::parse(&changed).is_ok(), changed == word, "{at}");
            }
        }
        for end in 0..word.len() {
            assert_eq!(Token::parse(&word[..end]).err(), Some(TokenError::Form));
        }
        assert_eq!(Token::parse(&[word, b"A"].concat()).err(), Some(TokenError::Form));
    }

    #[test]
    fn nothing_but_expose_shows_the_secret() {
        let token = token(3);
        let secret = &token.expose()[Token::PREFIX.len() + ID_TEXT_LEN..];
        for shown in [format!("{token:?}"), format!("{:?}", Token::parse(b"oneport_x").unwrap_err())] {
            assert!(!secret.as_bytes().windows(6).any(|part| shown.as_bytes().windows(6).any(|w| w == part)));
        }
    }

    #[test]
    fn secrets_are_found_wherever_they_stand() {
        let word = token(9).expose().to_owned();
        let text = format!("a {word}, oneport_short oneport_{} ?key={word}&x=1", &word[8..40]);
        let found: Vec<&str> = secrets(text.as_bytes()).map(|range| &text[range]).collect();
        let secret = &word[Token::PREFIX.len() + ID_TEXT_LEN..];
        assert_eq!(found, [secret, &word[20..40], secret]);
        assert_eq!(secrets(b"oneport_").count(), 0);
        assert_eq!(secrets(b"").count(), 0);
    }
}
