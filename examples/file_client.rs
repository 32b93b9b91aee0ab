//! A client within another program: uploads a file and shows how far it is, lists what the server has, and downloads the file
//! again.
//!
//! ```text
//! file_client ADDRESS KEY_FILE FILE [FOLDER]
//! ```
//! ADDRESS and KEY_FILE are those of `file_server`; what is downloaded goes to FOLDER.

#![allow(clippy::print_stdout, reason = "that is what it is there for")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use oneport::Client;
use oneport::client::{Progress, Selection};
use oneport::token::Token;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, key_file, file, rest @ ..] = args.as_slice() else {
        anyhow::bail!("usage: file_client ADDRESS KEY_FILE FILE [FOLDER]");
    };
    let folder = PathBuf::from(rest.first().map_or("client_downloads", String::as_str));
    let key = fs::read_to_string(key_file).with_context(|| format!("cannot read the key in {key_file}"))?;
    let client = Client::to(address)?.key(Token::parse(key.trim().as_bytes())?).on_progress(show).build();

    let name = Path::new(file).file_name().and_then(|name| name.to_str()).context("the file has no name")?;
    let put = client.put(file, name).await?;
    println!("Uploaded {name}: {} bytes in {:.3} s", put.size, put.elapsed.as_secs_f64());

    println!("On the server:");
    let mut listing = client.list("", Selection::default());
    while let Some(entry) = listing.next().await? {
        println!("  {} - {} bytes", entry.name.escape_ascii(), entry.size);
    }

    let fetched = client.get(name, folder.join(name)).await?;
    println!("Downloaded {}: {} bytes, {}", folder.join(name).display(), fetched.size, fetched.digest);
    Ok(())
}

fn show(now: &Progress<'_>) {
    let megabytes = now.speed / 1e6;
    let left = now.eta.map_or("? s left".to_owned(), |eta| format!("{:.1} s left", eta.as_secs_f64()));
    println!(
        "{}: {:.1} % ({} of {} bytes), {megabytes:.2} MB/s, {left}",
        now.name, now.percent, now.transferred, now.total
    );
}
