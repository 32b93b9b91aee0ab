use std::io::Write;

use super::*;
use crate::units::Size;

fn load_from(arguments: &[&str]) -> Result<Config, ConfigError> {
    match task(arguments)? {
        Task::Serve(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

fn task(arguments: &[&str]) -> Result<Task, ConfigError> {
    load(std::iter::once("server").chain(arguments.iter().copied()).map(OsString::from))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn the_help_names_the_defaults_that_are_in_force() {
    command().debug_assert();
    let config = load_from(&[]).unwrap();
    let help = command().render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let default_of = |option: &str| {
        let about = help.split(option).nth(1).unwrap_or_else(|| panic!("no {option} in the help"));
        let start = about.find("[default: ").unwrap() + "[default: ".len();
        about[start..start + about[start..].find(']').unwrap()].to_owned()
    };
    let span = |option| default_of(option).parse::<Span>().unwrap().0;
    assert_eq!(span("--request-timeout"), config.server.request_timeout);
    assert_eq!(span("--idle-timeout"), config.server.idle_timeout);
    assert_eq!(span("--drain-timeout"), config.server.drain_timeout);
    assert_eq!(span("--v1-pause"), config.server.v1_pause);
    assert_eq!(span("--hash-ahead"), config.hash_ahead);
    assert_eq!(span("--log-max-age"), config.log.age_max);
    assert_eq!(default_of("--log-max-size").parse::<Size>().unwrap().0, config.log.size_max);
    assert_eq!(default_of("--min-rate").parse::<Size>().unwrap().0, config.server.rate_min);
    assert_eq!(default_of("--max-connections <").parse(), Ok(config.server.connections_max));
    assert_eq!(default_of("[PORT] Port").parse(), Ok(config.port));
}

#[test]
fn the_command_line_wins_over_the_file_and_the_file_over_the_default() {
    let file = file("port = 1111\nidle-timeout = \"5s\"\nlog-max-size = 8192\nlog-format = \"json\"\n");
    let path = file.path().to_str().unwrap();
    let config = load_from(&["--config", path, "2222", "--idle-timeout", "7s"]).unwrap();
    assert_eq!(config.port, 2222);
    assert_eq!(config.server.idle_timeout, Duration::from_secs(7));
    assert_eq!(config.log.size_max, 8192);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.server.drain_timeout, limits::DRAIN_TIMEOUT);
    assert_eq!(load_from(&["--config", path]).unwrap().port, 1111);
}

#[test]
fn every_key_of_the_file_is_taken_and_none_that_does_not_exist() {
    let mut keys = Vec::new();
    for argument in command().get_arguments() {
        let id = argument.get_id().as_str().replace('_', "-");
        if !["config", "help", "version"].contains(&id.as_str()) {
            keys.push(id);
        }
    }
    for key in &keys {
        let value = match key.as_str() {
            "bind" => "\"127.0.0.1\"",
            "log-format" => "\"json\"",
            "require-key" => "true",
            "allow-plaintext-keys" => "[\"10.0.0.0/8\", \"::1\"]",
            "tls" => "\"require\"",
            "root"
            | "state"
            | "log-dir"
            | "log-level"
            | "tls-cert"
            | "tls-key"
            | "conduit-password-file"
            | "on-received" => "\"x\"",
            "conduit-allow" => "\"read,push\"",
            "name-template" => "\"{base}\"",
            _ => "5000",
        };
        let toml = format!("{key} = {value}\n");
        let parsed: Options = toml::from_str(&toml).unwrap_or_else(|error| panic!("{key}: {error}"));
        let merged = format!("{:?}", Options::default().or(parsed.clone()));
        assert_eq!(merged, format!("{parsed:?}"), "{key} is lost when options are put together");
        assert_ne!(merged, format!("{:?}", Options::default()), "{key} has no effect");
    }
    for wrong in
        ["prot = 1\n", "config = \"x\"\n", "port = 70000\n", "idle-timeout = \"soon\"\n", "port =", "\0"]
    {
        let file = file(wrong);
        let error = load_from(&["--config", file.path().to_str().unwrap()]).unwrap_err();
        assert!(matches!(error, ConfigError::Wrong { .. }), "{wrong}: {error}");
    }
}

#[test]
fn keys_are_looked_after_beside_a_root_that_is_called_key() {
    let serves = |arguments: &[&str]| load_from(arguments).unwrap().root;
    assert_eq!(serves(&["0", "key"]), PathBuf::from("key"));
    assert_eq!(serves(&["0", "./key", "--state", "s"]), PathBuf::from("./key"));
    let Task::Key(KeyTask { state, action: keys::Action::Add { name, grant, expires, quota, json } }) =
        task(&[
            "key",
            "add",
            "ci",
            "--allow",
            "read,write",
            "--path",
            "a/b/",
            "--quota",
            "2KiB",
            "--state",
            "s",
            "--json",
        ])
        .unwrap()
    else {
        panic!("another task");
    };
    assert_eq!((state, name.as_str(), expires, quota, json), ("s".into(), "ci", None, Some(2048), true));
    assert_eq!((grant.rights.to_string().as_str(), &*grant.prefix), ("read,write", &b"a/b"[..]));
    let file = file("state = \"elsewhere\"\n");
    let listing = task(&["key", "list", "--config", file.path().to_str().unwrap()]).unwrap();
    assert!(matches!(listing, Task::Key(KeyTask { state, .. }) if *state == *"elsewhere"));
    for wrong in [
        &["key"][..],
        &["key", "add", "ci"],
        &["key", "add", "ci", "--allow", "all"],
        &["key", "add", "c i", "--allow", "read"],
        &["key", "add", "ci", "--allow", "read", "--path", "../x"],
        &["key", "add", "ci", "--allow", "read", "--path", "/x"],
        &["key", "add", "ci", "--allow", "read", "--expires", "soon"],
        &["key", "add", "ci", "--allow", "read", "--expires", "2027"],
        &["key", "revoke"],
        &["--allow-plaintext-keys", "10.0.0.1/8"],
    ] {
        assert!(matches!(task(wrong), Err(ConfigError::Arguments(_))), "{wrong:?}");
    }
}

#[test]
fn a_certificate_and_its_key_are_given_together_or_not_at_all() {
    let config = load_from(&["--tls-cert", "c", "--tls-key", "k", "--tls", "require"]).unwrap();
    let files = config.tls_files.unwrap();
    assert_eq!((files.certificates, files.key), (PathBuf::from("c"), PathBuf::from("k")));
    assert!(config.tls == TlsMode::Require && config.server.require_tls);
    let config = load_from(&[]).unwrap();
    assert!(config.tls == TlsMode::Auto && config.tls_files.is_none() && !config.server.require_tls);
    for option in ["--tls-cert", "--tls-key"] {
        let error = load_from(&[option, "x"]).unwrap_err();
        assert!(matches!(&error, ConfigError::Half { given, .. } if *given == option), "{error}");
    }
}

#[test]
fn a_key_ends_after_a_time_at_a_day_or_at_a_moment_of_the_future() {
    let now: jiff::Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    let moment =
        |text: &str| text.parse::<keys::Expiry>().unwrap().moment(now).map(|moment| moment.to_string());
    assert_eq!(moment("30d").as_deref(), Some("2026-07-01T12:00:00Z"));
    assert_eq!(moment("1.5h").as_deref(), Some("2026-06-01T13:30:00Z"));
    assert_eq!(moment("2027-01-31").as_deref(), Some("2027-01-31T00:00:00Z"));
    assert_eq!(moment("2027-01-31T12:00:00+02:00").as_deref(), Some("2027-01-31T10:00:00Z"));
    for past in ["2026-06-01", "0s", "2026-06-01T12:00:00Z"] {
        assert_eq!(moment(past), None, "{past}");
    }
}

#[test]
fn networks_come_from_the_command_line_or_the_file() {
    let nets = |arguments: &[&str]| {
        let config = load_from(arguments).unwrap();
        config.plaintext_keys.iter().map(Net::to_string).collect::<Vec<_>>()
    };
    assert_eq!(nets(&[]), [""; 0]);
    let two = ["--allow-plaintext-keys", "10.0.0.0/8", "--allow-plaintext-keys", "::1,fd00::/8"];
    assert_eq!(nets(&two), ["10.0.0.0/8", "::1/128", "fd00::/8"]);
    assert!(load_from(&["--require-key"]).unwrap().require_key);
    assert!(!load_from(&["--require-key=false"]).unwrap().require_key);
    assert_eq!(load_from(&["--require-key", "1234"]).unwrap().port, 1234);
}

#[test]
fn rates_are_not_limited_unless_asked_for() {
    let limits = |arguments: &[&str]| {
        let server = load_from(arguments).unwrap().server;
        (server.rate_limit, server.rate_limit_per_client)
    };
    assert_eq!(limits(&[]), (None, None));
    assert_eq!(limits(&["--limit-rate", "0", "--limit-rate-per-client", "0/s"]), (None, None));
    assert_eq!(limits(&["--limit-rate", "1MiB/s", "--limit-rate-per-client", "1"]), (Some(1 << 20), Some(1)));
    let file = file("limit-rate = \"2MB/s\"\nlimit-rate-per-client = 5000\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(limits(&["--config", path]), (Some(2_000_000), Some(5000)));
}

#[test]
fn values_out_of_range_are_refused_with_what_would_do() {
    for arguments in [
        ["--max-connections", "0"],
        ["--request-timeout", "0s"],
        ["--idle-timeout", "0"],
        ["--v1-pause", "6s"],
        ["--log-max-size", "1"],
        ["--log-max-age", "0s"],
    ] {
        let error = load_from(&arguments).unwrap_err();
        assert!(matches!(&error, ConfigError::Range { option, .. } if *option == arguments[0]), "{error}");
    }
    assert!(matches!(load_from(&["65536"]), Err(ConfigError::Arguments(_))));
    assert!(matches!(load_from(&["--idle-timeout", "-1s"]), Err(ConfigError::Arguments(_))));
}

#[test]
fn what_conduits_password_allows_is_set_with_it_and_is_what_that_dialect_has() {
    let of =
        |arguments: &[&str]| load_from(arguments).unwrap().conduit.map(|conduit| conduit.allow.to_string());
    assert_eq!(of(&[]), None);
    assert_eq!(of(&["--conduit-password-file", "f"]).unwrap(), "read,write,push");
    assert_eq!(of(&["--conduit-password-file", "f", "--conduit-allow", "read"]).unwrap(), "read");
    let alone = load_from(&["--conduit-allow", "read"]).unwrap_err();
    assert!(matches!(alone, ConfigError::Half { missing: "--conduit-password-file", .. }), "{alone}");
    for more in ["delete", "read,admin"] {
        let arguments = ["--conduit-password-file", "f", "--conduit-allow", more];
        assert!(matches!(load_from(&arguments).unwrap_err(), ConfigError::Range { .. }), "{more}");
    }
}
