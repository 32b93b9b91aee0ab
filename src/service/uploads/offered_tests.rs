use std::net::SocketAddr;
use std::path::Path;

use super::*;
use crate::catalog::Forgetful;
use crate::service::access::Permit;
use crate::service::{Access, Event, Observer, Service, lock};
use crate::storage::local::LocalDisk;
use crate::tree::BlockHash;

const SIZE: u64 = 3 << 20;
const BLOCK: usize = 1 << 20;

struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &Event<'_>) {}
}

fn service(root: &Path) -> Service {
    Service::new(LocalDisk::new(root, &[]).unwrap(), Forgetful, Deaf, Access::open())
}

fn permit() -> Permit {
    let peer: SocketAddr = "10.0.0.1:7".parse().unwrap();
    Permit::unchecked(&peer.to_string(), "f")
}

pub(super) fn offer(attempt: u32, root: Option<Root>) -> Offer {
    Offer {
        replace: false,
        unless_same: false,
        size: SIZE,
        modified: (1_700_000_000, 0),
        mode: 0o644,
        token: [3; 16],
        root,
        transfer: [5; 16],
        attempt,
        priority: crate::priority::Priority::default(),
    }
}

/// Waits until there is something to do.
async fn next(hand: &mut Hand) -> Next {
    loop {
        let mut stirs = hand.stirs();
        match hand.next() {
            Next::Wait => stirs.changed().await.unwrap(),
            other => return other,
        }
    }
}

async fn begin(service: &Service, attempt: u32, root: Option<Root>) -> Result<Hand, UploadError> {
    begin_with(service, offer(attempt, root)).await
}

async fn begin_with(service: &Service, offer: Offer) -> Result<Hand, UploadError> {
    let service = service.clone();
    let offering = tokio::task::spawn_blocking(move || service.offer(&permit(), offer));
    match offering.await.unwrap()? {
        Begun::Goes(hand) => Ok(hand),
        _ => panic!("it is there already"),
    }
}

/// Writes and records the blocks of a run.
async fn bring(hand: &Hand, run: std::ops::Range<u64>, byte: u8) -> Result<(), UploadError> {
    for block in run {
        let pen = hand.pen().clone();
        let bytes = vec![byte; BLOCK];
        let bringing = tokio::task::spawn_blocking(move || {
            pen.write(&bytes, block * BLOCK as u64)?;
            pen.record(block, *BlockHash::of(SIZE, block, &bytes).as_bytes())
        });
        bringing.await.unwrap()?;
    }
    Ok(())
}

pub(super) async fn finish(hand: &mut Hand, byte: u8) -> Outcome {
    loop {
        match next(hand).await {
            Next::Run(run) => bring(hand, run, byte).await.unwrap(),
            Next::Settle => {
                let pen = hand.pen().clone();
                tokio::task::spawn_blocking(move || pen.settle()).await.unwrap();
            }
            Next::Over(outcome) => return outcome,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_pen_of_an_earlier_attempt_writes_and_records_nothing() {
    let site = tempfile::tempdir().unwrap();
    let service = service(site.path());
    let root = Some(Root::of(&vec![7; 3 * BLOCK]));
    let mut stale = begin(&service, 1, root).await.unwrap();
    let Next::Run(run) = next(&mut stale).await else { panic!("there is a run") };
    let mut later = begin(&service, 2, root).await.unwrap();
    let refused = bring(&stale, run, 9).await;
    assert!(matches!(refused, Err(UploadError::Superseded)), "{refused:?}");
    assert!(matches!(next(&mut stale).await, Next::Over(Outcome::Failed(Code::Exists, _))));
    let again = begin(&service, 1, root).await;
    assert!(matches!(again.err(), Some(UploadError::Superseded)));
    assert!(matches!(finish(&mut later, 7).await, Outcome::Stored(stored) if Some(stored) == root));
    assert!(std::fs::read(site.path().join("f")).unwrap().iter().all(|&byte| byte == 7));
}

#[tokio::test]
async fn whoever_leaves_gives_back_what_it_has_not_brought() {
    let site = tempfile::tempdir().unwrap();
    let service = service(site.path());
    let root = Some(Root::of(&vec![7; 3 * BLOCK]));
    let mut one = begin(&service, 1, root).await.unwrap();
    let Next::Run(run) = next(&mut one).await else { panic!("there is a run") };
    bring(&one, run.start..run.start + 1, 7).await.unwrap();
    let mut other = begin(&service, 1, root).await.unwrap();
    drop(one);
    assert!(matches!(finish(&mut other, 7).await, Outcome::Stored(_)));
}

#[tokio::test]
async fn what_is_still_being_written_for_one_who_left_is_given_to_nobody() {
    let site = tempfile::tempdir().unwrap();
    let service = service(site.path());
    let mut one = begin(&service, 1, None).await.unwrap();
    while let Next::Run(_) = next(&mut one).await {
        let pen = one.pen().clone();
        let other = begin(&service, 1, None).await.unwrap();
        drop(std::mem::replace(&mut one, other));
        assert!(matches!(one.next(), Next::Run(_) | Next::Wait));
        let taken = lock(&one.pen().grip.flying).clone();
        assert!(taken.is_disjoint(&lock(&pen.grip.flying)));
        drop(pen);
        if taken.is_empty() {
            assert!(matches!(one.next(), Next::Run(_)), "now it is free");
            break;
        }
    }
}

#[tokio::test]
async fn blocks_that_do_not_make_the_root_are_compared_and_then_the_upload_fails() {
    let site = tempfile::tempdir().unwrap();
    let service = service(site.path());
    let root = Root::of(&vec![7; 3 * BLOCK]);
    let mut hand = begin(&service, 1, Some(root)).await.unwrap();
    loop {
        match next(&mut hand).await {
            Next::Run(run) => bring(&hand, run, 8).await.unwrap(),
            Next::Settle => {
                let pen = hand.pen().clone();
                tokio::task::spawn_blocking(move || pen.settle()).await.unwrap();
            }
            Next::Values => break,
            other => panic!("{other:?}"),
        }
    }
    let bytes = vec![7; BLOCK];
    let value = |block| (block, *BlockHash::of(SIZE, block, &bytes).as_bytes());
    let values: Vec<_> = (0..3).map(value).collect();
    let pen = hand.pen().clone();
    tokio::task::spawn_blocking(move || pen.compare(root, &values)).await.unwrap();
    let outcome = finish(&mut hand, 8).await;
    assert!(matches!(outcome, Outcome::Failed(Code::Checksum, _)), "{outcome:?}");
    assert!(!site.path().join("f").exists());
}

#[tokio::test]
async fn a_client_is_told_how_much_is_there_to_the_byte_where_the_last_block_is_short() {
    let site = tempfile::tempdir().unwrap();
    let service = service(site.path());
    let size = SIZE - 1000;
    let mut hand = begin_with(&service, Offer { size, ..offer(1, None) }).await.unwrap();
    assert_eq!(hand.have(), 0);
    let Next::Run(run) = next(&mut hand).await else { panic!("there is a run") };
    bring(&hand, run.start..run.start + 1, 7).await.unwrap();
    assert_eq!(hand.have(), BLOCK as u64);
    drop(hand);
    let mut hand = begin_with(&service, Offer { size, ..offer(2, None) }).await.unwrap();
    // The part is open when something is asked for.
    assert!(matches!(next(&mut hand).await, Next::Run(_)));
    assert_eq!(hand.have(), BLOCK as u64, "of an earlier attempt");
}

#[tokio::test]
async fn nothing_is_kept_of_uploads_that_are_over() {
    let site = tempfile::tempdir().unwrap();
    let service = service(site.path());
    let root = Some(Root::of(&vec![7; 3 * BLOCK]));
    let mut hand = begin(&service, 1, root).await.unwrap();
    let _ = finish(&mut hand, 7).await;
    drop(hand);
    assert_eq!(service.inner.uploads.under_way(), 0);
}
