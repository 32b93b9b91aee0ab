//! Those who listen and those who send to them: the real client with a key, and both roles spoken by hand.

use std::path::PathBuf;

use bytes::Bytes;
use oneport::codec::v2::{ClientFrame, Listen, Push, Pushed, RequestId, ServerFrame};
use serde_json::Value;

use crate::harness::{Place, Run, Running, await_for};
use crate::holders::{add, holder};
use crate::putting::Putter;
use crate::serving::{Server, Site};
use crate::storing::told;
use crate::v2_peer::Asker;

/// Somebody with a key, and where that one has its files.
pub(crate) struct Peer {
    pub(crate) place: Place,
    pub(crate) token: String,
}

impl Peer {
    /// One who may send and listen.
    pub(crate) fn new(site: &Site, name: &str) -> Self {
        Self::with(site, name, &["--allow", "push"])
    }

    pub(crate) fn with(site: &Site, name: &str, options: &[&str]) -> Self {
        Self { place: Place::new(), token: add(site, name, options) }
    }

    /// A client that is yet to be started: the first word is the command.
    pub(crate) fn client(&self, to: impl ToString, words: &[&str]) -> Run<'_> {
        let (to, (command, rest)) = (to.to_string(), words.split_first().unwrap());
        let fixed = [*command, "-s", &to, "--known-hosts", "known", "--retry-delay", "20ms"];
        self.place.client(&[&fixed, rest].concat()).env("ONEPORT_KEY", &self.token)
    }

    /// A client that listens under this name, once the server knows it.
    pub(crate) fn listen(&self, to: impl ToString, name: &str, options: &[&str]) -> Running {
        let listening = self.start_listening(to, name, options);
        await_listening(&listening);
        listening
    }

    /// One that has yet to say so.
    pub(crate) fn start_listening(&self, to: impl ToString, name: &str, options: &[&str]) -> Running {
        let fixed = ["listen", "--name", name, "--json", "--retry-max-delay", "50ms"];
        self.client(to, &[&fixed, options].concat()).start()
    }
}

pub(crate) fn await_listening(listening: &Running) {
    await_for("a client that listens", || {
        told(listening.stdout().as_bytes()).iter().any(|event| event["event"] == "listening").then_some(())
    });
}

/// What a client that listens has told of files.
pub(crate) fn received(listening: &Running) -> Vec<Value> {
    told(listening.stdout().as_bytes()).into_iter().filter(|event| event["event"] == "received").collect()
}

/// Waits until it has told of so many.
pub(crate) fn await_received(listening: &Running, count: usize) -> Vec<Value> {
    await_for(&format!("{count} files told of"), || {
        let all = received(listening);
        (all.len() >= count).then_some(all)
    })
}

/// Where files lie that are on their way.
pub(crate) fn spool(site: &Site) -> PathBuf {
    site.path().join("state/push")
}

/// How many files that are.
pub(crate) fn spooled(site: &Site) -> usize {
    std::fs::read_dir(spool(site)).unwrap().count()
}

/// A client that listens, spoken by hand.
pub(crate) fn listen_by_hand(server: &Server, token: &str, name: &str) -> Asker {
    let mut asker = holder(server, token);
    asker.send(&[listen(1, name)]);
    assert!(asker.is_answered(), "it listens");
    asker
}

/// LISTEN.
pub(crate) fn listen(request: RequestId, name: &str) -> ClientFrame {
    ClientFrame::Listen(request, Listen { receiver: Bytes::copy_from_slice(name.as_bytes()) })
}

/// PUSH of what somebody has.
pub(crate) fn push(putter: &Putter, request: RequestId, to: &str, name: &str, attempt: u32) -> ClientFrame {
    let receiver = Bytes::copy_from_slice(to.as_bytes());
    ClientFrame::Push(request, Push { receiver, put: putter.put(name, attempt) })
}

/// What a listener is told of next.
pub(crate) fn hear_pushed(asker: &mut Asker) -> Pushed {
    loop {
        match asker.hear().expect("the connection ended").frame {
            ServerFrame::Pushed(1, pushed) => return pushed,
            ServerFrame::Error(.., text) => panic!("{text:?}"),
            _ => {}
        }
    }
}

/// The name under which a file is got that one was told of.
pub(crate) fn name_of(pushed: &Pushed) -> String {
    let hex: String = pushed.id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(".oneport-push/{hex}")
}
