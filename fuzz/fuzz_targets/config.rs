//! The text of a configuration file: never a panic, and the command line wins over it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneport::config::Options;

fuzz_target!(|text: &str| {
    let Ok(options) = toml::from_str::<Options>(text) else { return };
    assert!(options.config.is_none(), "a file names no further file");
    let given = Options { port: Some(1), ..Options::default() };
    let merged = given.or(options.clone());
    assert_eq!(merged.port, Some(1));
    assert_eq!(merged.root, options.root);
});
