//! Servers that are killed anywhere while a client stores, removes and renames, and started again: the client goes on by
//! itself, what it was told is there, and in between every name is old, new or absent, and whole.

use std::fs;
use std::time::Duration;

use crate::chance::{part, seed};
use crate::raw::noise;
use crate::serving::Site;
use crate::storing::{
    Files, Holder, MIB, again, clear, count, expect_all, expect_old_or_new, expect_told, folder, found, kill,
    result, swept,
};

/// Kills of a server within one run of a client.
const KILLS: usize = 3;
/// What lets a client live through them, at a rate that gives time for that.
const STUBBORN: [&str; 6] = ["--retries", "200", "--retry-max-delay", "50ms", "--limit-rate", "12MiB"];

#[test]
fn a_large_file_outlives_servers_that_are_killed_anywhere() {
    let (seed, site) = (seed(), Site::new());
    let holder = Holder::new(&site, &[]);
    let mut server = site.serve(&[]);
    let (data, old) = (noise(seed, 14 * MIB + 5), noise(!seed, 2 * MIB));
    holder.place.write("large", &data);
    let new = Files::from([("x".to_owned(), data)]);
    for number in 0..count(4) {
        let mut chance = part(seed, number);
        let mut before = Files::new();
        if number % 2 == 1 {
            site.file("x", &old);
            before.insert("x".to_owned(), old.clone());
        }
        let links = (1 + chance.u64(..2)).to_string();
        let words = [&["put", "large", "--name", "x", "--json", "-j", &links], &STUBBORN[..]].concat();
        let running = holder.client(server.address, &words).start();
        for run in 0..KILLS {
            std::thread::sleep(Duration::from_millis(chance.u64(..300)));
            kill(&mut server);
            let what = format!("round {number}, kill {run} of seed {seed}");
            expect_old_or_new(&site.root(""), &before, &new, &what);
            if running.stdout().contains("\"result\"") {
                expect_all(&site.root(""), &new, &what);
            }
            server = again(&site, &server, &[]);
        }
        let ended = running.end().expect(0);
        assert_eq!(result(&ended)["ok"], true);
        expect_all(&site.root(""), &new, &format!("round {number} of seed {seed}"));
        fs::remove_file(site.root("x")).unwrap();
    }
}

#[test]
fn a_folder_outlives_servers_that_are_killed_anywhere_and_nothing_that_was_told_is_lost() {
    let (seed, site) = (seed(), Site::new());
    let holder = Holder::new(&site, &[]);
    let mut server = site.serve(&[]);
    for number in 0..count(4) {
        let mut chance = part(seed, number);
        let (old, new) = folder(&holder, &site, seed, number, number % 2 == 1);
        let words = [&["put", "-r", "d", "--json"], &STUBBORN[..]].concat();
        let running = holder.client(server.address, &words).start();
        let mut acknowledged = Vec::new();
        for run in 0..KILLS {
            std::thread::sleep(Duration::from_millis(chance.u64(20..350)));
            kill(&mut server);
            let what = format!("round {number}, kill {run} of seed {seed}");
            expect_old_or_new(&site.root(""), &old, &new, &what);
            let stdout = running.stdout();
            let told = expect_told(stdout.as_bytes(), "d", &site.root(""), &new, &what);
            acknowledged.push(told.len());
            server = again(&site, &server, &[]);
        }
        let what = format!("round {number} of seed {seed}, {acknowledged:?} files told before each kill");
        println!("{what}");
        let ended = running.end().expect(0);
        let told = expect_told(&ended.stdout, "d", &site.root(""), &new, &what);
        assert_eq!(told.len(), new.len(), "{what}: each file is told once");
        // Small files that were being stored have left what the next sweep takes away.
        swept(&site, &mut server);
        expect_all(&site.root(""), &new, &what);
        clear(&holder, &site);
    }
}

#[test]
fn servers_that_are_killed_while_they_remove_or_rename_leave_whole_files_and_go_on() {
    const NOT_FOUND: i32 = 3;
    let (seed, site) = (seed(), Site::new());
    let holder = Holder::new(&site, &[]);
    let mut server = site.serve(&[]);
    let mut between = 0;
    for number in 0..count(1) {
        let mut chance = part(seed, number);
        let removes = number % 2 == 0;
        let names: Vec<String> = match removes {
            true => (0..400).map(|number| format!("d/{}/f{number}", number % 9)).collect(),
            false => ["a", "b"].map(str::to_owned).into(),
        };
        let bytes = |name: &String| noise(seed ^ name.len() as u64, 3000);
        let before: Files = names.iter().map(|name| (name.clone(), bytes(name))).collect();
        before.iter().for_each(|(name, bytes)| drop(site.file(name, bytes)));
        let words: &[&str] = if removes { &["rm", "-r", "d"] } else { &["mv", "a", "b", "--replace"] };
        let after = match removes {
            true => Files::new(),
            false => Files::from([("b".to_owned(), before["a"].clone())]),
        };
        let what = format!("round {number} of seed {seed}: {words:?}");
        let running = holder.client(server.address, &[words, &STUBBORN[..4]].concat()).start();
        std::thread::sleep(Duration::from_micros(chance.u64(..40_000)));
        kill(&mut server);
        let files = found(&site.root("")).0;
        between += usize::from(files != before && files != after);
        match removes {
            true => assert!(files.iter().all(|(name, bytes)| before[name] == *bytes), "{what}"),
            false => assert!(files == before || files == after, "{what}"),
        }
        server = again(&site, &server, &[]);
        // Where the server's word was lost, nothing is left to be removed or renamed.
        let code = running.end().code;
        assert!(code == Some(0) || code == Some(NOT_FOUND), "{what}: {code:?}");
        assert_eq!(found(&site.root("")).0, after, "{what}");
        clear(&holder, &site);
    }
    swept(&site, &mut server);
    println!("{between} removals were half done");
}
