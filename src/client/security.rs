//! Whom a client trusts, and what it may say to whom: one decision for each server of a run.
//!
//! [`plan`] is the whole policy, from what is given and known to what is done; it touches nothing. A decision
//! is made before the first connection to a server and kept for all that follow, so no connection of a fetch
//! trusts more than another. What a connection may be told is decided in [`super::secure`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;

use super::attempt::blocking;
use super::distrust::Distrust;
use super::known_hosts::{Entry, KnownHosts};
use super::{FetchError, Server};
use crate::pin::Pin;
use crate::tls::Trust;
use crate::token::Token;

/// When a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// If the server is pinned or known, or a key is to be sent.
    #[default]
    Auto,
    /// Always.
    Require,
    /// Never; not even to a server that is known, which is an error.
    Off,
}

/// Whom a client trusts, and the key that it shows. Cheap to clone; clones share what was decided.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// When a connection is encrypted.
    pub tls: TlsMode,
    /// Keys of servers, one of which a server must have; [`Server::pin`] stands before them.
    pub pins: Vec<Pin>,
    /// Who signs the certificates of servers, instead of pins.
    pub authorities: Option<Trust>,
    /// Where keys of servers are remembered. Without it nobody can be met for the first time.
    pub known_hosts: Option<KnownHosts>,
    /// What is shown to servers that are trusted.
    pub key: Option<Token>,
    ways: Arc<Mutex<Ways>>,
}

type Ways = HashMap<(String, Option<Pin>), Way>;

/// How a server is spoken to.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// In clear; no key is shown.
    Plain,
    /// In clear, with the key, over loopback; else as said here, if at all.
    Loopback(Option<Arc<Tls>>),
    /// By TLS from the first byte.
    Tls(Arc<Tls>),
}

/// How hands are shaken with a server, and why it is trusted then.
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) basis: Basis,
    /// A server that is trusted for a reason that was given is remembered, or cannot be.
    pub(super) is_remembered: AtomicBool,
}

impl Tls {
    fn new(trust: &Trust, basis: Basis) -> Result<Arc<Self>, Distrust> {
        let is_remembered = AtomicBool::new(false);
        Ok(Arc::new(Self { config: trust.client_config()?, basis, is_remembered }))
    }
}

/// Why a server is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// The user gave its key.
    Pinned(Vec<Pin>),
    /// An authority signed its certificate.
    Authorities,
    /// It was seen before.
    Known(Entry),
    /// It is not, and nothing secret is said: its key is remembered.
    FirstContact,
    /// It is not, and there is something secret to be said: nothing is, only its key is asked for.
    Stranger,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.basis)
    }
}

impl Basis {
    /// Where that is written, for people.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Pinned(_) => "the given pin".to_owned(),
            Self::Authorities => "--ca-cert".to_owned(),
            Self::Known(entry) => entry.place.clone(),
            Self::FirstContact => "--tls require".to_owned(),
            Self::Stranger => "the key that is to be sent".to_owned(),
        }
    }

    /// The keys that are right; empty if that is not what decides.
    pub(super) fn pins(&self) -> &[Pin] {
        match self {
            Self::Pinned(pins) | Self::Known(Entry { pins, .. }) => pins,
            Self::Authorities | Self::FirstContact | Self::Stranger => &[],
        }
    }

    /// Whether a server that was accepted for this reason may see the key.
    pub(super) fn may_see_key(&self) -> bool {
        match self {
            Self::Pinned(_) | Self::Authorities | Self::Known(_) => true,
            Self::FirstContact | Self::Stranger => false,
        }
    }
}

/// What is given and known before a connection is made.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    tls: TlsMode,
    has_pins: bool,
    has_authorities: bool,
    is_known: bool,
    has_key: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Plain,
    /// In clear over loopback; otherwise as a stranger.
    LoopbackOrStranger,
    /// In clear over loopback; otherwise not at all.
    LoopbackOnly,
    Pinned,
    Authorities,
    Known,
    FirstContact,
    Stranger,
    /// Refused: it contradicts itself.
    Contradiction,
    /// Refused: the server is known.
    OffButKnown,
}

/// The policy. A pin stands before authorities, these before what is remembered, and that before the
/// first contact.
fn plan(given: Given) -> Plan {
    let Given { tls, has_pins, has_authorities, is_known, has_key } = given;
    match tls {
        TlsMode::Off if has_pins || has_authorities => Plan::Contradiction,
        TlsMode::Off if is_known => Plan::OffButKnown,
        TlsMode::Off if has_key => Plan::LoopbackOnly,
        TlsMode::Off => Plan::Plain,
        TlsMode::Auto | TlsMode::Require if has_pins => Plan::Pinned,
        TlsMode::Auto | TlsMode::Require if has_authorities => Plan::Authorities,
        TlsMode::Auto | TlsMode::Require if is_known => Plan::Known,
        TlsMode::Require if has_key => Plan::Stranger,
        TlsMode::Require => Plan::FirstContact,
        TlsMode::Auto if has_key => Plan::LoopbackOrStranger,
        TlsMode::Auto => Plan::Plain,
    }
}

impl Security {
    /// How a server is spoken to. It is decided once.
    pub(super) async fn way(&self, server: &Server) -> Result<Way, FetchError> {
        let id = (server.to_string(), server.pin);
        if let Some(way) = self.ways().get(&id) {
            return Ok(way.clone());
        }
        let pins = server.pin.map_or_else(|| self.pins.clone(), |pin| vec![pin]);
        let is_given = !pins.is_empty() || self.authorities.is_some();
        let known = match &self.known_hosts {
            Some(known_hosts) if !is_given => {
                let (known_hosts, server) = (known_hosts.clone(), server.clone());
                blocking(move || Ok(known_hosts.find(&server).map_err(Distrust::from)?)).await?
            }
            _ => None,
        };
        let way = self.decide(server, pins, known)?;
        // Where two have decided at once, the first decision holds.
        Ok(self.ways().entry(id).or_insert(way).clone())
    }

    fn decide(&self, server: &Server, pins: Vec<Pin>, known: Option<Entry>) -> Result<Way, Distrust> {
        let given = Given {
            tls: self.tls,
            has_pins: !pins.is_empty(),
            has_authorities: self.authorities.is_some(),
            is_known: known.is_some(),
            has_key: self.key.is_some(),
        };
        let stranger = || Tls::new(&Trust::FirstContact, Basis::Stranger);
        Ok(match (plan(given), known, &self.authorities) {
            (Plan::Plain, ..) => Way::Plain,
            (Plan::LoopbackOrStranger, ..) => Way::Loopback(Some(stranger()?)),
            (Plan::LoopbackOnly, ..) => Way::Loopback(None),
            (Plan::Pinned, ..) => Way::Tls(Tls::new(&Trust::Pinned(pins.clone()), Basis::Pinned(pins))?),
            (Plan::Authorities, _, Some(trust)) => Way::Tls(Tls::new(trust, Basis::Authorities)?),
            (Plan::Known, Some(entry), _) if entry.pins.is_empty() => {
                return Err(Distrust::Unvouched { server: server.to_string(), place: entry.place });
            }
            (Plan::Known, Some(entry), _) => {
                Way::Tls(Tls::new(&Trust::Pinned(entry.pins.clone()), Basis::Known(entry))?)
            }
            (Plan::FirstContact, ..) => Way::Tls(Tls::new(&Trust::FirstContact, Basis::FirstContact)?),
            (Plan::OffButKnown, Some(entry), _) => {
                return Err(Distrust::Off { server: server.to_string(), place: entry.place });
            }
            (Plan::Contradiction, ..) => return Err(Distrust::Contradiction),
            // What is planned is there, as was said; a stranger is told nothing.
            (Plan::Stranger | Plan::Authorities | Plan::Known | Plan::OffButKnown, ..) => {
                Way::Tls(stranger()?)
            }
        })
    }

    /// From now on the server is known by this key.
    pub(super) fn learn(&self, server: &Server, entry: Entry) -> Result<(), Distrust> {
        let way = Way::Tls(Tls::new(&Trust::Pinned(entry.pins.clone()), Basis::Known(entry))?);
        self.ways().insert((server.to_string(), server.pin), way);
        Ok(())
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of all that can be given.
    fn all() -> impl Iterator<Item = Given> {
        let modes = [TlsMode::Auto, TlsMode::Require, TlsMode::Off];
        modes.into_iter().flat_map(|tls| {
            (0..16).map(move |bits: u8| Given {
                tls,
                has_pins: bits & 1 != 0,
                has_authorities: bits & 2 != 0,
                is_known: bits & 4 != 0,
                has_key: bits & 8 != 0,
            })
        })
    }

    #[test]
    fn a_pin_stands_before_authorities_before_what_is_known_before_the_first_contact() {
        for given in all().filter(|given| given.tls != TlsMode::Off) {
            let wanted = match given {
                Given { has_pins: true, .. } => Plan::Pinned,
                Given { has_authorities: true, .. } => Plan::Authorities,
                Given { is_known: true, .. } => Plan::Known,
                Given { tls: TlsMode::Require, has_key: true, .. } => Plan::Stranger,
                Given { tls: TlsMode::Require, .. } => Plan::FirstContact,
                Given { has_key: true, .. } => Plan::LoopbackOrStranger,
                _ => Plan::Plain,
            };
            assert_eq!(plan(given), wanted, "{given:?}");
        }
    }

    #[test]
    fn without_tls_nothing_is_said_to_whom_anything_is_known_of() {
        for given in all().filter(|given| given.tls == TlsMode::Off) {
            let wanted = match given {
                Given { has_pins: true, .. } | Given { has_authorities: true, .. } => Plan::Contradiction,
                Given { is_known: true, .. } => Plan::OffButKnown,
                Given { has_key: true, .. } => Plan::LoopbackOnly,
                _ => Plan::Plain,
            };
            assert_eq!(plan(given), wanted, "{given:?}");
        }
    }

    #[test]
    fn a_key_leaves_only_for_who_is_trusted_or_near() {
        for given in all().filter(|given| given.has_key) {
            assert_ne!(plan(given), Plan::Plain, "{given:?}");
            assert_ne!(plan(given), Plan::FirstContact, "{given:?}");
        }
        assert!(!Basis::FirstContact.may_see_key() && !Basis::Stranger.may_see_key());
    }

    #[tokio::test]
    async fn a_decision_is_made_once_and_shared() {
        let security = Security { tls: TlsMode::Require, ..Security::default() };
        let server = Server::default();
        let config = |way| match way {
            Way::Tls(tls) => Arc::clone(&tls.config),
            way => panic!("{way:?}"),
        };
        let first = config(security.way(&server).await.unwrap());
        let second = config(security.clone().way(&server).await.unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        let entry = Entry { pins: vec![Pin::of(b"a key")], place: String::new() };
        security.learn(&server, entry.clone()).unwrap();
        let Way::Tls(tls) = security.clone().way(&server).await.unwrap() else { panic!() };
        assert_eq!(tls.basis, Basis::Known(entry));
    }

    #[test]
    fn the_key_is_not_shown_with_the_settings() {
        let key = Token::new(&[b'x'; crate::token::TOKEN_RANDOM]);
        let security = Security { key: Some(key.clone()), ..Security::default() };
        let shown = format!("{security:?}");
        assert!(!shown.contains(&key.expose()[24..40]) && shown.contains("Token("), "{shown}");
    }
}
