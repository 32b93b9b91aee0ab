//! Words that say who somebody is: tokens, pins, rights, names of keys, servers. Never a panic, what is one is shown
//! as it was read, and whatever shows a text leaves the secret part of every token in it out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneport::client::Server;
use oneport::keys::KeyName;
use oneport::pin::Pin;
use oneport::rights::Rights;
use oneport::service::Net;
use oneport::text;
use oneport::token::{Token, secrets};

fuzz_target!(|input: &[u8]| {
    let shown = [text::shown(input).to_string(), text::logged(input).to_string()];
    let mut end = 0;
    for secret in secrets(input) {
        assert!(end <= secret.start && secret.start < secret.end && secret.end <= input.len());
        end = secret.end;
    }
    for word in input.windows(Token::LEN) {
        let Ok(token) = Token::parse(word) else { continue };
        assert_eq!(token.expose().as_bytes(), word);
        assert_eq!(Token::parse(word).map(|token| token.hash()), Ok(token.hash()));
        // The secret part alone, without what it is recognised by, may stand elsewhere too.
        assert!(!shown.iter().any(|shown| shown.contains(token.expose())));
        let secret = &token.expose()[Token::LEN - 48..];
        assert!(!text::logged(word).to_string().contains(secret) && !format!("{token:?}").contains(secret));
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(pin) = text.parse::<Pin>() {
        assert!(text == pin.letters() || text == pin.to_string());
    }
    if let Ok(rights) = text.parse::<Rights>() {
        assert_eq!(rights.to_string().parse(), Ok(rights));
    }
    if let Ok(name) = text.parse::<KeyName>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(net) = text.parse::<Net>() {
        assert_eq!(net.to_string().parse::<Net>().map(|net| net.to_string()), Ok(net.to_string()));
    }
    // Others are shown escaped, or without their secrets.
    if let Ok(server) = text.parse::<Server>()
        && text.is_ascii()
        && end == 0
    {
        let again: Server = server.to_string().parse().expect("it is shown as it can be written");
        assert_eq!((again.host, again.port), (server.host, server.port));
    }
});
