use std::sync::Mutex;
use std::sync::mpsc::{Receiver as Waiting, SyncSender, sync_channel};
use std::time::Duration;

use super::*;
use crate::tree::Root;

const PATIENCE: Duration = Duration::from_secs(60);

fn file(number: usize) -> Received {
    let name = FileName::parse(number.to_string().as_bytes()).unwrap();
    Received::new(PathBuf::from("x"), name, 0, Digest::Blake3(Root::of(b"")))
}

/// Somebody who is told, says that a call has begun, and ends it when it may.
fn slow() -> (Arc<OnReceived>, Waiting<String>, SyncSender<()>) {
    let (begun, heard) = sync_channel(RECEIVED_QUEUE_MAX * 2);
    let (ends, may_end) = sync_channel(RECEIVED_QUEUE_MAX * 2);
    let may_end = Mutex::new(may_end);
    let told = move |received: &Received| {
        begun.send(received.name.to_string()).unwrap();
        may_end.lock().unwrap().recv_timeout(PATIENCE).unwrap();
    };
    (Arc::new(told), heard, ends)
}

#[tokio::test]
async fn who_is_slow_holds_nobody_up_and_misses_what_does_not_fit() {
    let (told, heard, ends) = slow();
    let (tell, telling) = Tell::start(told);
    tell.tell(file(0));
    let first = tokio::task::spawn_blocking(move || (heard.recv_timeout(PATIENCE).unwrap(), heard));
    let (first, heard) = first.await.unwrap();
    assert_eq!(first, "0");
    // None of these waits, though the first call has not ended.
    (1..=RECEIVED_QUEUE_MAX + 3).for_each(|number| tell.tell(file(number)));
    assert_eq!(tell.lost.load(Ordering::Relaxed), 3);
    (0..=RECEIVED_QUEUE_MAX).for_each(|_| ends.send(()).unwrap());
    drop(tell);
    telling.await.unwrap();
    let all: Vec<_> = heard.iter().collect();
    let expected: Vec<_> = (1..=RECEIVED_QUEUE_MAX).map(|number| number.to_string()).collect();
    assert!(all == expected, "in their order, and none twice: {} of them", all.len());
}

#[tokio::test]
async fn a_panic_costs_one_file_its_call_and_no_other() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&seen);
    let (tell, telling) = Tell::start(Arc::new(move |received: &Received| {
        assert_ne!(received.name.as_bytes(), b"1", "this one fails");
        own.lock().unwrap().push(received.name.to_string());
    }));
    (0..3).for_each(|number| tell.tell(file(number)));
    drop(tell);
    telling.await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["0", "2"]);
}
