//! The server's identity: read or made at the start, shown to whoever started it, read again on SIGHUP.

use std::path::Path;

use tracing::{info, warn};

use super::address::Address;
use super::owner::Owner;
use super::{Failure, say};
use crate::config::{Config, TlsFiles, TlsMode};
use crate::pin::Pin;
use crate::tls::{HomeError, Identity, Serving};

/// The server's identity and where it came from; `None` if the server does not speak TLS.
pub(super) fn load(
    tls: TlsMode,
    files: Option<&TlsFiles>,
    state: &Path,
) -> Result<Option<Identity>, Failure> {
    match tls {
        TlsMode::Off => Ok(None),
        TlsMode::Auto | TlsMode::Require => read(files, state).map(Some).map_err(|error| {
            let other = match files {
                Some(_) => "--tls-cert and --tls-key",
                None => "--state",
            };
            Failure::new(error.code(), format!("{error} (chosen by {other}; --tls off does without TLS)"))
        }),
    }
}

fn read(files: Option<&TlsFiles>, state: &Path) -> Result<Identity, HomeError> {
    match files {
        Some(TlsFiles { certificates, key }) => Identity::load(certificates, key),
        None => Identity::load_or_make(state),
    }
}

/// Shows what clients pin.
pub(super) fn show(pin: Pin) {
    info!(event = "identity", %pin, "TLS is served; clients tell this server by pin={pin}");
    if !tracing::enabled!(tracing::Level::INFO) {
        say(&format!("pin={pin}"));
    }
}

/// Reads the identity again, for connections to come. One that cannot be read or used changes nothing.
pub(super) fn reload(config: &Config, serving: Option<&Serving>) {
    let Some(serving) = serving else {
        return info!(event = "reloaded", "SIGHUP: there is nothing to read again (--tls off)");
    };
    let replaced = read(config.tls_files.as_ref(), &config.state)
        .map_err(|error| error.to_string())
        .and_then(|identity| {
            serving.replace(&identity).map_err(|error| error.to_string())?;
            Ok(identity.pin())
        });
    match replaced {
        Ok(pin) => {
            if let Some(address) = Address::noted(&config.state) {
                Address { pin: Some(pin), ..address }.note(&config.state);
            }
            Owner::renote(&config.state, pin);
            info!(
                event = "reloaded", %pin,
                "SIGHUP: certificate and key were read again; new connections get pin={pin}"
            );
        }
        Err(error) => warn!(
            event = "reload-failed", %error,
            "SIGHUP: certificate and key stay as they were: {error}"
        ),
    }
}
