use std::fs;

use super::*;
use crate::service::uploads::offered_tests::{finish, offer};
use crate::service::uploads::tests::{Site, file, names_in};
use crate::service::uploads::{Begun, Hand, Offer, Outcome, Stored};
use crate::tree::Root;

fn site() -> Site {
    Site::with(&[Some(1 << 30)], |access| {
        access.with_names(|file| format!("got/{}-{}", file.name, file.counter).into_bytes())
    })
}

fn in_got(site: &Site) -> Vec<String> {
    names_in(&site.path().join("got"))
}

/// Stores a small file; the name that it was given.
async fn take(site: &Site, bytes: &[u8], transfer: u8) -> String {
    let room = site.service.room(bytes.len() as u64).await;
    let taken = site.service.take_whole(&site.permit("f"), file(bytes), room, [transfer; 16]).await;
    let (stored, given) = taken.unwrap();
    assert_eq!(stored, Stored::New(Root::of(bytes)));
    given.unwrap().to_string()
}

async fn begin(site: &Site, offer: Offer) -> Result<Begun, UploadError> {
    let (service, permit) = (site.service.clone(), site.permit("f"));
    tokio::task::spawn_blocking(move || service.offer(&permit, offer)).await.unwrap()
}

async fn begun(site: &Site, offer: Offer) -> Hand {
    match begin(site, offer).await.unwrap() {
        Begun::Goes(hand) => hand,
        _ => panic!("it is there already"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_whose_end_was_not_heard_of_is_stored_once() {
    let site = site();
    // Both at once, as where a connection broke in the middle; and once more, behind the end.
    let both = tokio::join!(take(&site, b"x", 1), take(&site, b"x", 1));
    let again = take(&site, b"x", 1).await;
    assert_eq!((both.0.as_str(), both.1.as_str(), again.as_str()), ("got/f-1", "got/f-1", "got/f-1"));
    assert_eq!(take(&site, b"x", 2).await, "got/f-2", "another transfer is another file");
    assert_eq!(in_got(&site), ["f-1", "f-2"]);
    // What is not there any more was not stored.
    fs::remove_file(site.path().join("got/f-1")).unwrap();
    assert_eq!(take(&site, b"x", 1).await, "got/f-3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_whose_end_was_not_heard_of_is_stored_once_and_counts_under_its_name() {
    let site = site();
    let root = Some(Root::of(&vec![7; 3 << 20]));
    let mut hand = begun(&site, offer(1, root)).await;
    assert!(matches!(finish(&mut hand, 7).await, Outcome::Stored(stored) if Some(stored) == root));
    assert_eq!(hand.given().unwrap().as_bytes(), b"got/f-1");
    drop(hand);
    match begin(&site, offer(2, root)).await.unwrap() {
        Begun::Stored(stored, Some(given)) => {
            assert_eq!((Some(stored), given.as_bytes()), (root, &b"got/f-1"[..]));
        }
        _ => panic!("it is stored already"),
    }
    assert_eq!((in_got(&site), names_in(site.path())), (vec!["f-1".to_owned()], vec!["got".to_owned()]));
    assert_eq!(site.sums(), (3 << 20, 0));
    site.service.note_removed(&FileName::parse(b"got/f-1").unwrap());
    assert_eq!(site.sums(), (0, 0), "it is accounted for under the name that it has");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_that_are_to_have_one_name_come_in_at_the_same_time() {
    let site = site();
    let root = |byte| Some(Root::of(&vec![byte; 3 << 20]));
    let mut one = begun(&site, offer(1, root(1))).await;
    let mut other = begun(&site, Offer { token: [9; 16], transfer: [9; 16], ..offer(1, root(2)) }).await;
    let both = tokio::join!(finish(&mut one, 1), finish(&mut other, 2));
    assert!(matches!(both, (Outcome::Stored(_), Outcome::Stored(_))), "{both:?}");
    assert_eq!(in_got(&site), ["f-1", "f-2"]);
    assert_ne!(one.given(), other.given());
}

#[test]
fn the_first_free_number_is_found_with_few_looks_however_many_are_taken() {
    for (first, used) in
        [(1, 0), (1, 1), (1, 2), (1, 7), (1, 1000), (1, 1_000_000_007), (500, 499), (500, 1000)]
    {
        let mut looks = 0;
        let found = first_free(first, |number| {
            looks += 1;
            Ok(number > used)
        });
        assert_eq!(found.unwrap(), first.max(used + 1), "{used} are taken");
        assert!(looks <= 64, "{used} are taken: {looks} looks");
    }
    assert!(matches!(first_free(1, |_| Ok(false)), Err(UploadError::Exists)), "that has an end");
    // Where some in between are free, one of them is found.
    let found = first_free(1, |number| Ok(number.is_multiple_of(4))).unwrap();
    assert!(found.is_multiple_of(4), "{found}");
}
