//! How the server starts: its defaults, what it refuses to start with, and where it listens.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::Command;

use crate::raw::{fetch_whole, request};
use crate::serving::{Ended, Server, Site, skipped};

/// Ended as it should: with this status, and one clear line on standard error.
fn assert_ended(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stdout, "", "nothing was served");
    let said: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("server: ")).collect();
    assert_eq!(said.len(), 1, "one line says what happened: {}", ended.stderr);
    for word in words {
        assert!(said[0].contains(word), "'{word}' in: {}", said[0]);
    }
}

#[test]
fn missing_folders_are_created_and_the_port_is_printed() {
    let site = Site::new();
    fs::remove_dir(site.root("")).unwrap();
    let server = site.launch_bare(&["0", "deep/root"]).serve();
    assert_ne!(server.address.port(), 0);
    assert!(site.path().join("deep/root").is_dir());
    assert!(site.path().join(".oneport/lock").is_file());
    assert_eq!(fs::read_dir(site.path().join("logs")).unwrap().count(), 1);
    fs::write(site.path().join("deep/root/a.txt"), "dropped in").unwrap();
    assert_eq!(fetch_whole(server.address, "a.txt"), b"dropped in");
}

#[test]
fn without_arguments_it_serves_server_files_on_port_9999() {
    let site = Site::new();
    // Another program may hold the port; then the message must name it.
    let mut server = match site.launch_bare(&[]).try_serve() {
        Ok(server) => server,
        Err(mut server) => {
            assert_eq!(server.wait_exit(), Some(5));
            assert!(server.stderr().contains("port 9999"), "{}", server.stderr());
            return skipped("port 9999", "another program uses it");
        }
    };
    assert_eq!(server.address.port(), 9999);
    assert!(!server.has_ended());
    fs::write(site.path().join("server_files/a.txt"), "a").unwrap();
    assert_eq!(fetch_whole(server.address, "a.txt"), b"a");
}

#[test]
fn a_port_in_use_ends_it_with_5_and_one_clear_line() {
    let site = Site::new();
    let taken = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = site.launch_bare(&[&port, "root"]).run();
    assert_ended(&ended, 5, &[&format!("port {port}"), "another program uses it", "choose another port"]);
}

#[test]
fn a_root_that_is_no_folder_ends_it() {
    let site = Site::new();
    site.file("plain", b"");
    let ended = site.launch_bare(&["0", "root/plain"]).run();
    assert_ended(&ended, 11, &["root/plain"]);
    let ended = site.launch_bare(&["0", "root/plain/below"]).run();
    assert_ended(&ended, 11, &["root/plain/below"]);
}

#[test]
fn a_root_that_cannot_be_read_ends_it_with_4() {
    let site = Site::new();
    let closed = site.root("closed");
    fs::create_dir(&closed).unwrap();
    let user = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let way: Vec<_> = user.split(' ').collect();
    let can = Command::new(way[0]).args(&way[1..]).arg("true").status().is_ok_and(|status| status.success());
    let is_root = rustix::process::geteuid().is_root();
    if is_root && !can {
        return skipped("an unreadable root", "running as root without setpriv");
    }
    let mode = |path, mode| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(site.path(), 0o777).unwrap();
    mode(&closed, 0o000).unwrap();
    let launch = site.launch_bare(&["0", "root/closed"]);
    let launch = if is_root { launch.by_way_of(&way) } else { launch };
    // The program itself may lie where nobody else may look.
    let ended = launch.run();
    mode(&closed, 0o700).unwrap();
    if ended.code == Some(127) || ended.code == Some(126) {
        return skipped("an unreadable root", "the program cannot be started as another user");
    }
    assert_ended(&ended, 4, &["root/closed", "ermission denied"]);
}

#[test]
fn the_state_or_log_folder_cannot_be_the_root() {
    let site = Site::new();
    for folder in ["state", "logs"] {
        fs::create_dir_all(site.path().join(folder)).unwrap();
        let ended = site.launch_bare(&["0", folder, "--state", "state", "--log-dir", "logs"]).run();
        assert_ended(&ended, 11, &["server's own folder"]);
    }
}

#[test]
fn wrong_options_and_values_end_it_with_2() {
    let site = Site::new();
    let cases: [&[&str]; 12] = [
        &["--no-such-option"],
        &["70000"],
        &["eighty"],
        &["0", "root", "extra"],
        &["0", "root", "--bind", "nowhere"],
        &["0", "root", "--idle-timeout", "soon"],
        &["0", "root", "--idle-timeout", "0"],
        &["0", "root", "--max-connections", "0"],
        &["0", "root", "--v1-pause", "6s"],
        &["0", "root", "--log-format", "xml"],
        &["0", "root", "--log-max-size", "1"],
        &["0", "root", "--log-level", "loud"],
    ];
    for arguments in cases {
        let ended = site.launch_bare(arguments).run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", ended.stderr);
        let last = arguments.last().unwrap().trim_start_matches("6s");
        assert!(ended.stderr.contains(last), "{arguments:?}: {}", ended.stderr);
    }
    let ended = site.launch_bare(&["0", "root"]).env("ONEPORT_MAX_CONNECTIONS", "many").run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
}

#[test]
fn a_wrong_configuration_file_ends_it_with_2_and_says_where() {
    let site = Site::new();
    let config = site.path().join("config.toml");
    for (text, words) in [
        ("idle-timout = \"5s\"", ["idle-timout", "config.toml"]),
        ("port = \"8080\"", ["port", "config.toml"]),
        ("idle-timeout = \"soon\"", ["soon", "config.toml"]),
        ("= nothing", ["line 1", "config.toml"]),
    ] {
        fs::write(&config, text).unwrap();
        let ended = site.launch_bare(&["--config", "config.toml"]).run();
        assert_eq!(ended.code, Some(2), "{text}: {}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "'{word}' for {text}: {}", ended.stderr);
        }
    }
    let ended = site.launch_bare(&["--config", "missing.toml"]).run();
    assert_ended(&ended, 2, &["missing.toml", "--config"]);
}

#[test]
fn command_line_wins_over_environment_over_file_over_default() {
    let site = Site::new();
    for folder in ["default", "file", "environment", "line"] {
        fs::create_dir(site.path().join(folder)).unwrap();
        fs::write(site.path().join(folder).join("who"), folder).unwrap();
    }
    fs::rename(site.path().join("default"), site.path().join("server_files")).unwrap();
    fs::write(site.path().join("c.toml"), "root = \"file\"\nport = 0").unwrap();
    let who = |server: Server| fetch_whole(server.address, "who");
    let config: &[&str] = &["--config", "c.toml"];
    let line: &[&str] = &["--config", "c.toml", "0", "line"];
    assert_eq!(who(site.launch_bare(&["0"]).serve()), b"default");
    assert_eq!(who(site.launch_bare(config).serve()), b"file");
    assert_eq!(who(site.launch_bare(config).env("ONEPORT_ROOT", "environment").serve()), b"environment");
    assert_eq!(who(site.launch_bare(line).env("ONEPORT_ROOT", "environment").serve()), b"line");
    assert_eq!(who(site.launch_bare(&[]).env("ONEPORT_CONFIG", "c.toml").serve()), b"file");
}

#[test]
fn a_second_server_on_the_same_state_folder_ends_with_13() {
    let site = Site::new();
    site.file("a", b"a");
    let mut first = site.serve(&[]);
    let ended = site.launch(&[]).run();
    assert_ended(&ended, 13, &["another server", "state", "--state"]);
    assert_eq!(fetch_whole(first.address, "a"), b"a");
    first.signal(crate::serving::Signal::KILL);
    first.wait_exit();
    // The lock goes with its holder, however it ended.
    assert_eq!(fetch_whole(site.serve(&[]).address, "a"), b"a");
}

#[test]
fn it_listens_where_bind_says_and_nowhere_else() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--bind", "127.0.0.1"]);
    assert_eq!(server.announced.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(fetch_whole(server.announced, "a"), b"a");
    for elsewhere in [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))] {
        assert!(crate::raw::connect(SocketAddr::new(elsewhere, server.address.port())).is_err());
    }
    drop(server);
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skipped("--bind ::1", "this machine has no IPv6");
    }
    let server = site.serve(&["--bind", "::1"]);
    assert_eq!(server.announced.ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
    assert_eq!(fetch_whole(server.announced, "a"), b"a");
}

#[test]
fn an_address_of_another_machine_ends_it_with_5() {
    let site = Site::new();
    let ended = site.launch(&["--bind", "192.0.2.1"]).run();
    assert_ended(&ended, 5, &["192.0.2.1", "--bind"]);
}

#[test]
fn by_default_ipv4_and_ipv6_both_connect_and_ipv4_peers_are_logged_as_such() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&[]);
    let port = server.address.port();
    assert_eq!(fetch_whole(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "a"), b"a");
    server.wait_log("New connection from 127.0.0.1:");
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skipped("dual stack", "this machine has no IPv6");
    }
    assert_eq!(fetch_whole(SocketAddr::from((Ipv6Addr::LOCALHOST, port)), "a"), b"a");
    server.wait_log("New connection from [::1]:");
}

#[test]
fn where_ipv6_is_switched_off_it_serves_ipv4() {
    let site = Site::new();
    site.file("a", b"four only");
    let script =
        "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && exec \"$0\" \"$@\"";
    let Ok(server) = site.launch(&[]).by_way_of(&["unshare", "-rn", "sh", "-c", script]).try_serve() else {
        return skipped("IPv4 only", "no network namespace can be made here");
    };
    // A client within the same namespace; it must be there to connect.
    let request = request(b"a").iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let port = server.address.port();
    let client = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{request}' >&3; timeout 10 cat <&3");
    let id = server.id().to_string();
    let output = Command::new("nsenter")
        .args(["-t", &id, "-U", "-n", "--preserve-credentials", "bash", "-c", &client])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            assert!(output.stdout.ends_with(b"four only"), "{}", output.stdout.escape_ascii());
        }
        other => skipped("IPv4 only", &format!("no client in the namespace: {other:?}")),
    }
}
